"""vm_object.c: objects, combined into one class.

struct      the structure, holds, references, flags, paging in progress
memq        an object's pages by index (rb_memq)
chain       locking a shadow chain, hand over hand
collapse    shadowing, collapse, bypass, coalescing
dealloc     deallocation and termination
clean       writing dirty pages to their file (page_clean), page removal
madvise     madvise
"""

from __future__ import annotations

from smpvm.vm.object.clean import Cleaning
from smpvm.vm.object.collapse import Collapse
from smpvm.vm.object.madvise import Madvise
from smpvm.vm.object.struct import ObjectsBase, VmObject


class Objects(Collapse, Cleaning, Madvise):
    """vm_object.c: ``vm.object``."""


__all__ = ["Objects", "ObjectsBase", "VmObject"]
