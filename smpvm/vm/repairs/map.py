"""Repairs of vm_map.c."""

from __future__ import annotations

from smpvm.vm.map import Maps
from smpvm.vm.map_entry import KERN_SUCCESS, VmMap, VmMapEntry


class MsyncEnd(Maps):
    """vm_map_clean stops at the header, so that msync can reach the map's last entry."""

    def clean_past_end(self, map: VmMap, current: VmMapEntry) -> bool:
        return current is map.header


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


class SimplifyToken(Maps):
    """Entries are merged, so freed, with the map's token: vmspace_swap_count walks under it."""

    def simplify_entry(self, map: VmMap, entry: VmMapEntry) -> None:
        map.token.get()
        super().simplify_entry(map, entry)
        map.token.release()
