"""Condition variables, semaphores, barriers: correct programs are proven, wrong ones found."""

import pytest
from proving import kinds, proven, titles

from smpvm import Scenario
from smpvm.explore.scenario import run_native

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


class MutexThree(Mutex):
    def setup(self):
        super().setup()
        self.c = self.shared(n=-1)
        self.thread("c", self.count)


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


class TwoProducers(Scenario):
    """The consumer takes what one of them has brought, before or after the other comes."""

    def setup(self):
        self.s = self.semaphore("s", 0)
        for name in "ab":
            self.thread(name, self.s.release)
        self.thread("consumer", self.s.acquire)


class Rooms(Scenario):
    """Three threads in two rooms."""

    def setup(self):
        self.s = self.semaphore("s", 2)
        for name in "abc":
            self.thread(name, self.visit)

    def visit(self):
        self.s.acquire()
        self.s.release()


class TimedToo(Rooms):
    def setup(self):
        self.s = self.semaphore("s", 1)
        self.thread("a", self.visit)
        self.thread("b", self.timed)

    def timed(self):
        if self.s.acquire(timo=3):
            self.s.release()


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

    Either comes last.
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


class MeetThree(Meet):
    n = 3


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
    ("scenario", "classes"),
    [
        (Mutex, 2),
        (MutexThree, 6),
        (Produced, 1),
        (TwoProducers, 4),
        (Meet, 2),
        (MeetThree, 6),
        (MeetTwice, 4),
        (Last, 2),
    ],
)
def test_semaphores_and_barriers(scenario, classes):
    assert proven(scenario) == classes


def test_wrong_semaphores_and_barriers():
    assert kinds(TwoAtOnce) >= {"race", "assertion"}
    assert kinds(NeverReleased) == {"stall"}
    assert kinds(ProducedLate) == {"race", "assertion"}
    assert "sleep-with-spinlock" in kinds(UnderSpinlock)
    assert kinds(Tried) == {"assertion"}  # one of them may come in vain
    assert kinds(NoSecondWait) == {"race", "assertion"}
    assert kinds(OneMissing) == {"stall"}


def test_a_semaphore_is_given_up_after_its_time():
    assert proven(GivenUp) > 1


class WakeTwice(Scenario):
    """Wakeups that wake nobody commute."""

    def setup(self):
        for name in "ab":
            self.thread(name, self.wakeup, "x")


class WakeOrSleep(WakeTwice):
    def setup(self):
        super().setup()
        self.thread("c", self.tsleep, "x", 3)


class WakeOneOrSleep(Scenario):
    def setup(self):
        for name in "ab":
            self.thread(name, self.wakeup_one, "x")
        for name in "cd":
            self.thread(name, self.tsleep, "x", 3)


def test_wakeups_of_nobody_commute():
    assert proven(WakeTwice) == 1
    assert proven(WakeOrSleep) == 5


@pytest.mark.parametrize(
    "scenario",
    [
        Wait,
        WaitToken,
        Produced,
        TwoProducers,
        Rooms,
        TimedToo,
        Mutex,
        MeetTwice,
        WakeTwice,
        WakeOrSleep,
        WakeOneOrSleep,
    ],
)
def test_against_brute_force(explored, scenario):
    brute, dpor = explored(scenario, "all"), explored(scenario, "dpor")
    assert brute.claim
    assert dpor.claim
    assert set(dpor.classes) == set(brute.classes)


def test_the_same_on_real_threads():
    for scenario in (Wait, WaitToken, WaitLock, AllForTwo, Mutex, Produced, MeetTwice):
        assert run_native(scenario, 5) == []
