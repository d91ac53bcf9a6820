"""Wiring the pages of an entry, and copying wired entries for fork (vm_fault.c:2065-2275)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.vm.fault.prefault import Prefault
from smpvm.vm.fault.state import VM_FAULT_CHANGE_WIRING, VM_FAULT_USER_WIRE
from smpvm.vm.map.entry import (
    KERN_SUCCESS,
    MAP_ENTRY_KSTACK,
    OBJECT_MAPTYPES,
    VM_MAPTYPE_UKSMAP,
    VmMap,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.page.struct import VM_ALLOC_NORMAL
from smpvm.vm.param import OBJT_DEVICE, OBJT_MGTDEVICE, VM_PROT_READ, VM_PROT_WRITE

if TYPE_CHECKING:
    from smpvm.vm.object.objects import VmObject
    from smpvm.vm.page.struct import Page
    from smpvm.vm.pmap.pmaps import Pmap


class FaultWire(Prefault):
    """vm_fault_wire, vm_fault_unwire, vm_fault_copy_entry."""

    @c("vm_fault", "vm_fault.c:300-678", blocks=True)
    @holds("no locks; a reference on the map's space", "")
    def fault(self, map: VmMap, vaddr: int, fault_type: int, fault_flags: int) -> int:
        """vm_fault: see Fault."""
        raise NotImplementedError

    @c("vm_fault_wire", "vm_fault.c:2065-2142", blocks=True)
    @holds(
        "map locked exclusively; entry in transition",
        "map locked exclusively; entry in transition (unlocked in between)",
    )
    def wire(self, map: VmMap, entry: VmMapEntry, user_wire: bool, kmflags: int) -> int:
        """vm_fault_wire (vm_fault.c:2065-2142): fault in and wire every page of *entry*.

        Map locked exclusively on entry and return, unlocked in between; *entry* is in transition:
        it may be clipped meanwhile, but not freed.  Blocks.  Returns KERN_*; after a failure no
        page of *entry* is wired.
        """
        map.token.get()
        if user_wire:
            prot, flags = VM_PROT_READ, VM_FAULT_USER_WIRE
        else:
            prot, flags = VM_PROT_READ | VM_PROT_WRITE, VM_FAULT_CHANGE_WIRING
        pmap = map.pmap
        # Read before the map is unlocked: the entry may be clipped afterwards.
        start, end = entry.start, entry.end
        fictitious = self._fictitious(entry) or entry.maptype == VM_MAPTYPE_UKSMAP
        if entry.eflags & MAP_ENTRY_KSTACK:
            start += PAGE_SIZE
        # vm_fault locks the map itself.  The timestamp makes a fault in progress look its entry up
        # again.
        map.timestamp += 1
        self.vm.map.unlock(map)
        rv = KERN_SUCCESS
        for va in range(start, end, PAGE_SIZE):
            rv = self.fault(map, va, prot, flags)
            if rv != KERN_SUCCESS:
                for back in range(va - PAGE_SIZE, start - PAGE_SIZE, -PAGE_SIZE):
                    self._unwire_page(pmap, back, entry, fictitious, "vmwrpg")
                break
        self.vm.map.lock(map)
        map.token.release()
        return rv

    @c("vm_fault_wire", "vm_fault.c:2095-2108", part=True)
    @c("vm_fault_unwire", "vm_fault.c:2164-2166", part=True)
    @holds("map locked, or entry in transition")
    def _fictitious(self, entry: VmMapEntry) -> bool:
        """Device memory has no pages to wire."""
        obj = entry.object if entry.maptype in OBJECT_MAPTYPES else None
        return obj is not None and obj.type in (OBJT_DEVICE, OBJT_MGTDEVICE)

    @c("vm_fault_wire", "vm_fault.c:2124-2132", part=True, blocks=True)
    @c("vm_fault_unwire", "vm_fault.c:2175-2184", part=True)
    @holds("map token", "")
    def _unwire_page(
        self, pmap: Pmap, va: int, entry: VmMapEntry, fictitious: bool, wmesg: str
    ) -> None:
        """Unwire the page mapped at *va*, if there is one."""
        m = self.vm.pmap.extract(pmap, va)
        if m is None:
            return
        self.vm.pmap.change_wiring(pmap, va, False, entry)
        if not fictitious:
            self.vm.page.busy_wait(m, False, wmesg)
            self.vm.page.unwire(m, True)
            self.vm.page.wakeup(m)

    @c("vm_fault_unwire", "vm_fault.c:2148-2187", blocks=True)
    @holds("map locked exclusively")
    def unwire(self, map: VmMap, entry: VmMapEntry) -> None:
        """vm_fault_unwire (vm_fault.c:2148-2187): unwire the pages that *entry* maps.

        Map locked.  Sleeps for busy pages.
        """
        map.token.get()
        start = entry.start
        if entry.eflags & MAP_ENTRY_KSTACK:
            start += PAGE_SIZE
        fictitious = self._fictitious(entry)
        for va in range(start, entry.end, PAGE_SIZE):
            self._unwire_page(map.pmap, va, entry, fictitious, "vmwupg")
        map.token.release()

    @c("vm_fault_copy_entry", "vm_fault.c:2201-2275", blocks=True)
    @holds("both maps locked exclusively, both map tokens")
    def copy_entry(self, dst: VmMap, src: VmMap, new: VmMapEntry, old: VmMapEntry) -> None:
        """vm_fault_copy_entry (vm_fault.c:2201-2275): make a private copy of every page of *old*.

        Both maps locked exclusively, tokens held.  Blocks, also for memory.  As in the C, only the
        entry's own object is searched, although a read-only wiring leaves pages in the objects
        behind it: that panics (``copy-wired-missing``).
        """
        page, objects, pmap = self.vm.page, self.vm.object, self.vm.pmap
        src_object, src_offset = old.object, old.offset
        self.vm.map.entry_allocate_object(new)
        dst_object = new.object
        objects.hold(src_object)
        objects.hold(dst_object)
        for vaddr in range(new.start, new.end, PAGE_SIZE):
            offset = vaddr - new.start
            while (m := page.alloc(dst_object, off_to_idx(offset), VM_ALLOC_NORMAL)) is None:
                page.vm_wait(0)
            self.copy_wired(src_object, off_to_idx(offset + src_offset), m)
            pmap.enter(dst.pmap, vaddr, m, new.max_protection, False, new)
            page.activate(m)
            page.wakeup(m)
        objects.drop(dst_object)
        objects.drop(src_object)

    @c("vm_fault_copy_entry", "vm_fault.c:2254-2259", part=True)
    @holds("obj held; m busied")
    def copy_wired(self, obj: VmObject, pindex: int, m: Page) -> None:
        """Copy the wired page *pindex* of the held object *obj* to the busied page *m*."""
        original = self.vm.page.lookup(obj, pindex)
        if original is None:
            self.k.panic("copy-wired-missing", f"{obj} index {pindex}")
        self.vm.page.copy(original, m)
