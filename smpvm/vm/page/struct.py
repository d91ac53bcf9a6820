"""struct vm_page, its flags (vm_page.h:254-296) and the allocator's request bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from smpvm.host.carrier import READ, WRITE
from smpvm.kern.guard import FREE, Guard, guarded, page_spin, queue_spin
from smpvm.kern.shared import Site, peek, shared

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread
    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.pmap.pte import PvEntry

PG_BUSY: Final = 0x00000001
PG_WANTED: Final = 0x00000002
PG_WINATCFLS: Final = 0x00000004
PG_FICTITIOUS: Final = 0x00000008
PG_WRITEABLE: Final = 0x00000010
PG_MAPPED: Final = 0x00000020
PG_REFERENCED: Final = 0x00000080
PG_CLEANCHK: Final = 0x00000100
PG_SWAPINPROG: Final = 0x00000200
PG_NOSYNC: Final = 0x00000400
PG_UNMANAGED: Final = 0x00000800
PG_MARKER: Final = 0x00001000
PG_RAM: Final = 0x00002000
PG_SWAPPED: Final = 0x00004000
PG_NOTMETA: Final = 0x00008000
PG_ACTIONLIST: Final = 0x00010000
PG_SBUSY: Final = 0x00020000
PG_NEED_COMMIT: Final = 0x00040000

PG_NAMES: Final = {
    name: value
    for name, value in sorted(globals().items())
    if name.startswith("PG_") and isinstance(value, int)
}
"""Every flag by its C name."""

VM_ALLOC_NORMAL: Final = 0x0001
VM_ALLOC_SYSTEM: Final = 0x0002
VM_ALLOC_INTERRUPT: Final = 0x0004
VM_ALLOC_ZERO: Final = 0x0008
VM_ALLOC_QUICK: Final = 0x0010
VM_ALLOC_FORCE_ZERO: Final = 0x0020
VM_ALLOC_NULL_OK: Final = 0x0040
VM_ALLOC_RETRY: Final = 0x0080
VM_ALLOC_USE_GD: Final = 0x0100


def flag_names(flags: int) -> list[str]:
    """The names of the flags that are set in *flags*, without the PG_ prefix."""
    return [name[3:] for name, bit in PG_NAMES.items() if flags & bit]


_KNOWN = (
    Site("queue", "vm_page_dirty", "vm_page.c:2970", "a KASSERT looks without the locks"),
    Site("queue", "vm_page_unhold", "vm_page.c:960", "a KASSERT looks without the locks"),
    *(
        Site("queue", function, at, "a busy page: only PQ_CACHE and PQ_HOLD are left meanwhile")
        for function, at in (
            ("vm_fault_object", "vm_fault.c:1382"),
            ("vm_prefault", "vm_fault.c:2748"),
            ("vm_prefault_quick", "vm_fault.c:2901"),
            ("vm_page_rename", "vm_page.c:1341"),
            ("vm_page_free_toq", "vm_page.c:2159"),
            ("vm_page_cache", "vm_page.c:2524"),
            ("vm_page_dontneed", "vm_page.c:2604"),
            ("vm_pageout_clean", "vm_pageout.c:314"),
            ("vm_object_terminate_callback", "vm_object.c:1277"),
            ("vm_object_page_clean_pass2", "vm_object.c:1459"),
            ("vm_object_page_collect_flush", "vm_object.c:1544"),
            ("vm_object_backing_scan_callback", "vm_object.c:2187"),
            ("pmap_object_init_pt_callback", "pmap.c:4454"),
        )
    ),
    *(
        Site("dirty", function, at, "a store that is not in this write waits for the page", "both")
        for function, at in (
            ("vnode_pager_putpages", "vnode_pager.c:777"),
            ("vfs_clean_one_page", "vfs_bio.c:4415"),
        )
    ),
    Site("queue", "vm_pageout_scan_inactive", "vm_pageout.c:1075", "the page is busied again"),
    Site(
        "dirty", "vm_page_test_dirty", "vm_page.c:3076", "a mapping that goes does it too", "both"
    ),
    *(
        Site("dirty", function, at, "vm_page_cache takes care of it (vm_pageout.c:917)", "write")
        for function, at in (
            ("pmap_remove_pv_pte", "pmap.c:2637"),
            ("pmap_protect_callback", "pmap.c:3994"),
        )
    ),
)


_AGAIN = Site("pv_first", "pmap_is_modified", "pmap.c:4666", "looks again with the spinlock")


def _object_token(k: Kernel, m: Page, new: VmObject | None) -> object:
    """The token of the object that *m* is in, or comes into."""
    obj = peek(m, "object") if new is None else new
    return None if obj is None else obj.token


@shared(
    "flags",
    "busy",
    "queue",
    "object",
    "pindex",
    "act_count",
    "hold_count",
    "wire_count",
    "valid",
    "dirty",
    "q_next",
    "q_prev",
    benign=_KNOWN,
    atomic={
        "flags": "changed by atomic operations only (vm_page.h:366-382), and read anywhere",
        "hold_count": "vm_page_hold and vm_page_unhold are atomic; scans look, and pass over",
    },
)
@guarded(
    Guard("queue", page_spin, "vm_page.c:550", read=FREE),
    Guard("queue", queue_spin, "vm_page.c:550", read=FREE),
    Guard("q_next", queue_spin, "vm_page.c:672, 709"),
    Guard("q_prev", queue_spin, "vm_page.c:672, 709"),
    Guard("object", page_spin, "vm_page.c:1035", read=FREE),
    Guard("object", _object_token, "vm_page.c:1023, 1097", read=FREE),
    Guard("pv_first", page_spin, "pmap.c:2674, 4252", sites=(_AGAIN,)),
    Guard("pv_last", page_spin, "pmap.c:2674, 4252"),
)
class Page:
    """struct vm_page (vm_page.h:128-165), plus the model's own fields.

    ``idx`` is the physical page number (negative for a marker); it also selects the page's spinlock
    in the pool.  ``queue`` is a queue number: a base plus the page's colour ``pc``, or PQ_NONE; it
    changes only with both the page's and the queue's spinlock held.  ``act_count``, ``busy``,
    ``valid`` and ``dirty`` are u8, ``wire_count`` is u32, ``hold_count`` is i32.

    ``busy_owner`` is the thread that set PG_BUSY (for the waits-for graph).  ``contents`` holds the
    value of each word that was written; None is a page of zeros.  The list of mappings
    (``pv_first`` .. ``pv_last``, oldest first) is protected by the page's spinlock.
    """

    __slots__ = (
        "act_count",
        "busy",
        "busy_owner",
        "contents",
        "dirty",
        "flags",
        "hold_count",
        "idx",
        "object",
        "pc",
        "pindex",
        "pv_first",
        "pv_last",
        "q_next",
        "q_prev",
        "queue",
        "valid",
        "wire_count",
    )

    def __init__(self, idx: int, queue: int = 0, pc: int = 0, flags: int = 0, wired: int = 0):
        self.idx = idx
        self.queue = queue
        self.pc = pc
        self.flags = flags
        self.wire_count = wired
        self.object: Any = None
        self.pindex = 0
        self.act_count = 0
        self.busy = 0
        self.hold_count = 0
        self.valid = 0
        self.dirty = 0
        self.q_next: Page | None = None
        self.q_prev: Page | None = None
        self.pv_first: PvEntry | None = None
        self.pv_last: PvEntry | None = None
        self.contents: dict[int, int] | None = None
        self.busy_owner: Thread | None = None

    def mappings(self) -> Iterator[PvEntry]:
        """The page's mappings, oldest first.

        The caller must hold the page's spinlock, unless the machine is at rest.
        """
        pv = self.pv_first
        while pv is not None:
            yield pv
            pv = pv.pv_next

    def owners(self) -> list[Thread]:
        """The thread that owns PG_BUSY, as a list (for the waits-for graph)."""
        owner = self.busy_owner
        return [] if owner is None else [owner]

    def __str__(self) -> str:
        return f"page {self.idx}" if self.idx >= 0 else f"marker {-self.idx}"

    def __repr__(self) -> str:
        return f"<{self} queue {self.queue} {'|'.join(flag_names(self.flags))}>"


def words_point(k: Kernel, m: Page, writes: bool) -> None:
    """Schedule point before a read (or, with *writes*, a write) of the page's data, which no lock
    protects.
    """
    if (p := k.point) is not None:
        p(WRITE if writes else READ, m, "contents")
