"""Repairs of vm_map.c."""

from __future__ import annotations

from smpvm.repairs.base import repair
from smpvm.vm.map.entry import KERN_SUCCESS, VmMap, VmMapEntry
from smpvm.vm.map.maps import Maps


@repair(
    "msync-end",
    "End msync's check for holes at the last entry of the map",
    "vm_map_clean (vm_map.c:2628-2641)",
)
class MsyncEnd(Maps):
    """vm_map_clean stops at the header, so msync can reach the map's last entry."""

    def clean_past_end(self, map: VmMap, current: VmMapEntry) -> bool:
        return current is map.header


@repair(
    "wire-back-out",
    "Also undo the wired counts behind the entry that could not be wired",
    "vm_map_wire (vm_map.c:2482-2517, 2534-2541)",
)
class WireBackOut(Maps):
    """vm_map_wire also undoes its counts behind the entry that failed.

    Not reachable: no caller in a default kernel wires more than one entry this way.
    """

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
    "Hold the map's token, which the kill scan relies on, to clip or merge entries",
    "vm_map_protect (vm_map.c:1855-1934), vmspace_swap_count (:499-528)",
)
class MapToken(Maps):
    """Every call that clips or merges entries takes the map's token as well.

    The kill scan walks the entries under that token alone.
    """

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
