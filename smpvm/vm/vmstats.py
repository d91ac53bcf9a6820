"""struct vmstats and the VM's global variables, as two objects with shared fields."""

from __future__ import annotations

from smpvm.kern.shared import shared
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

_UNLOCKED = "vmstats is read without a lock everywhere; readers take an instant's value"


@shared(*STATS, benign=dict.fromkeys(STATS, _UNLOCKED))
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

_HINT = "a hint that is allowed to be off by a wakeup"

BENIGN = {
    "vm_pages_needed": "vm_pageout.c:2096 and 2099: 'SMP race ok'",
    "vm_pages_waiting": "vm_page.c:1997 and 2032: 'SMP race ok'",
    "vm_pageout_deficit": "an estimate: vm_page_alloc adds to it atomically, the daemon resets it",
    "vm_swapcache_inactive_heuristic": _HINT,
    "pageout_lock_miss": "a statistic",
    "swap_pager_full": "read without a lock by the daemon and by vm_fault; " + _HINT,
    "swap_pager_almost_full": "read without a lock by the daemon; " + _HINT,
    "swap_fail_ticks": "only printed",
    "vm_swap_size": "read without a lock by the kill scan; " + _HINT,
}


@shared(*GLOBALS, benign=BENIGN)
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
