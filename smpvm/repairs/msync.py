"""Repairs of vm_object_page_clean."""

from __future__ import annotations

from smpvm.repairs.base import repair
from smpvm.vm.object.clean import CleanScan
from smpvm.vm.object.objects import Objects, VmObject


@repair(
    "msync-range",
    "Write the pages when msync is called for part of a file",
    "vm_object_page_clean (vm_object.c:1340, 1350-1354, 1440)",
)
class MsyncRange(Objects):
    """Mark the pages before cleaning, also for part of an object.

    vm_object_page_clean (vm_object.c:1350-1354) marks pages only for a scan of the whole object,
    and pass 2 skips unmarked pages (:1440), so msync of part of a file writes nothing.
    """

    def wants_marks(self, whole: bool) -> bool:
        """Always; the dirty flags are still cleared only for a whole object."""
        return True


@repair(
    "clean-record",
    "Clear a file's dirty flags before its pages are made read-only, not after",
    "vm_object_page_clean (vm_object.c:1350-1368, 1396-1397)",
)
class CleanRecord(Objects):
    """Clear an object's dirty flags before its pages are made read-only, not after.

    Pass 1 yields at every 64th page (vm_object.c:1396), and a read fault may then map a page
    writeable again that it has already processed.  The dirty flags that this fault sets are cleared
    by vm_object_page_clean at the end of the pass (:1355-1367).

    Not reachable in a default kernel, where every caller holds the vnode exclusively and a fault
    locks it shared first; with ``options DIRECTIO`` a raw read cleans under a shared lock.
    """

    def mark_pass(self, obj: VmObject, info: CleanScan, whole: bool) -> None:
        """If a page could not be processed, the object becomes dirty again."""
        if whole:
            self.off_record(obj)
        super().mark_pass(obj, info, False)
        if whole and info.error:
            self.set_writeable_dirty(obj)
