"""Declarations of a scenario: lock order, and fields that are read without a lock."""

import pytest

from smpvm import Scenario
from smpvm.explore.registry import ScenarioError
from smpvm.explore.search import Search, SearchPlan


class Directories(Scenario):
    """A directory's lock, then its file's; *level* tells them apart."""

    level = 1

    def setup(self):
        self.dir = self.lock("dir", cls="node", subclass=self.level)
        self.files = [self.lock(f"file {n}", cls="node") for n in range(2)]
        for n in range(2):
            self.thread(f"t{n}", self.both, self.dir, self.files[n])

    def both(self, first, then):
        first.lock()
        then.lock()
        then.unlock()
        first.unlock()


class OneLevel(Directories):
    level = 0


class Gate(Directories):
    """Either order, by who holds the gate."""

    gated = True

    def setup(self):
        self.gate = self.lock("gate")
        self.a, self.b = (self.lock(name, under=self.gate) for name in "ab")
        self.thread("t0", self.through, self.a, self.b)
        self.thread("t1", self.through, self.b, self.a)

    def through(self, first, then):
        if self.gated:
            self.gate.lock()
        self.both(first, then)
        if self.gated:
            self.gate.unlock()


class NoGate(Gate):
    gated = False


class Polled(Scenario):
    """Written atomically, read plainly."""

    lockless = ("up",)

    def setup(self):
        self.c = self.shared(up=0, lockless=self.lockless)
        self.thread("sets", self.atomic.set_int, self.c, "up", 1)
        self.thread("looks", self.looks)

    def looks(self):
        return self.c.up


class Watched(Polled):
    lockless = ()


@pytest.mark.parametrize(
    ("scenario", "kinds"),
    [
        (Directories, set()),
        (OneLevel, {"lock-order"}),
        (Gate, set()),
        (NoGate, {"lock-order", "deadlock"}),
        (Polled, set()),
        (Watched, {"race"}),
    ],
)
def test_what_is_said_is_heard(scenario, kinds):
    report = Search(scenario, SearchPlan(strategy="dpor", schedules=None, shrink=False)).run()
    assert {f.kind for f in report.findings} == kinds


@pytest.mark.parametrize("said", [{"subclass": -1}, {"under": "gate"}])
def test_what_says_nothing_is_refused(said):
    class Wrong(Scenario):
        def setup(self):
            self.spinlock("a", **said)

    with pytest.raises(ScenarioError, match=r"subclass|under"):
        Search(Wrong, SearchPlan(strategy="dpor", schedules=None)).run()
