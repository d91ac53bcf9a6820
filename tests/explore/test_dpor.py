"""DPOR visits every class of executions, each once: against known values and brute force."""

import weakref

import pytest

from smpvm import Scenario
from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.bounded import Bounded
from smpvm.explore.strategy.dpor import Dpor
from smpvm.explore.trace.happens_before import order_of, trace_hash
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
