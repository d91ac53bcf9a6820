"""The shape of a state (FORMAT.md section 3): its keys, their types and ranges.

``rules`` checks what must hold between the parts; it runs after this, and can rely on the types.
"""

from __future__ import annotations

from typing import Final

from smpvm.shape import (
    Shape,
    digits,
    flag,
    integer,
    list_of,
    nullable,
    one_of,
    record,
    set_of,
    table,
)
from smpvm.state import names
from smpvm.vm.vmstats import GLOBALS

U8: Final = integer(0, 0xFF)
U16: Final = integer(0, 0xFFFF)
U32: Final = integer(0, 0xFFFF_FFFF)
U64: Final = integer(0, (1 << 64) - 1)
I32: Final = integer(-(1 << 31), (1 << 31) - 1)
I64: Final = integer(-(1 << 63), (1 << 63) - 1)
COUNT: Final = integer(0, (1 << 31) - 1)

GLOBAL_NAMES: Final = (
    *GLOBALS,
    *names.GLOBALS_OF_SYSCTL,
    *names.STATICS,
    "vm_daemon_needed",
    "ticks",
    "time_uptime",
)
PHANTOM: Final = ("free", "cache", "inactive", "active", "wire")

_MAPPING: Final = record(
    {"pmap": U32, "va": U64},
    dict.fromkeys(("referenced", "modified", "writeable", "wired"), flag),
)
_PAGE: Final = record(
    {"id": U32, "queue": one_of(("none", *names.QUEUES)), "pc": U16},
    {
        "object": nullable(U32),
        "pindex": U64,
        "act_count": U8,
        "busy": U8,
        "hold_count": COUNT,
        "wire_count": U32,
        "valid": U8,
        "dirty": U8,
        "flags": set_of(names.PAGE_FLAGS, "flag"),
        "pmap": list_of(_MAPPING, "mapping"),
    },
)
_OBJECT: Final = record(
    {
        "id": U32,
        "type": one_of(names.OBJECT_TYPES),
        "ref_count": I32,
        "size": U64,
        "flags": set_of(names.OBJECT_FLAGS, "flag"),
        "paging_in_progress": U32,
        "shadow_count": I32,
        "backing_object": nullable(U32),
        "resident_page_count": COUNT,
        "generation": U32,
        "hold_count": COUNT,
        "swblock_count": COUNT,
        "pg_color": U16,
        "handle": nullable(U32),
    },
    {"kernel": flag, "token_held_by_other": flag},
)
_VNODE: Final = record({"id": U32, "locked_by_other": flag, "objdirty": flag})
_PROC: Final = record(
    {
        "pid": I32,
        "stat": one_of(names.PROC_STATS),
        "flags": set_of(names.PROC_FLAGS, "flag"),
        "nice": integer(-128, 127),
        "lock": COUNT,
        "map": nullable(U32),
        "rss_cur": I64,
        "rss_max": I64,
    }
)
_ENTRY: Final = record(
    {
        "start": U64,
        "end": U64,
        "maptype": one_of(names.MAPTYPES),
        "object": nullable(U32),
        "wired_count": COUNT,
    }
)
_MAP: Final = record(
    {
        "id": U32,
        "resident_count": integer(0, (1 << 63) - 1),
        "wired_count": integer(0, (1 << 63) - 1),
        "locked_by_other": flag,
        "holdcnt": COUNT,
        "refcnt": integer(-1, (1 << 31) - 1),
        "entries": list_of(_ENTRY, "entry"),
    }
)
_GLOBALS: Final = record(
    {
        **dict.fromkeys(GLOBAL_NAMES, I32),
        "vm_anonmem_decline": U32,
        "vm_filemem_decline": U32,
        "time_uptime": I64,
        "lsec": I64,
        "curthread": one_of(("pagedaemon", "other")),
        "systhread": flag,
    }
)


def state_of(page_on_queue: Shape) -> Shape:
    """The shape of a state; *page_on_queue* is that of the members of its queues."""
    colours = table(digits(0, 0xFFFF), list_of(page_on_queue))
    return record(
        {
            "pages": list_of(_PAGE, "page"),
            "queues": table(one_of(names.QUEUES), colours, "queue"),
            "objects": list_of(_OBJECT, "object"),
            "vnodes": list_of(_VNODE, "vnode"),
            "procs": list_of(_PROC, "proc"),
            "maps": list_of(_MAP, "map"),
            "vmstats": record(dict.fromkeys(names.VMSTATS, U32)),
            "phantom": record(dict.fromkeys(PHANTOM, U32)),
            "globals": _GLOBALS,
            "counters": record({**dict.fromkeys(names.COUNTERS, U32), "t_rm": I64}),
        }
    )


STATE: Final = state_of(U32)
