"""The rest of the scenario API: locks, arrays, tables, local data, fences."""

import pytest
from proving import kinds, proof, proven, titles

from smpvm import Scenario
from smpvm.explore.scenario import run_native
from smpvm.explore.search import Search, SearchPlan

# -- locks


class Timed(Scenario):
    """One has the lock for ten ticks, the other waits for it."""

    kind = "lock"
    patience = 3

    def setup(self):
        self.l, self.got = getattr(self, self.kind)("l"), self.array(1, 1)
        self.thread("holder", self.holder)
        self.thread("other", self.other)

    def holder(self):
        self.l.lock()
        self.tsleep("x", timo=10)
        self.l.unlock()

    def other(self):
        if self.l.lock(timo=self.patience):
            self.l.unlock()
        else:
            self.got[0] = 0

    def check(self):
        assert self.got[0], "it gave up"


class Patient(Timed):
    patience = 20


class TimedSpin(Timed):
    """Of spinlocks the holder may not sleep: it is had in time."""

    kind = "spinlock"

    def holder(self):
        self.l.lock()
        self.l.unlock()


class TimedToken(TimedSpin):
    kind = "token"


def test_locks_with_timers():
    assert "it gave up" in titles(Timed)
    for scenario in (Patient, TimedSpin, TimedToken):
        assert proven(scenario) > 1


class Upgrade(Scenario):
    """Two read, upgrade, and look again."""

    def setup(self):
        self.l, self.c = self.rwlock("l"), self.shared(n=0)
        for name in "ab":
            self.thread(name, self.go)

    def go(self):
        self.l.read()
        self.l.upgrade()
        self.c.n = self.c.n + 1
        self.l.release()

    def check(self):
        assert self.c.n == 2, "an update is lost"


class UpgradeBlind(Upgrade):
    """Does not look again."""

    def go(self):
        self.l.read()
        before = self.c.n
        self.l.upgrade()
        self.c.n = before + 1
        self.l.release()


class UpgradeTried(Upgrade):
    """Begins anew where it cannot be upgraded at once."""

    def go(self):
        self.l.read()
        before = self.c.n
        while not self.l.try_upgrade():
            self.l.read()
            before = self.c.n
        self.c.n = before + 1
        self.l.downgrade()
        self.l.release()


class WriteWhileReading(Upgrade):
    """Asks for the lock exclusively with a share of it in hand: each waits for the other."""

    def go(self):
        self.l.read()
        self.l.write()


class Writers(Upgrade):
    def go(self):
        if self.l.try_read():
            self.l.release()
        self.l.write()
        self.c.n = self.c.n + 1
        self.l.release()


def random(scenario, schedules=200):
    plan = SearchPlan("random", schedules, shrink=False)
    return {f.kind for f in Search(scenario, plan).run().findings}


def test_reader_writer_locks():
    assert kinds(WriteWhileReading) == {"deadlock"}
    assert random(UpgradeBlind) == {"assertion"}
    assert random(Upgrade) == random(UpgradeTried) == random(Writers) == set()


# -- the rest


class Fenced(Scenario):
    """A fence is no step, and each thread's local data is its own."""

    fences = 0

    def setup(self):
        self.c, self.mine = self.shared(n=0), self.local(seen=-1)
        for i in range(2):
            self.thread(f"t{i}", self.go, i)

    def go(self, i):
        assert self.mine.seen == -1
        self.mine.seen = i
        self.c.n = i
        for _ in range(self.fences):
            self.fence()
        self.yield_()
        assert self.mine.seen == i
        with pytest.raises(AttributeError):
            self.mine.other  # noqa: B018


class FencedTwice(Fenced):
    fences = 2


def test_fences_are_no_steps():
    first, second = proof(Fenced), proof(FencedTwice)
    assert {f.kind for f in first.findings} == {f.kind for f in second.findings} == {"race"}
    assert first.executions == second.executions == 2
    assert first.points == second.points


class OneAtATime(Scenario):
    """Two sleep, and each wakeup_one wakes one of them."""

    wakeups = 2

    def setup(self):
        self.up = self.array(2)
        for i in range(2):
            self.thread(f"t{i}", self.sleeper, i)
        self.thread("waker", self.waker)

    def sleeper(self, i):
        self.tsleep("x")
        self.up[i] = 1

    def waker(self):
        self.tsleep("nobody", timo=1)  # all sleep by then
        for _ in range(self.wakeups):
            self.wakeup_one("x")


class OneTooFew(OneAtATime):
    wakeups = 1


def test_wakeup_one():
    assert proven(OneAtATime) > 0
    assert kinds(OneTooFew) == {"stall"}


class Counted(Scenario):
    """Arrays and tables: each field is a place of its own, for accesses and atomics."""

    def setup(self):
        self.a, self.t = self.array(2, 5), self.table(("x", ("y", 1)), None)
        self.thread("one", self.go, 0, "x")
        self.thread("two", self.go, 1, ("y", 1))

    def go(self, i, key):
        self.a[i] = self.a[i] + 1
        self.atomic.add_int(self.a, self.a.at(i), 2)
        self.t[key] = i
        assert self.t[key] == i

    def check(self):
        assert (len(self.a), len(self.t)) == (2, 2)
        assert list(self.a) == [8, 8]
        assert list(self.t) == ["x", ("y", 1)]
        assert "x" in self.t
        assert "z" not in self.t
        assert self.a[-1] == 8


class Collide(Counted):
    """Both use the same place."""

    def setup(self):
        super().setup()
        self.thread("three", self.go, 0, "x")


def test_arrays_and_tables():
    assert proven(Counted) == 1
    assert "[0]" in titles(Collide)
    assert "['x']" in titles(Collide)


def test_the_same_on_real_threads():
    for scenario in (Upgrade, UpgradeTried, TimedSpin, TimedToken, Counted, Fenced):
        assert run_native(scenario, 5) == []
