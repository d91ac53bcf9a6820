"""struct vmstats and the VM's global variables, as two objects with shared fields."""

from __future__ import annotations

from smpvm.kern.shared import Site, shared
from smpvm.kern.tsleep import Ident

STATS = (
    "v_page_count",
    "v_free_count",
    "v_cache_count",
    "v_inactive_count",
    "v_active_count",
    "v_wire_count",
    "v_free_min",
    "v_free_reserved",
    "v_free_target",
    "v_free_severe",
    "v_cache_min",
    "v_cache_max",
    "v_inactive_target",
    "v_pageout_free_min",
    "v_interrupt_free_min",
)

COUNTS = STATS[1:6]
LIMITS = STATS[6:]

_COUNTED = "changed by atomic operations (vm_page.c:673-712); readers take an instant's value"
_SET_ONCE = "the daemon sets the limits once, as it starts; who looks earlier sees none"


@shared(
    *STATS,
    benign=[
        Site(name, function, at, _SET_ONCE, "write")
        for name in LIMITS
        for function, at in (
            ("vm_pageout_free_page_calc", "vm_pageout.c:1773"),
            ("vm_pageout_thread", "vm_pageout.c:1817"),
        )
    ],
    atomic=dict.fromkeys(COUNTS, _COUNTED),
)
class VmStats:
    """struct vmstats (sys/vmmeter.h): page counts and limits, all in pages, all u32."""

    __slots__ = STATS

    v_page_count: int
    v_free_count: int
    v_cache_count: int
    v_inactive_count: int
    v_active_count: int
    v_wire_count: int
    v_free_min: int
    v_free_reserved: int
    v_free_target: int
    v_free_severe: int
    v_cache_min: int
    v_cache_max: int
    v_inactive_target: int
    v_pageout_free_min: int
    v_interrupt_free_min: int

    def __init__(self) -> None:
        for name in STATS:
            setattr(self, name, 0)

    def __str__(self) -> str:
        return "vmstats"


GLOBALS = (
    "vm_pages_needed",
    "vm_pageout_deficit",
    "vm_pageout_pages_needed",
    "vm_pages_waiting",
    "vm_pageout_req_swapout",
    "vm_swapcache_inactive_heuristic",
    "pageout_lock_miss",
    "swap_pager_full",
    "swap_pager_almost_full",
    "swap_fail_ticks",
    "vm_swap_size",
)

_ASKED = "'SMP race ok': a request of the page-out daemon"
_WAITING = "'SMP race ok': how many wait, of which only none or some counts"
_SERVED = "every store is 0, and each wakes all sleepers; the source gives no reason"
_HEURISTIC = "a heuristic of the swap cache, reset at will; the source gives no reason"
_FULL = "'SMP races are ok' (swap_pager.c:300): an instant's value, asked again each round"
_INSTANT = "who reads it plainly takes an instant's value"

KNOWN = (
    Site("vm_pages_needed", "pagedaemon_wakeup", "vm_pageout.c:2096", _ASKED, "both"),
    Site("vm_pages_waiting", "vm_wait", "vm_page.c:1997", _WAITING, "both"),
    Site("vm_pages_waiting", "vm_wait_pfault", "vm_page.c:2032", _WAITING, "both"),
    Site("vm_pages_waiting", "vm_page_free_wakeup", "vm_page.c:2118", _SERVED, "both"),
    Site("vm_pageout_pages_needed", "vm_page_free_wakeup", "vm_page.c:2098", _SERVED, "both"),
    Site("vm_swapcache_inactive_heuristic", "bump_heuristic", "vm_page.c:2379", _HEURISTIC, "both"),
    Site("swap_pager_full", "vm_pageout_scan_cache", "vm_pageout.c:1520", _FULL),
    Site("swap_pager_full", "vm_pageout_thread", "vm_pageout.c:2025", _FULL),
    Site("swap_pager_almost_full", "vm_pageout_scan_cache", "vm_pageout.c:1513", _FULL),
    Site("swap_fail_ticks", "vm_pageout_scan_cache", "vm_pageout.c:1518", "only printed"),
    Site("vm_swap_size", "vm_pageout_scan_callback", "vm_pageout.c:1556", "is there any swap?"),
)
REQUESTS = GLOBALS[:5]


@shared(*GLOBALS, benign=KNOWN, atomic=dict.fromkeys(REQUESTS, _INSTANT))
class VmGlobals:
    """The global variables of vm_pageout.c:120-135, vm_page.c and swap_pager.c (C ints)."""

    __slots__ = GLOBALS

    vm_pages_needed: int
    vm_pageout_deficit: int
    vm_pageout_pages_needed: int
    vm_pages_waiting: int
    vm_pageout_req_swapout: int
    vm_swapcache_inactive_heuristic: int
    pageout_lock_miss: int
    swap_pager_full: int
    swap_pager_almost_full: int
    swap_fail_ticks: int
    vm_swap_size: int

    def __init__(self) -> None:
        for name in GLOBALS:
            setattr(self, name, 0)

    def __str__(self) -> str:
        return "globals"


class Idents:
    """The variables whose addresses threads sleep on."""

    __slots__ = ("v_free_count", "vm_daemon_needed", "vm_pageout_pages_needed", "vm_pages_needed")

    def __init__(self) -> None:
        self.vm_pages_needed = Ident("vm_pages_needed")
        self.vm_daemon_needed = Ident("vm_daemon_needed")
        self.vm_pageout_pages_needed = Ident("vm_pageout_pages_needed")
        self.v_free_count = Ident("vmstats.v_free_count")


__all__ = ["GLOBALS", "STATS", "Idents", "VmGlobals", "VmStats"]
