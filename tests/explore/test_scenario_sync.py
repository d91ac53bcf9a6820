"""What scenarios synchronise with: right programs are proven, and their wrong twins are found."""

import pytest

from smpvm import Scenario
from smpvm.explore.scenario import run_native
from smpvm.explore.search import Search, SearchPlan
from smpvm.kern.thread import End, Thread
from smpvm.report.lanes import step_line


def proof(scenario, **plan):
    """The report of an exhaustive search."""
    report = Search(scenario, SearchPlan("dpor", 6000, shrink=False, **plan)).run()
    assert report.executions < 6000, "not exhausted"
    return report


def proven(scenario):
    """How many executions the proof took; each a class of its own."""
    report = proof(scenario)
    assert report.findings == []
    assert report.verdict == "proven"
    assert report.executions == len(report.traces)
    return report.executions


def kinds(scenario):
    return {f.kind for f in proof(scenario).findings}


def titles(scenario):
    return " / ".join(f.title for f in proof(scenario).findings)


# -- spawn and join


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
        super().setup()
        kid = self.thread("kid", self.kid, 0)
        for name in "xy":
            self.thread(name, self.waits, kid)

    def parent(self):
        pass

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
    assert "sleep-with-spinlock" in titles(JoinedUnderSpinlock)


# -- condition variables


class Wait(Scenario):
    """One waits under a lock until the other says so."""

    kind = "spinlock"

    def setup(self):
        self.l = getattr(self, self.kind)("l")
        self.cv = self.condvar("cv")
        self.c = self.shared(ready=0)
        self.thread("waiter", self.waiter)
        self.thread("setter", self.setter)

    def waiter(self):
        self.l.lock()
        while not self.c.ready:
            assert self.cv.wait(self.l, cond=lambda: self.c.ready)
        self.l.unlock()

    def setter(self):
        self.l.lock()
        self.c.ready = 1
        self.cv.signal()
        self.l.unlock()


class WaitToken(Wait):
    kind = "token"


class WaitLock(Wait):
    kind = "lock"


class WaitRw(Wait):
    kind = "rwlock"


class WaitShared(Wait):
    """Waits as a reader of a spinlock, and is one again afterwards."""

    def waiter(self):
        self.l.lock_shared()
        while not self.c.ready:
            self.cv.wait(self.l, cond=lambda: self.c.ready)
        self.l.unlock_shared()


class WaitUnlocked(Wait):
    def waiter(self):
        while not self.c.ready:
            self.cv.wait(self.l)


class SignalFirst(Wait):
    """The signal may come before the wait, and is lost."""

    def waiter(self):
        self.l.lock()
        self.cv.wait(self.l)
        self.l.unlock()


class NotLooked(Wait):
    """Looks before it takes the lock."""

    def waiter(self):
        if not self.c.ready:
            self.l.lock()
            self.cv.wait(self.l, cond=lambda: self.c.ready)
            self.l.unlock()


class WaitTimed(Wait):
    """Nobody signals."""

    def waiter(self):
        self.l.lock()
        assert not self.cv.wait(self.l, timo=3)
        self.l.unlock()

    def setter(self):
        pass


class OneForTwo(Scenario):
    """Two wait, and one signal must do for both."""

    way = "signal"

    def setup(self):
        self.l, self.cv, self.c = self.token("l"), self.condvar("cv"), self.shared(ready=0)
        for name in "ab":
            self.thread(name, self.waiter)
        self.thread("setter", self.setter)

    waiter = Wait.waiter

    def setter(self):
        self.l.lock()
        self.c.ready = 1
        getattr(self.cv, self.way)()
        self.l.unlock()


class AllForTwo(OneForTwo):
    way = "broadcast"


@pytest.mark.parametrize(
    ("scenario", "classes"), [(Wait, 3), (WaitToken, 2), (WaitShared, 5), (WaitTimed, 1)]
)
def test_condition_variables(scenario, classes):
    assert proven(scenario) == classes


@pytest.mark.parametrize("scenario", [WaitLock, WaitRw, AllForTwo])
def test_condition_variables_with_other_locks(scenario):
    assert proven(scenario) > 1


def test_wrong_waits():
    assert "condvar-unlocked" in titles(WaitUnlocked)
    assert kinds(SignalFirst) == {"stall"}
    assert kinds(NotLooked) == {"race", "lost-wakeup"}
    assert kinds(OneForTwo) == {"lost-wakeup"}


# -- semaphores and barriers


class Mutex(Scenario):
    """A semaphore of one is a mutex."""

    n = 1

    def setup(self):
        self.s, self.c = self.semaphore("s", self.n), self.shared(n=0)
        for name in "ab":
            self.thread(name, self.count)

    def count(self):
        assert self.s.acquire()
        self.c.n = self.c.n + 1
        self.s.release()

    def check(self):
        assert self.c.n == 2, "an update is lost"


class TwoAtOnce(Mutex):
    n = 2


class NeverReleased(Mutex):
    def count(self):
        self.s.acquire()


class GivenUp(NeverReleased):
    """The same, and who waits gives up."""

    def count(self):
        if not self.s.acquire(timo=4):
            self.c.n = 2


class Tried(Mutex):
    def count(self):
        if self.s.try_acquire():
            self.c.n = self.c.n + 1
            self.s.release()


class Produced(Scenario):
    """An empty semaphore orders what is behind it."""

    def setup(self):
        self.s, self.c = self.semaphore("s", 0), self.shared(data=0)
        self.thread("consumer", self.consumer)
        self.thread("producer", self.producer)

    def producer(self):
        self.c.data = 42
        self.s.release()

    def consumer(self):
        self.s.acquire()
        assert self.c.data == 42


class ProducedLate(Produced):
    def producer(self):
        self.s.release()
        self.c.data = 42


class UnderSpinlock(Produced):
    def consumer(self):
        self.l = self.spinlock("l")
        self.l.lock()
        self.s.acquire()


class Meet(Scenario):
    """Each writes, and reads what its neighbour wrote.

    Either comes last, and finds the other asleep, or not yet: 4 classes.
    """

    n = 2

    def setup(self):
        self.b, self.a = self.barrier("b", self.n), self.array(self.n)
        for i in range(self.n):
            self.thread(f"t{i}", self.go, i)

    def go(self, i):
        self.a[i] = 1
        self.b.wait()
        assert self.a[(i + 1) % self.n] == 1


class MeetTwice(Meet):
    """The second wait keeps who is done from what the other still looks at."""

    def go(self, i):
        super().go(i)
        self.b.wait()
        self.a[i] = 2


class NoSecondWait(Meet):
    """It does not wait for the other to have looked."""

    def go(self, i):
        super().go(i)
        self.a[i] = 2


class Last(Meet):
    """One of them is told that it came last."""

    def go(self, i):
        self.a[i] = int(self.b.wait())

    def check(self):
        assert sorted(self.a) == [0, 1]


class OneMissing(Meet):
    def setup(self):
        super().setup()
        self.b.n = 3


@pytest.mark.parametrize(
    ("scenario", "classes"), [(Mutex, 6), (Produced, 3), (Meet, 4), (MeetTwice, 30), (Last, 4)]
)
def test_semaphores_and_barriers(scenario, classes):
    assert proven(scenario) == classes


def test_wrong_semaphores_and_barriers():
    assert kinds(TwoAtOnce) >= {"race", "assertion"}
    assert kinds(NeverReleased) == {"stall"}
    assert kinds(ProducedLate) == {"race", "assertion"}
    assert "sleep-with-spinlock" in titles(UnderSpinlock)
    assert kinds(Tried) == {"assertion"}  # one of them may come in vain
    assert kinds(NoSecondWait) == {"race", "assertion"}
    assert kinds(OneMissing) == {"stall"}


def test_a_semaphore_is_given_up_after_its_time():
    assert proven(GivenUp) > 1


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
    for scenario in (Many, Wait, WaitToken, WaitLock, AllForTwo, Mutex, Produced, MeetTwice):
        assert run_native(scenario, 5) == []
    for scenario in (Upgrade, UpgradeTried, TimedSpin, TimedToken, Counted, Fenced):
        assert run_native(scenario, 5) == []


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
    "scenario", [Parent, TwoWait, Adding, JoinOrLook, JoinBesideToken, JoinedInTime, WaitToken]
)
def test_against_brute_force(explored, scenario):
    brute, dpor = explored(scenario, "all"), explored(scenario, "dpor")
    assert brute.claim
    assert dpor.claim
    assert set(dpor.classes) == set(brute.classes)


def test_a_join_is_shown_as_one():
    op = (1, "acquire-shared", End(Thread(2, "kid", int)), "")
    assert step_line(op, ()) == "joins kid"
