"""Dump the state of a machine, at rest or where it panicked, as a JSON document."""

from __future__ import annotations

from collections import Counter
from typing import Any

from smpvm.kern.proc import PLOCK_MASK, STAT_NAMES, Proc
from smpvm.kern.refcount import REFCNTF_WAITING
from smpvm.kern.thread import TDF_SYSTHREAD
from smpvm.kern.vnode import VOBJDIRTY, Vnode
from smpvm.state import names
from smpvm.state.load import LOOSE_PMAP_BITS
from smpvm.state.roster import Roster
from smpvm.state.shapes import GLOBAL_NAMES
from smpvm.vm.map.entry import MAPTYPE_NAMES, OBJECT_MAPTYPES, VmMap
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_FICTITIOUS, PG_MARKER, Page

PAGE_NUMBERS = ("act_count", "busy", "hold_count", "wire_count", "valid", "dirty")


def dump(roster: Roster) -> dict[str, Any]:
    """The state of the roster's machine.

    Takes no locks: no thread of the machine may be running.
    """
    vm = roster.vm
    with vm.k.quietly():
        return {
            "pages": [_page(roster, n, m) for n, m in enumerate(roster.pages)],
            "queues": _queues(roster),
            "objects": [_object(roster, n, obj) for n, obj in enumerate(roster.objects)],
            "vnodes": [_vnode(roster, n, vp) for n, vp in enumerate(roster.vnodes)],
            "procs": [_proc(roster, p) for p in roster.procs],
            "maps": [_map(roster, n, map_) for n, map_ in enumerate(roster.maps)],
            "vmstats": {name: getattr(vm.stats, name) for name in names.VMSTATS},
            "phantom": _phantom(roster),
            "globals": _globals(roster),
            "counters": _counters(roster),
        }


def _page(roster: Roster, n: int, m: Page) -> dict[str, Any]:
    page: dict[str, Any] = {"id": n}
    if m.object is not None:
        page["object"] = roster.object_ids[m.object]
    if m.pindex:
        page["pindex"] = m.pindex
    queue = m.queue
    page["queue"] = "none" if queue == 0 else names.QUEUES[(queue - 1) // roster.vm.pq.L2_SIZE]
    page["pc"] = m.pc
    flags = names.names_of(m.flags, names.PAGE_FLAGS)
    if flags:
        page["flags"] = flags
    for name in PAGE_NUMBERS:
        if value := getattr(m, name):
            page[name] = value
    if mappings := [_mapping(roster, pv) for pv in m.mappings()]:
        page["pmap"] = mappings
    return page


def _mapping(roster: Roster, pv: Any) -> dict[str, Any]:
    mapping: dict[str, Any] = {"pmap": roster.pmap_id(pv.pmap), "va": pv.va}
    for name, bit in LOOSE_PMAP_BITS:
        if pv.bits & bit:
            mapping[name] = True
    return mapping


def _queues(roster: Roster) -> dict[str, dict[str, list[int | str]]]:
    vm = roster.vm
    found: dict[str, dict[str, list[int | str]]] = {}
    for number, q in enumerate(vm.queues):
        if number and q.head is not None:
            kind, colour = divmod(number - 1, vm.pq.L2_SIZE)
            ids = [roster.page_id(m) for m in q.pages()]
            found.setdefault(names.QUEUES[kind], {})[str(colour)] = ids
    return found


def _object(roster: Roster, n: int, obj: VmObject) -> dict[str, Any]:
    backing, handle = obj.backing_object, obj.handle
    desc: dict[str, Any] = {
        "id": n,
        "type": names.OBJECT_TYPES[obj.type],
        "ref_count": obj.ref_count,
        "size": obj.size,
        "flags": names.names_of(obj.flags, names.OBJECT_FLAGS),
        "paging_in_progress": obj.paging_in_progress & ~REFCNTF_WAITING,
        "shadow_count": obj.shadow_count,
        "backing_object": None if backing is None else roster.object_ids[backing],
        "resident_page_count": obj.resident_page_count,
        "generation": obj.generation & 0xFFFF_FFFF,
        "hold_count": obj.hold_count,
        "swblock_count": obj.swblock_count,
        "pg_color": obj.pg_color,
        "handle": roster.vnode_ids[handle] if isinstance(handle, Vnode) else None,
    }
    if roster.has_kernel_object and obj is roster.vm.kernel_object:
        desc["kernel"] = True
    if roster.token_held(obj):
        desc["token_held_by_other"] = True
    return desc


def _vnode(roster: Roster, n: int, vp: Vnode) -> dict[str, Any]:
    return {
        "id": n,
        "locked_by_other": roster.vnode_locked(vp),
        "objdirty": bool(vp.v_flag & VOBJDIRTY),
    }


def _proc(roster: Roster, p: Proc) -> dict[str, Any]:
    space = p.p_vmspace
    return {
        "pid": p.p_pid,
        "stat": STAT_NAMES[p.p_stat],
        "flags": names.names_of(p.p_flags, names.PROC_FLAGS),
        "nice": p.p_nice,
        "lock": p.p_lock & PLOCK_MASK,
        "map": None if space is None else roster.map_ids[space.vm_map],
        "rss_cur": p.p_rlimit_rss_cur,
        "rss_max": p.p_rlimit_rss_max,
    }


def _map(roster: Roster, n: int, map_: VmMap) -> dict[str, Any]:
    space = map_.vmspace
    holder = map_.lock.holder
    return {
        "id": n,
        "resident_count": map_.pmap.resident_count,
        "wired_count": map_.pmap.wired_count,
        "locked_by_other": holder is not None and holder is not roster.k.curthread(),
        "holdcnt": space.vm_holdcnt,
        "refcnt": space.vm_refcnt,
        "entries": [
            {
                "start": entry.start,
                "end": entry.end,
                "maptype": MAPTYPE_NAMES[entry.maptype],
                "object": roster.object_ids.get(entry.object)
                if entry.maptype in OBJECT_MAPTYPES
                else None,
                "wired_count": entry.wired_count,
            }
            for entry in map_.entries()
        ],
    }


def _phantom(roster: Roster) -> dict[str, int]:
    vm = roster.vm
    count: Counter[str] = Counter()
    for q in vm.queues:
        count[q.counter] += sum(not m.flags & PG_MARKER for m in q.pages())
    wired = sum(m.wire_count != 0 and not m.flags & PG_FICTITIOUS for m in roster.pages)
    phantom = {
        name: getattr(vm.stats, f"v_{name}_count") - count[f"v_{name}_count"]
        for name in ("free", "cache", "inactive", "active")
    }
    phantom["wire"] = vm.stats.v_wire_count - wired
    return phantom


def _globals(roster: Roster) -> dict[str, Any]:
    vm, k = roster.vm, roster.k
    td = k.curthread()
    found: dict[str, Any] = {
        name: roster.get_global(name)
        for name in GLOBAL_NAMES
        if name not in ("ticks", "time_uptime")
    }
    found["ticks"] = k.clock.ticks()
    found["time_uptime"] = k.clock.time_uptime()
    found["curthread"] = "pagedaemon" if td is vm.pageout.pagethread else "other"
    found["systhread"] = bool(td.flags & TDF_SYSTHREAD)
    return found


def _counters(roster: Roster) -> dict[str, int]:
    total = roster.k.counts()
    counters = {name: total[name] & 0xFFFF_FFFF for name in names.COUNTERS}
    counters["t_rm"] = total["t_rm"]
    return counters
