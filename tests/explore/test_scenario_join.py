"""Spawn and join: one class if nothing races, and what the checkers find."""

import pytest
from proving import kinds, proof, proven, titles

from smpvm import Scenario
from smpvm.explore.scenario import run_native
from smpvm.kern.thread import End, Thread
from smpvm.report.lanes import step_line


class Parent(Scenario):
    """Makes children, waits for them, looks at what they did."""

    children = 1

    def setup(self):
        self.a = self.array(self.children)
        self.thread("parent", self.parent)

    def parent(self):
        kids = [self.spawn(f"kid {i}", self.kid, i) for i in range(self.children)]
        for kid in kids:
            assert self.join(kid)
        assert list(self.a) == [1] * self.children

    def kid(self, i):
        self.a[i] = 1


class Many(Parent):
    children = 4


class Impatient(Parent):
    """Looks without waiting."""

    def parent(self):
        self.spawn("kid", self.kid, 0)
        assert self.a[0] == 1


class Adding(Parent):
    """Two children add, unprotected: as many classes as without a parent, 4."""

    children = 2

    def parent(self):
        kids = [self.spawn(f"kid {i}", self.add) for i in range(2)]
        for kid in kids:
            self.join(kid)

    def add(self):
        self.a[0] = self.a[0] + 1


class TwoWait(Parent):
    """Two threads join a third: their order makes no difference."""

    def setup(self):
        self.a = self.array(1)
        kid = self.thread("kid", self.kid, 0)
        for name in "xy":
            self.thread(name, self.waits, kid)

    def waits(self, kid):
        self.join(kid)
        assert self.a[0] == 1


class JoinedWithLock(Scenario):
    """Waits for a thread that waits for what it holds."""

    def setup(self):
        self.l = self.lock("l")
        self.thread("parent", self.parent)

    def parent(self):
        self.l.lock()
        self.join(self.spawn("kid", self.kid))
        self.l.unlock()

    def kid(self):
        self.l.lock()
        self.l.unlock()


class JoinedInTime(Scenario):
    """A join with a timer, of a thread that never ends."""

    def setup(self):
        kid = self.daemon("kid", self.tsleep, "for ever")
        self.thread("parent", self.parent, kid)

    def parent(self, kid):
        assert not self.join(kid, 5)
        assert self.k.carrier.ticks() == 5


class JoinedForEver(JoinedInTime):
    """The same without a timer."""

    def parent(self, kid):
        self.join(kid)


class JoinedUnderSpinlock(Parent):
    def parent(self):
        kid = self.spawn("kid", self.kid, 0)
        lock = self.spinlock("l")
        lock.lock()
        self.join(kid)
        lock.unlock()


@pytest.mark.parametrize(
    ("scenario", "classes"), [(Parent, 1), (Many, 1), (TwoWait, 1), (JoinedInTime, 3)]
)
def test_spawn_and_join(scenario, classes):
    assert proven(scenario) == classes


def test_what_children_do_is_what_is_permuted():
    report = proof(Adding)
    assert report.executions == 4
    assert {f.kind for f in report.findings} == {"race"}


def test_wrong_joins():
    assert kinds(Impatient) == {"assertion"}
    assert "end of kid" in titles(JoinedWithLock)
    assert kinds(JoinedWithLock) == {"deadlock"}
    assert kinds(JoinedForEver) == {"stall"}
    assert "sleep-with-spinlock" in kinds(JoinedUnderSpinlock)


class JoinOrLook(Parent):
    """One joins, another looks for itself whether the thread has ended its work."""

    def setup(self):
        super().setup()
        self.thread("other", self.looks)

    def looks(self):
        if self.a[0]:
            self.a[0] = 1


class JoinBesideToken(Scenario):
    """One joins with a token in hand, and gives it up; another without."""

    def setup(self):
        self.t = self.token("t")
        kid = self.thread("kid", int)
        self.thread("holder", self.holder, kid)
        self.thread("plain", self.plain, kid)

    def holder(self, kid):
        self.t.lock()
        self.join(kid)
        self.t.unlock()

    def plain(self, kid):
        self.join(kid)
        self.t.lock()
        self.t.unlock()


@pytest.mark.parametrize(
    "scenario", [Parent, TwoWait, Adding, JoinOrLook, JoinBesideToken, JoinedInTime]
)
def test_against_brute_force(explored, scenario):
    brute, dpor = explored(scenario, "all"), explored(scenario, "dpor")
    assert brute.claim
    assert dpor.claim
    assert set(dpor.classes) == set(brute.classes)


def test_a_join_is_shown_as_one():
    op = (1, "acquire-shared", End(Thread(2, "kid", int)), "")
    assert step_line(op, ()) == "joins kid"


def test_joins_on_real_threads():
    for scenario in (Many, TwoWait):
        assert run_native(scenario, 5) == []
