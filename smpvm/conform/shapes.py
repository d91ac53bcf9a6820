"""The shape of a vector (FORMAT.md sections 1, 2, 7, 8): its keys, their types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from smpvm.shape import (
    Misfit,
    Shape,
    anything,
    flag,
    integer,
    list_of,
    nullable,
    one_of,
    plain,
    record,
    set_of,
    text,
)
from smpvm.state import names
from smpvm.state.roster import SCAN_MARKER
from smpvm.state.shapes import COUNT, GLOBAL_NAMES, I32, I64, STATE, U8, U32, U64, state_of
from smpvm.text import brief, quoted
from smpvm.vm.param import VM_PAGER_NAMES

PLACES: Final = ("vget", "put_pages", "tsleep", "lwkt_yield", "object_hold")
STATUSES: Final = (*VM_PAGER_NAMES, "PEND_DONE")

_BOOLEAN: Final = integer(0, 1)
_OTHER_ARGS: Final[Mapping[str, Shape]] = {
    "n": list_of(I32),
    "count": U64,
    "pages": list_of(U32),
    "desired": U64,
    "map_remove_only": _BOOLEAN,
    "bigproc": nullable(I32),
    "bigsize": U64,
    "max_sleeps": COUNT,
    "activate": _BOOLEAN,
    "also_m_busy": _BOOLEAN,
    "prot": one_of((0, 1, 3)),
    "pindex": U64,
    "queue": one_of(names.QUEUES),
    "prefer_zero": _BOOLEAN,
    "index": COUNT,
    "q": COUNT,
    "timo": COUNT,
    "page": U32,
    "object": U32,
    "map": U32,
}
"""Arguments that are not an i32."""

_ON_PAGE: Final = (
    "vm_pageout_clean", "vm_pageout_page_free", "vm_page_activate", "vm_page_deactivate",
    "vm_page_cache", "vm_page_free", "vm_page_hold", "vm_page_unhold", "vm_page_wire",
    "vm_page_wakeup", "vm_page_io_start", "vm_page_io_finish", "vm_page_unqueue",
    "vm_page_unqueue_nowakeup", "vm_page_test_dirty", "vm_page_dirty", "pmap_ts_referenced",
    "vm_page_try_to_cache", "vm_page_try_to_free", "vm_page_dontneed",
)  # fmt: skip
ARGUMENTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_ON_PAGE, "page"),
    "PQAVERAGE": "n",
    "vm_pageout_free_page_calc": "count",
    "vm_page_counts": "donotcount",
    "vm_pageout_flush": "pages flags",
    "vm_pageout_object_deactivate_pages": "map object desired map_remove_only",
    "vm_pageout_map_deactivate_pages": "map desired",
    "vm_pageout_scan_inactive": "pass q avail_shortage vnodes_skipped",
    "vm_pageout_scan_active": "pass q avail_shortage inactive_shortage recycle_count",
    "vm_pageout_scan_cache": "avail_shortage pass vnodes_skipped recycle_count",
    "vm_pageout_scan_callback": "proc bigproc bigsize",
    "vm_pageout_page_stats": "q",
    "pagedaemon_wakeup": "",
    "vm_req_vmdaemon": "",
    "vm_daemon_callback": "proc",
    "vm_daemon": "max_sleeps",
    "vm_pageout_thread": "max_sleeps",
    "vm_wait": "timo",
    "vm_page_unwire": "page activate",
    "vm_page_busy_try": "page also_m_busy",
    "vm_page_busy_wait": "page also_m_busy",
    "vm_page_protect": "page prot",
    "vm_page_lookup_busy_try": "object pindex also_m_busy",
    "vm_page_list_find": "queue index prefer_zero",
    "vm_page_select_cache": "color",
    "vm_page_select_free": "color prefer_zero",
    "vm_page_alloc": "object pindex page_req",
}
"""A function of the C → the names of its arguments."""

_ARGS: Final = {
    function: record({name: _OTHER_ARGS.get(name, I32) for name in args.split()})
    for function, args in ARGUMENTS.items()
} | {"vm_page_alloc": record({"object": nullable(U32), "pindex": U64, "page_req": I32})}

_PAGE_OPS: Final = (
    "page_activate", "page_deactivate", "page_hold", "page_unhold", "page_busy", "page_wakeup",
    "page_io_start", "page_wire", "page_cache", "page_free", "page_alloc",
)  # fmt: skip
_FLAGS: Final = record({"op": text(), "page": U32, "flags": set_of(names.PAGE_FLAGS, "flag")})
_OPS: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(_PAGE_OPS, record({"op": text(), "page": U32})),
    "page_rename": record({"op": text(), "page": U32, "object": U32, "pindex": U64}),
    "page_set": record(
        {"op": text(), "page": U32}, dict.fromkeys(("act_count", "valid", "dirty"), U8)
    ),
    "page_flags_set": _FLAGS,
    "page_flags_clear": _FLAGS,
    "pmap_touch": record({"op": text(), "page": U32, "pv": COUNT}, {"write": _BOOLEAN}),
    "object_handle": record({"op": text(), "object": U32, "vnode": nullable(U32)}),
    "object_type": record({"op": text(), "object": U32, "type": one_of(names.OBJECT_TYPES)}),
    "object_ref_count": record({"op": text(), "object": U32, "value": I32}),
    "object_backing": record({"op": text(), "object": U32, "backing": nullable(U32)}),
    "global": record({"op": text(), "name": one_of(GLOBAL_NAMES), "value": I64}),
    "vmstat": record({"op": text(), "name": one_of(names.VMSTATS), "value": I64}),
    "phantom_free": record({"op": text(), "value": I32}),
}


def _op(value: Any) -> None:
    shape = _OPS.get(str(value.get("op"))) if type(value) is dict else None
    if shape is None:
        raise Misfit(f"{quoted(value)} is no mutation; known are {brief(', '.join(_OPS))}")
    shape(value)


def _event(value: Any) -> None:
    """Events are only compared, so any plain values will do."""
    if type(value) is not dict or type(value.get("ev")) is not str:
        raise Misfit(f"{quoted(value)} is not an event")
    _PLAIN(value)


_PLAIN: Final = plain(4)
_RETURNS: Final = record(
    {},
    {
        "value": _PLAIN,
        "stopped": flag,
        "panic": record({"kind": text(), "code": text()}),
        "vnodes_skipped": I32,
        "recycle_count": I32,
        "bigproc": nullable(I32),
        "bigsize": U64,
        "error": I32,
    },
)


def _returns(value: Any) -> None:
    _RETURNS(value)
    if len(value.keys() & {"value", "stopped", "panic"}) != 1:
        raise Misfit("allowed is exactly one of value, stopped, panic")


_SCRIPT: Final = record(
    {"at": one_of(PLACES), "n": COUNT},
    {
        "result": I32,
        "statuses": list_of(one_of(STATUSES), least=1),
        "mutations": list_of(_op, "mutation"),
    },
)
_CPU: Final = integer(0, 255)
_CONFIG: Final = record(
    {
        "pq_l2_size": one_of([1 << n for n in range(9)]),
        "hz": integer(1, 100_000),
        "ncpus": integer(1, 256),
        **dict.fromkeys(("cpuid", "phys_ids", "core_ids", "phys_id", "core_id"), _CPU),
    },
    {"pq_set_assoc": U32, "blist_max_alloc": U32, "page_size": U32, "invariants": flag},
)


def _page_or_marker(value: Any) -> None:
    if value != SCAN_MARKER:
        U32(value)


_VECTOR: Final = record(
    {
        "name": text(200),
        "function": one_of(tuple(ARGUMENTS)),
        "args": anything,
        "config": _CONFIG,
        "before": STATE,
        "after": state_of(_page_or_marker),
        "returns": _returns,
        "events": list_of(_event, "event"),
    },
    {
        "seed": anything,
        "note": text(),
        "pager_statuses": nullable(list_of(one_of(STATUSES))),
        "script": list_of(_SCRIPT, "script"),
        "yields": COUNT,
    },
)


def check_vector(vector: Any) -> None:
    """Raises Misfit unless each part of *vector* has the shape that FORMAT.md gives it."""
    _VECTOR(vector)
    try:
        _ARGS[vector["function"]](vector["args"])
    except Misfit as why:
        raise why.within("args") from None
