"""Choices of a scenario: explored, replayed and shrunk like those of the scheduler."""

from __future__ import annotations

from typing import Any

import pytest

from smpvm import Scenario
from smpvm.commands.replay import run_schedule
from smpvm.explore.engine import Settings
from smpvm.explore.registry import ScenarioError
from smpvm.explore.scenario import run_native
from smpvm.explore.search import Search, SearchPlan, SearchReport
from smpvm.explore.trace.schedule import Schedule

PROVING = [("dpor", None), ("bounded", 2), ("all", None), ("dpor", 2)]


def search(scenario: Any, strategy: str = "dpor", **plan: Any) -> SearchReport:
    settings = Settings(**plan.pop("settings", {}))
    plan = {"schedules": 3000, "settings": settings, **plan}
    return Search(scenario, SearchPlan(strategy=strategy, **plan)).run()


def choosing(*sizes: int) -> tuple[Any, set[tuple[int, ...]]]:
    """A scenario in which each thread chooses once, and what has been chosen."""
    seen: set[tuple[int, ...]] = set()

    class Chosen(Scenario):
        def setup(self) -> None:
            self.got: dict[int, int] = {}
            for i, n in enumerate(sizes):
                self.thread(f"t{i}", self.body, i, n)

        def body(self, i: int, n: int) -> None:
            self.got[i] = self.choose(n)

        def check(self) -> None:
            seen.add(tuple(self.got[i] for i in range(len(sizes))))

    return Chosen, seen


@pytest.mark.parametrize(("strategy", "bound"), PROVING)
def test_every_choice_is_made(strategy: str, bound: int | None) -> None:
    scenario, seen = choosing(2, 3)
    report = search(scenario, strategy, bound=bound)
    assert report.proven
    assert seen == {(a, b) for a in range(2) for b in range(3)}
    if (strategy, bound) == ("dpor", None):
        assert report.executions == len(report.traces) == 6


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "surw", "portfolio"])
def test_random_strategies_choose_at_random(strategy: str) -> None:
    scenario, seen = choosing(2, 3)
    search(scenario, strategy, schedules=100)
    assert len(seen) == 6


class Late(Scenario):
    """A choice that is there only after another, and only in some orders."""

    def setup(self) -> None:
        self.c = self.shared(x=0, benign={"x": "meant"})
        self.thread("writer", self.write)
        self.thread("reader", self.read)

    def write(self) -> None:
        self.c.x = 1 + self.choose(2)

    def read(self) -> None:
        x = self.c.x
        if x == 2:
            assert self.choose(3) != 2, "the last of all"


@pytest.mark.parametrize(("strategy", "bound"), [*PROVING, ("random", None), ("portfolio", None)])
def test_a_choice_that_depends_on_others_is_found(strategy: str, bound: int | None) -> None:
    report = search(Late, strategy, bound=bound, schedules=300)
    assert [f.kind for f in report.findings] == ["assertion"]
    (finding,) = report.findings
    assert finding.schedule is not None
    schedule = Schedule.parse(finding.schedule)
    assert schedule.text() == finding.schedule
    assert sorted(schedule.choices.values()) == [1, 2]
    shown = run_schedule(schedule, scenario=Late)
    assert not shown.replay.diverged
    assert [f.fingerprint for f in shown.outcome.findings] == [finding.fingerprint]


class Idle(Scenario):
    """Choices that have nothing to do with what fails."""

    def setup(self) -> None:
        self.c = self.shared(n=0, benign={"n": "meant"})
        for name in "ab":
            self.thread(name, self.count)

    def count(self) -> None:
        self.choose(5)
        self.choose(5)
        self.c.n = self.c.n + 1

    def check(self) -> None:
        assert self.c.n == 2


def test_choices_are_shrunk() -> None:
    report = search(Idle, "random", stop_on_first=True)
    (finding,) = report.findings
    assert Schedule.parse(finding.schedule or "").choices == {}


@pytest.mark.parametrize("strategy", ["dpor", "bounded", "random"])
def test_assume_prunes(strategy: str) -> None:
    class Assumed(Scenario):
        def setup(self) -> None:
            self.c = self.shared(x=0, y=0, benign={"x": "meant", "y": "meant"})
            self.thread("a", self.a)
            self.thread("b", self.b)

        def a(self) -> None:
            self.c.y = 1
            self.c.x = 1

        def b(self) -> None:
            self.assume(self.c.x == 1)
            assert self.c.y == 1, "cannot be"

    report = search(Assumed, strategy, schedules=200)
    assert report.findings == []
    assert report.pruned > 0
    assert report.executions > 0
    assert bool(report.proven) == (strategy != "random")
    assert report.to_json()["pruned"] == report.pruned
    assert any("pruned" in line for line in report.lines())


def test_what_is_behind_an_assumption_is_found() -> None:
    class Behind(Scenario):
        def setup(self) -> None:
            self.c = self.shared(x=0, benign={"x": "meant"})
            self.thread("a", self.a)
            self.thread("b", self.b)

        def a(self) -> None:
            self.c.x = 1
            self.c.x = 2
            self.c.x = 3

        def b(self) -> None:
            self.assume(self.c.x == 2)
            raise AssertionError("reached")

    report = search(Behind)
    assert [f.kind for f in report.findings] == ["assertion"]


def test_an_assumption_that_never_holds_proves_nothing() -> None:
    class Never(Scenario):
        where = "thread"

        def setup(self) -> None:
            self.assume(self.where != "setup")
            self.thread("a", self.a)

        def a(self) -> None:
            self.assume(self.where != "thread")
            raise AssertionError("not reached")

        def check(self) -> None:
            self.assume(False)

    for where in ("setup", "thread", "check"):
        report = search(type("Never", (Never,), {"where": where}))
        if where == "check":
            assert [f.title for f in report.findings] == ["not reached"]
            continue
        assert report.findings == []
        assert not report.proven
        assert report.executions == 0
        assert "no execution met the assumptions" in "\n".join(report.lines())


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_what_cannot_be_chosen_is_refused(n: Any) -> None:
    class Wrong(Scenario):
        def setup(self) -> None:
            self.choose(n)

    with pytest.raises(ScenarioError, match="choose: a whole number, 1 or more"):
        search(Wrong)


def test_natively_chance_decides() -> None:
    scenario, seen = choosing(2, 2)
    assert run_native(scenario, 40) == []
    assert len(seen) > 1


class IfForWhile(Scenario):
    """``if`` for ``while`` around a sleep."""

    sleeps = 0

    def setup(self) -> None:
        if self.sleeps:
            self.spurious(self.sleeps)
        self.c = self.shared(full=0)
        self.m = self.token("m")
        self.thread("consumer", self.consume)
        self.thread("producer", self.produce)

    def consume(self) -> None:
        self.m.get()
        if not self.c.full:
            self.tsleep("full", cond=lambda: bool(self.c.full))
        assert self.c.full
        self.m.release()

    def produce(self) -> None:
        self.m.get()
        self.c.full = 1
        self.wakeup("full")
        self.m.release()


class WhileSleeps(IfForWhile):
    def consume(self) -> None:
        self.m.get()
        while not self.c.full:
            self.tsleep("full", cond=lambda: bool(self.c.full))
        self.m.release()


@pytest.mark.parametrize("strategy", ["dpor", "bounded", "random", "portfolio"])
def test_if_for_while_is_found_with_spurious_wakeups(strategy: str) -> None:
    assert search(IfForWhile).proven
    report = search(IfForWhile, strategy, schedules=300, settings={"spurious": 1})
    assert [f.kind for f in report.findings] == ["assertion"]
    (finding,) = report.findings
    schedule = Schedule.parse(finding.schedule or "")
    assert schedule.spurious == 1
    shown = run_schedule(schedule, scenario=IfForWhile)
    assert not shown.replay.diverged
    assert [f.fingerprint for f in shown.outcome.findings] == [finding.fingerprint]


def test_the_scenario_may_ask_for_spurious_wakeups() -> None:
    found = search(type("IfForWhile", (IfForWhile,), {"sleeps": 1}))
    assert [f.kind for f in found.findings] == ["assertion"]
    for n in (1, 2):
        report = search(WhileSleeps, settings={"spurious": n})
        assert report.proven
        assert f"at most {n} spurious" in "\n".join(report.lines())


class OneOfTwo(Scenario):
    """Who of two sleepers is woken first."""

    def setup(self) -> None:
        self.c = self.shared(order=(), up=0)
        self.m = self.token("m")
        for name in "ab":
            self.thread(name, self.sleeper, name)
        self.thread("waker", self.waker)

    def sleeper(self, name: str) -> None:
        self.m.get()
        self.c.up += 1
        self.wakeup("up")
        self.tsleep("one")
        self.c.order += (name,)
        self.m.release()

    def waker(self) -> None:
        self.m.get()
        while self.c.up < 2:
            self.tsleep("up")
        for _ in range(2):
            self.wakeup_one("one")
            self.m.release()
            self.m.get()
        self.m.release()


def first_woken(**settings: Any) -> tuple[set[str], SearchReport]:
    seen: set[str] = set()

    class Seen(OneOfTwo):
        def sleeper(self, name: str) -> None:
            self.m.get()
            self.c.up += 1
            first = self.c.up == 1
            self.wakeup("up")
            self.tsleep("one")
            if not self.c.order:
                seen.add("longest" if first else "other")
            self.c.order += (name,)
            self.m.release()

        def waker(self) -> None:
            self.m.get()
            while self.c.up < 2:
                self.tsleep("up")
            self.wakeup_one("one")
            self.m.release()
            self.m.get()
            while not self.c.order:
                self.m.release()
                self.relax(self.c)
                self.m.get()
            self.wakeup_one("one")
            self.m.release()

    return seen, search(Seen, settings=settings)


def test_wakeup_one_is_a_choice_unless_the_order_is_the_cs() -> None:
    seen, report = first_woken()
    assert seen == {"longest", "other"}
    assert report.proven
    seen, report = first_woken(wakeup_order="c")
    assert seen == {"longest"}
    assert report.proven


def test_a_schedule_keeps_how_it_was_run() -> None:
    text = "s1/access+tso+spurious2+wakeup-c+1.0:2,3.1:1/0.1.0/-/1x2~aa.b1x1~bb/name"
    schedule = Schedule.parse(text)
    assert (schedule.memory, schedule.spurious, schedule.wakeup_order) == ("tso", 2, "c")
    assert schedule.choices == {(1, 0): 2, (3, 1): 1}
    assert schedule.text() == text
    for wrong in ("access+", "access+x", "access+tso+tso", "sync+1.0", "access+1.0:x", "+tso"):
        with pytest.raises(ValueError, match="schedule: damaged"):
            Schedule.parse(f"s1/{wrong}/0.1.0/-/1x2~aa/name")
