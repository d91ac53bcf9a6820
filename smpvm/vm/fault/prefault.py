"""Prefaulting: mapping some neighbours of a faulted page as well (vm_fault.c:2483-2918)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.vm.fault.object import FaultObject
from smpvm.vm.fault.state import VM_FAULT_DIRTY
from smpvm.vm.map.entry import VM_MAPTYPE_NORMAL, VmMapEntry, off_to_idx
from smpvm.vm.object.objects import VmObject
from smpvm.vm.page.struct import (
    PG_FICTITIOUS,
    PG_SWAPPED,
    VM_ALLOC_NORMAL,
    VM_ALLOC_NULL_OK,
    VM_ALLOC_USE_GD,
    VM_ALLOC_ZERO,
    Page,
)
from smpvm.vm.param import OBJT_DEFAULT, VM_PAGE_BITS_ALL, VM_PROT_WRITE

if TYPE_CHECKING:
    from smpvm.vm.pmap.pmaps import Pmap


class Around:
    """The addresses to try around a fault: the next one, the previous one, the second next, ...

    ``stop`` ends one direction; iteration ends when both directions have ended, or after *maxpages*
    turns.
    """

    @c("vm_prefault", "vm_fault.c:2502-2521", part=True)
    def __init__(self, addr: int, entry: VmMapEntry, maxpages: int) -> None:
        self.addr = addr
        self.entry = entry
        self.maxpages = min(maxpages, 1024)
        self.ended = [False, False]
        self.turn = 0

    @c("vm_prefault", "vm_fault.c:2575-2583", part=True)
    def stop(self) -> None:
        """End the direction of the current turn."""
        self.ended[self.turn & 1] = True

    def __iter__(self) -> Iterator[int]:
        for turn in range(self.maxpages):
            self.turn = turn
            behind = turn & 1
            if self.ended[behind]:
                if all(self.ended):
                    return
                continue
            step = ((turn + (1 if behind else 2)) >> 1) * PAGE_SIZE
            addr = self.addr - step if behind else self.addr + step
            if self.entry.start <= addr < self.entry.end:
                yield addr
            else:
                self.stop()
            if all(self.ended):
                return


class Prefault(FaultObject):
    """vm_prefault, vm_prefault_quick."""

    @c("vm_prefault", "vm_fault.c:2502-2515", part=True)
    @c("vm_prefault_quick", "vm_fault.c:2794-2807", part=True)
    def _foreign(self, pmap: Pmap, entry: VmMapEntry) -> bool:
        """Nothing to prefault: not the current process's pmap, or not a normal mapping."""
        p = self.k.curthread().proc
        return (
            self.prefault_pages <= 0
            or entry.maptype != VM_MAPTYPE_NORMAL
            or p is None
            or p.p_vmspace is None
            or p.p_vmspace.vm_pmap is not pmap
        )

    @c("vm_prefault", "vm_fault.c:2483-2772", blocks=True)
    @holds("map locked shared")
    def prefault(
        self, pmap: Pmap, addra: int, entry: VmMapEntry, prot: int, fault_flags: int
    ) -> None:
        """vm_prefault (vm_fault.c:2483-2772).

        Prefault down a chain of DEFAULT objects, with zero-fill.

        Map locked shared; takes the object's token exclusively and its chain lock; blocks.
        """
        if self._foreign(pmap, entry):
            return
        objects = self.vm.object
        obj: VmObject = entry.object
        objects.hold(obj)
        objects.chain_acquire(obj, False)
        around = Around(addra, entry, self.prefault_pages)
        for addr in around:
            if around.turn & 7 == 7:
                self.k.sched.lwkt_yield()
            if not self.vm.pmap.prefault_ok(pmap, addr):
                around.stop()
                continue
            pindex = off_to_idx((addr - entry.start) + entry.offset)
            m, error, allocated, pprot, last = self._prefault_find(obj, pindex, prot)
            if m is not None and pprot & VM_PROT_WRITE:
                objects.set_writeable_dirty(m.object)
            if last is not obj:
                if obj.backing_object is None:
                    self.k.panic("chain-broken", str(obj), kind="fault")
                objects.chain_release_all(obj.backing_object, last)
                objects.drop(last)
            if m is None:
                break
            if allocated:
                self._prefault_zero(pmap, addr, m, pprot, entry, fault_flags)
            elif not error:
                self._prefault_map(pmap, addr, m, pprot, entry, fault_flags)
        objects.chain_release(obj)
        objects.drop(obj)

    @c("vm_prefault", "vm_fault.c:2598-2646", part=True, blocks=True)
    @holds(
        "obj held exclusively and chain locked",
        "the last object held exclusively, chain locked; the page busied unless it could not be",
    )
    def _prefault_find(
        self, obj: VmObject, index: int, prot: int
    ) -> tuple[Page | None, bool, bool, int, VmObject]:
        """Search the chain from *obj*: (page, could not be busied, newly allocated, prot, object).

        The last object is held exclusively, and chain locked like all before it.
        """
        objects, page = self.vm.object, self.vm.page
        at, pindex, pprot = obj, index, prot
        while True:
            m, error = page.lookup_busy_try(at, pindex, True)
            if m is not None:
                return m, bool(error), False, pprot, at
            if at.type != OBJT_DEFAULT:
                break
            below = at.backing_object
            if below is None:
                if self.fast_fault and prot & VM_PROT_WRITE and not self.vm.meter.count_min(0):
                    req = VM_ALLOC_NORMAL | VM_ALLOC_ZERO | VM_ALLOC_USE_GD | VM_ALLOC_NULL_OK
                    m = page.alloc(obj, index, req)
                break
            if at.backing_object_offset & (PAGE_SIZE - 1):
                break
            objects.hold(below)
            self.k.kassert(below is at.backing_object, "fault-chain-changed", str(at))
            pindex += at.backing_object_offset >> 12
            if at is not obj:
                objects.lock_swap()
                objects.drop(at)
            at = below
            pprot &= ~VM_PROT_WRITE
            objects.chain_acquire(at, False)
        return m, False, m is not None, prot, at

    @c("vm_prefault", "vm_fault.c:2711-2738", part=True, blocks=True)
    @holds("m busied, map locked shared", "m unbusied")
    def _prefault_zero(
        self, pmap: Pmap, addr: int, m: Page, prot: int, entry: VmMapEntry, fault_flags: int
    ) -> None:
        """Zero a newly allocated page, enter it in the pmap and unbusy it."""
        td = self.k.curthread()
        page = self.vm.page
        page.zero_fill(m)
        td.hit("v_zfod")
        m.valid = VM_PAGE_BITS_ALL
        if prot & VM_PROT_WRITE:
            self.set_nosync(m, entry)
        self.vm.pmap.enter(pmap, addr, m, prot, False, entry)
        td.hit("v_vm_faults")
        td.hit("ru_minflt")
        td.hit("vm_prefault:zero")
        page.deactivate(m)
        if prot & VM_PROT_WRITE:
            self._prefault_written(m, entry, fault_flags)
        page.wakeup(m)

    @c("vm_prefault", "vm_fault.c:2741-2768", part=True, blocks=True)
    @holds("m busied, map locked shared", "m unbusied")
    def _prefault_map(
        self, pmap: Pmap, addr: int, m: Page, prot: int, entry: VmMapEntry, fault_flags: int
    ) -> None:
        """Enter a resident page in the pmap if it is fully valid, and unbusy it."""
        td = self.k.curthread()
        page = self.vm.page
        if m.valid & VM_PAGE_BITS_ALL == VM_PAGE_BITS_ALL and not m.flags & PG_FICTITIOUS:
            if m.queue - m.pc == self.vm.pq.CACHE:
                page.deactivate(m)
            if prot & VM_PROT_WRITE:
                self._prefault_written(m, entry, fault_flags)
                self.set_nosync(m, entry)
            self.vm.pmap.enter(pmap, addr, m, prot, False, entry)
            td.hit("v_vm_faults")
            td.hit("ru_minflt")
            td.hit("vm_prefault:resident")
        page.wakeup(m)

    @c("vm_prefault", "vm_fault.c:2729-2737", part=True, blocks=True)
    @holds("m busied; its object held")
    def _prefault_written(self, m: Page, entry: VmMapEntry, fault_flags: int) -> None:
        """A page that will be writeable: set nosync, and on a write fault make it dirty and free
        its swap.
        """
        self.set_nosync(m, entry)
        if fault_flags & VM_FAULT_DIRTY:
            self.vm.page.dirty(m)
            self.vm.swap.unswapped(m)

    @c("vm_prefault_quick", "vm_fault.c:2777-2918", blocks=True)
    @holds("map locked shared; object held (shared is enough)")
    def prefault_quick(
        self, pmap: Pmap, addra: int, entry: VmMapEntry, prot: int, fault_flags: int
    ) -> None:
        """vm_prefault_quick (vm_fault.c:2777-2918).

        Resident pages of an object without backing object.

        The object is held (shared is enough), the map locked shared.  Blocks only in the pmap.
        """
        if self._foreign(pmap, entry):
            return
        obj: VmObject = entry.object
        if obj.backing_object is not None:
            return
        self.vm.object.assert_held(obj)
        page, td = self.vm.page, self.k.curthread()
        around = Around(addra, entry, self.prefault_pages)
        for addr in around:
            pindex = off_to_idx((addr - entry.start) + entry.offset)
            m, error = page.lookup_busy_try(obj, pindex, True)
            if m is None or error:
                break
            if not self.vm.pmap.prefault_ok(pmap, addr):
                page.wakeup(m)
                around.stop()
                continue
            written = prot & VM_PROT_WRITE
            if (
                m.valid & VM_PAGE_BITS_ALL != VM_PAGE_BITS_ALL
                or m.flags & PG_FICTITIOUS
                or (m.flags & PG_SWAPPED and written and fault_flags & VM_FAULT_DIRTY)
            ):
                page.wakeup(m)
                break
            if m.queue - m.pc == self.vm.pq.CACHE:
                page.deactivate(m)
            if written:
                self.vm.object.set_writeable_dirty(m.object)
                self.set_nosync(m, entry)
                if fault_flags & VM_FAULT_DIRTY:
                    page.dirty(m)
            self.vm.pmap.enter(pmap, addr, m, prot, False, entry)
            td.hit("v_vm_faults")
            td.hit("ru_minflt")
            td.hit("vm_prefault_quick:resident")
            page.wakeup(m)
