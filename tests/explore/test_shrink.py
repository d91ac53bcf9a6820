"""Shrunk schedules have the known minimum of preemptions, and keep the finding."""

import pytest

from smpvm.explore.campaign import Campaign, Plan
from smpvm.explore.engine import Settings, execute
from smpvm.explore.random_walk import RandomWalk
from smpvm.explore.shrink import Shrinker


def first(scenario, kind):
    strategy = RandomWalk(5)
    for n in range(500):
        outcome = execute(scenario, strategy, Settings(), n)
        for finding in outcome.findings:
            if finding.kind == kind:
                return outcome, finding
    raise AssertionError(f"no {kind} in 500 executions")


@pytest.mark.parametrize(
    ("name", "kind", "minimum"),
    [
        ("Counter", "assertion", 1),
        ("Philosophers", "deadlock", 2),
        ("MissedWakeup", "lost-wakeup", 1),
        ("MessageBackwards", "assertion", 1),
        ("Livelock", "livelock", 0),
        ("Depth2", "assertion", 1),
    ],
)
def test_minimum_of_preemptions(toys, name, kind, minimum):
    scenario = getattr(toys, name)
    outcome, finding = first(scenario, kind)
    shrunk = Shrinker(scenario, Settings(), finding.fingerprint).shrink(outcome)
    assert shrunk.preemptions == minimum
    assert shrunk.after <= shrunk.before
    assert shrunk.finding.fingerprint == finding.fingerprint


def test_a_campaign_shrinks_what_it_finds(toys):
    report = Campaign(toys.Counter, Plan(strategy="random", schedules=30)).run()
    assert report.verdict == "findings"
    found = next(f for f in report.findings if f.kind == "assertion")
    assert found.schedule is not None
    assert any("of them 1 preemption " in line for line in found.evidence)


def test_the_scenario_itself_shrinks(toys):
    class Many(toys.Counter):
        """Several threads count without a lock."""

        n = 4
        sizes = {"n": 2}  # noqa: RUF012

        def setup(self):
            self.c = self.shared(n=0)
            for i in range(self.n):
                self.thread(f"t{i}", self.count)

        def check(self):
            assert self.c.n == self.n, "an update is lost"

    report = Campaign(Many, Plan(strategy="pos", schedules=100)).run()
    found = next(f for f in report.findings if f.kind == "assertion")
    assert found.schedule.endswith("Many?n=2")
    assert any("of them 1 preemption " in line for line in found.evidence)
