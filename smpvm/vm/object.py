"""vm_object.c, gathered from its parts."""

from __future__ import annotations

from smpvm.vm.object_base import ObjectsBase, VmObject
from smpvm.vm.object_clean import Cleaning
from smpvm.vm.object_collapse import Collapse
from smpvm.vm.object_madvise import Madvise


class Objects(Collapse, Cleaning, Madvise):
    """vm_object.c: ``vm.object``."""


__all__ = ["Objects", "ObjectsBase", "VmObject"]
