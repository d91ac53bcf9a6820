"""Helpers for VM scenarios: pages, objects, files, processes, scans.

``limits`` to ``process`` and ``to_inactive`` are for the set-up, before any thread runs; ``write``,
``read``, ``scan`` and the like can be used in threads too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from smpvm.config import PAGE_SIZE
from smpvm.explore.scenario import Refused
from smpvm.kern.proc import Proc
from smpvm.kern.shared import peek
from smpvm.vm.map.mmap import MAP_ANON, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_RW
from smpvm.vm.page.struct import PG_REFERENCED, VM_ALLOC_NORMAL, Page
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.param import OBJT_DEFAULT, OBJT_VNODE, VM_PAGE_BITS_ALL
from smpvm.vm.vm import Vm
from smpvm.vm.vmstats import VmStats

if TYPE_CHECKING:
    from smpvm.kern.vnode import Vnode
    from smpvm.vm.object.struct import VmObject

VA: Final = 0x10_0000
"""The address at which scenarios map their first page."""
_QUEUES: Final = ("active", "inactive", "cache", "")


class VmHelpers:
    """The helpers; ``vm`` is the machine's VM."""

    vm: Vm
    procs: list[Proc]
    """Processes, objects and files made by the scenario, which it releases at the end."""
    objects: list[VmObject]
    files: list[Vnode]

    # -- memory

    def limits(self, **values: int) -> None:
        """Set vmstats: ``limits(free_min=2)`` sets v_free_min (pages)."""
        for name, value in values.items():
            if not hasattr(VmStats, f"v_{name}"):
                raise Refused(f"limits: there is no v_{name} in vmstats")
            setattr(self.vm.stats, f"v_{name}", value)

    def object(self, size: int = 8, *, swap: bool = False) -> VmObject:
        """An anonymous object of *size* pages with one reference."""
        obj = self.vm.object.allocate(OBJT_DEFAULT, size)
        self.objects.append(obj)
        if swap:
            self._to_swap(obj)
        return obj

    def _to_swap(self, obj: VmObject) -> None:
        self.vm.object.hold(obj)
        self.vm.swap.meta_convert(obj)
        self.vm.object.drop(obj)

    def page(
        self,
        obj: VmObject,
        pindex: int,
        queue: str = "inactive",
        *,
        words: Mapping[int, int] | None = None,
        dirty: bool = False,
    ) -> Page:
        """Page *pindex* of *obj*: valid, unmapped, with these *words* (number → value), on *queue*
        (active, inactive, cache, or "" for none)."""
        if queue not in _QUEUES:
            raise Refused(f"page: there is no queue {queue!r}, allowed are {_QUEUES}")
        vm = self.vm
        vm.object.hold(obj)
        unused = peek(vm.stats, "v_free_count") + peek(vm.stats, "v_cache_count")
        m = vm.page.alloc(obj, pindex, VM_ALLOC_NORMAL) if unused > 0 else None
        if m is None:
            raise Refused("page: no page is free; set the number in the scenario: pages = 6")
        m.valid = VM_PAGE_BITS_ALL
        vm.pmap.write_contents(m, dict(words) if words else None)
        if dirty:
            vm.page.dirty(m)
        if queue == "cache":
            vm.page.cache(m)
        else:
            if queue == "active":
                vm.page.activate(m)
            elif queue == "inactive":
                vm.page.deactivate(m)
            vm.page.wakeup(m)
        vm.object.drop(obj)
        return m

    def swapped(self, obj: VmObject, pindex: int, words: Mapping[int, int]) -> None:
        """Put page *pindex* of *obj* on swap; a copy in memory, if any, stays there."""
        vm = self.vm
        vm.object.hold(obj)
        vm.swap.meta_convert(obj)
        block = vm.swap.getswapspace(obj, 1)
        vm.swap.meta_build(obj, pindex, block)
        vm.swap.store[block] = dict(words)
        vm.object.drop(obj)

    def waste(self, leave: int) -> None:
        """Take all free pages but *leave* out of use: wire them in the kernel object."""
        vm = self.vm
        obj = vm.kernel_object
        vm.object.hold(obj)
        while peek(vm.stats, "v_free_count") > leave:
            m = vm.page.alloc(obj, peek(obj, "resident_page_count"), VM_ALLOC_NORMAL)
            assert m is not None
            vm.page.wire(m)
            vm.page.wakeup(m)
        vm.object.drop(obj)

    # -- files and processes

    def file(self, *blocks: Mapping[int, int]) -> Vnode:
        """A file with a block for each of *blocks*, referenced by the scenario."""
        vp = self.vm.vnode_pager.new_file(len(blocks) * PAGE_SIZE)
        data = self.vm.vnode_pager.file(vp).blocks
        for i, words in enumerate(blocks):
            data[i] = dict(words)
        self.files.append(vp)
        return vp

    def process(self) -> Proc:
        """A process with an address space that is empty except for the stack."""
        p = self.vm.process.create()
        self.procs.append(p)
        return p

    def map(
        self,
        p: Proc,
        va: int = VA,
        pages: int = 1,
        vp: Vnode | None = None,
        *,
        prot: int = PROT_RW,
    ) -> int:
        """Map *pages* pages of anonymous memory, or of file *vp*, shared; returns *va*."""
        flags = MAP_FIXED | (MAP_SHARED if vp is not None else MAP_ANON | MAP_PRIVATE)
        error, at = self.vm.process.sys.mmap(p, va, pages * PAGE_SIZE, prot, flags, vp)
        if (error, at) != (0, va):
            raise Refused(f"map: mmap at {va:#x} fails with error {error}")
        return va

    def write(self, p: Proc, va: int, value: int, word: int = 0) -> None:
        """A store by *p* (in the set-up: by the boot thread on its behalf)."""
        self.vm.process.user_write(p, va, word, value)

    def read(self, p: Proc, va: int, word: int = 0) -> int:
        """A load by *p*."""
        return self.vm.process.user_read(p, va, word)

    def see(self, p: Proc, va: int, word: int = 0) -> int:
        """What *p* would read, from memory, swap, or the file, without a fault."""
        entry = p.p_vmspace.vm_map.at_or_before(va)
        obj, offset = entry.object, entry.offset + va - entry.start
        while obj is not None:
            found, words = self._stored(obj, offset // PAGE_SIZE)
            if found:
                return words.get(word, 0)
            offset += obj.backing_object_offset
            obj = obj.backing_object
        return 0

    def _stored(self, obj: VmObject, pindex: int) -> tuple[bool, Mapping[int, int]]:
        """Page *pindex* of *obj* itself: whether it exists, and its words."""
        m = obj.rb_memq.lookup(pindex)
        if m is not None and m.valid:
            return True, self.vm.pmap.read_contents(m) or {}
        block = dict(self.vm.swap.blocks_of(obj)).get(pindex)
        if block is not None:
            return True, self.vm.swap.store.get(block, {})
        if obj.type == OBJT_VNODE:
            return True, self.vm.vnode_pager.file(obj.handle).blocks.get(pindex, {})
        return False, {}

    def page_at(self, p: Proc, va: int) -> Page:
        """The page that *p* has mapped at *va*: accessed before, and not paged out since."""
        m = self.vm.pmap.extract(p.p_vmspace.vm_pmap, va)
        if m is None:
            raise Refused(f"page_at: {p} has no page at {va:#x}; write there first")
        return m

    def object_at(self, p: Proc, va: int) -> VmObject:
        """The object of the entry at *va*."""
        obj: VmObject = p.p_vmspace.vm_map.at_or_before(va).object
        return obj

    def to_inactive(self, m: Page, *, unmap: bool = False) -> None:
        """Make *m* idle: unreferenced, on the inactive queue, ready to be laundered."""
        vm = self.vm
        assert not vm.page.busy_try(m, True)
        vm.page.test_dirty(m)
        if unmap:
            vm.page.protect(m, 0)
        vm.page.deactivate(m)
        vm.page.flag_clear(m, PG_REFERENCED)
        vm.pmap.clear_reference(m)
        vm.page.wakeup(m)

    # -- scans of the page-out daemon

    def scan(self, *, pass_: int = 0, want: int = 8) -> int:
        """vm_pageout_scan_inactive of the one inactive queue, for *want* pages."""
        return self.vm.pageout.scan_inactive(pass_, 0, want, Tally())

    def launder(self, scans: int = 1) -> None:
        """Scan as if memory were short: dirty pages are written, clean ones freed."""
        for _ in range(scans):
            self.scan(pass_=1)
        self.vm.pageout.cache_drain()

    def scan_active(self, *, pass_: int = 0, avail: int = 0, inactive: int = 8) -> int:
        """vm_pageout_scan_active of the one active queue."""
        return self.vm.pageout.scan_active(pass_, 0, avail, inactive, Tally())
