"""Wiring and unwiring ranges (vm_map.c:2183-2593)."""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.vm.map.entry import (
    KERN_INVALID_ADDRESS,
    KERN_INVALID_ARGUMENT,
    KERN_SUCCESS,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_USER_WIRED,
    OBJECT_MAPTYPES,
    VmMap,
    VmMapEntry,
)
from smpvm.vm.map.stack import MapStack
from smpvm.vm.param import VM_PROT_WRITE

KM_PAGEABLE = 0x0001
KM_KRESERVE = 0x0002
KM_NOTLBSYNC = 0x0008


class MapWire(MapStack):
    """mlock (user wiring) and vslock (kernel wiring)."""

    @c("vm_map_unwire", "vm_map.c:2196-2359", blocks=True)
    @holds("map not locked", "")
    def unwire(self, map: VmMap, start: int, end: int, new_pageable: bool) -> int:
        """vm_map_unwire (vm_map.c:2196-2359): despite its name, mlock (False) and munlock (True).

        Locks the map, which is unlocked while pages are faulted in; blocks.  Returns KERN_*.
        """
        self.lock(map)
        start, end = self.range_check(map, start, end)
        real_end = end
        first = self.clip_range(map, start, end, no_holes=True)
        if first is None:
            self.unlock(map)
            return KERN_INVALID_ADDRESS
        rv = KERN_SUCCESS
        if not new_pageable:
            rv, end = self._user_wire(map, first, end)
            # The map was unlocked while pages were faulted in: entries may have been clipped.
            first = self.check_back(map, first, start)
        if new_pageable or rv != KERN_SUCCESS:
            undone = self._user_unwire(map, first, end)
            if undone != KERN_SUCCESS:
                rv = undone
        self.unclip_range(map, first, start, real_end)
        map.timestamp += 1
        self.unlock(map)
        return rv

    @c("vm_map_unwire", "vm_map.c:2220-2289", part=True, blocks=True)
    @holds(
        "map locked exclusively; the range IN_TRANSITION",
        "map locked exclusively; the range IN_TRANSITION (unlocked in between)",
    )
    def _user_wire(self, map: VmMap, first: VmMapEntry, end: int) -> tuple[int, int]:
        """Wire each entry of the range; returns (KERN_*, end of the wired part)."""
        entry = first
        while entry is not map.header and entry.start < end:
            if entry.eflags & MAP_ENTRY_USER_WIRED:
                entry = entry.next
                continue
            if entry.wired_count != 0:
                entry.wired_count += 1
                entry.eflags |= MAP_ENTRY_USER_WIRED
                entry = entry.next
                continue
            self._instantiate(map, entry)
            entry.wired_count += 1
            entry.eflags |= MAP_ENTRY_USER_WIRED
            # wire() unlocks the map: the entry may be clipped until it returns.
            save_start, save_end = entry.start, entry.end
            rv = self.vm.fault.wire(map, entry, True, 0)
            if rv != KERN_SUCCESS:
                self._back_out(map, entry, save_start, save_end)
                return rv, save_start
            entry = entry.next
        return KERN_SUCCESS, end

    @c("vm_map_unwire", "vm_map.c:2244-2255", part=True, blocks=True)
    @c("vm_map_wire", "vm_map.c:2442-2453", part=True)
    @holds("map locked exclusively")
    def _instantiate(self, map: VmMap, entry: VmMapEntry) -> None:
        """Give a newly wired entry the object it needs: a shadow, or its deferred object."""
        if entry.maptype not in OBJECT_MAPTYPES:
            return
        if entry.eflags & MAP_ENTRY_NEEDS_COPY and entry.protection & VM_PROT_WRITE:
            self.entry_shadow(entry, False)
        elif entry.object is None and not map.system_map:
            self.entry_allocate_object(entry)

    @c("vm_map_unwire", "vm_map.c:2269-2278", part=True)
    @c("vm_map_wire", "vm_map.c:2495-2503", part=True)
    @holds("map locked exclusively")
    def _back_out(self, map: VmMap, entry: VmMapEntry, start: int, end: int) -> None:
        """Undo the wiring of the pieces of one entry whose pages could not be wired."""
        entry = self.check_back(map, entry, start)
        while True:
            self.k.kassert(entry.wired_count == 1, "map-wired-count", f"{map} {entry}")
            entry.eflags &= ~MAP_ENTRY_USER_WIRED
            entry.wired_count = 0
            if entry.end == end:
                return
            entry = entry.next
            self.k.kassert(entry is not map.header, "map-bad-clip", str(map))

    @c("vm_map_unwire", "vm_map.c:2316-2350", part=True, blocks=True)
    @holds("map locked exclusively; the range IN_TRANSITION")
    def _user_unwire(self, map: VmMap, first: VmMapEntry, end: int) -> int:
        """The unwiring half of vm_map_unwire: the whole range must be user-wired."""
        entry = first
        while entry is not map.header and entry.start < end:
            if not entry.eflags & MAP_ENTRY_USER_WIRED:
                return KERN_INVALID_ARGUMENT
            self.k.kassert(entry.wired_count != 0, "map-wired-count", f"{map} {entry}")
            entry = entry.next
        entry = first
        while entry is not map.header and entry.start < end:
            entry.eflags &= ~MAP_ENTRY_USER_WIRED
            entry.wired_count -= 1
            if entry.wired_count == 0:
                self.vm.fault.unwire(map, entry)
            entry = entry.next
        return KERN_SUCCESS

    @c("vm_map_wire", "vm_map.c:2374-2567", blocks=True)
    @holds("map not locked", "")
    def wire(self, map: VmMap, start: int, end: int, kmflags: int) -> int:
        """vm_map_wire (vm_map.c:2374-2567): kernel wiring of a range, or unwiring (KM_PAGEABLE).

        Locks the map, which is unlocked while pages are faulted in; blocks.  Returns KERN_*.
        """
        self.lock(map)
        start, end = self.range_check(map, start, end)
        real_end = end
        first = self.clip_range(map, start, end, no_holes=True)
        if first is None:
            self.unlock(map)
            return KERN_INVALID_ADDRESS
        rv = KERN_SUCCESS
        if not kmflags & KM_PAGEABLE:
            rv, end = self._kernel_wire(map, first, end, kmflags)
            # The map was unlocked while pages were faulted in: entries may have been clipped.
            first = self.check_back(map, first, start)
        if kmflags & KM_PAGEABLE or rv != KERN_SUCCESS:
            undone = self._kernel_unwire(map, first, end)
            if undone != KERN_SUCCESS:
                rv = undone
        self.unclip_range(map, first, start, real_end)
        map.timestamp += 1
        self.unlock(map)
        return rv

    @c("vm_map_wire", "vm_map.c:2423-2509", part=True, blocks=True)
    @holds(
        "map locked exclusively; the range IN_TRANSITION",
        "map locked exclusively; the range IN_TRANSITION (unlocked in between)",
    )
    def _kernel_wire(
        self, map: VmMap, first: VmMapEntry, end: int, kmflags: int
    ) -> tuple[int, int]:
        """Pass 1 counts the wiring in every entry, pass 2 faults in those that were not wired."""
        entry = first
        while entry is not map.header and entry.start < end:
            if entry.wired_count == 0:
                self._instantiate(map, entry)
            entry.wired_count += 1
            entry = entry.next
        entry = first
        while entry is not map.header and entry.start < end:
            save_start, save_end = entry.start, entry.end
            if entry.wired_count == 1:
                rv = self.vm.fault.wire(map, entry, False, kmflags)
                if rv != KERN_SUCCESS:
                    self._back_out(map, entry, save_start, save_end)
                    return rv, save_start
            entry = self.check_fwd(map, entry, save_end)
            entry = entry.next
        return KERN_SUCCESS, end

    @c("vm_map_wire", "vm_map.c:2534-2554", part=True, blocks=True)
    @holds("map locked exclusively; the range IN_TRANSITION")
    def _kernel_unwire(self, map: VmMap, first: VmMapEntry, end: int) -> int:
        """The unwiring half of vm_map_wire: the whole range must be wired."""
        entry = first
        while entry is not map.header and entry.start < end:
            if entry.wired_count == 0:
                return KERN_INVALID_ARGUMENT
            entry = entry.next
        entry = first
        while entry is not map.header and entry.start < end:
            entry.wired_count -= 1
            if entry.wired_count == 0:
                self.vm.fault.unwire(map, entry)
            entry = entry.next
        return KERN_SUCCESS

    @c("vm_map_set_wired_quick", "vm_map.c:2576-2593", blocks=True, uncalled=True)
    @holds("map locked exclusively")
    def set_wired_quick(self, map: VmMap, addr: int, size: int) -> None:
        """vm_map_set_wired_quick (vm_map.c:2576-2593): mark as wired; the caller wires the pages.

        Map locked exclusively.
        """
        first = self.clip_range(map, addr, addr + size, no_holes=True)
        if first is None:
            return
        scan = first
        while scan is not map.header and scan.start < addr + size:
            self.k.kassert(scan.wired_count == 0, "map-wired-count", f"{map} {scan}")
            scan.wired_count = 1
            scan = scan.next
        self.unclip_range(map, first, addr, addr + size)
