"""Repairs of wiring and of what goes with it: vm_fault_unwire, mlock beside stores, raw I/O."""

from __future__ import annotations

from typing import Final

from smpvm.config import PAGE_SIZE
from smpvm.repairs.base import repair
from smpvm.vm.fault.fault import Fault
from smpvm.vm.map.entry import (
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_IN_TRANSITION,
    VmMap,
    VmMapEntry,
)
from smpvm.vm.map.vmspace import VmSpaces
from smpvm.vm.page.struct import Page
from smpvm.vm.param import VM_PROT_WRITE
from smpvm.vm.pmap.pmaps import Pmaps
from smpvm.vm.pmap.pte import PTE_RW, PTE_V
from smpvm.vm.pmap.struct import Pmap


@repair(
    "unwire-object",
    "Unwire also pages whose mapping is gone: look for them in the objects",
    "vm_fault_unwire (vm_fault.c:2172-2184)",
)
class UnwireObject(Fault):
    """vm_fault_unwire looks in the entry's objects for a page that the pmap no longer has.

    In the C it asks the pmap only.  exec, mprotect(PROT_NONE), MADV_INVAL and whatever else
    removes the mapping of a wired page leave its wire_count behind.
    """

    def _unwire_page(
        self, pmap: Pmap, va: int, entry: VmMapEntry, fictitious: bool, wmesg: str
    ) -> None:
        if self.vm.pmap.extract(pmap, va) is not None or fictitious:
            super()._unwire_page(pmap, va, entry, fictitious, wmesg)
        elif (m := self._wired(entry, va)) is not None:
            self.vm.page.unwire(m, True)
            self.vm.page.wakeup(m)

    def _wired(self, entry: VmMapEntry, va: int) -> Page | None:
        """The wired page at *va*, busied; no tokens of objects are held on return."""
        objects, obj = self.vm.object, entry.object
        offset = entry.offset + va - entry.start
        while obj is not None:
            objects.hold(obj)
            m = self.vm.page.lookup_busy_wait(obj, offset // PAGE_SIZE, False, "vmwupg")
            offset, behind = offset + obj.backing_object_offset, obj.backing_object
            objects.drop(obj)
            if m is not None:
                if m.wire_count:
                    return m
                self.vm.page.wakeup(m)
                return None
            obj = behind
        return None


ALLOWED: Final = PTE_V | PTE_RW


@repair(
    "wired-store",
    "Let a store to a wired private mapping succeed where the page table allows it by now",
    "vm_map_lookup (vm_map.c:4008-4014), vm_fault (vm_fault.c:344-378)",
)
class WiredStore(Fault):
    """A fault refused because the mapping has been wired meanwhile looks at the page table.

    In the C a store that faults while another thread wires the mapping (mlock) is refused, and the
    process gets a signal, although the wiring has made the page writeable.
    """

    def fault(self, map: VmMap, vaddr: int, fault_type: int, fault_flags: int) -> int:
        result = super().fault(map, vaddr, fault_type, fault_flags)
        if result == KERN_PROTECTION_FAILURE:
            pv = self.vm.pmap.look(map.pmap, vaddr)
            if pv is not None and pv.bits & ALLOWED == ALLOWED:
                return KERN_SUCCESS
        return result


@repair(
    "quick-dirty",
    "Leave the quick look at the page table to reads",
    "pmap_fault_page_quick (pmap.c:1236-1278)",
)
class QuickDirty(Pmaps):
    """pmap_fault_page_quick refuses writes, so that vm_fault_page busies the page first.

    In the C raw I/O into memory makes a page dirty that it has held, but not busied: the page-out
    daemon may be about to cache or free it as clean.
    """

    def fault_page_quick(self, pmap: Pmap, va: int, prot: int) -> Page | None:
        return None if prot & VM_PROT_WRITE else super().fault_page_quick(pmap, va, prot)


@repair(
    "fork-transition",
    "Clear MAP_ENTRY_IN_TRANSITION in the child's copies of map entries",
    "vmspace_fork_normal_entry (vm_map.c:3538-3539, 3563-3564)",
)
class ForkTransition(VmSpaces):
    """The entries of a child are not in transition.

    In the C a fork while another thread of the parent wires a mapping copies the flag.  Nobody will
    clear it, or wake a waiter: the child sleeps for ever when it unmaps the entry, or exits.
    """

    def _fork_clone(self, dst: VmMap, old: VmMapEntry, objectless: bool = False) -> VmMapEntry:
        new = super()._fork_clone(dst, old, objectless)
        new.eflags &= ~MAP_ENTRY_IN_TRANSITION
        return new
