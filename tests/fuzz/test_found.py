"""Defects of the kernel that fuzz found: each shows in its program, and is gone with its repair."""

from dataclasses import replace

import pytest

from smpvm.explore.registry import find
from smpvm.explore.search import Search, SearchPlan
from smpvm.fuzz.search import SETTINGS

FOUND = {
    "unwire-object": ("start: x anon 1 wired | a: exec", "still wired"),
    "fork-transition": (
        "start: x shared 1 busy | a: fork | a2: mlock x+0",
        "threads sleep, and no thread is left",
    ),
    "wired-store": (
        "start: f private 1 backed | a: mlock f | a2: write f+0",
        "an access to f fails",
    ),
    "quick-dirty": (
        "start: x shared 1 empty | a: write x+0 | b: mlock x+0; physio x+0 in",
        "Page.dirty",
    ),
    "cache-free": (
        "start: x anon 1 swapped | kernel: try-cache x+0",
        "in use, but belongs to no object",
    ),
    "revoke-split": ("start: f private 1 backed | a: reclaim f; fork", "ref-quick-not-vnode"),
    "revoke-sleep": (
        "start: f private 1 swapped | a: read f+0 | b: reclaim f",
        "sleep-no-ident",
    ),
    "revoke-mmap": (
        "start: f file 1 unmapped | a: mmap f; munmap f; mmap f | b: reclaim f",
        "ref-quick-not-vnode",
    ),
}
"""Repair → the program, and words of the finding's title."""


def shown(text, words, repairs=()):
    """Does a finding with *words* in its title show in some schedules?"""
    checks = frozenset({"race"} if words == "Page.dirty" else ())
    settings = replace(SETTINGS, checks=checks, repairs=repairs)
    plan = SearchPlan("pos", 100, settings=settings, shrink=False, traces=False)
    found = False

    def noted(finding):
        nonlocal found
        found |= words in finding.title

    Search(find(f"fuzz:{text}"), plan, on_first=noted, enough=lambda: found).run()
    return found


@pytest.mark.parametrize("repair", FOUND)
def test_it_shows_and_is_gone_with_its_repair(repair):
    text, words = FOUND[repair]
    assert shown(text, words)
    assert not shown(text, words, (repair,))
