"""Repairs of vm_fault.c."""

from __future__ import annotations

from smpvm.repairs.base import repair
from smpvm.vm.fault.fault import Fault
from smpvm.vm.fault.state import FaultState
from smpvm.vm.map.entry import off_to_idx
from smpvm.vm.object.objects import VmObject
from smpvm.vm.page.struct import Page


@repair(
    "copy-wired",
    "Search the backing objects too for the wired pages that fork has to copy",
    "vm_fault_copy_entry (vm_fault.c:2254-2257)",
)
class CopyWired(Fault):
    """vm_fault_copy_entry searches the whole chain of objects for a wired page.

    In the C it looks in the first object only, and fork of a wired private mapping panics if one of
    its pages is in a backing object.
    """

    def copy_wired(self, obj: VmObject, pindex: int, m: Page) -> None:
        objects = self.vm.object
        at = obj
        while self.vm.page.lookup(at, pindex) is None and (below := at.backing_object) is not None:
            objects.hold(below)
            pindex += off_to_idx(at.backing_object_offset)
            if at is not obj:
                objects.lock_swap()
                objects.drop(at)
            at = below
        super().copy_wired(at, pindex, m)
        if at is not obj:
            objects.drop(at)


@repair(
    "move-recheck",
    "Recheck the map's timestamp after relocking it, before a page is moved",
    "vm_fault_object (vm_fault.c:1827-1828, 1854-1857)",
)
class MoveRecheck(Fault):
    """Recheck the timestamp once the map is locked again, before a page is moved.

    In the C it is compared before the lock is taken and not after, so a mapping that another thread
    changed in between is entered as it was.

    By reading: no schedule was found that shows it.
    """

    def _may_move(self, fs: FaultState) -> bool:
        unlocked = not fs.lookup_still_valid
        if not super()._may_move(fs):
            return False
        if unlocked and fs.map is not None and not self.generation_unchanged(fs):
            self.vm.map.unlock(fs.map)
            return False
        return True


@repair(
    "fault-once",
    "Count each fault once, as soft or hard",
    "vm_fault (vm_fault.c:645-661)",
)
class FaultOnce(Fault):
    """Count each fault once, as soft or hard."""

    def _account(self, fs: FaultState) -> None:
        td = self.k.curthread()
        td.hit("v_vm_faults")
        td.hit("ru_majflt" if fs.hardfault else "ru_minflt")
