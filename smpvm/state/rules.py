"""When a state is well formed.  The first broken rule ends the check with one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from smpvm.state import names
from smpvm.vm.vmstats import GLOBALS

State = Mapping[str, Any]

PARTS: Final = {
    "pages": list,
    "queues": dict,
    "objects": list,
    "vnodes": list,
    "procs": list,
    "maps": list,
    "vmstats": dict,
    "phantom": dict,
    "globals": dict,
    "counters": dict,
}

U8: Final = (0, 0xFF)
U16: Final = (0, 0xFFFF)
U32: Final = (0, 0xFFFF_FFFF)
U64: Final = (0, (1 << 64) - 1)
I32: Final = (-(1 << 31), (1 << 31) - 1)
I64: Final = (-(1 << 63), (1 << 63) - 1)
COUNT: Final = (0, (1 << 31) - 1)

PAGE: Final = {
    "pindex": U64,
    "act_count": U8,
    "busy": U8,
    "hold_count": COUNT,
    "wire_count": U32,
    "valid": U8,
    "dirty": U8,
}
OBJECT: Final = {
    "ref_count": I32,
    "size": U64,
    "paging_in_progress": U32,
    "shadow_count": I32,
    "resident_page_count": COUNT,
    "generation": U32,
    "hold_count": COUNT,
    "swblock_count": COUNT,
    "pg_color": U16,
}
PROC: Final = {"pid": I32, "nice": (-128, 127), "lock": COUNT, "rss_cur": I64, "rss_max": I64}
MAP: Final = {
    "resident_count": (0, I64[1]),
    "wired_count": (0, I64[1]),
    "holdcnt": COUNT,
    "refcnt": (-1, COUNT[1]),
}
GLOBAL_NAMES: Final = (
    *GLOBALS,
    *names.GLOBALS_OF_SYSCTL,
    *names.STATICS,
    "vm_daemon_needed",
    "ticks",
    "time_uptime",
)
GLOBAL_RANGE: Final = {
    "vm_anonmem_decline": U32,
    "vm_filemem_decline": U32,
    "time_uptime": I64,
    "lsec": I64,
}


class StateError(ValueError):
    """A state that no machine can be in; the text is one line that says where and why."""


def check(state: object, pq_l2_size: int, *, settled: bool = True) -> None:
    """Raises StateError for the first rule that *state* breaks.

    Without *settled* the rules are left out that hold only between calls (a page that is about
    to trip an assertion breaks them on purpose).
    """
    if not isinstance(state, Mapping):
        raise StateError("state: not an object")
    for part, kind in PARTS.items():
        if not isinstance(state.get(part), kind):
            raise StateError(f"state: {part} is missing or no {kind.__name__}")
    for part in state:
        if part not in PARTS:
            raise StateError(f"state: unknown part {part!r}")
    _check_scalars(state)
    where = _check_queues(state, pq_l2_size)
    _check_pages(state, pq_l2_size, where, settled)
    _check_objects(state)
    _check_maps(state, settled)
    _check_procs(state)
    _check_counts(state, settled)


def _number(where: str, value: object, span: tuple[int, int]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise StateError(f"{where}: {value!r} is not a number")
    low, high = span
    if value < 0 <= low:
        raise StateError(f"{where}: negative ({value})")
    if not low <= value <= high:
        raise StateError(f"{where}: {value} is out of range, allowed {low} to {high}")
    return value


def _known(where: str, keys: Any, allowed: Any) -> None:
    for key in keys:
        if key not in allowed:
            raise StateError(f"{where}: unknown key {key!r}")


def _flags(where: str, value: object, table: Mapping[str, int]) -> set[str]:
    if not isinstance(value, list):
        raise StateError(f"{where}: flags are not a list")
    for name in value:
        if name not in table:
            raise StateError(f"{where}: unknown flag {name!r}")
    if len(set(value)) != len(value):
        raise StateError(f"{where}: a flag is named twice")
    return set(value)


def _reference(where: str, value: object, table: list[Any], *, optional: bool = True) -> None:
    if value is None and optional:
        return
    _number(where, value, U32)
    if not isinstance(value, int) or value >= len(table):
        raise StateError(f"{where}: there is no number {value}")


def _check_scalars(state: State) -> None:
    stats, globs, counters = state["vmstats"], state["globals"], state["counters"]
    for table, known in (
        ("vmstats", names.VMSTATS),
        ("globals", (*GLOBAL_NAMES, "curthread", "systhread")),
        ("counters", names.COUNTERS),
        ("phantom", ("free", "cache", "inactive", "active", "wire")),
    ):
        _known(table, state[table], known)
        for name in known:
            if name not in state[table]:
                raise StateError(f"{table}: {name} is missing")
    for name in names.VMSTATS:
        _number(f"vmstats {name}", stats[name], U32)
    for name in state["phantom"]:
        _number(f"phantom {name}", state["phantom"][name], U32)
    for name in GLOBAL_NAMES:
        _number(f"globals {name}", globs[name], GLOBAL_RANGE.get(name, I32))
    if globs["curthread"] not in ("pagedaemon", "other"):
        raise StateError(f"globals curthread: {globs['curthread']!r} is no thread")
    for name in names.COUNTERS:
        _number(f"counters {name}", counters[name], I64 if name == "t_rm" else U32)


def _check_queues(state: State, l2: int) -> dict[int, tuple[str, int]]:
    where: dict[int, tuple[str, int]] = {}
    pages = state["pages"]
    for queue, lists in state["queues"].items():
        if queue not in names.QUEUES:
            raise StateError(f"queues: unknown queue {queue!r}")
        for colour, ids in lists.items():
            if not str(colour).isdigit() or int(colour) >= l2:
                raise StateError(f"queue {queue}+{colour}: no such colour, there are {l2}")
            for n in ids:
                _reference(f"queue {queue}+{colour}", n, pages, optional=False)
                if n in where:
                    first = "{}+{}".format(*where[n])
                    raise StateError(f"page {n}: on two queues, {first} and {queue}+{colour}")
                where[n] = (queue, int(colour))
    return where


def _check_pages(
    state: State, l2: int, where: Mapping[int, tuple[str, int]], settled: bool
) -> None:
    known = {"id", "object", "queue", "pc", "flags", "pmap", *PAGE}
    places: dict[tuple[int, int], int] = {}
    addresses: dict[tuple[int, int], int] = {}
    for n, page in enumerate(state["pages"]):
        at = f"page {n}"
        if not isinstance(page, Mapping) or page.get("id") != n:
            raise StateError(f"{at}: id is not its position in the list")
        _known(at, page, known)
        for name, span in PAGE.items():
            _number(f"{at} {name}", page.get(name, 0), span)
        flags = _flags(at, page.get("flags", []), names.PAGE_FLAGS)
        if _number(f"{at} pc", page.get("pc"), U16) >= l2:
            raise StateError(f"{at}: colour {page['pc']}, there are {l2}")
        _check_place(at, page, where.get(n))
        if "MARKER" in flags and not {"BUSY", "FICTITIOUS"} <= flags:
            raise StateError(f"{at}: a marker is BUSY and FICTITIOUS")
        if settled and ("SBUSY" in flags) != (page.get("busy", 0) > 0):
            raise StateError(f"{at}: SBUSY is set exactly when busy is not 0")
        owner = page.get("object")
        _reference(f"{at} object", owner, state["objects"])
        if owner is not None:
            place = (owner, page.get("pindex", 0))
            if place in places:
                raise StateError(
                    f"{at}: index {place[1]} of object {owner} is page {places[place]}"
                )
            places[place] = n
        _check_mappings(at, page, flags, state["maps"], addresses, settled)
        if settled:
            _check_settled(at, page, flags)


def _check_place(at: str, page: State, place: tuple[str, int] | None) -> None:
    queue = page.get("queue")
    if queue != "none" and queue not in names.QUEUES:
        raise StateError(f"{at}: unknown queue {queue!r}")
    if queue == "none":
        if place is not None:
            raise StateError(f"{at}: on queue {place[0]}+{place[1]}, but says none")
    elif place is None:
        raise StateError(f"{at}: says queue {queue}, but is on no list")
    elif place != (queue, page["pc"]):
        raise StateError(f"{at}: on queue {place[0]}+{place[1]}, says {queue}+{page['pc']}")


def _check_mappings(
    at: str,
    page: State,
    flags: set[str],
    maps: list[Any],
    addresses: dict[tuple[int, int], int],
    settled: bool,
) -> None:
    mappings = page.get("pmap", [])
    for pv in mappings:
        _known(f"{at} mapping", pv, ("pmap", "va", "referenced", "modified", "writeable", "wired"))
        _reference(f"{at} mapping", pv.get("pmap"), maps, optional=False)
        _number(f"{at} mapping va", pv.get("va"), U64)
        address = (pv["pmap"], pv["va"])
        if address in addresses:
            raise StateError(f"{at}: map {address[0]} has another page at {address[1]:#x}")
        addresses[address] = page["id"]
    if settled:
        if bool(mappings) != ("MAPPED" in flags):
            raise StateError(f"{at}: MAPPED is set exactly when there are mappings")
        if "WRITEABLE" in flags and "MAPPED" not in flags:
            raise StateError(f"{at}: WRITEABLE without MAPPED")
        if any(pv.get("writeable") for pv in mappings) and "WRITEABLE" not in flags:
            raise StateError(f"{at}: a writeable mapping without WRITEABLE")


def _check_settled(at: str, page: State, flags: set[str]) -> None:
    if "MARKER" in flags:
        return
    if page["queue"] == "free":
        if page.get("object") is not None:
            raise StateError(f"{at}: on the free queue with an object")
        if page.get("valid", 0) or page.get("dirty", 0):
            raise StateError(f"{at}: on the free queue, valid or dirty")
    if page["queue"] == "hold" and (page.get("object") is not None or not page.get("hold_count")):
        raise StateError(f"{at}: on the hold queue with an object or without a hold")


def _check_objects(state: State) -> None:
    objects, vnodes = state["objects"], state["vnodes"]
    known = {"id", "type", "flags", "backing_object", "handle", "kernel", "token_held_by_other"}
    resident = Counter(p.get("object") for p in state["pages"])
    for n, obj in enumerate(objects):
        at = f"object {n}"
        if not isinstance(obj, Mapping) or obj.get("id") != n:
            raise StateError(f"{at}: id is not its position in the list")
        _known(at, obj, known | set(OBJECT))
        if obj.get("type") not in names.OBJECT_TYPES:
            raise StateError(f"{at}: unknown type {obj.get('type')!r}")
        for name, span in OBJECT.items():
            _number(f"{at} {name}", obj.get(name), span)
        _flags(at, obj.get("flags"), names.OBJECT_FLAGS)
        _reference(f"{at} backing_object", obj.get("backing_object"), objects)
        _reference(f"{at} handle", obj.get("handle"), vnodes)
        if obj["resident_page_count"] != resident[n]:
            raise StateError(
                f"{at}: resident_page_count {obj['resident_page_count']}, but {resident[n]} pages"
            )
    if sum(bool(obj.get("kernel")) for obj in objects) > 1:
        raise StateError("objects: more than one is the kernel's")
    for n, vp in enumerate(vnodes):
        if not isinstance(vp, Mapping) or vp.get("id") != n:
            raise StateError(f"vnode {n}: id is not its position in the list")
        _known(f"vnode {n}", vp, ("id", "locked_by_other", "objdirty"))


def _check_maps(state: State, settled: bool) -> None:
    mapped: Counter[int] = Counter()
    wired: Counter[int] = Counter()
    for page in state["pages"]:
        for pv in page.get("pmap", []):
            mapped[pv["pmap"]] += 1
            wired[pv["pmap"]] += bool(pv.get("wired"))
    known = {"id", "locked_by_other", "entries", *MAP}
    for n, map_ in enumerate(state["maps"]):
        at = f"map {n}"
        if not isinstance(map_, Mapping) or map_.get("id") != n:
            raise StateError(f"{at}: id is not its position in the list")
        _known(at, map_, known)
        for name, span in MAP.items():
            _number(f"{at} {name}", map_.get(name), span)
        if map_["resident_count"] < mapped[n]:
            raise StateError(
                f"{at}: resident_count {map_['resident_count']} < {mapped[n]} mappings"
            )
        if map_["wired_count"] != wired[n]:
            raise StateError(f"{at}: wired_count {map_['wired_count']}, but {wired[n]} mappings")
        end = 0
        for entry in map_["entries"]:
            _known(f"{at} entry", entry, ("start", "end", "maptype", "object", "wired_count"))
            _number(f"{at} entry start", entry.get("start"), U64)
            _number(f"{at} entry end", entry.get("end"), U64)
            _number(f"{at} entry wired_count", entry.get("wired_count"), COUNT)
            _reference(f"{at} entry object", entry.get("object"), state["objects"])
            if entry.get("maptype") not in names.MAPTYPES:
                raise StateError(f"{at}: unknown maptype {entry.get('maptype')!r}")
            if not end <= entry["start"] < entry["end"]:
                raise StateError(f"{at}: entry {entry['start']:#x} out of order or empty")
            end = entry["end"]


def _check_procs(state: State) -> None:
    seen: set[int] = set()
    for p in state["procs"]:
        at = f"proc {p.get('pid')}"
        _known(at, p, {"stat", "flags", "map", *PROC})
        for name, span in PROC.items():
            _number(f"{at} {name}", p.get(name), span)
        if p["pid"] in seen:
            raise StateError(f"{at}: two processes have this number")
        seen.add(p["pid"])
        if p.get("stat") not in names.PROC_STATS:
            raise StateError(f"{at}: unknown stat {p.get('stat')!r}")
        _flags(at, p.get("flags"), names.PROC_FLAGS)
        _reference(f"{at} map", p.get("map"), state["maps"])


def _check_counts(state: State, settled: bool) -> None:
    stats, phantom = state["vmstats"], state["phantom"]
    count: Counter[str] = Counter()
    wired = 0
    for page in state["pages"]:
        flags = page.get("flags", [])
        if page["queue"] != "none" and "MARKER" not in flags:
            count[names.COUNTED_BY[page["queue"]]] += 1
        wired += bool(page.get("wire_count", 0)) and "FICTITIOUS" not in flags
    for name in ("free", "cache", "inactive", "active"):
        field = f"v_{name}_count"
        want = count[field] + phantom[name]
        if stats[field] != want:
            raise StateError(f"vmstats: {field} is {stats[field]}, the queues say {want}")
    if settled and stats["v_wire_count"] != wired + phantom["wire"]:
        want = wired + phantom["wire"]
        raise StateError(f"vmstats: v_wire_count is {stats['v_wire_count']}, the pages say {want}")
