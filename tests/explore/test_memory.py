"""Memory models: outcomes, counts, replay, shrinking, and the algorithms that need a fence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from smpvm import Scenario
from smpvm.commands.replay import run_schedule
from smpvm.explore.engine import Settings
from smpvm.explore.search import Search, SearchPlan, SearchReport
from smpvm.explore.trace.schedule import Schedule
from tests.explore.litmus import LITMUS, Litmus, outcomes_of, reference, scenario_of

COUNTS = {
    # One execution for each class; a load that finds the thread's own store costs more.
    "SB": (3, 4),
    "SB+fences": (3, 3),
    "SB+fence": (3, 4),
    "LB": (3, 3),
    "MP": (3, 3),
    "IRIW": (15, 15),
    "2+2W": (3, 3),
    "CoRR": (6, 6),
}


@pytest.mark.parametrize("name", LITMUS)
@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_litmus_has_the_published_outcomes_and_no_others(name: str, memory: str) -> None:
    litmus = LITMUS[name]
    tso = memory == "tso"
    published = litmus.tso if tso else litmus.sc
    assert reference(litmus.program, litmus.final, tso) == published
    got, report = outcomes_of(litmus, memory)
    assert report.proven
    assert got == published
    if name in COUNTS:
        assert report.executions == len(report.traces) == COUNTS[name][tso]
    assert report.cut == 0


@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_every_interleaving_has_the_same_outcomes(memory: str) -> None:
    for name in ("SB", "MP"):
        litmus = LITMUS[name]
        got, report = outcomes_of(litmus, memory, "all")
        assert report.proven
        assert got == (litmus.tso if memory == "tso" else litmus.sc)


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "surw", "portfolio"])
def test_every_strategy_delays_stores(strategy: str) -> None:
    got, _ = outcomes_of(LITMUS["SB"], "tso", strategy, schedules=100)
    assert (0, 0) in got


def test_dpor_finds_what_brute_force_finds() -> None:
    rnd = random.Random(13)
    words = ["x", "y", "x=1", "y=1", "x=2", "y=2", "F"]
    for _ in range(40):
        program = tuple(" ".join(rnd.choices(words, k=rnd.randint(1, 4))) for _ in range(2))
        for memory in ("sc", "tso"):
            used = "".join(sorted({w[0] for text in program for w in text.split()} - {"F"}))
            wanted = reference(program, used, memory == "tso")
            got, report = outcomes_of(Litmus(program, set(), set(), used), memory)
            assert got == wanted, (program, memory)
            assert report.proven
            bounded, _ = outcomes_of(Litmus(program, set(), set(), used), memory, "random", 20)
            assert bounded <= wanted, (program, memory)


class Mutex(Scenario):
    """Two threads, and who may be inside; *fenced*: with a fence where x86 needs one."""

    fenced = False

    def setup(self) -> None:
        self.m = self.shared(
            turn=0,
            want0=0,
            want1=0,
            benign=dict.fromkeys(("turn", "want0", "want1"), "the algorithm"),
        )
        self.inside = self.shared(n=0)
        for me in (0, 1):
            self.thread(f"t{me}", self.body, me)

    def body(self, me: int) -> None:
        setattr(self.m, f"want{me}", 1)
        if not self.enter(me, 1 - me):
            return
        assert self.inside.n == 0, "two are inside"
        self.inside.n = 1
        self.inside.n = 0
        setattr(self.m, f"want{me}", 0)

    def enter(self, me: int, other: int) -> bool:
        raise NotImplementedError


class Dekker(Mutex):
    """The first test of Dekker's algorithm: who sees the other's wish goes away."""

    def enter(self, me: int, other: int) -> bool:
        if self.fenced:
            self.fence()
        return not getattr(self.m, f"want{other}")


class Peterson(Mutex):
    """Peterson's algorithm."""

    def enter(self, me: int, other: int) -> bool:
        self.m.turn = other
        if self.fenced:
            self.fence()
        while getattr(self.m, f"want{other}") and self.m.turn == other:
            self.relax(self.m)
        return True


class FencedDekker(Dekker):
    fenced = True


class FencedPeterson(Peterson):
    fenced = True


def search(scenario: Any, memory: str, **plan: Any) -> SearchReport:
    settings = Settings(memory=memory, checks=plan.pop("checks", frozenset()))
    return Search(
        scenario, SearchPlan(strategy="dpor", schedules=3000, settings=settings, **plan)
    ).run()


@pytest.mark.parametrize("scenario", [Dekker, Peterson])
def test_a_mutex_of_plain_stores_needs_a_fence(scenario: Any) -> None:
    assert search(scenario, "sc").proven
    report = search(scenario, "tso", stop_on_first=True)
    assert [f.kind for f in report.findings] == ["assertion"]


@pytest.mark.parametrize("scenario", [FencedDekker, FencedPeterson])
@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_a_fence_is_enough(scenario: Any, memory: str) -> None:
    assert search(scenario, memory).proven


def test_a_finding_is_shrunk_and_replayed() -> None:
    report = search(Dekker, "tso", stop_on_first=True)
    (finding,) = report.findings
    assert finding.schedule is not None
    assert finding.schedule.startswith("s1/access+tso/")
    schedule = Schedule.parse(finding.schedule)
    assert schedule.text() == finding.schedule
    shown = run_schedule(schedule, scenario=Dekker, checks=frozenset())
    assert not shown.replay.diverged
    assert [f.fingerprint for f in shown.outcome.findings] == [finding.fingerprint]
    lanes = "\n".join(shown.lanes())
    assert "buffer of t0" in lanes
    assert "stores" in lanes


def test_findings_name_the_threads_whatever_the_carrier() -> None:
    digests = set()
    for carrier in ("greenlet", "thread"):
        settings = Settings(memory="tso", carrier=carrier)
        plan = SearchPlan(strategy="random", schedules=30, settings=settings, shrink=False)
        digests.add(Search(Peterson, plan).run().digest)
    assert len(digests) == 1


class Handed(Scenario):
    """What a thread has stored before it hands on is seen by who takes over."""

    how = ""

    def setup(self) -> None:
        self.c = self.shared(data=0, flag=0)
        self.spin, self.token = self.spinlock("spin"), self.token("token")
        self.mutex = self.lock("mutex")
        self.thread("giver", self.give)
        if self.how != "spawn":
            self.thread("taker", self.take)

    def locked(self) -> Any:
        return {"spin": self.spin, "token": self.token, "lock": self.mutex}[self.how]

    def give(self) -> None:
        if self.how == "spawn":
            self.c.data = 1
            self.thread("taker", self.take)
            return
        self.locked().lock()
        self.c.data = self.c.flag = 1
        self.locked().unlock()

    def take(self) -> None:
        if self.how == "spawn":
            assert self.c.data == 1
            return
        self.locked().lock()
        assert self.c.data == self.c.flag
        self.locked().unlock()


@pytest.mark.parametrize("how", ["spin", "token", "spawn"])
def test_locks_and_spawn_hand_stores_on(how: str) -> None:
    scenario = type("Handed", (Handed,), {"how": how})
    assert search(scenario, "tso", checks=Settings.checks).proven


class Alarm(Scenario):
    """A flag and a wakeup; the kernel's wakeup looks for sleepers before the flag is in memory."""

    fenced = False

    def setup(self) -> None:
        self.c = self.shared(flag=0, benign={"flag": "SMP race ok"})
        self.thread("sleeper", self.sleep)
        self.thread("waker", self.wake)

    def sleep(self) -> None:
        self.tsleep_interlock("alarm")
        if not self.c.flag:
            self.tsleep("alarm", flags=self.INTERLOCKED)

    def wake(self) -> None:
        self.c.flag = 1
        if self.fenced:
            self.fence()
        self.wakeup("alarm")


def test_a_wakeup_that_finds_nobody_is_no_fence() -> None:
    assert search(Alarm, "sc").proven
    report = search(Alarm, "tso", stop_on_first=True)
    assert [f.kind for f in report.findings] == ["stall"]
    fenced = type("Alarm", (Alarm,), {"fenced": True})
    assert search(fenced, "tso").proven


def test_refused_at_granularity_sync(tmp_path: Path) -> None:
    from smpvm.config import ConfigError

    settings = Settings(memory="tso", granularity="sync")
    with pytest.raises(ConfigError, match="granularity access"):
        Search(scenario_of(("x=1",)), SearchPlan(settings=settings)).run()
