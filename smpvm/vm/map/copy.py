"""Copying entries for fork: split, copy-on-write, wired copies (vm_map.c:3032-3396)."""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.vm.map.delete import MapDelete
from smpvm.vm.map.entry import (
    MAP_ENTRY_COW,
    MAP_ENTRY_NEEDS_COPY,
    VM_MAPTYPE_SUBMAP,
    VM_MAPTYPE_UKSMAP,
    VmMap,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.object.objects import VmObject
from smpvm.vm.param import (
    OBJ_DEAD,
    OBJ_NOSPLIT,
    OBJ_ONEMAPPING,
    OBJ_ONSHADOW,
    OBJT_DEFAULT,
    OBJT_SWAP,
    OBJT_VNODE,
    VM_PROT_WRITE,
)

_ANONYMOUS = (OBJT_DEFAULT, OBJT_SWAP)
_NOT_COPIED = (VM_MAPTYPE_SUBMAP, VM_MAPTYPE_UKSMAP)


class MapCopy(MapDelete):
    """vm_map_split, vm_map_copy_entry."""

    @c("vm_map_split", "vm_map.c:3080-3318", blocks=True)
    @holds("map locked exclusively, map token")
    def split(self, entry: VmMapEntry) -> None:
        """vm_map_split (vm_map.c:3080-3318): give *entry* an object of its own, where that helps.

        Map locked exclusively, its token held.  Blocks.  On return the entry's object has one more
        reference, for the clone of the entry.

        The C's test for objects that cannot be split lets only objects with a handle pass (it
        refuses ``handle == NULL``), but no anonymous object has a handle: everything after
        ``_split_locked`` is dead code at this commit.  It is ported nevertheless.
        """
        obj: VmObject = entry.object
        objects = self.vm.object
        if obj.type not in _ANONYMOUS:
            objects.reference_quick(obj)
            objects.clear_flag(obj, OBJ_ONEMAPPING)
            return
        objects.hold(obj)
        objects.chain_acquire(obj, False)
        if self.cannot_split(obj):
            self._split_refuse(obj)
            return
        objects.collapse(obj, None)
        if (
            obj.ref_count <= 1
            or obj.type not in _ANONYMOUS
            or obj.flags & (OBJ_NOSPLIT | OBJ_ONEMAPPING) != OBJ_ONEMAPPING
        ):
            self._split_refuse(obj)
            return
        self._split_locked(entry, obj)

    @c("vm_map_split", "vm_map.c:3118-3119", part=True)
    @holds("obj held exclusively")
    def cannot_split(self, obj: VmObject) -> bool:
        """The condition at vm_map.c:3118-3119, inverted by mistake in the C."""
        return obj.handle is None or obj.type not in _ANONYMOUS

    @c("vm_map_split", "vm_map.c:3120-3124", part=True)
    @holds("obj held exclusively and chain locked", "obj released and dropped")
    def _split_refuse(self, obj: VmObject) -> None:
        """Leave the object whole: only add the reference for the clone."""
        objects = self.vm.object
        objects.chain_release(obj)
        objects.reference_locked(obj)
        objects.clear_flag(obj, OBJ_ONEMAPPING)
        objects.drop(obj)

    @c("vm_map_split", "vm_map.c:3154-3317", part=True, blocks=True)
    @holds(
        "map locked exclusively; obj held exclusively and chain locked", "obj released and dropped"
    )
    def _split_locked(self, entry: VmMapEntry, obj: VmObject) -> None:
        """vm_map.c:3154-3317: split *obj*, which is held exclusively and chain locked."""
        objects = self.vm.object
        below = obj.backing_object
        use_list = False
        if below is not None:
            if below.type != OBJT_VNODE:
                use_list = True
                objects.hold(below)
                objects.chain_wait(below, False)
                objects.reference_locked(below)
                objects.chain_acquire(below, False)
                self.k.kassert(self.split_backing_ok(obj, below), "split-backing", str(below))
                self.k.kassert(not below.flags & OBJ_DEAD, "split-dead", str(below))
            else:
                objects.reference_quick(below)
        first = off_to_idx(entry.offset)
        size = entry.pages
        new = objects.allocate(obj.type, size)
        objects.hold(new)
        objects.reference_locked(new)
        objects.chain_acquire(new, False)
        if below is not None:
            new.backing_object_offset = obj.backing_object_offset + (first << 12)
            new.backing_object = below
            if use_list:
                below.shadow_count += 1
                below.generation += 1
                below.shadow_head[new] = None
                objects.clear_flag(below, OBJ_ONEMAPPING)
                objects.chain_release(below)
                objects.drop(below)
                objects.set_flag(new, OBJ_ONSHADOW)
        self._split_pages(obj, new, first, size)
        entry.object = new
        entry.offset = 0
        objects.chain_release(new)
        objects.drop(new)
        if below is not None and use_list:
            # As in the C, the backing object is released and dropped a second time here.
            objects.chain_release(below)
            objects.drop(below)
        objects.chain_release(obj)
        objects.deallocate_locked(obj)
        objects.drop(obj)

    @c("vm_map_split", "vm_map.c:3163", part=True)
    @holds("both objects held")
    def split_backing_ok(self, obj: VmObject, below: VmObject) -> bool:
        """The KKASSERT at vm_map.c:3135, which compares the backing object with its own backing
        object.
        """
        return below.backing_object is below

    @c("vm_map_split", "vm_map.c:3251-3294", part=True, blocks=True)
    @holds("both objects held exclusively")
    def _split_pages(self, obj: VmObject, new: VmObject, first: int, size: int) -> None:
        """Move pages and swap blocks [first, first + size) of *obj* to *new* from index 0 on."""
        moved = []
        for i in range(size):
            m = self.vm.page.lookup_busy_wait(obj, first + i, True, "vmpg")
            if m is not None:
                self.vm.page.rename(m, new, i)
                moved.append(m)
        if obj.type == OBJT_SWAP:
            self.vm.object.pip_add(obj, 1)
            self.vm.swap.copy(obj, new, first, False)
            self.vm.object.pip_wakeup(obj)
        # The pages stay busy until the swap blocks have moved too.
        for m in moved:
            self.vm.page.wakeup(m)

    @c("vm_map_copy_entry", "vm_map.c:3330-3396", blocks=True)
    @holds("both maps locked exclusively, both map tokens")
    def copy_entry(self, src: VmMap, dst: VmMap, old: VmMapEntry, new: VmMapEntry) -> None:
        """vm_map_copy_entry (vm_map.c:3330-3396): make *new* a private copy of *old*.

        Both maps locked exclusively, tokens held.  Blocks.  If *old* is not wired, both entries
        become copy-on-write, and the source's timestamp is incremented so that a write fault in
        progress starts over.  If it is wired, it is copied page by page.
        """
        if new.maptype in _NOT_COPIED or old.maptype in _NOT_COPIED:
            return
        if old.wired_count != 0:
            self.vm.fault.copy_entry(dst, src, new, old)
            return
        # Write-protect the parent's mappings, so that its next write faults and copies.
        if not old.eflags & MAP_ENTRY_NEEDS_COPY:
            self.vm.pmap.protect(src.pmap, old.start, old.end, old.protection & ~VM_PROT_WRITE)
        if old.object is not None:
            self.split(old)
            new.object = old.object
            old.eflags |= MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY
            new.eflags |= MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY
            new.offset = old.offset
            src.timestamp += 1
        else:
            new.object = None
            new.offset = 0
        self.vm.pmap.copy(dst.pmap, src.pmap, new.start, new.end - new.start, old.start)
