"""Repairs of vm_object_page_clean."""

from __future__ import annotations

from smpvm.vm.object import Objects


class MsyncRange(Objects):
    """Mark the pages of a part of an object too before they are cleaned.

    vm_object_page_clean (vm_object.c:1350-1370) marks only when it cleans a whole object, and
    pass 2 skips unmarked pages (:1440), so that msync of a part of a file writes nothing.
    """

    def wants_marks(self, whole: bool) -> bool:
        """Always; the dirty record is still only cleared for a whole object."""
        return True
