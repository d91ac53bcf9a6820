"""A schedule is a text that can be replayed anywhere; a replay reports where it diverges."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import smpvm
from smpvm import Scenario
from smpvm.commands.replay import run_schedule
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.trace.schedule import Schedule, ScheduleError


@pytest.fixture
def lost(toys):
    report = Search(toys.Counter, SearchPlan(strategy="random", schedules=30)).run()
    return next(f for f in report.findings if f.kind == "assertion")


@pytest.mark.parametrize("carrier", ["greenlet", "thread"])
def test_it_fails_every_time(toys, lost, carrier):
    for _ in range(3):
        schedule = Schedule.parse(lost.schedule)
        shown = run_schedule(schedule, carrier=carrier, scenario=toys.Counter)
        assert shown.replay.diverged == ""
        assert shown.outcome.find(lost.fingerprint) is not None


def test_text_round_trip(lost):
    schedule = Schedule.parse(lost.schedule)
    assert schedule.text() == lost.schedule
    assert len(lost.schedule) < 120


def test_another_program_diverges_with_the_step(toys, lost):
    shown = run_schedule(Schedule.parse(lost.schedule), scenario=toys.MissedWakeup)
    assert "step" in shown.replay.diverged


def test_other_operations_are_noticed(toys, lost):
    class Other(toys.Counter):
        def count(self):
            self.c.n = 1
            self.c.n = 2

    shown = run_schedule(Schedule.parse(lost.schedule), scenario=Other)
    assert "other operations" in shown.replay.diverged


DAMAGED = [
    "",
    "s3/access/0/-/1x1~00/x",
    "s1/access/0/-/(1x1~00)*2/x",
    "s2/access/0/-/(1x1~00)*0/x",
    "s2/access/0/-/(1x1~00/x",
    "s2/access/0/-/()*5/x",
    "s2/access/0/-/1x1~00..1x1~00/x",
    "s2/access/0/-/1x1~00./x",
    "s2/access/0/-/((1x1~00)*2)*2/x",
    "s2/access/0/-/(1x1~00)*99999999/x",
    "s1/access/0.1.0/-/1y1/x",
    "s1/foo/0.1.0/-/1x1~00/x",
    "s1/access",
    "s1/access/0.1.0/-/1x0~00/x",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_text_is_refused(text):
    with pytest.raises(ScheduleError):
        Schedule.parse(text)


RUN = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from(("0a", "ff")))


@given(st.lists(st.tuples(st.lists(RUN, max_size=4), st.integers(1, 30)), max_size=4))
def test_repetitions_are_folded_and_come_back(parts):
    runs = [run for part, times in parts for run in part * times]
    text = Schedule("x", runs=runs).text()
    assert Schedule.parse(text).runs == runs
    assert text.startswith("s2/" if "(" in text else "s1/")
    whole = ".".join(f"{tid}x{n}~{check}" for tid, n, check in runs)
    assert len(text) <= len(f"s1/access/{smpvm.__version__}/-/{whole}/x")


def test_a_livelock_is_short_enough_for_a_bug_report(toys):
    plan = SearchPlan(strategy="pct", schedules=3, depth=2, shrink=False)
    found = next(f for f in Search(toys.Sharers, plan).run().findings if f.kind == "starvation")
    assert len(found.schedule) < 500
    schedule = Schedule.parse(found.schedule)
    assert sum(n for _, n, _ in schedule.runs) > 20_000
    shown = run_schedule(schedule, scenario=toys.Sharers)
    assert shown.replay.diverged == ""
    assert shown.outcome.find(found.fingerprint) is not None


def test_lanes_show_the_change_and_the_switch(toys, lost):
    shown = run_schedule(Schedule.parse(lost.schedule), scenario=toys.Counter)
    text = "\n".join(shown.lanes())
    assert "cell 0.n: 0 → 1" in text
    assert "a is preempted" in text
    assert "b has ended" in text


class LongAfter(Scenario):
    """A race, and much that has nothing to do with it, before and after."""

    def setup(self):
        self.x = self.shared(told=0, other=0)
        self.locks = [self.spinlock(f"of {name}") for name in "ab"]
        self.thread("a", self.work, 0, lambda: setattr(self.x, "told", 1))
        self.thread("b", self.work, 1, lambda: self.x.told)

    def work(self, i, what):
        for _ in range(2):
            for _ in range(20):
                self.locks[i].lock()
                self.locks[i].unlock()
            what()
            what = int


def test_a_finding_is_shown_with_the_steps_that_it_is_about():
    report = Search(LongAfter, SearchPlan("random", schedules=5, shrink=False)).run()
    (race,) = report.findings
    assert race.kind == "race"
    lines = run_schedule(Schedule.parse(race.schedule), scenario=LongAfter).lanes(about=race)
    text = "\n".join(lines)
    assert "cell 0.told: 0 → 1" in text
    assert "read cell 0.told" in text
    assert "steps" in text
    assert len(lines) < 40
    assert "has ended" not in text  # that is long after
    # Where another thread goes on, it says why, also if the switch is among the steps left out.
    rows = [line for line in lines[2:] if line[:5].strip().isdigit()]
    columns = [line[7:].startswith("  ") for line in rows]
    switches = sum(a != b for a, b in itertools.pairwise(columns))
    assert sum(" -- " in line for line in lines) >= switches >= 1


def test_a_schedule_without_steps_is_left_at_the_first(toys):
    shown = run_schedule(Schedule.parse("s1/access/0.1.0/-//Counter"), scenario=toys.Counter)
    assert "the recorded execution had ended here" in shown.replay.diverged
