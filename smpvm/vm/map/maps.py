"""vm_map.c: maps, their entries, and address spaces, combined into one class.

    entry     the structures and constants
    base      locks, links, lookup by address
    insert    vm_map_insert, find space, simplify
    clip      clip, protect, madvise, inherit
    stack     stacks that grow
    wire      mlock and kernel wiring
    delete    delete, remove, clean (msync)
    copy      split, copy-on-write

``vmspace.py`` is a separate subsystem: struct vmspace, fork, exec, exit.

Lock order: p_token, then the vmspace (its map's token), then the map lock.
"""

from __future__ import annotations

from typing import NamedTuple

from smpvm.kern.cname import c, holds
from smpvm.vm.map.copy import MapCopy
from smpvm.vm.map.entry import (
    KERN_FAILURE_NOFAULT,
    KERN_INVALID_ADDRESS,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_COW,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_USER_WIRED,
    OBJECT_MAPTYPES,
    VM_MAPTYPE_SUBMAP,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_OVERRIDE_WRITE,
    VmMap,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.object.objects import VmObject
from smpvm.vm.param import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE

_ACCESS = VM_PROT_READ | VM_PROT_WRITE | VM_PROT_EXECUTE

TDF_NOFAULT = 0x1000_0000
"""td.flags: the thread must not take a fault that has to wait for I/O or to copy."""


class Lookup(NamedTuple):
    """The result of vm_map_lookup; on KERN_SUCCESS ``map`` is locked shared."""

    rv: int
    map: VmMap
    entry: VmMapEntry | None = None
    object: VmObject | None = None
    pindex: int = 0
    prot: int = 0
    wired: bool = False


class Maps(MapCopy):
    """vm_map.c."""

    @c("vm_map_lookup", "vm_map.c:3980-4190", blocks=True)
    @holds("map not locked", "on KERN_SUCCESS the map (returned) locked shared")
    def lookup(self, map: VmMap, vaddr: int, fault_type: int) -> Lookup:
        """vm_map_lookup (vm_map.c:3980-4190): the entry, object and page index of *vaddr*.

        The map is not locked on entry.  On success it is locked shared, until ``lookup_done``.  A
        write to a NEEDS_COPY entry puts a shadow object in place, and an entry without an object
        gets one, both with the map locked exclusively for that time.  Blocks.
        """
        use_read = True
        asked = fault_type
        while True:
            if use_read:
                self.lock_read(map)
            else:
                self.lock(map)
            entry = map.hint
            if entry is map.header or not entry.start <= vaddr < entry.end:
                found, entry = self.lookup_entry(map, vaddr)
                if not found:
                    self.unlock(map)
                    return Lookup(KERN_INVALID_ADDRESS, map)
            if entry.maptype == VM_MAPTYPE_SUBMAP:
                sub: VmMap = entry.object
                self.unlock(map)
                map, use_read = sub, True
                continue
            rv, prot, ftype = self._lookup_allowed(entry, fault_type, asked)
            if rv != KERN_SUCCESS:
                self.unlock(map)
                return Lookup(rv, map)
            wired = entry.wired_count != 0
            if wired:
                prot = ftype = entry.protection
            if entry.maptype == VM_MAPTYPE_VPAGETABLE and prot & VM_PROT_WRITE:
                ftype |= VM_PROT_WRITE
            asked = self.asked_again(fault_type, ftype)
            obj: VmObject | None = None
            if entry.maptype in OBJECT_MAPTYPES:
                needs_copy = entry.eflags & MAP_ENTRY_NEEDS_COPY
                if needs_copy and ftype & VM_PROT_WRITE:
                    if self.k.curthread().flags & TDF_NOFAULT:
                        self.unlock(map)
                        return Lookup(KERN_FAILURE_NOFAULT, map)
                    # Changing the entry needs the exclusive lock.  A failed upgrade has released
                    # the lock: take it exclusively and start over.
                    if use_read and self.lock_upgrade(map):
                        use_read = False
                        continue
                    use_read = False
                    self.entry_shadow(entry, False)
                elif needs_copy:
                    prot &= ~VM_PROT_WRITE
                if entry.object is None and not map.system_map:
                    if use_read and self.lock_upgrade(map):
                        use_read = False
                        continue
                    use_read = False
                    self.entry_allocate_object(entry)
                obj = entry.object
            pindex = off_to_idx((vaddr - entry.start) + entry.offset)
            if not use_read:
                self.lock_downgrade(map)
            return Lookup(KERN_SUCCESS, map, entry, obj, pindex, prot, wired)

    @c("vm_map_lookup", "vm_map.c:4056-4076", part=True)
    @holds("map locked")
    def asked_again(self, fault_type: int, ftype: int) -> int:
        """The access that a second try asks for, after a failed upgrade released the lock.

        By then the C has removed the override bit from its copy of *fault_type* (vm_map.c:4056),
        and for a wired entry replaced it by the entry's whole protection (vm_map.c:4076).
        """
        return ftype

    @c("vm_map_lookup", "vm_map.c:4051-4068", part=True)
    @holds("map locked")
    def _lookup_allowed(
        self, entry: VmMapEntry, fault_type: int, asked: int
    ) -> tuple[int, int, int]:
        """Is this access allowed at all?  Returns (KERN_*, protection, access asked for).

        *asked* is *fault_type*, or what is left of it after an earlier try.
        """
        if asked & VM_PROT_OVERRIDE_WRITE:
            prot = entry.max_protection
        else:
            prot = entry.protection
        ftype = asked & _ACCESS
        if ftype & prot != ftype:
            return KERN_PROTECTION_FAILURE, prot, ftype
        if (
            entry.eflags & MAP_ENTRY_USER_WIRED
            and entry.eflags & MAP_ENTRY_COW
            and ftype & VM_PROT_WRITE
            and not fault_type & VM_PROT_OVERRIDE_WRITE
        ):
            return KERN_PROTECTION_FAILURE, prot, ftype
        return KERN_SUCCESS, prot, ftype

    @c("vm_map_lookup_done", "vm_map.c:4198-4207")
    @holds("map locked shared", "map unlocked")
    def lookup_done(self, map: VmMap, entry: VmMapEntry | None = None) -> None:
        """vm_map_lookup_done (vm_map.c:4198-4207).

        Release the shared lock; *entry* is stale afterwards.
        """
        self.unlock_read(map)


__all__ = ["Lookup", "Maps", "VmMap", "VmMapEntry"]
