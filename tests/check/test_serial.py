"""The same checkers on a serial carrier, where the scheduler decides who waits."""

import pytest

from smpvm.check.race import Races
from smpvm.explore.engine import Settings, execute
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.kern.shared import shared
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token
from smpvm.kern.tsleep import PINTERLOCKED, Ident


@shared("value", "up")
class Cell:
    __slots__ = ("up", "value")

    def __init__(self):
        self.value = 0
        self.up = 0

    def __str__(self):
        return "cell"


class Base:
    """A scenario of a few threads on a bare kernel."""

    name = "check-serial"
    spin_pool = 4
    promises = ()

    def __init__(self, k, repairs=()):
        self.k = k
        self.set_up()
        for n, body in enumerate(self.bodies()):
            k.spawn(f"t{n}", body)

    def failures(self):
        return []


class AbBa(Base):
    def set_up(self):
        self.a, self.b = Spinlock(self.k, "alpha"), Spinlock(self.k, "beta")

    def pair(self, x, y):
        x.lock()
        y.lock()
        y.unlock()
        x.unlock()

    def bodies(self):
        return [lambda: self.pair(self.a, self.b), lambda: self.pair(self.b, self.a)]


class Ab(AbBa):
    def bodies(self):
        return [lambda: self.pair(self.a, self.b)] * 2


class Lost(Base):
    flags = 0
    timo = 0

    def set_up(self):
        self.cell, self.ident, self.tok = self.k.new(Cell), Ident("cell"), Token(self.k, "tok")

    def sleeper(self):
        k = self.k
        if self.flags & PINTERLOCKED:
            k.sleep.tsleep_interlock(self.ident)
        if not k.atomic.fetchadd_int(self.cell, "up", 0):
            k.sleep.tsleep(self.ident, self.flags, "up", self.timo, lambda: bool(self.cell.up))

    def waker(self):
        self.k.atomic.set_int(self.cell, "up", 1)
        self.k.sleep.wakeup(self.ident)

    def bodies(self):
        return [self.sleeper, self.waker]


class Masked(Lost):
    timo = 10


class Interlocked(Lost):
    flags = PINTERLOCKED


class InterlockedTimed(Interlocked):
    timo = 10


class Counter(Base):
    def set_up(self):
        self.cell, self.lock = self.k.new(Cell), Spinlock(self.k, "cell")

    def bump(self):
        self.cell.value = self.cell.value + 1

    def bodies(self):
        return [self.bump, self.bump]


class Locked(Counter):
    def bump(self):
        self.lock.lock()
        super().bump()
        self.lock.unlock()


class Unstated(Masked):
    """The same, and nobody is told what it sleeps for."""

    def sleeper(self):
        if not self.k.atomic.fetchadd_int(self.cell, "up", 0):
            self.k.sleep.tsleep(self.ident, 0, "up", self.timo)


def test_a_timed_sleep_without_a_condition_is_named_in_the_claim():
    report = Search(Unstated, SearchPlan(strategy="dpor", schedules=None)).run()
    assert report.findings == []
    site = "timed sleep without cond: Unstated.sleeper (up)"
    assert report.proven.endswith(f"; not judged: {site}")
    assert report.to_json()["not_judged"] == [site]
    report = Search(InterlockedTimed, SearchPlan(strategy="dpor", schedules=None)).run()
    assert report.proven
    assert "not judged" not in report.proven


def explore(scenario, runs=40):
    """Kind → findings, over some random executions."""
    found = {}
    strategy = RandomWalk(5)
    for n in range(runs):
        outcome = execute(scenario, strategy, Settings(), n)
        for f in outcome.findings:
            found.setdefault(f.kind, []).append(f)
    return found


@pytest.mark.parametrize(
    ("scenario", "kinds"),
    [
        (AbBa, {"deadlock", "lock-order"}),
        (Ab, set()),
        (Lost, {"lost-wakeup"}),
        (Masked, {"masked-lost-wakeup"}),
        (Interlocked, set()),
        (InterlockedTimed, set()),
        (Counter, {"race"}),
        (Locked, set()),
    ],
)
def test_each_defect_and_its_twin(scenario, kinds):
    assert set(explore(scenario)) == kinds


def test_a_deadlock_shows_where_each_thread_waits():
    found = explore(AbBa)["deadlock"][0]
    assert found.threads == [("t0", "t0"), ("t1", "t1")]
    for site in found.sites:
        assert any(frame.name.endswith("AbBa.pair") for frame in site.stack), site
    assert len({f.fingerprint for f in explore(AbBa)["deadlock"]}) == 1


def test_the_unlocked_counter_is_found_in_every_order():
    runs = 20
    assert len(explore(Counter, runs)["race"]) >= runs


class Racing(Base):
    """One thread writes, two read, many times, with nothing between them."""

    def set_up(self):
        self.c = self.k.new(Cell)

    def write(self):
        for n in range(40):
            self.c.value = n
            self.c.up = self.c.value

    def read(self):
        return [self.c.value + self.c.up for _ in range(40)]

    def bodies(self):
        return [self.write, self.read, self.read]


def test_a_race_seen_before_is_counted_like_the_first(monkeypatch):
    """Known pairs of places are only counted: nothing that is reported may come to depend on it."""

    def run():
        outcome = execute(Racing, RandomWalk(5), Settings())
        return [f.to_json() for f in outcome.findings], outcome.digest

    quick, digest = run()
    asked = []
    monkeypatch.setattr(Races, "_tells_function", lambda self, where: bool(asked.append(where)))
    slow, same = run()
    assert (quick, digest) == (slow, same)
    assert len(asked) == sum(f["count"] for f in slow)  # so none was known
    assert len(slow) == 2
    assert len(asked) > 100
