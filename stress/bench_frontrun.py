"""The same programs under smpvm's DPOR and frontrun's (PyPI, extra ``bench``).

    python stress/bench_frontrun.py

Each tool runs as its authors intend: frontrun under its own command and in a process of its own,
because its instrumentation affects the whole process.  Both repeat each search from the start for
ENOUGH seconds, so that one-time costs do not matter.  Printed for each: executions to find the bug,
executions to exhaust, wall-clock and CPU seconds (less affected by a busy host), and how many
distinct outcomes (lock orders, or values) were seen.  Exhaustive means all of them: 90 for the
second program, whichever thread comes first in the list.
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smpvm import Scenario
from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.strategy.dpor import Dpor

ENOUGH = 0.6
"""CPU seconds for which a search is repeated."""
BARE = Settings(checks=frozenset(), digest=False)


@dataclass
class Result:
    """One program in one tool."""

    executions: int = 0
    first: int = 0
    repeats: int = 1
    seconds: float = 0.0
    wall: float = 0.0
    outcomes: int = 0
    note: str = ""

    @property
    def rate(self) -> float:
        """Executions per CPU second."""
        return self.executions * self.repeats / self.seconds if self.seconds else 0.0

    @property
    def wall_rate(self) -> float:
        """Executions per wall-clock second."""
        return self.executions * self.repeats / self.wall if self.wall else 0.0

    def row(self) -> str:
        """A line of the table."""
        wall, cpu = self.wall / self.repeats, self.seconds / self.repeats
        return (
            f"{self.executions:4} executions  bug at {self.first or '-':>3}  "
            f"{self.outcomes:3} outcomes  {wall:6.4f} s {self.wall_rate:6,.0f}/s  "
            f"cpu {cpu:6.4f} s {self.rate:6,.0f}/s  {self.note}"
        )


class LostUpdate(Scenario):
    """Two threads, one counter."""

    def setup(self) -> None:
        self.c = self.shared(n=0)
        for name in "ab":
            self.thread(name, self.count)

    def count(self) -> None:
        self.c.n = self.c.n + 1

    def outcome(self) -> Any:
        return self.c.n

    def check(self) -> None:
        assert self.c.n == 2


class TwiceLocked(Scenario):
    """Three threads, each of which takes one lock twice."""

    names = "abc"

    def setup(self) -> None:
        self.order = self.shared(seen="")
        self.l = self.spinlock("l")
        for name in self.names:
            self.thread(name, self.twice, name)

    def twice(self, name: str) -> None:
        for _ in range(2):
            self.l.lock()
            self.order.seen = self.order.seen + name
            self.l.unlock()

    def outcome(self) -> Any:
        return self.order.seen


class Philosophers(Scenario):
    """Three philosophers; the bug is the deadlock."""

    def setup(self) -> None:
        self.forks = [self.spinlock(f"fork {i}", cls="fork") for i in range(3)]
        self.ate = self.shared(seen="")
        for i in range(3):
            self.thread(f"p{i}", self.eat, i)

    def eat(self, i: int) -> None:
        left, right = self.forks[i], self.forks[(i + 1) % 3]
        left.lock()
        right.lock()
        right.unlock()
        left.unlock()

    def outcome(self) -> Any:
        return None


class Scan(Scenario):
    """A queue scan that keeps the next page across the unlock, against a thread that moves it."""

    marker = False

    def setup(self) -> None:
        self.q = self.shared(order=(1, 2, 3))
        self.queue_lock = self.spinlock("queue")
        self.seen: list[int] = []
        self.thread("scanner", self.scan)
        self.thread("mover", self.move)

    def scan(self) -> None:
        scan(self.queue_lock.lock, self.queue_lock.unlock, self.q, self.seen, self.marker)

    def move(self) -> None:
        self.queue_lock.lock()
        self.q.order = (*(p for p in self.q.order if p != 2), 2)
        self.queue_lock.unlock()

    def outcome(self) -> Any:
        return tuple(self.seen)

    def check(self) -> None:
        assert {1, 3} <= set(self.seen)


class ScanMarked(Scan):
    """The same with a marker."""

    marker = True


def scan(
    lock: Callable[[], Any], unlock: Callable[[], Any], q: Any, seen: Any, marker: bool
) -> None:
    """Visit each page once, dropping the lock after each."""
    lock()
    page: Any = q.order[0]
    for _ in range(3):
        if page is None:
            break
        seen.append(page)
        order = q.order
        at = order.index(page) + 1
        follows = order[at] if at < len(order) else None
        if marker:
            q.order = (*order[:at], "m", *order[at:])
        unlock()
        lock()
        if marker:
            order = q.order
            at = order.index("m") + 1
            page = order[at] if at < len(order) else None
            q.order = tuple(p for p in order if p != "m")
        else:
            page = follows
    unlock()


def ours(scenario: Any) -> Result:
    """smpvm's DPOR until it is exhausted."""
    result, strategy = Result(), Dpor()
    bodies: list[Any] = []
    outcomes = set()

    class Kept(scenario):  # type: ignore[misc]
        name = scenario.name

        def setup(self) -> None:
            super().setup()
            bodies.append(self)

    with collected() as collector:
        while (outcome := execute(Kept, strategy, BARE, result.executions)) is not None:  # type: ignore[arg-type]
            result.executions += 1
            if outcome.findings and not result.first:
                result.first = result.executions
            if not outcome.stuck:
                body = bodies.pop()
                with body.k.quietly():
                    outcomes.add(body.outcome())
            bodies.clear()
            outcome.forget()
            collector.after()
    result.outcomes = len(outcomes)
    return result


class State:
    """The shared state of frontrun's threads."""

    def __init__(self) -> None:
        self.n = 0
        self.seen = ""
        self.order: tuple[Any, ...] = (1, 2, 3)
        self.visited: list[int] = []
        self.lock = threading.Lock()
        self.forks = [threading.Lock() for _ in range(3)]


def f_count(s: State) -> None:
    """Lost update."""
    s.n = s.n + 1


def f_twice(name: str) -> Callable[[State], None]:
    """Take one lock twice."""

    def body(s: State) -> None:
        for _ in range(2):
            with s.lock:
                s.seen = s.seen + name

    return body


def f_eat(i: int) -> Callable[[State], None]:
    """A philosopher."""

    def body(s: State) -> None:
        with s.forks[i], s.forks[(i + 1) % 3]:
            pass

    return body


def f_scan(marker: bool) -> Callable[[State], None]:
    """The scanner."""

    def body(s: State) -> None:
        scan(s.lock.acquire, s.lock.release, s, s.visited, marker)

    return body


def f_move(s: State) -> None:
    """The mover."""
    with s.lock:
        s.order = (*(p for p in s.order if p != 2), 2)


def theirs(
    workers: list[Callable[[State], None]], outcome: Callable[[State], Any], ok: Any
) -> Result:
    """frontrun's DPOR without a preemption bound, for at most 30 seconds."""
    frontrun = importlib.import_module("frontrun")
    result = Result()
    outcomes = set()

    def invariant(s: State) -> bool:
        result.executions += 1
        outcomes.add(outcome(s))
        good = bool(ok(s))
        if not good and not result.first:
            result.first = result.executions
        return good

    try:
        found = frontrun.explore(
            setup=State, workers=workers, invariant=invariant, preemption_bound=None,
            stop_on_first=False, reproduce_on_failure=0, total_timeout=30.0, detect_io=False,
            deadlock_timeout=1.0,
        )  # fmt: skip
        result.executions = max(result.executions, getattr(found, "num_explored", 0))
        if not getattr(found, "property_holds", True) and not result.first:
            result.first = -1
            result.note = "bug found"
    except Exception as why:
        result.note = f"{type(why).__name__}: {str(why)[:50]}"
    result.outcomes = len(outcomes)
    return result


def repeated(search: Callable[..., Result], *args: Any) -> Result:
    """One result, with the seconds of all repetitions."""
    result = search(*args)
    began, cpu = time.perf_counter(), time.process_time()
    result.repeats = 0
    while result.seconds < ENOUGH:
        search(*args)
        result.repeats += 1
        result.seconds = time.process_time() - cpu
    result.wall = time.perf_counter() - began
    return result


@dataclass(frozen=True)
class Program:
    """One program in the form for each tool."""

    title: str
    scenario: type[Scenario]
    workers: list[Callable[[State], None]]
    outcome: Callable[[State], Any]
    ok: Callable[[State], bool] = lambda s: True


PROGRAMS = [
    Program("lost update", LostUpdate, [f_count] * 2, lambda s: s.n, lambda s: s.n == 2),
    *(
        Program(
            f"twice locked {names}",
            type("TwiceLocked", (TwiceLocked,), {"names": names}),
            [f_twice(n) for n in names],
            lambda s: s.seen,
        )
        for names in ("abc", "bca", "cba")
    ),
    Program("philosophers", Philosophers, [f_eat(i) for i in range(3)], lambda s: None),
    *(
        Program(
            title,
            scenario,
            [f_scan(scenario.marker), f_move],
            lambda s: tuple(s.visited),
            lambda s: {1, 3} <= set(s.visited),
        )
        for title, scenario in (("scan, next kept", Scan), ("scan with marker", ScanMarked))
    ),
]


def elsewhere(command: str, n: int) -> Result | None:
    """Program *n* in frontrun, in a process under its *command*."""
    argv = [command, sys.executable, str(Path(__file__)), "--theirs", str(n)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None
    return Result(**json.loads(done.stdout))


def compare() -> int:
    """Print the table."""
    places = [str(Path(sys.executable).parent), None]
    command = next((c for place in places if (c := shutil.which("frontrun", path=place))), None)
    failed = False
    for n, program in enumerate(PROGRAMS):
        mine = repeated(ours, program.scenario)
        print(f"{program.title:<20} smpvm    {mine.row()}", flush=True)
        if command is None:
            continue
        other = elsewhere(command, n)
        if other is None or not other.rate:
            failed = True
            continue
        print(f"{'':<20} frontrun {other.row()}")
        print(
            f"{'':<20} executions per second: {mine.wall_rate / other.wall_rate:.0f} times, "
            f"of CPU {mine.rate / other.rate:.0f} times",
            flush=True,
        )
    if command is None:
        print("frontrun is not installed (pip install frontrun): only smpvm's figures")
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    """The table; or, in the other process, one result."""
    if argv[:1] != ["--theirs"]:
        return compare()
    program = PROGRAMS[int(argv[1])]
    found = repeated(theirs, program.workers, program.outcome, program.ok)
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
