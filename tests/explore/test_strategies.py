"""Each strategy finds the bug of each toy; PCT meets its bound; bounded search is exhaustive."""

import math
import random
from dataclasses import replace

import pytest

from smpvm import Scenario
from smpvm.explore.engine import Settings, execute
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.pct import Pct
from smpvm.explore.strategy.portfolio import make_strategy

BARE = Settings(checks=frozenset(), digest=False)
CHECKED = Settings(digest=False)


@pytest.mark.parametrize(
    "strategy", ["random", "pct", "pos", "surw", "bounded", "dpor", "portfolio"]
)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Counter", "assertion"),
        ("Philosophers", "deadlock"),
        ("MissedWakeup", "lost-wakeup"),
        ("Livelock", "livelock"),
        ("MessageBackwards", "assertion"),
    ],
)
def test_bugs_are_found(explored, toys, strategy, name, kind):
    assert explored(getattr(toys, name), strategy, 400, CHECKED).kinds[kind] > 0


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "surw", "bounded"])
@pytest.mark.parametrize("name", ["Locked", "Message", "NoWakeupMissed"])
def test_clean_programs_stay_clean(explored, toys, strategy, name):
    assert explored(getattr(toys, name), strategy, 150, CHECKED).kinds == {}


class Depth1(Scenario):
    """A bug of depth 1: one must not come before the other."""

    def setup(self):
        self.c = self.shared(benign={"ready": "the point of it"}, ready=0)
        self.thread("user", self.use)
        self.thread("maker", self.make)

    def use(self):
        assert self.c.ready, "used before it is made"

    def make(self):
        self.c.ready = 1


@pytest.mark.parametrize(
    ("name", "of", "depth"),
    [
        ("Depth1", 1, 1),
        ("Depth2", 2, 1),
        ("Depth2", 2, 2),
        ("Depth2", 2, 3),
        ("Philosophers2", 2, 2),
        ("Philosophers", 3, 3),
    ],
)
def test_pct_hits_not_less_often_than_its_bound(explored, toys, name, of, depth):
    """*of*: the depth of the bug.  To a deeper one nothing is promised, and to a shallower one the
    weaker bound."""

    class Philosophers2(toys.Philosophers):
        n = 2

    runs = 1500
    strategy = Pct(seed=11, depth=depth)
    program = {"Depth1": Depth1, "Philosophers2": Philosophers2}.get(name) or getattr(toys, name)
    hits = explored(program, strategy, runs, BARE).kinds
    assert hits.keys() <= {"assertion", "deadlock"}
    bound = strategy.bound() if depth >= of else 0.0
    slack = 3 * math.sqrt(runs * bound * (1 - bound))
    assert hits.total() >= runs * bound - slack
    assert (hits.total() > 0) == (depth >= of)


def test_more_preemptions_include_fewer(explored, toys):
    from smpvm.explore.strategy.bounded import Bounded

    sizes = [explored(toys.Counter, Bounded(b)).n for b in (0, 1, 2, None)]
    assert sizes == sorted(sizes)
    assert explored(toys.Counter, Bounded(0)).kinds == {}
    assert explored(toys.Counter, Bounded(1)).kinds["assertion"] > 0


def test_what_is_proven_is_said(explored, toys):
    assert "at most 2 preemptions" in explored(toys.Message, "bounded").claim
    assert explored(toys.Message, "random", 10).claim == ""


def test_an_endless_program_is_a_livelock_for_fair_strategies_only(toys):
    from smpvm.commands.replay import run_schedule
    from smpvm.explore.search import Search, SearchPlan
    from smpvm.explore.trace.schedule import Schedule

    class Endless(toys.Counter):
        """Polls for what nobody writes."""

        def count(self):
            while self.c.n == 0:
                self.k.carrier.yield_()

    settings = Settings(limit=300)
    plan = SearchPlan(strategy="random", schedules=2, settings=settings)
    found = Search(Endless, plan).run().findings
    assert [f.kind for f in found] == ["livelock"]
    shown = run_schedule(Schedule.parse(found[0].schedule), scenario=Endless, limit=300)
    assert shown.outcome.find(found[0].fingerprint) is not None
    report = Search(Endless, SearchPlan(strategy="dpor", schedules=3, settings=settings)).run()
    assert report.verdict == "inconclusive"
    assert report.limited > 0


def test_who_is_passed_over_for_ever_starves(toys):
    """LWKT tokens let sharers in while an exclusive request waits; under a fair scheduler too."""
    from smpvm.explore.search import Search, SearchPlan

    plan = SearchPlan(strategy="random", schedules=20, settings=Settings(limit=400))
    found = {f.kind: f.title for f in Search(toys.Sharers, plan).run().findings}
    assert "writer waits for token" in found["starvation"]

    class AndEnd(toys.Sharers):
        """The twin: the sharers end, and the writer has its turn."""

        rounds = 4

    assert Search(AndEnd, plan).run().findings == []


class Restless(Scenario):
    """What its threads do is drawn anew in each execution, which no scenario may do."""

    def setup(self):
        self.c = self.shared(n=0, m=0)
        for name in "abc":
            self.thread(name, self.body)

    def body(self):
        for _ in range(int(RND.random() * 4)):
            self.c.n = self.c.n + 1
        self.tsleep("x", 1)
        if RND.random() < 0.5:
            self.c.m = 1


RND = random.Random(1)


@pytest.mark.parametrize("strategy", ["dpor", "bounded", "all"])
def test_a_scenario_that_does_not_repeat_is_told_and_proves_nothing(strategy):
    told = 0
    for seed in range(30):
        RND.seed(seed)
        plan = SearchPlan(
            strategy=strategy,
            schedules=60,
            shrink=False,
            settings=Settings(checks=frozenset(), digest=False),
        )
        report = Search(Restless, plan).run()
        assert report.proven == ""
        told += any("could not be repeated" in note for note in report.notes)
    assert told > 20


class Remembers(Scenario):
    """The third execution, and only that kind, is another program: the class counts them."""

    ran = 0

    def setup(self):
        type(self).ran += 1
        self.c = self.shared(benign={"n": "the point of it"}, n=0)
        self.plain = self.ran % 3 == 0
        for name in "ab":
            self.thread(name, self.count)

    def count(self):
        if self.plain:
            self.c.n = self.c.n + 1
        else:
            self.atomic.add_int(self.c, "n", 1)

    def check(self):
        assert self.c.n == 2, "lost"


@pytest.mark.parametrize("strategy", ["dpor", "bounded", "all"])
@pytest.mark.parametrize("ran", [0, 1, 2])
def test_what_earlier_executions_leave_behind_proves_nothing(strategy, ran):
    class Again(Remembers):
        pass

    Again.ran = ran
    report = Search(Again, SearchPlan(strategy=strategy, schedules=200, shrink=False)).run()
    assert report.proven == ""
    assert report.findings or any("did not repeat" in n or "repeated" in n for n in report.notes)


class Endless(Scenario):
    """A lost update; with a polite pair beside it that may spin for ever."""

    spin = True

    def setup(self):
        self.m = self.shared(benign={"a": "", "b": "", "n": ""}, a=0, b=0, n=0)
        if self.spin:
            self.thread("x", self.polite, "a", "b")
            self.thread("y", self.polite, "b", "a")
        for name in "pq":
            self.thread(name, self.count)

    def count(self):
        self.m.n = self.m.n + 1

    def polite(self, me, other):
        while True:
            setattr(self.m, me, 1)
            if not getattr(self.m, other):
                break
            setattr(self.m, me, 0)
        setattr(self.m, me, 0)

    def check(self):
        assert self.m.n == 2, "lost"


def test_endless_executions_do_not_make_pct_blind():
    settings = Settings(limit=2000, digest=False)
    plan = SearchPlan("pct", 400, depth=2, seed=1, shrink=False, settings=settings)
    report = Search(Endless, plan).run()
    found = {f.kind: f.count for f in report.findings}
    assert found["livelock"] > 3
    assert found["assertion"] > 10  # of 400; it was 0 or 1
    (note,) = report.notes
    assert "k = 18 steps" in note


class Drawn(Scenario):
    """Which of two locks comes first is drawn: the steps are alike, the objects are not."""

    def setup(self):
        self.locks = [self.spinlock(name) for name in "pq"]
        for name in "ab":
            self.thread(name, self.body)

    def body(self):
        for lock in RND.sample(self.locks, 2):
            lock.lock()
            lock.unlock()


@pytest.mark.parametrize("strategy", ["dpor", "bounded", "all"])
def test_a_scenario_that_takes_other_objects_proves_nothing(strategy):
    for seed in range(20):
        RND.seed(seed)
        report = Search(Drawn, SearchPlan(strategy=strategy, schedules=None, shrink=False)).run()
        assert report.proven == ""


class TokenRing(Scenario):
    """Three pass a value on; all have the same only if they come in order.  No preemption."""

    def setup(self):
        self.s = self.shared(a=0, b=0, c=0)
        for i, (to, of) in enumerate(["ac", "ba", "cb"]):
            self.thread(f"t{i}", self.pass_on, to, of, i == 0)

    def pass_on(self, to, of, one_more):
        setattr(self.s, to, getattr(self.s, of) + one_more)

    def check(self):
        assert self.s.a == self.s.b == self.s.c, "not in order"


class Carter(Scenario):
    """One holds the gate while it wants the door, the other the door while it wants the gate."""

    def setup(self):
        self.s = self.shared(a=0, b=0)
        self.door, self.gate = self.spinlock("door"), self.spinlock("gate")
        self.thread("p", self.visit, "a")
        self.thread("q", self.visit, "b")

    def visit(self, who):
        self.door.lock()
        setattr(self.s, who, getattr(self.s, who) + 1)
        if getattr(self.s, who) == 1:
            self.gate.lock()
        self.door.unlock()
        self.door.lock()
        setattr(self.s, who, getattr(self.s, who) - 1)
        if getattr(self.s, who) == 0:
            self.gate.unlock()
        self.door.unlock()


class Reorder(Scenario):
    """Four set two fields in turn, one looks between: one preemption."""

    def setup(self):
        self.s = self.shared(benign={"a": "the point", "b": "the point"}, a=0, b=0)
        for i in range(4):
            self.thread(f"set{i}", self.set)
        self.thread("look", self.look)

    def set(self):
        self.s.a = 1
        self.s.b = -1

    def look(self):
        a, b = self.s.a, self.s.b
        assert (a, b) in ((0, 0), (1, -1)), "half set"


@pytest.mark.parametrize("strategy", [("bounded", None), ("dpor", 2)])
@pytest.mark.parametrize(
    ("scenario", "kind", "most"),
    [(TokenRing, "assertion", 7), (Carter, "deadlock", 40), (Reorder, "assertion", 781)],
)
def test_few_preemptions_come_first(strategy, scenario, kind, most):
    name, bound = strategy
    settings = Settings(checks=frozenset(["deadlock"]), digest=False)
    plan = SearchPlan(name, schedules=most, bound=bound, shrink=False, settings=settings)
    report = Search(scenario, replace(plan, stop_on_first=True)).run()
    assert [f.kind for f in report.findings] == [kind]


def test_a_bound_makes_dpor_smaller_and_is_in_its_claim(toys):
    whole = Search(toys.Locked, SearchPlan("dpor", schedules=None)).run()
    some = Search(toys.Locked, SearchPlan("dpor", schedules=None, bound=1)).run()
    every = Search(toys.Locked, SearchPlan("bounded", schedules=None, bound=1)).run()
    assert "every class of executions with at most 1 preemption was run" in some.proven
    assert some.executions < min(every.executions, whole.executions)
    assert some.traces == every.traces < whole.traces


def test_the_portfolio_proves_what_dpor_exhausts(toys):
    report = Search(toys.Message, SearchPlan(schedules=100)).run()
    assert report.executions < 10
    assert "every class of executions was run" in report.proven
    # Who does not begin with number 0 cannot have it.
    piece = Search(toys.Message, SearchPlan(schedules=100, first=3)).run()
    assert (piece.executions, piece.proven) == (100, "")
    # At granularity sync it would not be enough where something races.
    settings = Settings(granularity="sync")
    report = Search(toys.MessageBackwards, SearchPlan(schedules=100, settings=settings)).run()
    assert (report.executions, report.proven) == (100, "")


def test_numbers_of_the_portfolio_mean_the_same_in_every_piece(toys):
    def digests(first):
        strategy = make_strategy("portfolio", seed=4)
        found = {}
        for n in range(first, 30):
            outcome = execute(toys.Locked, strategy, Settings(), n)
            if n % 3 and n % 5 in (0, 2):  # random walk, POS: they learn nothing
                found[n] = outcome.digest
        return found

    whole = digests(0)
    assert all(whole[n] == digest for n, digest in digests(13).items())


class LongRun(Scenario):
    """Two threads that are long at it, each with a field of its own, and end."""

    def setup(self):
        self.s = self.shared(a=0, b=0)
        for field in "ab":
            self.thread(field, self.run, field)

    def run(self, field):
        for i in range(25_000):
            setattr(self.s, field, i)


class SpinFirst(Scenario):
    """One spins on a flag, and does not say so (relax)."""

    def setup(self):
        self.s = self.shared(benign={"flag": "the point"}, data=0, flag=0)
        self.thread("reader", self.reader)
        self.thread("writer", self.writer)

    def reader(self):
        while not self.s.flag:
            pass
        assert self.s.data == 1, "flag before data"

    def writer(self):
        self.s.flag = 1
        self.s.data = 1


@pytest.mark.parametrize(("strategy", "n"), [("random", 1), ("dpor", None), ("portfolio", 1)])
def test_a_program_that_takes_long_and_ends_is_no_livelock(strategy, n):
    report = Search(LongRun, SearchPlan(strategy, schedules=n)).run()
    assert (report.findings, report.limited) == ([], 0)


def test_who_spins_and_does_not_say_so_lets_others_run():
    report = Search(SpinFirst, SearchPlan("dpor", schedules=20, stop_on_first=True)).run()
    assert {f.kind for f in report.findings} <= {"race", "assertion"}
    assert report.findings
    assert not any("something else decides" in note for note in report.notes)


def test_what_was_cut_proves_nothing_accuses_nobody_and_says_who():
    class Alone(SpinFirst):
        def writer(self):
            self.s.data = 1

    report = Search(Alone, SearchPlan("dpor", schedules=None, settings=Settings(limit=500))).run()
    assert (report.verdict, report.findings) == ("inconclusive", [])
    assert any("reader took 500 steps without waiting" in n and "relax" in n for n in report.notes)
    assert not any("something else decides" in note for note in report.notes)
