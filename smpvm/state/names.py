"""The names of constants and fields in a state (FORMAT.md section 3)."""

from __future__ import annotations

from typing import Final

from smpvm.kern.proc import (
    P_LOWMEMKILL,
    P_SWAPPEDOUT,
    P_SYSTEM,
    P_WEXIT,
    STAT_NAMES,
)
from smpvm.vm.map.entry import MAPTYPE_NAMES
from smpvm.vm.page.struct import PG_NAMES
from smpvm.vm.param import (
    OBJ_ACTIVE,
    OBJ_CLEANING,
    OBJ_DEAD,
    OBJ_MIGHTBEDIRTY,
    OBJ_NOSPLIT,
    OBJ_ONEMAPPING,
    OBJ_ONSHADOW,
    OBJ_WRITEABLE,
    OBJT_NAMES,
)
from smpvm.vm.vmstats import STATS

QUEUES: Final = ("free", "inactive", "active", "cache", "hold")
"""In the order of the queue numbers."""

COUNTED_BY: Final = {
    "free": "v_free_count",
    "inactive": "v_inactive_count",
    "active": "v_active_count",
    "cache": "v_cache_count",
    "hold": "v_active_count",
}

PAGE_FLAGS: Final = {name[3:]: bit for name, bit in PG_NAMES.items() if name != "PG_ACTIONLIST"}

OBJECT_FLAGS: Final = {
    "ONEMAPPING": OBJ_ONEMAPPING,
    "WRITEABLE": OBJ_WRITEABLE,
    "MIGHTBEDIRTY": OBJ_MIGHTBEDIRTY,
    "DEAD": OBJ_DEAD,
    "ACTIVE": OBJ_ACTIVE,
    "NOSPLIT": OBJ_NOSPLIT,
    "CLEANING": OBJ_CLEANING,
    "ONSHADOW": OBJ_ONSHADOW,
}
OBJECT_TYPES: Final = OBJT_NAMES

PROC_FLAGS: Final = {
    "SYSTEM": P_SYSTEM,
    "WEXIT": P_WEXIT,
    "SWAPPEDOUT": P_SWAPPEDOUT,
    "LOWMEMKILL": P_LOWMEMKILL,
}
PROC_STATS: Final = {name: stat for stat, name in STAT_NAMES.items()}

MAPTYPES: Final = {name: n for n, name in enumerate(MAPTYPE_NAMES)}

VMSTATS: Final = STATS

COUNTERS: Final = (
    "v_pdpages",
    "v_pdwakeups",
    "v_dfree",
    "v_tfree",
    "v_reactivated",
    "v_ppwakeups",
    "t_rm",
)

GLOBALS_OF_SYSCTL: Final = {
    "vm_page_free_hysteresis": "page_free_hysteresis",
    "vm_max_launder": "max_launder",
    "vm_pageout_stats_max": "pageout_stats_max",
    "vm_pageout_stats_interval": "pageout_stats_interval",
    "vm_pageout_full_stats_interval": "pageout_full_stats_interval",
    "vm_pageout_stats_free_max": "pageout_stats_free_max",
    "vm_pageout_algorithm": "pageout_algorithm",
    "defer_swap_pageouts": "defer_swapspace_pageouts",
    "disable_swap_pageouts": "disable_swapspace_pageouts",
    "vm_anonmem_decline": "anonmem_decline",
    "vm_filemem_decline": "filemem_decline",
    "vm_swap_enabled": "swap_enabled",
    "vm_swap_idle_enabled": "swap_idle_enabled",
    "vm_page_max_wired": "page_max_wired",
}
"""A C variable that is a sysctl → the field of config.Sysctl."""

STATICS: Final = {
    "lastkillticks": ("pageout", "lastkillticks"),
    "cache_rover": ("pageout", "cache_rover"),
    "lsec": ("pageout", "lsec"),
    "fullintervalcount": ("pageout", "fullintervalcount"),
    "lastrun": ("vmdaemon", "lastrun"),
    "dnweight": ("page", "dnweight"),
}
"""A static variable of a C function → the subsystem and field that stand for it."""


def names_of(bits: int, table: dict[str, int]) -> list[str]:
    """The names in *table* of the bits set in *bits*, in the order of the bits."""
    return [name for name, bit in sorted(table.items(), key=lambda kv: kv[1]) if bits & bit]


def bits_of(names: list[str], table: dict[str, int]) -> int:
    """The reverse of ``names_of``."""
    bits = 0
    for name in names:
        bits |= table[name]
    return bits
