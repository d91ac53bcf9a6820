"""Making mappings: vm_map_insert, find space, simplify (vm_map.c:982-1460)."""

from __future__ import annotations

from typing import Any

from smpvm.kern.cname import c, holds
from smpvm.vm.map.base import MapBase
from smpvm.vm.map.entry import (
    KERN_INVALID_ADDRESS,
    KERN_NO_SPACE,
    KERN_SUCCESS,
    MAP_ENTRY_COW,
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_KSTACK,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_NOCOREDUMP,
    MAP_ENTRY_NOFAULT,
    MAP_ENTRY_NOSYNC,
    MAP_ENTRY_STACK,
    VM_INHERIT_DEFAULT,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_SUBMAP,
    VM_MAPTYPE_UKSMAP,
    VM_MAPTYPE_VPAGETABLE,
    VmMap,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.object.objects import VmObject
from smpvm.vm.param import (
    MAP_COPY_ON_WRITE,
    MAP_DISABLE_COREDUMP,
    MAP_DISABLE_SYNCER,
    MAP_IS_KSTACK,
    MAP_IS_STACK,
    MAP_NOFAULT,
    MAP_PREFAULT,
    MAP_PREFAULT_PARTIAL,
    MAP_PREFAULT_RELOCK,
    OBJ_ONEMAPPING,
)

_PROTO_EFLAGS = (
    (MAP_COPY_ON_WRITE, MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY),
    (MAP_NOFAULT, MAP_ENTRY_NOFAULT),
    (MAP_DISABLE_SYNCER, MAP_ENTRY_NOSYNC),
    (MAP_DISABLE_COREDUMP, MAP_ENTRY_NOCOREDUMP),
    (MAP_IS_STACK, MAP_ENTRY_STACK),
    (MAP_IS_KSTACK, MAP_ENTRY_KSTACK),
)


class MapInsert(MapBase):
    """Inserting entries, and merging neighbouring entries."""

    @c("vm_map_insert", "vm_map.c:986-1197", blocks=True)
    @holds("map locked exclusively; the object, if any, held and referenced")
    def insert(
        self,
        map: VmMap,
        map_object: Any,
        map_aux: Any,
        offset: int,
        start: int,
        end: int,
        maptype: int,
        prot: int,
        max_prot: int,
        cow: int,
    ) -> int:
        """vm_map_insert (vm_map.c:986-1197).

        Map [start, end) to *map_object* from byte *offset* on.

        Map locked exclusively; the object (None for deferred anonymous memory) is held, and already
        referenced for the new entry.  May block.  *cow* is a set of MAP_* bits (MAP_COPY_ON_WRITE,
        ...).  Returns a KERN_* code.
        """
        obj: VmObject | None = None if maptype == VM_MAPTYPE_UKSMAP else map_object
        self.assert_locked(map)
        if start < map.min_offset or end > map.max_offset or start >= end:
            return KERN_INVALID_ADDRESS
        found, prev = self.lookup_entry(map, start)
        if found:
            return KERN_NO_SPACE
        if prev.next is not map.header and prev.next.start < end:
            return KERN_NO_SPACE
        eflags = 0
        for bit, flags in _PROTO_EFLAGS:
            if cow & bit:
                eflags |= flags
        self.k.kassert(obj is None or not cow & MAP_NOFAULT, "map-insert-nofault", str(map))
        map.token.get()
        must_drop = False
        if obj is not None:
            # Mapped more than once from now on: freeing a range of the object would hit the other
            # mapping.
            if obj.ref_count > 1 or obj.shadow_count != 0:
                self.vm.object.clear_flag(obj, OBJ_ONEMAPPING)
        elif self._extends(map, prev, start, end, maptype, eflags):
            if (
                prev.inheritance == VM_INHERIT_DEFAULT
                and prev.protection == prot
                and prev.max_protection == max_prot
            ):
                self.k.curthread().hit("vm_map_insert:coalesced")
                # The anonymous object of the previous entry covers the new range, and the
                # attributes are equal: extend that entry instead of adding one.
                map.size += end - prev.end
                prev.end = end
                self.simplify_entry(map, prev)
                map.token.release()
                return KERN_SUCCESS
            # Same object, but different attributes: a new entry that shares the previous one's
            # object.
            obj = prev.vm_object
            offset = prev.offset + (prev.end - prev.start)
            if obj is not None:
                self.vm.object.hold(obj)
                # References may only be added while no collapse is in progress on the object.
                self.vm.object.chain_wait(obj, False)
                self.vm.object.reference_locked(obj)
                must_drop = True
                map_object = obj
        new = self.entry_create()
        new.start, new.end = start, end
        new.maptype = maptype
        new.eflags = eflags
        new.object = map_object
        new.aux = map_aux if map_aux is not None else 0
        new.offset = offset
        new.protection = prot
        new.max_protection = max_prot
        self.entry_link(map, prev, new)
        map.size += end - start
        if map.first_free is prev and prev.end == start:
            map.first_free = new
        self._prefault(map, new, obj, prot, cow)
        if must_drop and obj is not None:
            self.vm.object.drop(obj)
        map.token.release()
        return KERN_SUCCESS

    @c("vm_map_insert", "vm_map.c:1069-1079", part=True, blocks=True)
    @holds("map locked exclusively, map token")
    def _extends(
        self, map: VmMap, prev: VmMapEntry, start: int, end: int, maptype: int, eflags: int
    ) -> bool:
        """Can the object of *prev* be extended over [start, end)?  If so, extends it."""
        if (
            prev is map.header
            or prev.eflags != eflags
            or prev.end != start
            or prev.wired_count != 0
            or prev.maptype != maptype
            or maptype != VM_MAPTYPE_NORMAL
        ):
            return False
        obj = prev.vm_object
        return obj is None or self.vm.object.coalesce(
            obj, off_to_idx(prev.offset), prev.end - prev.start, end - prev.end
        )

    @c("vm_map_insert", "vm_map.c:1175-1191", part=True, blocks=True)
    @holds(
        "map locked exclusively, map token; obj held if any",
        "map locked exclusively, map token; obj dropped meanwhile with MAP_PREFAULT_RELOCK",
    )
    def _prefault(
        self, map: VmMap, entry: VmMapEntry, obj: VmObject | None, prot: int, cow: int
    ) -> None:
        """Pre-populate the page table at the end of vm_map_insert (vm_map.c:1175-1191)."""
        if not cow & (MAP_PREFAULT | MAP_PREFAULT_PARTIAL):
            return
        if entry.maptype in (VM_MAPTYPE_VPAGETABLE, VM_MAPTYPE_UKSMAP):
            return
        relock = bool(cow & MAP_PREFAULT_RELOCK) and obj is not None
        if relock and obj is not None:
            # object_init_pt holds the object shared: release the caller's exclusive token for that
            # time.
            self.vm.object.lock_swap()
            self.vm.object.drop(obj)
        self.vm.pmap.object_init_pt(
            map.pmap,
            entry.start,
            prot,
            obj,
            off_to_idx(entry.offset),
            entry.end - entry.start,
            cow & MAP_PREFAULT_PARTIAL,
        )
        if relock and obj is not None:
            self.vm.object.hold(obj)
            self.vm.object.lock_swap()

    @c("vm_map_findspace", "vm_map.c:1214-1324")
    @holds("map locked exclusively")
    def findspace(self, map: VmMap, start: int, length: int, align: int) -> int | None:
        """vm_map_findspace (vm_map.c:1214-1324).

        The first gap of *length* bytes at or above *start*.

        Map locked exclusively.  *align* in bytes.  Returns the address, or None.  Room into which a
        stack may still grow is not used (the C's behaviour without MAP_STACK).
        """
        start = max(start, map.min_offset)
        if start > map.max_offset:
            return None
        if start == map.min_offset:
            entry = map.first_free
            if entry is not map.header:
                start = entry.end
        else:
            found, entry = self.lookup_entry(map, start)
            if found:
                start = entry.end
        while True:
            start = -(-start // align) * align
            end = start + length
            if end > map.max_offset:
                return None
            nxt = entry.next
            if nxt is map.header:
                break
            if nxt.start >= end:
                if not nxt.eflags & MAP_ENTRY_STACK:
                    break
                # The gap below a stack is partly reserved for its growth.
                if nxt.start - nxt.aux >= end:
                    break
            entry = nxt
            start = entry.end
        map.hint = entry
        return start

    @c("vm_map_find", "vm_map.c:1337-1381", blocks=True)
    @holds("map not locked; the object referenced", "")
    def find(
        self,
        map: VmMap,
        map_object: Any,
        map_aux: Any,
        offset: int,
        addr: int,
        length: int,
        align: int,
        fitit: bool,
        maptype: int,
        prot: int,
        max_prot: int,
        cow: int,
    ) -> tuple[int, int]:
        """vm_map_find (vm_map.c:1337-1381): map *length* bytes at *addr*, or above it (*fitit*).

        The object is already referenced for the new entry.  Locks the map; blocks.  Returns (KERN_*
        code, address).
        """
        obj: VmObject | None = None if maptype == VM_MAPTYPE_UKSMAP else map_object
        self.lock(map)
        if obj is not None:
            self.vm.object.hold_shared(obj)
        start = addr
        if fitit:
            space = self.findspace(map, start, length, align)
            if space is None:
                if obj is not None:
                    self.vm.object.drop(obj)
                self.unlock(map)
                return KERN_NO_SPACE, addr
            start = space
        rv = self.insert(
            map,
            map_object,
            map_aux,
            offset,
            start,
            start + length,
            maptype,
            prot,
            max_prot,
            cow,
        )
        if obj is not None:
            self.vm.object.drop(obj)
        self.unlock(map)
        return rv, start

    @c("vm_map_simplify_entry", "vm_map.c:1394-1460", blocks=True)
    @holds("map locked exclusively")
    def simplify_entry(self, map: VmMap, entry: VmMapEntry) -> None:
        """vm_map_simplify_entry (vm_map.c:1394-1460).

        Merge *entry* with its neighbours if possible.

        Map locked exclusively.  *entry* stays valid; neighbours may be freed.  May block (drops an
        object reference).  An entry in transition is left alone.
        """
        if entry.eflags & MAP_ENTRY_IN_TRANSITION:
            # The thread that made the transition may be asleep and will look for its entry again.
            self.k.curthread().hit("v_intrans_coll")
            return
        if entry.maptype in (VM_MAPTYPE_SUBMAP, VM_MAPTYPE_UKSMAP):
            return
        prev = entry.prev
        if prev is not map.header and self._mergeable(prev, entry):
            self._forget(map, prev, entry)
            entry.start = prev.start
            entry.offset = prev.offset
            self._gone(map, prev)
        nxt = entry.next
        if nxt is not map.header and self._mergeable(entry, nxt):
            self._forget(map, nxt, entry)
            entry.end = nxt.end
            self._gone(map, nxt)

    @c("vm_map_simplify_entry", "vm_map.c:1413-1422", part=True)
    @holds("map locked exclusively")
    def _mergeable(self, a: VmMapEntry, b: VmMapEntry) -> bool:
        """Whether *b* directly follows *a* and has the same attributes."""
        return (
            a.end == b.start
            and a.maptype == b.maptype
            and a.object is b.object
            and (a.object is None or a.offset + (a.end - a.start) == b.offset)
            and a.eflags == b.eflags
            and a.protection == b.protection
            and a.max_protection == b.max_protection
            and a.inheritance == b.inheritance
            and a.wired_count == b.wired_count
        )

    @c("vm_map_simplify_entry", "vm_map.c:1423-1427", part=True)
    @holds("map locked exclusively")
    def _forget(self, map: VmMap, old: VmMapEntry, kept: VmMapEntry) -> None:
        """Move the hints from *old* to *kept* and unlink *old*."""
        if map.first_free is old:
            map.first_free = kept
        if map.hint is old:
            map.hint = kept
        self.entry_unlink(map, old)

    @c("vm_map_simplify_entry", "vm_map.c:1430-1432", part=True, blocks=True)
    @holds("map locked exclusively")
    def _gone(self, map: VmMap, entry: VmMapEntry) -> None:
        """Drop the object reference of a merged entry and free the entry."""
        if entry.object is not None:
            self.vm.object.deallocate(entry.object)
        self.entry_dispose(map, entry)
