"""Repairs of vm_map.c."""

from __future__ import annotations

from smpvm.repairs.base import repair
from smpvm.vm.map.entry import KERN_SUCCESS, VmMap, VmMapEntry
from smpvm.vm.map.maps import Maps


@repair(
    "msync-end",
    "end msync's check for holes at the last entry of the map",
    "vm_map_clean (vm_map.c:2645-2659)",
)
class MsyncEnd(Maps):
    """vm_map_clean stops at the header, so that msync can reach the map's last entry."""

    def clean_past_end(self, map: VmMap, current: VmMapEntry) -> bool:
        return current is map.header


@repair(
    "wire-back-out",
    "take the wiring back behind the entry that could not be wired, too",
    "vm_map_wire (vm_map.c:2483-2493)",
)
class WireBackOut(Maps):
    """vm_map_wire takes its counts back behind the entry that failed, too."""

    def _kernel_wire(
        self, map: VmMap, first: VmMapEntry, end: int, kmflags: int
    ) -> tuple[int, int]:
        rv, wired = super()._kernel_wire(map, first, end, kmflags)
        if rv != KERN_SUCCESS:
            entry = map.at_or_before(wired)
            while entry is not map.header and entry.start < end:
                if entry.start >= wired and entry.wired_count:
                    entry.wired_count -= 1
                entry = entry.next
        return rv, wired


@repair(
    "map-token",
    "cut and merge map entries with the map's token, under which the kill scan walks them",
    "vm_map_protect (vm_map.c:1859-1935), vmspace_swap_count (:499-529)",
)
class MapToken(Maps):
    """Whatever cuts and merges entries has the map's token too: the kill scan walks under it."""

    def protect(self, map: VmMap, start: int, end: int, prot: int, set_max: bool) -> int:
        map.token.get()
        rv = super().protect(map, start, end, prot, set_max)
        map.token.release()
        return rv

    def madvise(self, map: VmMap, start: int, end: int, behav: int) -> int:
        map.token.get()
        error = super().madvise(map, start, end, behav)
        map.token.release()
        return error

    def inherit(self, map: VmMap, start: int, end: int, inheritance: int) -> int:
        map.token.get()
        rv = super().inherit(map, start, end, inheritance)
        map.token.release()
        return rv

    def unwire(self, map: VmMap, start: int, end: int, new_pageable: bool) -> int:
        map.token.get()
        rv = super().unwire(map, start, end, new_pageable)
        map.token.release()
        return rv

    def wire(self, map: VmMap, start: int, end: int, kmflags: int) -> int:
        map.token.get()
        rv = super().wire(map, start, end, kmflags)
        map.token.release()
        return rv
