"""DPOR visits every class of executions, each once: against known values and brute force."""

import pytest


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("Counter", 4),
        ("Locked", 90),
        ("Philosophers", 7),
        ("Message", 2),
        ("Livelock", 1),
        ("MissedWakeup", 3),
    ],
)
def test_known_values(explored, toys, name, classes):
    found = explored(getattr(toys, name), "dpor")
    assert len(found.classes) == classes
    assert found.n == classes  # one execution each, none cut
    assert "every class" in found.claim


def test_philosophers_of_two(explored, toys):
    two = type("Two", (toys.Philosophers,), {"n": 2})
    found = explored(two, "dpor")
    assert (found.n, len(found.classes), found.kinds["deadlock"]) == (3, 3, 1)


def test_permuted_threads_see_all_lock_orders(explored, toys):
    for names in ("abc", "bca", "cab"):
        permuted = type("Permuted", (toys.Locked,), {"names": names})
        assert explored(permuted, "dpor").n == 90


@pytest.mark.parametrize(
    "name",
    ["Counter", "Message", "MessageBackwards", "MissedWakeup", "NoWakeupMissed", "Livelock"],
)
def test_against_brute_force(explored, toys, name):
    scenario = getattr(toys, name)
    brute = explored(scenario, "all")
    dpor = explored(scenario, "dpor")
    assert brute.claim
    assert set(dpor.classes) == set(brute.classes)
    assert dpor.n == len(dpor.classes) + dpor.stopped
    assert set(dpor.kinds) == set(brute.kinds)


def test_marker_scan_over_three_pages(explored, toys):
    assert explored(toys.MarkerScan, "dpor").kinds == {}
    assert explored(toys.NextKept, "dpor").kinds["assertion"] > 0


def test_a_bug_is_not_missed(explored, toys):
    assert explored(toys.MessageBackwards, "dpor").kinds["assertion"] > 0
    assert explored(toys.NoWakeupMissed, "dpor").kinds == {}


@pytest.mark.parametrize("name", ["Counter", "Locked", "Philosophers", "MissedWakeup"])
def test_the_count_of_traces_is_the_count_of_classes(toys, name):
    from smpvm.explore.campaign import Campaign, Plan

    plan = Plan(strategy="dpor", schedules=None, shrink=False)
    report = Campaign(getattr(toys, name), plan).run()
    assert len(report.traces) == report.executions
