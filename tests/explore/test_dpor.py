"""DPOR visits every class of executions, each once: against known values and brute force."""

import weakref

import pytest

from smpvm import Scenario
from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.bounded import Bounded
from smpvm.explore.strategy.dpor import Dpor
from smpvm.explore.trace.happens_before import order_of
from smpvm.explore.trace.tracehash import trace_hash
from smpvm.kern.errno import EINTR
from smpvm.kern.tsleep import PCATCH


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
    from smpvm.explore.search import Search, SearchPlan

    plan = SearchPlan(strategy="dpor", schedules=None, shrink=False)
    report = Search(getattr(toys, name), plan).run()
    assert len(report.traces) == report.executions


class Joining(Scenario):
    """The parent gives its token up in ``join`` only if the child has not ended yet."""

    def setup(self):
        self.t = self.token("t")
        self.x = self.shared(a=0, c=0, benign={"a": "the point of it", "c": "padding"})
        self.child = self.thread("child", lambda: self.x.c)
        self.thread("parent", self.parent)
        self.thread("third", self.third)

    def parent(self):
        self.t.get()
        before = self.x.a
        self.k.join(self.child)
        SEEN.add((before, self.x.a))
        self.t.release()

    def third(self):
        self.t.get()
        self.x.a = 1
        self.t.release()


SEEN = set()


def test_whether_a_thread_has_ended_is_an_order_too(explored):
    SEEN.clear()
    assert explored(Joining, "dpor").claim
    assert {(0, 0), (0, 1), (1, 1)} == SEEN


class Killed(Scenario):
    """A kill and a wakeup, both of a sleep that either ends."""

    def setup(self):
        self.p = self.k.proc.new(9)
        self.x = self.shared(told=0, benign={"told": "the point of it"})
        self.k.proc.lwp_fork(self.p, self.thread("sleeper", self.sleeper))
        self.thread("killer", self.killer)
        self.thread("waker", self.wakeup, "x")

    def sleeper(self):
        first = self.p.killed
        SEEN.add((first, self.tsleep("x", flags=PCATCH), self.p.killed))

    def killer(self):
        self.k.proc.lwpsignal(self.p, self.p.threads[0])


def test_a_kill_comes_at_any_moment_of_a_sleep(explored):
    SEEN.clear()
    found = explored(Killed, "dpor")
    assert found.claim
    assert found.kinds == {}
    # Seen before the sleep; in it, or at its beginning; after the wakeup, on the way out; or not.
    assert {(True, EINTR, True), (False, EINTR, True), (False, 0, True), (False, 0, False)} == SEEN


class Fails(Scenario):
    """Each order fails otherwise; the first failure ends the execution."""

    def setup(self):
        self.x = self.shared(a=0)
        self.thread("a", self.look)
        self.thread("b", self.write)

    def look(self):
        raise AssertionError("zero" if self.x.a == 0 else "one")

    def write(self):
        self.x.a = 1


def test_nothing_is_claimed_behind_a_failure(explored):
    found = explored(Fails, "dpor")
    assert found.claim == ""
    assert "ended with a failure" in found.strategy.notes()[-1]
    assert explored(Fails, "all").kinds["assertion"] > explored(Fails, "dpor").kinds["assertion"]


class WithDaemon(Scenario):
    """A daemon that never ends is no failure."""

    def setup(self):
        self.daemon("d", lambda: self.tsleep("for ever"))
        self.thread("a", self.wakeup, "somebody")


def test_daemons_that_are_left_do_not_matter(explored):
    assert explored(WithDaemon, "dpor").claim


@pytest.mark.parametrize(("racing", "proven"), [(True, False), (False, True)])
def test_granularity_sync_is_proven_only_where_nothing_races(racing, proven):
    from smpvm.explore.search import Search, SearchPlan

    class Two(Scenario):
        """A writer and a reader, with a lock between them or without."""

        name = "Two"

        def setup(self):
            self.x = self.shared(a=0, benign={"a": "the point of it"})
            self.l = self.spinlock("l")
            self.thread("w", self.go, lambda: setattr(self.x, "a", 1))
            self.thread("r", self.go, lambda: self.x.a)

        def go(self, access):
            if not racing:
                self.l.lock()
            access()
            if not racing:
                self.l.unlock()

    plan = SearchPlan("dpor", None, settings=Settings(granularity="sync"), shrink=False)
    report = Search(Two, plan).run()
    assert report.findings == []
    assert bool(report.proven) == proven
    assert ("proves nothing if accesses may race" in " ".join(report.notes)) == racing


def test_a_forgotten_execution_is_gone_without_the_garbage_collector(toys):
    bodies = []

    class Kept(toys.Locked):
        name = "Kept"

        def setup(self):
            super().setup()
            bodies.append(weakref.ref(self))

    with collected():
        outcome = execute(Kept, Dpor(), Settings(checks=frozenset()))
        alive = [ref() is not None for ref in bodies]
        outcome.forget()
        del outcome
        assert alive == [True]
        assert [ref() for ref in bodies] == [None]


class Readers(Scenario):
    """Two readers of a spinlock, and tokens in hand where one of them blocks."""

    def setup(self):
        self.l, self.t, self.u = self.spinlock("l"), self.token("t"), self.token("u")
        for name in "ab":
            self.thread(name, self.read)

    def read(self):
        self.l.lock_shared()
        self.l.unlock_shared()


class Tokens(Readers):
    """Each takes the second token with the first in hand."""

    def read(self):
        self.t.get_shared()
        self.u.get()
        self.u.release()
        self.t.release()


def outcomes(scenario, limit=1500):
    """Of every interleaving: the class, and the number that counts classes."""
    strategy, bare = Bounded(None), Settings(checks=frozenset(), digest=False)
    for n in range(limit):
        outcome = execute(scenario, strategy, bare, n)
        if outcome is None:
            return
        if not outcome.carrier.left or outcome.stuck:
            yield order_of(outcome.carrier).signature(), trace_hash(outcome.carrier)


@pytest.mark.parametrize(
    "name", ["Counter", "Locked", "Message", "Philosophers", "MarkerScan", "MissedWakeup"]
)
def test_distinct_traces_are_classes(toys, name):
    pairs = set(outcomes(getattr(toys, name)))
    assert len(pairs) == len({c for c, _ in pairs}) == len({t for _, t in pairs}) > 1


@pytest.mark.parametrize("scenario", [Readers, Tokens])
def test_distinct_traces_are_classes_where_locks_are_shared(scenario):
    pairs = set(outcomes(scenario))
    assert len(pairs) == len({c for c, _ in pairs}) == len({t for _, t in pairs}) > 1


def test_what_is_cut_is_no_trace(toys):
    report = Search(toys.Livelock, SearchPlan(strategy="dpor", schedules=None)).run()
    assert len(report.traces) <= report.executions


class Sections(Scenario):
    """*n* threads, *m* critical sections each, of one lockmgr lock or of one spinlock."""

    lockmgr = True
    n = 2
    m = 1

    def setup(self):
        self.l = self.lock("l") if self.lockmgr else self.spinlock("l")
        for i in range(self.n):
            self.thread(f"t{i}", self.sections)

    def sections(self):
        for _ in range(self.m):
            self.l.lock()
            self.l.unlock()


@pytest.mark.parametrize(("n", "m", "classes"), [(2, 1, 2), (3, 1, 6), (2, 2, 6), (4, 1, 24)])
@pytest.mark.parametrize("lockmgr", [True, False])
def test_a_lockmgr_lock_has_the_classes_of_a_mutex(explored, lockmgr, n, m, classes):
    found = explored(type("Case", (Sections,), {"lockmgr": lockmgr, "n": n, "m": m}), "dpor")
    assert (found.n, len(found.classes)) == (classes, classes)


class HoldingToken(Sections):
    """One of them comes with a token in hand, which a wait gives up; the other sees that."""

    def setup(self):
        self.s = self.shared(gave=0)
        self.l, self.t = self.lock("l"), self.token("t")
        self.thread("a", self.with_token)
        self.thread("b", self.without)

    def with_token(self):
        self.t.get()
        self.l.lock()
        self.l.unlock()
        self.t.release()

    def without(self):
        self.l.lock()
        if self.t.try_():
            self.s.gave = self.s.gave + 1
            self.t.release()
        self.l.unlock()


class ReadersAndWriter(Sections):
    """One shares it twice, one wants it alone: who shares later waits behind it."""

    def setup(self):
        self.l = self.lock("l")
        self.thread("r", lambda: (self.share(), self.share()))
        self.thread("w", self.sections)

    def share(self):
        self.l.lock_shared()
        self.l.unlock()


@pytest.mark.parametrize("scenario", [HoldingToken, ReadersAndWriter])
def test_waits_for_a_lockmgr_lock_against_brute_force(explored, scenario):
    brute = explored(scenario, "all", 200_000)
    dpor = explored(scenario, "dpor")
    assert brute.claim
    assert set(dpor.classes) == set(brute.classes)
    assert dpor.n == len(dpor.classes)


class CasRot(Scenario):
    """Each of *n* threads does one compare-and-set; most fail.  Published: 2,048 for 8."""

    n = 5

    def setup(self):
        self.s = self.shared(x=0)
        for i in range(self.n):
            self.thread(f"t{i}", self.atomic.cmpset_int, self.s, "x", i, i + 1)


class Sigma(Scenario):
    """One starts *n* threads and counts them; each writes where the count is then.

    Published: 945 traces for 5.
    """

    n = 4

    def setup(self):
        self.s = self.shared(index=0, **{f"x{i}": 0 for i in range(self.n)})
        self.thread("main", self.main)

    def main(self):
        for i in range(self.n):
            self.thread(f"t{i}", self.write)
            if i < self.n - 1:
                self.s.index = i + 1

    def write(self):
        setattr(self.s, f"x{self.s.index}", 1)


class SwapLock(Scenario):
    """*n* threads take a lock that they swap into, and spin."""

    n = 2

    def setup(self):
        self.s = self.shared(lock=0)
        for i in range(self.n):
            self.thread(f"t{i}", self.section)

    def section(self):
        while self.atomic.swap_int(self.s, "lock", 1):
            self.relax(self.s)
        self.atomic.swap_int(self.s, "lock", 0)


@pytest.mark.parametrize(
    ("scenario", "n", "classes"),
    [(CasRot, 3, 5), (CasRot, 8, 2048), (Sigma, 4, 105), (Sigma, 5, 945), (SwapLock, 2, None)],
)
def test_an_atomic_that_changes_nothing_is_a_read(explored, scenario, n, classes):
    case = type("Case", (scenario,), {"n": n})
    found = explored(case, "dpor")
    assert found.claim
    assert found.strategy.inner.blocked == 0
    assert found.n == len(found.classes)
    assert classes in (None, found.n)
    if n < 4:
        assert set(found.classes) == set(explored(case, "all").classes)


def test_test_and_set_waiters_do_not_wake_each_other(explored):
    assert explored(type("Case", (SwapLock,), {"n": 3}), "dpor", 5_000).claim


def test_a_store_of_the_value_that_is_there_wakes_nobody(explored):
    class Storing(SwapLock):
        def setup(self):
            self.s = self.shared(benign={"x": "on purpose", "go": "on purpose"}, x=0, go=0)
            for name in "ab":
                self.thread(name, self.spin)
            self.thread("c", lambda: setattr(self.s, "go", 1))

        def spin(self):
            while not self.s.go:
                self.s.x = 0
                self.relax(self.s)

    assert explored(Storing, "dpor", 5_000).claim
