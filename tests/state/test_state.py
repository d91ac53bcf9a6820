"""A state loaded into a machine is read back the same; an impossible state is refused."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpvm.config import Config
from smpvm.conform.carrier import ScriptCarrier
from smpvm.conform.diff import compare_state
from smpvm.kern.kernel import Kernel
from smpvm.state import StateError, check, dump, load
from smpvm.state.names import (
    COUNTED_BY,
    COUNTERS,
    OBJECT_FLAGS,
    OBJECT_TYPES,
    PAGE_FLAGS,
    PROC_FLAGS,
    PROC_STATS,
    QUEUES,
    VMSTATS,
)
from smpvm.state.shapes import GLOBAL_NAMES
from smpvm.vm.build import build_vm

L2 = 4
FREE_FLAGS = sorted(set(PAGE_FLAGS) - {"MARKER", "SBUSY", "MAPPED", "WRITEABLE", "BUSY"})

u8 = st.integers(0, 255)
i32 = st.integers(-(1 << 31), (1 << 31) - 1)
u32 = st.integers(0, (1 << 32) - 1)
small = st.integers(0, 5)


def subset(names):
    return st.lists(st.sampled_from(sorted(names)), unique=True, max_size=4)


@st.composite
def objects(draw, vnodes):
    found = []
    for n in range(draw(st.integers(0, 4))):
        found.append(
            {
                "id": n,
                "type": draw(st.sampled_from(OBJECT_TYPES[:-1])),
                "ref_count": draw(st.integers(0, 9)),
                "size": draw(st.integers(0, 1 << 40)),
                "flags": draw(subset(OBJECT_FLAGS)),
                "paging_in_progress": draw(small),
                "shadow_count": draw(small),
                "backing_object": None,
                "resident_page_count": 0,
                "generation": draw(u32),
                "hold_count": draw(small),
                "swblock_count": draw(small),
                "pg_color": draw(st.integers(0, 65535)),
                "handle": draw(st.sampled_from([None, *range(len(vnodes))])),
            }
        )
    for obj in found:
        obj["backing_object"] = draw(st.sampled_from([None, *range(obj["id"])]))
        if draw(st.booleans()):
            obj["token_held_by_other"] = True
    if found and draw(st.booleans()):
        found[0]["kernel"] = True
    return found


@st.composite
def page(draw, n, owners, taken):
    marker = draw(st.integers(0, 9)) == 0
    flags = draw(subset(FREE_FLAGS))
    queue = draw(st.sampled_from(["none", *QUEUES]))
    found = {"id": n, "queue": queue, "pc": draw(st.integers(0, L2 - 1))}
    if marker:
        found["flags"] = ["BUSY", "FICTITIOUS", "MARKER"]
        found["wire_count"] = 1
        return found
    for name, values in (
        ("act_count", u8),
        ("hold_count", st.integers(0, (1 << 31) - 1)),
        ("wire_count", u32),
        ("busy", u8),
        ("valid", u8),
        ("dirty", u8),
    ):
        if draw(st.booleans()) and (value := draw(values)):
            found[name] = value
    if draw(st.booleans()):
        flags.append("BUSY")
    if found.get("busy"):
        flags.append("SBUSY")
    if queue == "free":
        found.pop("valid", None)
        found.pop("dirty", None)
    elif queue == "hold":
        found["hold_count"] = found.get("hold_count", 1)
    elif owners and draw(st.booleans()):
        place = (draw(st.sampled_from(owners)), draw(st.integers(0, 1 << 40)))
        if place not in taken:
            taken.add(place)
            found["object"] = place[0]
            if place[1]:
                found["pindex"] = place[1]
    found["flags"] = flags
    return found


@st.composite
def maps(draw, n_objects):
    found = []
    for n in range(draw(st.integers(0, 3))):
        entries, at = [], 0
        for _ in range(draw(small)):
            at += draw(small) * 4096
            end = at + draw(st.integers(1, 5)) * 4096
            entries.append(
                {
                    "start": at,
                    "end": end,
                    "maptype": draw(st.sampled_from(["NORMAL", "VPAGETABLE", "UNSPECIFIED"])),
                    "object": None,
                    "wired_count": draw(small),
                }
            )
            if entries[-1]["maptype"] != "UNSPECIFIED":
                entries[-1]["object"] = draw(st.sampled_from([None, *range(n_objects)]))
            at = end
        found.append(
            {
                "id": n,
                "resident_count": draw(small),
                "wired_count": 0,
                "locked_by_other": draw(st.booleans()),
                "holdcnt": draw(small),
                "refcnt": draw(st.integers(-1, 5)),
                "entries": entries,
            }
        )
    return found


def map_pages(draw, pages, spaces):
    """Give some pages mappings; every address is used once."""
    address = 0
    for each in pages:
        if not spaces or "MARKER" in each.get("flags", []) or not draw(st.booleans()):
            continue
        each["pmap"] = []
        for _ in range(draw(st.integers(1, 3))):
            space = draw(st.sampled_from(spaces))
            address += 4096
            pv = {"pmap": space["id"], "va": address}
            for name in ("referenced", "modified", "writeable", "wired"):
                if draw(st.booleans()):
                    pv[name] = True
            each["pmap"].append(pv)
            space["resident_count"] += 1
            space["wired_count"] += bool(pv.get("wired"))
        each["flags"] = [*each.get("flags", []), "MAPPED"]
        if any(pv.get("writeable") for pv in each["pmap"]) or draw(st.booleans()):
            each["flags"].append("WRITEABLE")


@st.composite
def states(draw):
    vnodes = [
        {"id": n, "locked_by_other": draw(st.booleans()), "objdirty": draw(st.booleans())}
        for n in range(draw(st.integers(0, 3)))
    ]
    objs = draw(objects(vnodes))
    taken = set()
    pages = [draw(page(n, range(len(objs)), taken)) for n in range(draw(st.integers(0, 12)))]
    for each in pages:
        if "object" in each:
            objs[each["object"]]["resident_page_count"] += 1
    spaces = draw(maps(len(objs)))
    map_pages(draw, pages, spaces)
    procs = [
        {
            "pid": pid,
            "stat": draw(st.sampled_from(sorted(PROC_STATS))),
            "flags": draw(subset(PROC_FLAGS)),
            "nice": draw(st.integers(-128, 127)),
            "lock": draw(small),
            "map": draw(st.sampled_from([None, *range(len(spaces))])),
            "rss_cur": draw(st.integers(0, (1 << 63) - 1)),
            "rss_max": draw(st.integers(-1, (1 << 63) - 1)),
        }
        for pid in draw(st.lists(st.integers(1, 5000), unique=True, max_size=4))
    ]
    queues = {}
    for each in draw(st.permutations(pages)):
        if each["queue"] != "none":
            lists = queues.setdefault(each["queue"], {})
            lists.setdefault(str(each["pc"]), []).append(each["id"])
    phantom = {name: draw(small) for name in ("free", "cache", "inactive", "active", "wire")}
    return {
        "pages": pages,
        "queues": queues,
        "objects": objs,
        "vnodes": vnodes,
        "procs": procs,
        "maps": spaces,
        "vmstats": stats(draw, pages, phantom),
        "phantom": phantom,
        "globals": variables(draw),
        "counters": {name: draw(small) for name in COUNTERS},
    }


def stats(draw, pages, phantom):
    found = {name: draw(u32) for name in VMSTATS}
    for name in ("free", "cache", "inactive", "active", "wire"):
        found[f"v_{name}_count"] = phantom[name]
    for each in pages:
        flags = each.get("flags", [])
        if each["queue"] != "none" and "MARKER" not in flags:
            found[COUNTED_BY[each["queue"]]] += 1
        found["v_wire_count"] += bool(each.get("wire_count")) and "FICTITIOUS" not in flags
    return found


def variables(draw):
    found = {name: draw(i32) for name in GLOBAL_NAMES}
    for name in ("vm_anonmem_decline", "vm_filemem_decline"):
        found[name] = draw(u32)
    found["curthread"] = draw(st.sampled_from(["pagedaemon", "other"]))
    found["systhread"] = draw(st.booleans())
    return found


def machine():
    return build_vm(Kernel(ScriptCarrier()), Config(pages=64, swap_pages=0, pq_l2_size=L2))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(states())
def test_load_and_dump_are_the_identity(state):
    before = copy.deepcopy(state)
    roster = load(machine(), state)
    assert state == before
    after = dump(roster)
    assert [str(d) for d in compare_state(state, after)] == []
    check(after, L2)
    again = dump(load(machine(), after))
    assert again == after


# -- malformed states


def plain():
    """A small well-formed state to spoil."""
    pages = [
        {"id": 0, "queue": "inactive", "pc": 1, "object": 0, "pindex": 7, "valid": 255},
        {"id": 1, "queue": "active", "pc": 1, "object": 0, "flags": ["MAPPED"], "valid": 255},
        {"id": 2, "queue": "free", "pc": 2},
        {"id": 3, "queue": "none", "pc": 0, "wire_count": 1},
    ]
    pages[1]["pmap"] = [{"pmap": 0, "va": 4096, "referenced": True}]
    globs = dict.fromkeys(GLOBAL_NAMES, 0)
    return {
        "pages": pages,
        "queues": {"inactive": {"1": [0]}, "active": {"1": [1]}, "free": {"2": [2]}},
        "objects": [
            {
                "id": 0,
                "type": "VNODE",
                "ref_count": 1,
                "size": 9,
                "flags": [],
                "paging_in_progress": 0,
                "shadow_count": 0,
                "backing_object": None,
                "resident_page_count": 2,
                "generation": 2,
                "hold_count": 0,
                "swblock_count": 0,
                "pg_color": 0,
                "handle": 0,
            }
        ],
        "vnodes": [{"id": 0, "locked_by_other": False, "objdirty": False}],
        "procs": [
            {
                "pid": 9,
                "stat": "SACTIVE",
                "flags": [],
                "nice": 0,
                "lock": 0,
                "map": 0,
                "rss_cur": 1 << 40,
                "rss_max": 1 << 40,
            }
        ],
        "maps": [
            {
                "id": 0,
                "resident_count": 1,
                "wired_count": 0,
                "locked_by_other": False,
                "holdcnt": 1,
                "refcnt": 1,
                "entries": [
                    {
                        "start": 4096,
                        "end": 8192,
                        "maptype": "NORMAL",
                        "object": 0,
                        "wired_count": 0,
                    }
                ],
            }
        ],
        "vmstats": dict.fromkeys(VMSTATS, 0)
        | {"v_free_count": 1, "v_inactive_count": 1, "v_active_count": 1, "v_wire_count": 1},
        "phantom": dict.fromkeys(("free", "cache", "inactive", "active", "wire"), 0),
        "globals": globs | {"curthread": "other", "systhread": False},
        "counters": dict.fromkeys(COUNTERS, 0),
    }


def spoil(path, value):
    def change(state):
        *way, last = path
        for step in way:
            state = state[step]
        if value is ...:
            del state[last]
        else:
            state[last] = value

    return change


BAD = [
    (spoil(["queues", "active", "1"], [1, 0]), "page 0: on two queues, inactive+1 and active+1"),
    (spoil(["queues", "inactive", "1"], []), "page 0: says queue inactive, but is on no list"),
    (spoil(["queues", "inactive"], {"2": [0]}), "page 0: on queue inactive+2, says inactive+1"),
    (spoil(["pages", 3, "queue"], "cache"), "page 3: says queue cache, but is on no list"),
    (spoil(["pages", 0, "queue"], "none"), "page 0: on queue inactive+1, but says none"),
    (
        spoil(["pages", 0, "queue"], "laundry"),
        "page 0 queue: unknown 'laundry'; known are none, free",
    ),
    (spoil(["queues", "free"], {"7": [2]}), "queue free+7: no such colour, there are 4"),
    (spoil(["queues", "free", "2"], [2, 77]), "queue free+2: there is no number 77"),
    (spoil(["vmstats", "v_free_count"], 5), "vmstats: v_free_count is 5, the queues say 1"),
    (spoil(["vmstats", "v_wire_count"], 0), "vmstats: v_wire_count is 0, the pages say 1"),
    (spoil(["vmstats", "v_free_min"], -1), "vmstats v_free_min: negative (-1)"),
    (spoil(["pages", 1, "flags"], ["MAPT"]), "page 1 flags: unknown flag 'MAPT'"),
    (spoil(["pages", 1, "flags"], ["MAPPED", "MAPPED"]), "page 1 flags: a flag is named twice"),
    (spoil(["pages", 1, "flags"], []), "page 1: MAPPED is set exactly when there are mappings"),
    (spoil(["pages", 0, "hold_count"], -2), "page 0 hold_count: negative (-2)"),
    (spoil(["pages", 0, "act_count"], 256), "page 0 act_count: 256 is out of range"),
    (spoil(["pages", 0, "valid"], "x"), "page 0 valid: 'x' is not a number"),
    (spoil(["pages", 0, "busy"], 1), "page 0: SBUSY is set exactly when busy is not 0"),
    (spoil(["pages", 0, "pindex"], 0), "page 1: index 0 of object 0 is page 0"),
    (spoil(["pages", 0, "object"], 4), "page 0 object: there is no number 4"),
    (spoil(["pages", 0, "colour"], 4), "page 0: unknown key 'colour'"),
    (spoil(["pages", 0, "id"], 4), "page 0: id is not its position in the list"),
    (spoil(["pages", 2, "dirty"], 4), "page 2: on the free queue, valid or dirty"),
    (spoil(["objects", 0, "resident_page_count"], 3), "object 0: resident_page_count 3, but 2"),
    (spoil(["objects", 0, "type"], "PIPE"), "object 0 type: unknown 'PIPE'"),
    (spoil(["objects", 0, "hold_count"], -1), "object 0 hold_count: negative (-1)"),
    (spoil(["objects", 0, "handle"], 3), "object 0 handle: there is no number 3"),
    (spoil(["maps", 0, "resident_count"], 0), "map 0: resident_count 0 < 1 mappings"),
    (spoil(["maps", 0, "wired_count"], 1), "map 0: wired_count 1, but 0 mappings"),
    (spoil(["maps", 0, "entries", 0, "end"], 4096), "map 0: entry 0x1000 out of order or empty"),
    (spoil(["maps", 0, "entries", 0, "maptype"], "X"), "map 0 entry 0 maptype: unknown 'X'"),
    (spoil(["procs", 0, "stat"], "SRUN"), "proc 0 stat: unknown 'SRUN'"),
    (spoil(["procs", 0, "map"], 2), "proc 9 map: there is no number 2"),
    (spoil(["globals", "curthread"], "init"), "globals curthread: unknown 'init'"),
    (spoil(["globals", "cache_rover"], ...), "globals: cache_rover is missing"),
    (spoil(["counters"], ...), "state: counters is missing"),
    (spoil(["objects", 0, "backing_object"], 0), "object 0: its backing objects lead back to"),
    (spoil(["maps", 0, "entries", 0, "start"], 4097), "map 0: entry 0x1001 does not begin"),
    (spoil(["maps", 0, "entries", 0, "end"], 1 << 63), "map 0: entry 0x1000 out of order"),
    (spoil(["maps", 0, "entries", 0, "maptype"], "SUBMAP"), "map 0: an entry of type SUBMAP has"),
    (spoil(["pages", 1, "pmap", 0, "va"], 1 << 50), "page 1: mapped at 0x4000000000000"),
    (spoil(["queues", "free"], {"٢": [2]}), "queue free ٢: the key is not a number"),
    (spoil(["queues", "free"], {"02": [2]}), "queue free 02: the key is not written as 2"),
    (spoil(["pages", 0, "valid"], True), "page 0 valid: True is not a number"),
    (spoil(["weather"], {}), "state: unknown key 'weather'"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_a_malformed_state_is_refused_in_one_line(change, words):
    state = plain()
    check(state, L2)
    change(state)
    with pytest.raises(StateError) as caught:
        load(machine(), state)
    text = str(caught.value)
    assert text.startswith(words)
    assert "\n" not in text


def ways(part, way=()):
    """The way to every value in a document."""
    yield way
    for key, each in part.items() if isinstance(part, dict) else enumerate(part):
        if isinstance(each, dict | list):
            yield from ways(each, (*way, key))
        else:
            yield (*way, key)


@pytest.mark.parametrize(
    "value", [None, True, 1.5, "x" * 9999, [], {}, [[[]]], {"a": 1}, -(10**99)]
)
def test_wrong_types_at_any_depth_are_refused_in_one_line(value):
    said = []
    for way in list(ways(plain()))[1:]:
        state = plain()
        spoil(way, value)(state)
        try:
            check(state, L2)
        except StateError as why:
            said.append(str(why))
    assert len(said) > 90
    assert [line for line in said if "\n" in line or len(line) > 300] == []
