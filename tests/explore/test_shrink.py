"""Shrunk schedules have the known minimum of preemptions and reproduce the finding."""

import pytest

from smpvm import Scenario
from smpvm.explore.engine import Settings, execute
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.shrink import Budget, Shrinker
from smpvm.explore.strategy.random_walk import RandomWalk


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
    report = Search(toys.Counter, SearchPlan(strategy="random", schedules=30)).run()
    assert report.verdict == "findings"
    found = next(f for f in report.findings if f.kind == "assertion")
    assert found.schedule is not None
    assert any("including 1 preemption " in line for line in found.evidence)


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

    report = Search(Many, SearchPlan(strategy="pos", schedules=100)).run()
    found = next(f for f in report.findings if f.kind == "assertion")
    assert found.schedule.endswith("Many?n=2")
    assert any("including 1 preemption " in line for line in found.evidence)


class Long(Scenario):
    """Fails when the writer has changed often: much to shrink."""

    rounds = 60

    def setup(self):
        self.m = self.shared(benign={"last": "the point of it"}, last="")
        self.changes = 0
        for name in "ab":
            self.thread(name, self.write, name)

    def write(self, name):
        for _ in range(self.rounds):
            self.changes += self.m.last != name
            self.m.last = name

    def check(self):
        assert self.changes < 30, "many changes"


def test_shrinking_ends_when_it_is_told_to_and_says_so():
    outcome, finding = first(Long, "assertion")
    asked = []
    shrinker = Shrinker(Long, Settings(), finding.fingerprint, Budget(lambda: len(asked) > 20))
    shrinker.budget.spend = asked.append
    shrunk = shrinker.shrink(outcome)
    assert len(asked) < 25
    assert "not minimal: there was no time left" in shrunk.text()
    assert shrunk.finding.fingerprint == finding.fingerprint


def test_shrinking_that_would_take_too_long_says_so():
    outcome, finding = first(Long, "assertion")
    budget = Budget(steps=10 * outcome.steps)
    shrunk = Shrinker(Long, Settings(), finding.fingerprint, budget).shrink(outcome)
    assert shrunk.runs < 20
    assert "not minimal: it would take too long" in shrunk.text()
    whole = Shrinker(Long, Settings(), finding.fingerprint).shrink(outcome)
    assert whole.ended == ""
    assert "not minimal" not in whole.text()
    assert whole.after < shrunk.after


def test_seconds_bound_shrinking_too():
    class Longer(Long):
        rounds = 400

        def check(self):
            assert self.changes < 90, "many changes"

    plan = SearchPlan(strategy="random", schedules=None, seconds=0.2, stop_on_first=True)
    (found,) = [f for f in Search(Longer, plan).run().findings if f.kind == "assertion"]
    assert "not minimal" in found.evidence[-1]
