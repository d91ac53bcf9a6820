"""The rules of a snapshot, and of its part "more".

A state may describe any moment of a machine, or only some of its pages.  A snapshot describes a
whole machine at rest: ``check_snapshot`` checks that a machine can resume from it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from smpvm.config import PAGE_SHIFT, PAGE_SIZE, SYSCTL_RANGE, Config
from smpvm.shape import Misfit, digits, integer, list_of, record, row, table, text
from smpvm.state import names
from smpvm.state.rules import State, StateError
from smpvm.state.shapes import COUNT, U32, U64

ENTRY: Final = ("offset", "protection", "max_protection", "eflags", "inheritance")
"""The fields of a map entry that are not in a state."""

_POSITION: Final = digits(0, 0xFFFF_FFFF)
_WORDS: Final = table(digits(0, PAGE_SIZE // 8 - 1), integer(0, (1 << 128) - 1))
_ENTRY: Final = row(U64, integer(0, 7), integer(0, 7), integer(0, 0xFFF), integer(0, 2))
_FILE: Final = record(
    {
        "name": text(200),
        "size": integer(0, 1 << 50),
        "references": COUNT,
        "blocks": table(digits(0, 1 << 38), _WORDS),
    }
)
_MORE: Final = record(
    {},
    {
        "contents": table(_POSITION, _WORDS, "page"),
        "swap": list_of(row(U32, U64, _WORDS)),
        "files": table(_POSITION, _FILE, "vnode"),
        "offsets": table(_POSITION, U64, "object"),
        "entries": table(_POSITION, list_of(_ENTRY, "entry"), "map"),
    },
)


def check_snapshot(config: Config, state: State, more: Mapping[str, Any]) -> None:
    """Raises StateError unless a machine of *config* can resume from *state* and *more*.

    *state* has passed ``rules.check``.
    """
    try:
        _MORE(more)
    except Misfit as why:
        raise StateError(f"more: {why}" if not why.places else f"more {why}") from None
    at_rest(state)
    _check_size(config, state)
    _check_globals(state)
    _check_objects(state)
    _check_procs(state)
    _check_mappings(state)
    _check_more(config, state, more)


def at_rest(state: State) -> None:
    """Raises StateError if anything in *state* is busy, held, locked or in I/O."""
    for page in state["pages"]:
        busy = {"BUSY", "SBUSY", "WANTED", "SWAPINPROG", "MARKER"} & set(page.get("flags", []))
        if busy:
            raise StateError(f"page {page['id']}: {min(busy)}: the machine is not at rest")
        if page.get("hold_count"):
            raise StateError(f"page {page['id']}: held: the machine is not at rest")
    for obj in state["objects"]:
        if obj["paging_in_progress"] or obj["hold_count"] or obj.get("token_held_by_other"):
            raise StateError(f"object {obj['id']}: in use: the machine is not at rest")
    for part in ("vnodes", "maps"):
        for each in state[part]:
            if each["locked_by_other"]:
                raise StateError(f"{part[:-1]} {each['id']}: locked: the machine is not at rest")
    for name, count in state["phantom"].items():
        if count:
            raise StateError(f"phantom {name}: {count} pages are counted that are not there")


def _check_size(config: Config, state: State) -> None:
    pages = len(state["pages"])
    if pages != config.pages:
        raise StateError(f"the snapshot has {pages} pages, its machine {config.pages}")
    # On a small machine the paging limits exceed its pages, but never by this much.
    for name, value in state["vmstats"].items():
        if value > pages + 1024:
            raise StateError(f"vmstats: {name} is {value}, the machine has {pages} pages")


def _check_globals(state: State) -> None:
    for name, sysctl in names.GLOBALS_OF_SYSCTL.items():
        low, high = SYSCTL_RANGE[sysctl]
        if not low <= state["globals"][name] <= high:
            value = state["globals"][name]
            raise StateError(f"globals {name}: {value} is out of range, allowed {low} to {high}")


def _check_objects(state: State) -> None:
    """Objects are memory or files, and their counts are those of their references."""
    shadows: Counter[int | None] = Counter(obj["backing_object"] for obj in state["objects"])
    references = shadows.copy()
    for map_ in state["maps"]:
        references.update(entry["object"] for entry in map_["entries"])
    if not any(obj.get("kernel") for obj in state["objects"]):
        raise StateError("objects: none is the kernel's")
    handles: Counter[int | None] = Counter()
    for n, obj in enumerate(state["objects"]):
        if obj["type"] not in ("DEFAULT", "SWAP", "VNODE"):
            raise StateError(f"object {n}: type {obj['type']}; known are DEFAULT, SWAP, VNODE")
        if (obj["type"] == "VNODE") != (obj["handle"] is not None):
            raise StateError(f"object {n}: type {obj['type']}, handle {obj['handle']}")
        if obj["ref_count"] != references[n] and not obj.get("kernel"):
            raise StateError(
                f"object {n}: ref_count {obj['ref_count']}, but {references[n]} references"
            )
        if obj["type"] != "VNODE" and obj["shadow_count"] != shadows[n]:
            raise StateError(
                f"object {n}: shadow_count {obj['shadow_count']}, but {shadows[n]} shadows"
            )
        handles[obj["handle"]] += 1
        if obj["handle"] is not None and handles[obj["handle"]] > 1:
            raise StateError(f"object {n}: vnode {obj['handle']} has another object, too")


def _check_procs(state: State) -> None:
    """Each process has its own map, and each map belongs to a process."""
    owner: dict[int, int] = {}
    for p in state["procs"]:
        at = f"proc {p['pid']}"
        if p["pid"] < 1:
            raise StateError(f"{at}: numbers of processes begin with 1")
        if p["map"] is None or p["map"] in owner:
            raise StateError(f"{at}: has no map of its own")
        owner[p["map"]] = p["pid"]
        map_, refcnt = state["maps"][p["map"]], -1 if p["stat"] == "SZOMB" else 1
        if (map_["refcnt"], map_["holdcnt"]) != (refcnt, 1):
            raise StateError(
                f"{at}: {p['stat']}, its map's refcnt {map_['refcnt']} and holdcnt "
                f"{map_['holdcnt']}; allowed are {refcnt} and 1"
            )
    for n in range(len(state["maps"])):
        if n not in owner:
            raise StateError(f"map {n}: belongs to no process")


def _check_mappings(state: State) -> None:
    """A page is mapped only where the map has an entry of its object."""
    mapped: Counter[int] = Counter()
    objects = state["objects"]
    starts = [[entry["start"] for entry in map_["entries"]] for map_ in state["maps"]]
    for page in state["pages"]:
        for pv in page.get("pmap", []):
            mapped[pv["pmap"]] += 1
            n = bisect_right(starts[pv["pmap"]], pv["va"]) - 1
            entry = state["maps"][pv["pmap"]]["entries"][n] if n >= 0 else None
            behind = entry["object"] if entry and pv["va"] < entry["end"] else None
            while behind is not None and behind != page.get("object"):
                behind = objects[behind]["backing_object"]
            if behind is None:
                raise StateError(
                    f"page {page['id']}: mapped at {pv['va']:#x}, "
                    f"where map {pv['pmap']} does not have its object"
                )
    for n, map_ in enumerate(state["maps"]):
        if map_["resident_count"] != mapped[n]:
            raise StateError(
                f"map {n}: resident_count {map_['resident_count']}, but {mapped[n]} mappings"
            )


def _check_more(config: Config, state: State, more: Mapping[str, Any]) -> None:
    """Every vnode and map has its part in *more*; no part is for something unknown."""
    for part, table_, every in (
        ("contents", "pages", False),
        ("offsets", "objects", False),
        ("files", "vnodes", True),
        ("entries", "maps", True),
    ):
        given, count = more.get(part, {}), len(state[table_])
        for key in given:
            if int(key) >= count:
                raise StateError(f"more {part}: there is no {table_[:-1]} {key}")
        if every and len(given) < count:
            raise StateError(f"more {part}: {len(given)} of {count} {table_} have what they need")
    for key, offset in more.get("offsets", {}).items():
        if offset % PAGE_SIZE:
            raise StateError(f"more offsets: object {key}: {offset} is not a multiple of a page")
    for key, rows in more.get("entries", {}).items():
        entries = state["maps"][int(key)]["entries"]
        if len(rows) != len(entries):
            raise StateError(
                f"more entries: map {key}: {len(rows)} entries, the state has {len(entries)}"
            )
        for n, row_ in enumerate(rows):
            if row_[0] % PAGE_SIZE:
                raise StateError(f"more entries: map {key} entry {n}: offset {row_[0]} of no page")
    _check_files(more.get("files", {}))
    _check_swap(config, state, more.get("swap", []))


def _check_files(files: Mapping[str, Any]) -> None:
    for key, file in files.items():
        for block in file["blocks"]:
            if int(block) << PAGE_SHIFT >= file["size"]:
                raise StateError(f"more files: vnode {key}: block {block} is beyond its end")


def _check_swap(config: Config, state: State, swap: list[Any]) -> None:
    if len(swap) > config.swap_pages:
        raise StateError(f"more swap: {len(swap)} pages, the swap has {config.swap_pages}")
    seen: set[tuple[int, int]] = set()
    for n, pindex, _ in swap:
        if n >= len(state["objects"]) or state["objects"][n]["type"] == "VNODE":
            raise StateError(f"more swap: object {n} is none that could be on swap")
        if (n, pindex) in seen:
            raise StateError(f"more swap: index {pindex} of object {n} is there twice")
        seen.add((n, pindex))
