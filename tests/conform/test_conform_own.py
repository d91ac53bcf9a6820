"""Our own vectors, derived from the C, for cases that the recorded ones do not cover."""

import copy
from pathlib import Path

import pytest

from smpvm.conform import read_vectors, run_vector
from smpvm.vm.page.struct import VM_ALLOC_INTERRUPT, VM_ALLOC_NORMAL, VM_ALLOC_QUICK

PART = Path(__file__).parents[1] / "data" / "vectors.jsonl.gz"
EMPTY = "vm_page_alloc-0093"
"""A vector whose state has no pages."""


def vector(function, args, *, pages=(), vmstats=None, globals_=None, objects=None, script=()):
    """A small state of *pages* and what the call must make of it: the same, until changed."""
    made = next(v for v in read_vectors(PART) if v["name"] == EMPTY)
    made |= {"name": f"{function}-own", "function": function, "args": args, "events": []}
    made |= {"script": list(script), "returns": {"value": None}}
    before = made["before"]
    before["pages"] = [{"id": n, **page} for n, page in enumerate(pages)]
    before["queues"] = {}
    for page in before["pages"]:
        if page["queue"] != "none":
            lists = before["queues"].setdefault(page["queue"], {})
            lists.setdefault(str(page["pc"]), []).append(page["id"])
    for name, lists in before["queues"].items():
        before["vmstats"][f"v_{name}_count"] = sum(map(len, lists.values()))
    before["vmstats"] |= vmstats or {}
    before["globals"] |= globals_ or {}
    before["objects"] = objects or before["objects"]
    made["after"] = copy.deepcopy(before)
    return made


def deactivated(made, *ids):
    """Those pages have gone to the inactive queue, at the tail."""
    after = made["after"]
    for idx in ids:
        page = after["pages"][idx]
        lists = after["queues"][page["queue"]]
        lists[str(page["pc"])].remove(idx)
        if not lists[str(page["pc"])]:
            del lists[str(page["pc"])]
        if not lists:
            del after["queues"][page["queue"]]
        after["queues"].setdefault("inactive", {}).setdefault(str(page["pc"]), []).append(idx)
        after["vmstats"][f"v_{page['queue']}_count"] -= 1
        after["vmstats"]["v_inactive_count"] += 1
        after["globals"]["vm_swapcache_inactive_heuristic"] += 1
        page["queue"] = "inactive"


@pytest.mark.parametrize("busy", [1, 3])
@pytest.mark.parametrize("request_", [VM_ALLOC_NORMAL, VM_ALLOC_QUICK, VM_ALLOC_INTERRUPT])
def test_an_allocation_that_finds_only_busy_free_pages_gives_up(busy, request_):
    """vm_page.c:1688-1761: each goes to the inactive queue, and v_free_count with it."""
    made = vector(
        "vm_page_alloc",
        {"object": None, "pindex": 7, "page_req": request_},
        pages=[{"queue": "free", "pc": n, "flags": ["BUSY"]} for n in range(busy)],
        vmstats={"v_free_reserved": 1},
        globals_={"vm_pages_needed": 1},
    )
    deactivated(made, *range(busy))
    made["after"]["globals"]["vm_pageout_deficit"] += 1
    assert run_vector(made).differences == []


@pytest.mark.parametrize("statuses", [["OK"], ["FAIL", "PEND"]])
def test_the_pager_of_a_dead_object_answers_again_whatever_the_script_says(statuses):
    """vm_pager.c:115-123: it is no place where others get a turn."""
    dead = {"id": 0, "type": "DEAD", "ref_count": 1, "size": 40, "flags": []}
    dead |= {"paging_in_progress": 0, "shadow_count": 0, "backing_object": None, "generation": 0}
    dead |= {"resident_page_count": 1, "hold_count": 0, "swblock_count": 0, "pg_color": 0}
    made = vector(
        "vm_pageout_flush",
        {"pages": [0], "flags": 0},
        pages=[{"object": 0, "pindex": 3, "queue": "inactive", "pc": 3, "flags": ["BUSY"]}],
        objects=[dead | {"handle": None}],
        script=[{"at": "put_pages", "n": 0, "mutations": [{"op": "page_busy", "page": 0}]}],
    )
    made["before"]["pages"][0] |= {"valid": 255, "dirty": 255}
    made["pager_statuses"] = statuses
    made["after"]["pages"][0] |= {"valid": 255, "dirty": 255, "flags": []}
    event = {"ev": "put_pages", "object": 0, "pages": [0], "flags": 0, "statuses": ["AGAIN"]}
    made["events"] = [event]
    made["returns"] = {"value": 0}
    assert run_vector(made).differences == []
