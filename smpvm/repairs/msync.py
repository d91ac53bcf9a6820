"""Repairs of vm_object_page_clean."""

from __future__ import annotations

from smpvm.repairs.base import repair
from smpvm.vm.object.clean import CleanScan
from smpvm.vm.object.objects import Objects, VmObject


@repair(
    "msync-range",
    "let msync of a part of a file write it",
    "vm_object_page_clean (vm_object.c:1350-1370)",
)
class MsyncRange(Objects):
    """Mark the pages of a part of an object too before they are cleaned.

    vm_object_page_clean (vm_object.c:1350-1370) marks only when it cleans a whole object, and
    pass 2 skips unmarked pages (:1440), so that msync of a part of a file writes nothing.
    """

    def wants_marks(self, whole: bool) -> bool:
        """Always; the dirty record is still only cleared for a whole object."""
        return True


@repair(
    "clean-record",
    "take a file off the dirty record before its pages are made read-only, not after",
    "vm_object_page_clean (vm_object.c:1350-1370)",
)
class CleanRecord(Objects):
    """Take an object off the dirty record before its pages are made read-only, not after.

    Pass 1 yields at every 64th page (vm_object.c:1396), and a read fault may then map a page
    writeable again that it has dealt with.  The record of that fault is what
    vm_object_page_clean clears at the end of the pass (:1356-1367).
    """

    def mark_pass(self, obj: VmObject, info: CleanScan, whole: bool) -> None:
        """An object with something in the way goes back on record."""
        if whole:
            self.off_record(obj)
        super().mark_pass(obj, info, False)
        if whole and info.error:
            self.set_writeable_dirty(obj)
