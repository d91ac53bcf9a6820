"""Unmapping, and cleaning a range (vm_map.c:2606-3001)."""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RETRY
from smpvm.vm.map.entry import (
    KERN_INVALID_ADDRESS,
    KERN_INVALID_ARGUMENT,
    KERN_SUCCESS,
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_USER_WIRED,
    OBJECT_MAPTYPES,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_SUBMAP,
    VM_MAPTYPE_UKSMAP,
    VM_MAPTYPE_VPAGETABLE,
    VmMap,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.map.wire import MapWire
from smpvm.vm.object.objects import VmObject
from smpvm.vm.param import (
    OBJ_NOMSYNC,
    OBJ_NOSPLIT,
    OBJ_ONEMAPPING,
    OBJPC_INVAL,
    OBJPC_SYNC,
    OBJT_DEFAULT,
    OBJT_DEVICE,
    OBJT_MGTDEVICE,
    OBJT_SWAP,
    OBJT_VNODE,
    VM_PROT_WRITE,
)

_ANONYMOUS = (OBJT_DEFAULT, OBJT_SWAP)
_INVALIDATED = (OBJT_VNODE, OBJT_DEVICE, OBJT_MGTDEVICE)


class MapDelete(MapWire):
    """vm_map_delete, vm_map_remove, vm_map_clean."""

    @c("vm_map_entry_unwire", "vm_map.c:2788-2794", blocks=True)
    @holds("map locked exclusively")
    def entry_unwire(self, map: VmMap, entry: VmMapEntry) -> None:
        """vm_map_entry_unwire (vm_map.c:2788-2794): drop all wirings of *entry* at once."""
        entry.eflags &= ~MAP_ENTRY_USER_WIRED
        entry.wired_count = 0
        self.vm.fault.unwire(map, entry)

    @c("vm_map_entry_delete", "vm_map.c:2801-2821", blocks=True)
    @holds("map locked exclusively")
    def entry_delete(self, map: VmMap, entry: VmMapEntry) -> None:
        """vm_map_entry_delete (vm_map.c:2801-2821).  Map locked exclusively.  Blocks.

        The C also passes a SUBMAP's pointer to vm_object_deallocate as if it were an object
        (submaps are never deleted there); that is left out here.
        """
        self.entry_unlink(map, entry)
        map.size -= entry.end - entry.start
        if entry.maptype in OBJECT_MAPTYPES:
            self.vm.object.deallocate(entry.object)
        self.entry_dispose(map, entry)

    @c("vm_map_delete", "vm_map.c:2828-2979", blocks=True)
    @holds(
        "map locked exclusively",
        "map locked exclusively (unlocked while it waits for a transition)",
    )
    def delete(self, map: VmMap, start: int, end: int) -> int:
        """vm_map_delete (vm_map.c:2828-2979): unmap [start, end).

        Map locked exclusively; unlocked while it waits for an entry in transition.  Blocks.  The
        order for each entry is: unwire, remove the mappings, drop the object reference.
        """
        self.assert_locked(map)
        map.token.get()
        entry = self._delete_from(map, start)
        while entry is not map.header and entry.start < end:
            if entry.eflags & MAP_ENTRY_IN_TRANSITION:
                start = entry.start
                self.transition_wait(map, entry)
                # The map was unlocked: look the position up again.
                entry = self._delete_from(map, start)
                continue
            self.clip_end(map, entry, end)
            nxt = entry.next
            # Unwiring finds the pages through the pmap, so it comes before the mappings are
            # removed.
            if entry.wired_count != 0:
                self.entry_unwire(map, entry)
            self._unmap_entry(map, entry)
            self.entry_delete(map, entry)
            entry = nxt
        map.token.release()
        return KERN_SUCCESS

    @c("vm_map_delete", "vm_map.c:2850-2868", part=True, blocks=True)
    @holds("map locked exclusively, map token")
    def _delete_from(self, map: VmMap, start: int) -> VmMapEntry:
        """The first entry to delete, clipped to *start*; moves the hints in front of it."""
        found, first = self.lookup_entry(map, start)
        if found:
            entry = first
            self.clip_start(map, entry, start)
            map.hint = entry.prev
        else:
            map.hint = first
            entry = first.next
        if entry is map.header:
            map.first_free = map.header
        elif map.first_free.start >= start:
            map.first_free = entry.prev
        return entry

    @c("vm_map_delete", "vm_map.c:2900-2966", part=True, blocks=True)
    @holds("map locked exclusively, map token")
    def _unmap_entry(self, map: VmMap, entry: VmMapEntry) -> None:
        """Remove the mappings of *entry*, and the pages of its object that become unreachable."""
        pmap, objects = self.vm.pmap, self.vm.object
        obj: VmObject | None = entry.vm_object
        first = off_to_idx(entry.offset)
        last = first + entry.pages
        if obj is None:
            if entry.maptype == VM_MAPTYPE_UKSMAP:
                pmap.remove(map.pmap, entry.start, entry.end)
        elif obj is self.vm.kernel_object:
            objects.hold(obj)
            objects.page_remove(obj, first, last, False)
            objects.drop(obj)
        elif obj.type not in _ANONYMOUS:
            objects.hold_shared(obj)
            pmap.remove(map.pmap, entry.start, entry.end)
            objects.drop(obj)
        else:
            objects.hold(obj)
            # The object may be trimmed and collapsed below.
            objects.chain_acquire(obj, False)
            pmap.remove(map.pmap, entry.start, entry.end)
            self._trim_object(obj, first, last)
            objects.chain_release(obj)
            objects.drop(obj)

    @c("vm_map_delete", "vm_map.c:2943-2961", part=True, blocks=True)
    @holds("obj held exclusively and chain locked")
    def _trim_object(self, obj: VmObject, first: int, last: int) -> None:
        """Free pages [first, last) of an object that only this map uses, through several entries.

        *obj* is held exclusively and chain locked (vm_map.c:2917-2933).
        """
        if (
            obj.ref_count == 1
            or obj.flags & (OBJ_NOSPLIT | OBJ_ONEMAPPING) != OBJ_ONEMAPPING
            or obj.type not in _ANONYMOUS
        ):
            return
        self.k.curthread().hit("vm_map_delete:trim")
        self.vm.object.collapse(obj, None)
        self.vm.object.page_remove(obj, first, last, False)
        if obj.type == OBJT_SWAP:
            self.vm.swap.freespace(obj, first, last - first)
        if last >= obj.size and first < obj.size:
            obj.size = first

    @c("vm_map_remove", "vm_map.c:2987-3001", blocks=True)
    @holds("map not locked", "")
    def remove(self, map: VmMap, start: int, end: int) -> int:
        """vm_map_remove (vm_map.c:2987-3001): lock the map and delete the range."""
        self.lock(map)
        start, end = self.range_check(map, start, end)
        rv = self.delete(map, start, end)
        self.unlock(map)
        return rv

    # -- msync

    @c("vm_map_clean", "vm_map.c:2606-2781", blocks=True)
    @holds("map not locked", "")
    def clean(self, map: VmMap, start: int, end: int, syncio: bool, invalidate: bool) -> int:
        """vm_map_clean (vm_map.c:2606-2781): write the dirty file pages of [start, end).

        Locks the map shared and takes its token; blocks on vnode locks and I/O.  *syncio* waits for
        the writes, *invalidate* also frees the pages.  Returns KERN_*; holes are an error.
        """
        self.lock_read(map)
        start, end = self.range_check(map, start, end)
        found, first = self.lookup_entry(map, start)
        if not found:
            self.unlock_read(map)
            return KERN_INVALID_ADDRESS
        map.token.get()
        rv = self._clean_check(map, first, end)
        if rv == KERN_SUCCESS:
            if invalidate:
                self.vm.pmap.remove(map.pmap, start, end)
            current = first
            while current is not map.header and current.start < end:
                start += self._clean_entry(current, start, end, syncio, invalidate)
                current = current.next
        map.token.release()
        self.unlock_read(map)
        return rv

    @c("vm_map_clean", "vm_map.c:2628-2641", part=True)
    @holds("map locked shared, map token")
    def _clean_check(self, map: VmMap, current: VmMapEntry, end: int) -> int:
        """The first pass of vm_map_clean (vm_map.c:2628-2641): no submaps, no holes.

        The C does not test for the header, whose ``start`` is the lowest address.  A range that
        ends with the map's last entry therefore runs round the ring again, until it meets a hole
        (then an error), or for ever.  The last entry of a process is its stack, which hides the
        defect.
        """
        while current.start < end and not self.clean_past_end(map, current):
            if current.maptype == VM_MAPTYPE_SUBMAP:
                return KERN_INVALID_ARGUMENT
            nxt = current.next
            if current is map.header:
                self.k.carrier.relax(map)
            if end > current.end and (nxt is map.header or current.end != nxt.start):
                return KERN_INVALID_ADDRESS
            current = nxt
        return KERN_SUCCESS

    @c("vm_map_clean", "vm_map.c:2628", part=True)
    @holds("map locked shared, map token")
    def clean_past_end(self, map: VmMap, current: VmMapEntry) -> bool:
        """Has the first pass of vm_map_clean reached the header?  The C does not test this."""
        return False

    @c("vm_map_clean", "vm_map.c:2651-2774", part=True, blocks=True)
    @holds("map locked shared, map token")
    def _clean_entry(
        self, entry: VmMapEntry, start: int, end: int, syncio: bool, invalidate: bool
    ) -> int:
        """Clean the part of *entry* from *start* on; returns the number of bytes covered."""
        offset = entry.offset + (start - entry.start)
        size = min(end, entry.end) - start
        obj = entry.vm_object
        if obj is None:
            return size
        self.vm.object.hold(obj)
        obj, offset, size = self._file_object(obj, offset, size)
        low, high = off_to_idx(offset), off_to_idx(offset + size + 0xFFF)
        if (
            obj.type == OBJT_VNODE
            and entry.protection & VM_PROT_WRITE
            and not obj.flags & OBJ_NOMSYNC
        ):
            flags = OBJPC_SYNC if syncio or invalidate else 0
            flags |= OBJPC_INVAL if invalidate else 0
            # Waiting for the vnode releases the object's token: the reference keeps the object
            # alive.
            self.vm.object.reference_locked(obj)
            vp = obj.handle
            self.k.vnode.vn_lock(vp, LK_EXCLUSIVE | LK_RETRY)
            if entry.maptype == VM_MAPTYPE_NORMAL:
                self.vm.object.page_clean(obj, low, high, flags)
            elif entry.maptype == VM_MAPTYPE_VPAGETABLE:
                self.vm.object.page_clean(obj, 0, 0, flags)
            self.k.vnode.vn_unlock(vp)
            self.vm.object.deallocate_locked(obj)
        if invalidate and obj.type in _INVALIDATED:
            self.vm.object.reference_locked(obj)
            clean_only = obj.type == OBJT_VNODE
            if entry.maptype == VM_MAPTYPE_NORMAL:
                self.vm.object.page_remove(obj, low, high, clean_only)
            elif entry.maptype == VM_MAPTYPE_VPAGETABLE:
                self.vm.object.page_remove(obj, 0, 0, clean_only)
            self.vm.object.deallocate_locked(obj)
        self.vm.object.drop(obj)
        return size

    @c("vm_map_clean", "vm_map.c:2694-2707", part=True, blocks=True)
    @holds("obj held", "the object returned held instead")
    def _file_object(self, obj: VmObject, offset: int, size: int) -> tuple[VmObject, int, int]:
        """Go from a held object one step down its chain (as the C does), hand over hand.

        Returns the object now held, the byte offset in it, and the size clipped to its end.
        """
        objects = self.vm.object
        while (below := obj.backing_object) is not None:
            objects.hold(below)
            if below is obj.backing_object:
                objects.lock_swap()
                offset += obj.backing_object_offset
                objects.drop(obj)
                if below.size < off_to_idx(offset + size):
                    size = (below.size << 12) - offset
                return below, offset, size
            objects.drop(below)
        return obj, offset, size
