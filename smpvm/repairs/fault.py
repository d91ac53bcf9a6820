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
    "find the wired pages that a fork has to copy in the objects behind the first, too",
    "vm_fault_copy_entry (vm_fault.c:2290-2294)",
)
class CopyWired(Fault):
    """vm_fault_copy_entry looks for a wired page down the whole chain of objects."""

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
    "look at the map's timestamp again once its lock is had, before a page is moved",
    "vm_fault_object (vm_fault.c:1836-1866)",
)
class MoveRecheck(Fault):
    """Before a page is moved instead of copied: has the map changed until it was locked again?"""

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
    "count a fault once, as soft or hard",
    "vm_fault (vm_fault.c:613-627)",
)
class FaultOnce(Fault):
    """A fault counts once, as soft or hard."""

    def _account(self, fs: FaultState) -> None:
        td = self.k.curthread()
        td.hit("v_vm_faults")
        td.hit("ru_majflt" if fs.hardfault else "ru_minflt")
