"""Clipping entries to a range, and the calls that change a range (vm_map.c:1460-2191)."""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.kern.errno import EINVAL
from smpvm.vm.map.base import pages_of
from smpvm.vm.map.entry import (
    KERN_INVALID_ARGUMENT,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_BEHAV_MASK,
    MAP_ENTRY_BEHAV_NORMAL,
    MAP_ENTRY_BEHAV_RANDOM,
    MAP_ENTRY_BEHAV_SEQUENTIAL,
    MAP_ENTRY_COW,
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_NEEDS_WAKEUP,
    MAP_ENTRY_NOCOREDUMP,
    MAP_ENTRY_NOSYNC,
    VM_INHERIT_COPY,
    VM_INHERIT_NONE,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_SUBMAP,
    VmMap,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.map.insert import MapInsert
from smpvm.vm.param import MAP_PREFAULT_MADVISE, VM_PROT_ALL, VM_PROT_WRITE

# madvise behaviours (sys/mman.h)
MADV_NORMAL = 0
MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_WILLNEED = 3
MADV_DONTNEED = 4
MADV_FREE = 5
MADV_NOSYNC = 6
MADV_AUTOSYNC = 7
MADV_NOCORE = 8
MADV_CORE = 9
MADV_INVAL = 10

_BEHAVIOUR = {
    MADV_NORMAL: MAP_ENTRY_BEHAV_NORMAL,
    MADV_SEQUENTIAL: MAP_ENTRY_BEHAV_SEQUENTIAL,
    MADV_RANDOM: MAP_ENTRY_BEHAV_RANDOM,
}
_MODIFY = (*_BEHAVIOUR, MADV_NOSYNC, MADV_AUTOSYNC, MADV_NOCORE, MADV_CORE, MADV_INVAL)
_OBJECT = (MADV_WILLNEED, MADV_DONTNEED, MADV_FREE)


class MapClip(MapInsert):
    """Clip, protect, madvise, inherit."""

    @c("vm_map_clip_start", "vm_map.c:1466-1470", blocks=True)
    @c("_vm_map_clip_start", "vm_map.c:1477-1524")
    @holds("map locked exclusively")
    def clip_start(self, map: VmMap, entry: VmMapEntry, start: int) -> None:
        """vm_map_clip_start, _vm_map_clip_start (vm_map.c:1466-1470).

        Make *entry* start at *start*.

        Map locked exclusively.  The part before it becomes a new entry in front.  May block.
        """
        if start <= entry.start:
            return
        # As in the C: the neighbours may have become equal since, so merge before clipping.
        self.simplify_entry(map, entry)
        self._ensure_object(map, entry)
        new = self.entry_clone(entry)
        new.end = start
        entry.offset += start - entry.start
        # The tree is ordered by start address: re-insert the entry under its new one.
        map.tree_remove(entry)
        entry.start = start
        if map.tree_insert(entry):
            self.k.panic("map-duplicate", f"{map} {entry}")
        self.entry_link(map, entry.prev, new)
        self._reference_clip(new)

    @c("vm_map_clip_end", "vm_map.c:1532-1536", blocks=True)
    @c("_vm_map_clip_end", "vm_map.c:1543-1586")
    @holds("map locked exclusively")
    def clip_end(self, map: VmMap, entry: VmMapEntry, end: int) -> None:
        """vm_map_clip_end, _vm_map_clip_end (vm_map.c:1532-1536): make *entry* end at *end*.

        Map locked exclusively.  The part after it becomes a new entry behind.  May block.
        """
        if end >= entry.end:
            return
        self._ensure_object(map, entry)
        new = self.entry_clone(entry)
        new.start = entry.end = end
        new.offset += end - entry.start
        self.entry_link(map, entry, new)
        self._reference_clip(new)

    @c("_vm_map_clip_start", "vm_map.c:1498-1500", part=True, blocks=True)
    @c("_vm_map_clip_end", "vm_map.c:1557-1559", part=True)
    @holds("map locked exclusively")
    def _ensure_object(self, map: VmMap, entry: VmMapEntry) -> None:
        """Allocate the deferred object now, so that both halves of the clip share one object."""
        if entry.object is None and not map.system_map:
            self.entry_allocate_object(entry)

    @c("_vm_map_clip_start", "vm_map.c:1511-1523", part=True, blocks=True)
    @c("_vm_map_clip_end", "vm_map.c:1573-1585", part=True)
    @holds("map locked exclusively")
    def _reference_clip(self, new: VmMapEntry) -> None:
        """The second half needs its own reference on the object."""
        obj = new.vm_object
        if obj is not None:
            objects = self.vm.object
            objects.hold(obj)
            objects.chain_wait(obj, False)
            objects.reference_locked(obj)
            objects.drop(obj)

    @c("vm_map_clip_range", "vm_map.c:1658-1743", blocks=True)
    @holds(
        "map locked exclusively",
        "map locked exclusively (unlocked while it waits); the range IN_TRANSITION unless None",
    )
    def clip_range(self, map: VmMap, start: int, end: int, no_holes: bool) -> VmMapEntry | None:
        """vm_map_clip_range (vm_map.c:1658-1743): clip [start, end) and mark it IN_TRANSITION.

        Map locked exclusively on entry and return, unlocked while it waits for other transitions.
        Returns the first entry; None if nothing is mapped there, or for holes with *no_holes*.

        Other threads do not merge or delete an entry in transition, so the caller may unlock the
        map and still find the range.
        """
        while True:
            found, first = self.lookup_entry(map, start)
            if not found:
                return None
            if not first.eflags & MAP_ENTRY_IN_TRANSITION:
                break
            self.transition_wait(map, first)
        entry = first
        self.clip_start(map, entry, start)
        self.clip_end(map, entry, end)
        entry.eflags |= MAP_ENTRY_IN_TRANSITION
        while entry.next is not map.header and entry.next.start < end:
            nxt = entry.next
            if no_holes and nxt.start > entry.end:
                self.unclip_range(map, first, start, entry.end)
                return None
            if nxt.eflags & MAP_ENTRY_IN_TRANSITION:
                # transition_wait unlocks the map: others may clip the entries of our range further,
                # so find the pieces at its two ends again.
                save_end = entry.end
                self.transition_wait(map, nxt)
                entry = self.check_fwd(map, entry, save_end)
                first = self.check_back(map, first, start)
                continue
            self.clip_end(map, nxt, end)
            nxt.eflags |= MAP_ENTRY_IN_TRANSITION
            entry = nxt
        if no_holes and entry.end != end:
            self.unclip_range(map, first, start, entry.end)
            return None
        return first

    @c("vm_map_unclip_range", "vm_map.c:1762-1795", blocks=True)
    @holds("map locked exclusively; the range IN_TRANSITION", "map locked exclusively")
    def unclip_range(self, map: VmMap, first: VmMapEntry, start: int, end: int) -> None:
        """vm_map_unclip_range (vm_map.c:1762-1795): end the transition, wake the waiters, merge.

        Map locked exclusively.  *first* is the entry that starts at *start*.
        """
        self.k.kassert(first.start == start, "map-unclip-base", str(map))
        entry = first
        while entry is not map.header and entry.start < end:
            self.k.kassert(
                entry.eflags & MAP_ENTRY_IN_TRANSITION and entry.end <= end,
                "map-unclip-entry",
                f"{map} {entry}",
            )
            entry.eflags &= ~MAP_ENTRY_IN_TRANSITION
            if entry.eflags & MAP_ENTRY_NEEDS_WAKEUP:
                entry.eflags &= ~MAP_ENTRY_NEEDS_WAKEUP
                self.k.sleep.wakeup(map)
            entry = entry.next
        entry = first
        while entry is not map.header and entry.start < end:
            # Only now: an entry in transition cannot be merged.
            self.simplify_entry(map, entry)
            entry = entry.next

    @c("vm_map_submap", "vm_map.c:1808-1839", blocks=True, uncalled=True)
    @holds("map not locked", "")
    def submap(self, map: VmMap, start: int, end: int, sub: VmMap) -> int:
        """vm_map_submap (vm_map.c:1808-1839): let *sub* handle a range that has no object."""
        rv = KERN_INVALID_ARGUMENT
        self.lock(map)
        start, end = self.range_check(map, start, end)
        entry = self._clipped_first(map, start)
        if entry is not map.header:
            self.clip_end(map, entry, end)
        if (
            entry.start == start
            and entry.end == end
            and not entry.eflags & MAP_ENTRY_COW
            and entry.object is None
        ):
            entry.object = sub
            entry.maptype = VM_MAPTYPE_SUBMAP
            rv = KERN_SUCCESS
        self.unlock(map)
        return rv

    @c("vm_map_protect", "vm_map.c:1867-1871", part=True, blocks=True)
    @c("vm_map_submap", "vm_map.c:1820-1824", part=True)
    @c("vm_map_madvise", "vm_map.c:1993-1998", part=True)
    @c("vm_map_inherit", "vm_map.c:2173-2177", part=True)
    @holds("map locked exclusively")
    def _clipped_first(self, map: VmMap, start: int) -> VmMapEntry:
        """The first entry that ends after *start*, clipped if it contains *start*."""
        found, entry = self.lookup_entry(map, start)
        if not found:
            return entry.next
        self.clip_start(map, entry, start)
        return entry

    @c("vm_map_protect", "vm_map.c:1854-1934", blocks=True)
    @holds("map not locked", "")
    def protect(self, map: VmMap, start: int, end: int, prot: int, set_max: bool) -> int:
        """vm_map_protect (vm_map.c:1854-1934).

        Set the protection, or maximum protection, of a range.

        Locks the map; blocks.  As in the C, the map's token is *not* taken.
        """
        self.lock(map)
        start, end = self.range_check(map, start, end)
        first = self._clipped_first(map, start)
        # First pass: check the whole range before anything is changed.
        current = first
        while current is not map.header and current.start < end:
            if current.maptype == VM_MAPTYPE_SUBMAP:
                self.unlock(map)
                return KERN_INVALID_ARGUMENT
            if prot & current.max_protection != prot:
                self.unlock(map)
                return KERN_PROTECTION_FAILURE
            current = current.next
        current = first
        while current is not map.header and current.start < end:
            self.clip_end(map, current, end)
            old = current.protection
            if set_max:
                current.max_protection = prot
                current.protection = prot & old
            else:
                current.protection = prot
            if current.protection != old:
                mask = VM_PROT_ALL
                if current.eflags & MAP_ENTRY_COW:
                    # Writes to a copy-on-write entry must fault.
                    mask &= ~VM_PROT_WRITE
                self.vm.pmap.protect(
                    map.pmap, current.start, current.end, current.protection & mask
                )
            self.simplify_entry(map, current)
            current = current.next
        self.unlock(map)
        return KERN_SUCCESS

    @c("vm_map_madvise", "vm_map.c:1946-2143", blocks=True)
    @holds("map not locked", "")
    def madvise(self, map: VmMap, start: int, end: int, behav: int) -> int:
        """vm_map_madvise (vm_map.c:1946-2143): advice stored in entries, or applied to objects.

        Locks the map (exclusively for the former, shared for the latter); blocks.  Returns 0 or
        EINVAL.  Left out: MADV_SETMAP (virtual page tables).
        """
        if behav in _MODIFY:
            self.lock(map)
            start, end = self.range_check(map, start, end)
            current = self._clipped_first(map, start)
            while current is not map.header and current.start < end:
                if current.maptype != VM_MAPTYPE_SUBMAP:
                    self.clip_end(map, current, end)
                    self._advise_entry(map, current, behav)
                    self.simplify_entry(map, current)
                current = current.next
            self.unlock(map)
            return 0
        if behav not in _OBJECT:
            return EINVAL
        self.lock_read(map)
        start, end = self.range_check(map, start, end)
        found, current = self.lookup_entry(map, start)
        if not found:
            current = current.next
        while current is not map.header and current.start < end:
            if current.maptype == VM_MAPTYPE_NORMAL:
                self._advise_object(map, current, start, end, behav)
            current = current.next
        self.unlock_read(map)
        return 0

    @c("vm_map_madvise", "vm_map.c:2016-2076", part=True, blocks=True)
    @holds("map locked exclusively")
    def _advise_entry(self, map: VmMap, entry: VmMapEntry, behav: int) -> None:
        """Advice that is stored in the entry."""
        if behav in _BEHAVIOUR:
            entry.eflags = entry.eflags & ~MAP_ENTRY_BEHAV_MASK | _BEHAVIOUR[behav]
        elif behav == MADV_NOSYNC:
            entry.eflags |= MAP_ENTRY_NOSYNC
        elif behav == MADV_AUTOSYNC:
            entry.eflags &= ~MAP_ENTRY_NOSYNC
        elif behav == MADV_NOCORE:
            entry.eflags |= MAP_ENTRY_NOCOREDUMP
        elif behav == MADV_CORE:
            entry.eflags &= ~MAP_ENTRY_NOCOREDUMP
        elif behav == MADV_INVAL:
            self.vm.pmap.remove(map.pmap, entry.start, entry.end)

    @c("vm_map_madvise", "vm_map.c:2100-2137", part=True, blocks=True)
    @holds("map locked shared")
    def _advise_object(
        self, map: VmMap, entry: VmMapEntry, start: int, end: int, behav: int
    ) -> None:
        """Advice that acts on pages, for the part of *entry* inside [start, end)."""
        low, high = max(entry.start, start), min(entry.end, end)
        pindex = off_to_idx(entry.offset + (low - entry.start))
        count = pages_of(high - low)
        if count <= 0:
            return
        self.vm.object.madvise(entry.vm_object, pindex, count, behav)
        if behav == MADV_WILLNEED:
            self.vm.pmap.object_init_pt(
                map.pmap,
                low,
                entry.protection,
                entry.vm_object,
                pindex,
                high - low,
                MAP_PREFAULT_MADVISE,
            )

    @c("vm_map_inherit", "vm_map.c:2151-2191", blocks=True)
    @holds("map not locked", "")
    def inherit(self, map: VmMap, start: int, end: int, inheritance: int) -> int:
        """vm_map_inherit (vm_map.c:2151-2191): set what fork does with a range.  Locks the map."""
        if inheritance not in (VM_INHERIT_NONE, VM_INHERIT_COPY, VM_INHERIT_SHARE):
            return KERN_INVALID_ARGUMENT
        self.lock(map)
        start, end = self.range_check(map, start, end)
        entry = self._clipped_first(map, start)
        while entry is not map.header and entry.start < end:
            self.clip_end(map, entry, end)
            entry.inheritance = inheritance
            self.simplify_entry(map, entry)
            entry = entry.next
        self.unlock(map)
        return KERN_SUCCESS

    @c("vm_map_check_protection", "vm_map.c:3009-3057", blocks=True)
    @holds("map locked if have_lock")
    def check_protection(
        self, map: VmMap, start: int, end: int, prot: int, have_lock: bool
    ) -> bool:
        """vm_map_check_protection (vm_map.c:3009-3057): is all of [start, end) mapped with *prot*?

        Locks the map shared unless *have_lock*.
        """
        if not have_lock:
            self.lock_read(map)
        found, entry = self.lookup_entry(map, start)
        ok = found
        while ok and start < end:
            if entry is map.header or start < entry.start or entry.protection & prot != prot:
                ok = False
                break
            start = entry.end
            entry = entry.next
        if not have_lock:
            self.unlock_read(map)
        return ok


__all__ = ["MapClip"]
