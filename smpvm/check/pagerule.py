"""Page rules: what must hold of a page when it is given up, and of all pages at rest.

A page is given up when the thread that has it busied lets go, with the page's spinlock held.  Then
its flags tell the truth about its mappings and its queue, and what is called clean can be thrown
away: it equals its block on swap or in the file (``check.backing``).  A file page that can change
is on its vnode's record of dirty files, or fsync and the syncer never see it.

The smallest program that has a fault, and its twin::

    m.valid = 0xFF; contents stored; page.wakeup(m)                   # clean, and differs
    m.valid = 0xFF; contents stored; page.dirty(m); page.wakeup(m)    # right

"PG_SWAPPED implies clean" is no rule of this kernel: vm_page_rename makes a page dirty that found
a block at its new place (vm_page.c:1328-1344, swap_pager.c:684-693), and so does the modified bit
of a mapping that a read fault has made.  The next page-out frees the old block
(swap_pager.c:2161-2228); that a clean page equals it is what counts.
"""

from __future__ import annotations

from typing import Any, Final

from smpvm.check.backing import differs
from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, site_of
from smpvm.check.stacks import RawStack, capture, functions, kind_of
from smpvm.kern.cname import KEEP, MARKS
from smpvm.kern.shared import peek
from smpvm.kern.vnode import VOBJDIRTY, VRECLAIMED
from smpvm.vm.map.entry import MAP_ENTRY_NEEDS_COPY
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_MARKER,
    PG_NEED_COMMIT,
    PG_UNMANAGED,
    PG_WRITEABLE,
)
from smpvm.vm.param import (
    OBJ_CLEANING,
    OBJ_DEAD,
    OBJ_MIGHTBEDIRTY,
    OBJ_WRITEABLE,
    OBJT_VNODE,
    VM_PAGE_BITS_ALL,
    VM_PROT_WRITE,
)
from smpvm.vm.pmap.pte import PTE_M, PTE_RW

RULES: Final = {
    "cache-dirty": ("a page on the cache queue is clean", "vm_page.c:2513-2566, 2970"),
    "cache-mapped": ("a page on the cache queue is not mapped", "vm_pageout.c:1459"),
    "mapped-flag": ("PG_MAPPED is set while a page is mapped", "pmap.c:2679-2684, 4249"),
    "writeable-flag": (
        "PG_WRITEABLE is set while a page is mapped writeable",
        "pmap.c:2679-2684, 4296",
    ),
    "free-page": ("a free page is invalid, clean and in no object", "vm_page.c:2186-2215"),
    "clean-differs": (
        "a clean page equals its block on swap or in its file",
        "vm_page.c:2406-2444, vm_pageout.c:917-941",
    ),
    "dirty-record": (
        "a file page that is dirty or mapped writeable is on the record of dirty files",
        "vm_object.c:2887-2921, 1350-1368",
    ),
    "busied-twice": ("one thread at a time has a page busied", "vm_page.c:857-878"),
    "unbusied-others": ("who gives up a page has busied it", "vm_page.c:889-922"),
    "paged-out": (
        "page-out writes only dirty, inactive pages that are not wired",
        "vm_pageout.c:319-324, 841-944",
    ),
    "protection": (
        "a mapping is writeable only if its entry is, and leads to the entry's own object",
        "vm_map.c:2000-2075, vm_fault.c:1807-1938",
    ),
}
"""Rule → what it says, and the C's reason."""


class PageRules(Checker):
    """The checker.  It looks at a page's mappings with the page's spinlock held by its caller."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._vm: Any = None
        self._owner: dict[Any, Any] = {}
        """Busied page → its thread."""
        self._lent: dict[Any, Any] = {}
        """Page busied for a request → the request, whose completion gives it up."""
        self._known: set[Any] = set()
        """Pages whose data came about under the checker's eyes, and are still wanted."""

    def attach_vm(self, vm: Any) -> None:
        self._vm = vm

    # -- who has it

    def page_busied(self, td: Any, m: Any) -> None:
        if self._vm is None:
            return
        owner = self._owner.get(m)
        if owner is not None:
            self._breach(td, m, "busied-twice", f"{owner.name} has {m} busied")
        self._owner[m] = td
        self._lent.pop(m, None)

    def io_submit(self, td: Any, io: Any) -> None:
        for m in io.pages:
            if m in self._owner:
                self._lent[m] = io

    def page_unbusied(self, td: Any, m: Any) -> None:
        if self._vm is None:
            return
        owner = self._owner.pop(m, None)
        lent = self._lent.pop(m, None)
        flags = peek(m, "flags")
        if not flags & PG_BUSY:
            self._breach(td, m, "unbusied-others", f"{m} is not busy")
        elif owner is not None and owner is not td and lent is None:
            self._breach(td, m, "unbusied-others", f"{owner.name} has {m} busied")
        if not flags & (PG_MARKER | PG_FICTITIOUS | PG_UNMANAGED):
            self._given_up(td, m, flags)

    def page_alloc(self, td: Any, m: Any) -> None:
        self._known.add(m)

    def page_free(self, td: Any, m: Any) -> None:
        self._known.discard(m)

    def call(self, td: Any, what: str, **facts: Any) -> None:
        if what == "madvise_free":
            self._known.discard(facts["page"])

    # -- what it is like

    def _given_up(self, td: Any, m: Any, flags: int) -> None:
        pq = self._vm.pq
        base = pq.base(peek(m, "queue"))
        bits = 0
        settled = True
        pv = m.pv_first
        if pv is not None:
            if not flags & PG_MAPPED:
                self._breach(td, m, "mapped-flag", f"{pv} maps it")
            while pv is not None:
                one = peek(pv, "bits")
                bits |= one
                settled = settled and one != 0  # else somebody is taking it out just now
                pv = pv.pv_next
            if bits & PTE_RW and not flags & PG_WRITEABLE:
                self._breach(td, m, "writeable-flag", f"its mappings have bits {bits:#x}")
        if base == pq.CACHE:
            if peek(m, "dirty") or flags & PG_NEED_COMMIT:
                self._breach(td, m, "cache-dirty", f"dirty {peek(m, 'dirty'):#x}")
            if m.pv_first is not None:
                self._breach(td, m, "cache-mapped", f"{m.pv_first} maps it")
        if base == pq.FREE:
            self._free(td, m)
            return
        self._dirty_record(td, m, flags, bits)
        if peek(m, "dirty") or bits & PTE_M:
            self._known.add(m)  # it will be written as a whole
        elif settled and not bits & PTE_RW:
            self._clean(td, m, flags)

    def _free(self, td: Any, m: Any) -> None:
        obj, valid, dirty = peek(m, "object"), peek(m, "valid"), peek(m, "dirty")
        if obj is not None or valid or dirty:
            self._breach(td, m, "free-page", f"{obj}, valid {valid:#x}, dirty {dirty:#x}")

    def _dirty_record(self, td: Any, m: Any, flags: int, bits: int) -> None:
        if not (peek(m, "dirty") or bits & (PTE_RW | PTE_M) or flags & PG_NEED_COMMIT):
            return
        obj = peek(m, "object")
        if obj is not None and (missing := unrecorded(obj)):
            self._breach(td, m, "dirty-record", f"{obj}: {missing} is not set", str(obj))

    def _clean(self, td: Any, m: Any, flags: int) -> None:
        if m not in self._known or flags & PG_NEED_COMMIT:
            return
        if peek(m, "valid") != VM_PAGE_BITS_ALL or peek(m, "wire_count"):
            return
        why = differs(self._vm, m)
        if not why:
            return
        stack = capture(3)
        # What a set-up or a scenario's own code stores may be lost.
        if td is not None and (td is self._vm.k.boot or not _by_kernel(stack)):
            self._known.discard(m)
            return
        self._breach(td, m, "clean-differs", why, stack=stack)

    # -- page-out

    def io_start(self, td: Any, m: Any) -> None:
        """The first of a page-out's soft-busy references: the page goes to its pager."""
        vm = self._vm
        if vm is None or td is not vm.pageout.pagethread or peek(m, "busy") != 1:
            return
        wired, queue = peek(m, "wire_count"), peek(m, "queue")
        dirty = peek(m, "dirty") & peek(m, "valid") or peek(m, "flags") & PG_NEED_COMMIT
        dirty = dirty or any(peek(pv, "bits") & PTE_M for pv in m.mappings())
        if wired or not dirty or vm.pq.base(queue) != vm.pq.INACTIVE:
            state = f"wire_count {wired}, dirty {peek(m, 'dirty'):#x}, queue {vm.pq.name(queue)}"
            self._breach(td, m, "paged-out", state)

    # -- at rest

    def at_rest(self) -> None:
        """Every page, whoever had it last; and the protection of every mapping."""
        vm = self._vm
        if vm is None or vm.k.panics or vm.k.errors:
            return
        with vm.k.quietly():
            for m in vm.page_array:
                flags = peek(m, "flags")
                if not flags & (PG_BUSY | PG_FICTITIOUS | PG_UNMANAGED):
                    self._given_up(None, m, flags)
                    self._protection(m)

    def _protection(self, m: Any) -> None:
        for pv in m.mappings():
            map = None if pv.pmap is None else pv.pmap.map
            if map is None or not peek(pv, "bits") & PTE_RW:
                continue
            entry = map.at_or_before(pv.va)
            if not entry.protection & VM_PROT_WRITE or entry.eflags & MAP_ENTRY_NEEDS_COPY:
                why = f"{entry} has protection {entry.protection}, flags {entry.eflags:#x}"
                self._breach(None, m, "protection", f"{pv}: {why}")
            elif peek(entry, "object") is not peek(m, "object"):
                owner = f"{peek(entry, 'object')}, the page to {peek(m, 'object')}"
                self._breach(None, m, "protection", f"{pv}: {entry} belongs to {owner}")

    def _breach(
        self, td: Any, m: Any, rule: str, why: str, *objects: str, stack: RawStack | None = None
    ) -> None:
        says, reason = RULES[rule]
        sites = []
        where: tuple[str, ...] = ("at rest",)
        if td is not None:
            stack = capture(3) if stack is None else stack
            sites, where = [site_of(td, f"gives up {m}", stack)], functions(stack)
        self.log.add(
            Finding(
                "page-rule",
                f"{m}: {says}, but {why}",
                sites=sites,
                objects=[str(m), *objects],
                evidence=[f"the rule: {reason}"],
                identity=(rule, *where),
            )
        )


def _by_kernel(stack: RawStack) -> bool:
    """Is it kernel code that gives the page up, and no scenario by hand?"""
    kept = [frame for frame in stack if kind_of(frame[0]) == KEEP]
    return bool(kept) and bool(MARKS.of(kept[0][0]).c)


def unrecorded(obj: Any) -> str:
    """What is missing on the record of dirty files for the file of *obj*, or "".

    vm_object_page_clean takes the file off before it writes the pages (vm_object.c:1350-1376), so
    nothing is asked meanwhile.
    """
    vp = peek(obj, "handle")
    if peek(obj, "type") != OBJT_VNODE or vp is None or peek(vp, "v_flag") & VRECLAIMED:
        return ""
    both = OBJ_WRITEABLE | OBJ_MIGHTBEDIRTY
    for _ in range(2):  # the second time to be sure that no cleaning has just begun
        flags = peek(obj, "flags")
        if flags & (OBJ_CLEANING | OBJ_DEAD) or (
            flags & both == both and peek(vp, "v_flag") & VOBJDIRTY
        ):
            return ""
    return "VOBJDIRTY of its vnode" if flags & both == both else "OBJ_WRITEABLE or MIGHTBEDIRTY"
