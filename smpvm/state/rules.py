"""The rules of a well-formed state.  The first one broken ends the check, with one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from smpvm.config import PAGE_SIZE
from smpvm.shape import Misfit
from smpvm.state import names
from smpvm.state.shapes import STATE
from smpvm.vm.map.entry import OBJECT_MAPTYPES
from smpvm.vm.param import VM_MAX_USER_ADDRESS

State = Mapping[str, Any]


class StateError(ValueError):
    """A state that no machine can be in: one line that says where and why."""


def check(state: object, pq_l2_size: int, *, settled: bool = True) -> State:
    """Returns *state* if it is well formed.  Raises StateError for the first rule it breaks.

    *settled* adds the rules that hold only between calls.  (A test vector may break them on
    purpose, to trip an assertion.)
    """
    try:
        STATE(state)
    except Misfit as why:
        raise StateError(str(why) if why.places else f"state: {why}") from None
    assert isinstance(state, dict)
    where = _check_queues(state, pq_l2_size)
    _check_pages(state, pq_l2_size, where, settled)
    _check_objects(state)
    _check_chains(state)
    _check_maps(state, settled)
    _check_procs(state)
    _check_counts(state, settled)
    return state


def _reference(where: str, number: int | None, table: list[Any]) -> None:
    """Raises StateError if *number* is not a position in *table*."""
    if number is not None and number >= len(table):
        raise StateError(f"{where}: there is no number {number}")


def _check_ids(name: str, table: list[Any]) -> None:
    for n, each in enumerate(table):
        if each["id"] != n:
            raise StateError(f"{name} {n}: id is not its position in the list")


def _check_queues(state: State, l2: int) -> dict[int, tuple[str, int]]:
    where: dict[int, tuple[str, int]] = {}
    pages = state["pages"]
    for queue, lists in state["queues"].items():
        for colour, ids in lists.items():
            at = f"queue {queue}+{colour}"
            if int(colour) >= l2:
                raise StateError(f"{at}: no such colour, there are {l2}")
            for n in ids:
                _reference(at, n, pages)
                if n in where:
                    first = "{}+{}".format(*where[n])
                    raise StateError(f"page {n}: on two queues, {first} and {queue}+{colour}")
                where[n] = (queue, int(colour))
    return where


def _check_pages(
    state: State, l2: int, where: Mapping[int, tuple[str, int]], settled: bool
) -> None:
    places: dict[tuple[int, int], int] = {}
    addresses: dict[tuple[int, int], int] = {}
    _check_ids("page", state["pages"])
    for n, page in enumerate(state["pages"]):
        at = f"page {n}"
        flags = set(page.get("flags", []))
        if page["pc"] >= l2:
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
    queue = page["queue"]
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
        _reference(f"{at} mapping", pv["pmap"], maps)
        if pv["va"] % PAGE_SIZE or pv["va"] >= VM_MAX_USER_ADDRESS:
            raise StateError(f"{at}: mapped at {pv['va']:#x}, which is no user page's address")
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
    resident = Counter(p.get("object") for p in state["pages"])
    _check_ids("object", objects)
    _check_ids("vnode", vnodes)
    for n, obj in enumerate(objects):
        at = f"object {n}"
        _reference(f"{at} backing_object", obj["backing_object"], objects)
        _reference(f"{at} handle", obj["handle"], vnodes)
        if obj["resident_page_count"] != resident[n]:
            raise StateError(
                f"{at}: resident_page_count {obj['resident_page_count']}, but {resident[n]} pages"
            )
    if sum(obj.get("kernel", False) for obj in objects) > 1:
        raise StateError("objects: more than one is the kernel's")


def _check_chains(state: State) -> None:
    """No chain of backing objects is a circle: the kernel follows them to the end."""
    objects = state["objects"]
    ends: set[int | None] = {None}
    for n in range(len(objects)):
        seen: dict[int, None] = {}
        at: int | None = n
        while at not in ends:
            assert at is not None
            if at in seen:
                raise StateError(f"object {n}: its backing objects lead back to object {at}")
            seen[at] = None
            at = objects[at]["backing_object"]
        ends.update(seen)


def _check_maps(state: State, settled: bool) -> None:
    mapped: Counter[int] = Counter()
    wired: Counter[int] = Counter()
    for page in state["pages"]:
        for pv in page.get("pmap", []):
            mapped[pv["pmap"]] += 1
            wired[pv["pmap"]] += pv.get("wired", False)
    _check_ids("map", state["maps"])
    for n, map_ in enumerate(state["maps"]):
        at = f"map {n}"
        if map_["resident_count"] < mapped[n]:
            raise StateError(
                f"{at}: resident_count {map_['resident_count']} < {mapped[n]} mappings"
            )
        if map_["wired_count"] != wired[n]:
            raise StateError(f"{at}: wired_count {map_['wired_count']}, but {wired[n]} mappings")
        _check_entries(at, map_["entries"], state["objects"])


def _check_entries(at: str, entries: list[Any], objects: list[Any]) -> None:
    end = 0
    for entry in entries:
        _reference(f"{at} entry object", entry["object"], objects)
        if not end <= entry["start"] < entry["end"] <= VM_MAX_USER_ADDRESS:
            raise StateError(f"{at}: entry {entry['start']:#x} out of order or empty")
        if entry["start"] % PAGE_SIZE or entry["end"] % PAGE_SIZE:
            raise StateError(f"{at}: entry {entry['start']:#x} does not begin and end at pages")
        if entry["object"] is not None and names.MAPTYPES[entry["maptype"]] not in OBJECT_MAPTYPES:
            raise StateError(f"{at}: an entry of type {entry['maptype']} has an object")
        end = entry["end"]


def _check_procs(state: State) -> None:
    seen: set[int] = set()
    for p in state["procs"]:
        at = f"proc {p['pid']}"
        if p["pid"] in seen:
            raise StateError(f"{at}: two processes have this number")
        seen.add(p["pid"])
        _reference(f"{at} map", p["map"], state["maps"])


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
