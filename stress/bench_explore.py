"""The speed of the explorer, relative to a bare greenlet loop measured in the same run.

    python stress/bench_explore.py [--frontrun]

Prints points/s of a small program, bare and with all checkers, executions/s of the programs with
known classes, and of a small VM scenario with the share of machine construction.  With --frontrun
also the same programs under frontrun's DPOR, if it is installed.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import random
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import smpvm.scenarios
from smpvm.check.suite import CHECKS, CheckSuite
from smpvm.explore.engine import Settings
from smpvm.explore.registry import find
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.host.serial import SerialCarrier
from smpvm.kern.kernel import Kernel
from smpvm.kern.shared import shared
from smpvm.kern.spinlock import Spinlock

POINTS = 300_000
ROUNDS = 7
"""Rounds of measurements; the ratio is their median."""


@shared("n")
class Cell:
    """One shared field."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


def bare() -> float:
    """Switches/s of three greenlets that switch to each other at random."""
    greenlet = importlib.import_module("greenlet").greenlet
    rnd, left = random.Random(1).random, POINTS
    threads: list[Any] = []

    def body() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            threads[int(rnd() * 3)].switch()

    threads[:] = [greenlet(body) for _ in range(3)]
    began = time.process_time()
    threads[0].switch()
    return POINTS / (time.process_time() - began)


def points(
    checks: frozenset[str], switcher: str = "greenlet", n: int = POINTS, locked: bool = False
) -> float:
    """Points/s of three threads that read and write one shared field at random; *locked*:
    eight times for each time that they take a spinlock, so that nothing
    races."""
    carrier = SerialCarrier(RandomWalk(1).start(0), switcher=switcher, limit=10**9)
    suite = CheckSuite(checks)
    k = Kernel(carrier, suite.observers if checks else ())
    cell = k.new(Cell)

    lock = Spinlock(k, "cell")

    def body() -> None:
        for i in range(n // 6):
            if locked and i % 8 == 0:
                lock.lock()
            cell.n = cell.n + 1
            if locked and i % 8 == 7:
                lock.unlock()
        if locked and lock.owner is k.curthread():
            lock.unlock()

    for name in "abc":
        k.spawn(name, body)
    began = time.process_time()
    carrier.join()
    return len(carrier.log) / (time.process_time() - began)


def once(of: Any, *args: Any) -> float:
    """One measurement, with the garbage collector off as in searches."""
    gc.collect()
    gc.disable()
    rate = float(of(*args))
    gc.enable()
    return rate


def rates() -> dict[str, list[float]]:
    """The results of ROUNDS of all measurements in turn, because the host's speed changes."""
    none: frozenset[str] = frozenset()
    every = frozenset(CHECKS)
    measurements: dict[str, tuple[Any, ...]] = {
        "bare greenlet loop with a random choice": (bare,),
        "toy at access granularity, no checker": (points, none),
        "toy at access granularity, every checker": (points, every),
        "toy with a lock, no checker": (points, none, "greenlet", POINTS, True),
        "toy with a lock, every checker": (points, every, "greenlet", POINTS, True),
        "the same on real threads": (points, none, "thread", 30_000),
    }
    found: dict[str, list[float]] = {title: [] for title in measurements}
    for _ in range(ROUNDS):
        for title, (of, *args) in measurements.items():
            found[title].append(once(of, *args))
    return found


def toys() -> Any:
    """The programs of tests/explore."""
    path = Path(__file__).parents[1] / "tests" / "explore" / "toys.py"
    spec = importlib.util.spec_from_file_location("smpvm_toys", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def campaign(scenario: Any, strategy: str, schedules: int | None, checks: str = "") -> Any:
    """The report of one search."""
    settings = Settings(checks=frozenset(CHECKS if checks else ()))
    plan = SearchPlan(strategy=strategy, schedules=schedules, settings=settings, shrink=False)
    return Search(scenario, plan).run()


def first_bug(scenario: Any, strategy: str) -> int:
    """Executions until the first finding; 0 if there is none."""
    plan = SearchPlan(strategy=strategy, schedules=2000, stop_on_first=True, shrink=False)
    report = Search(scenario, plan).run()
    return report.executions if report.findings else 0


def main() -> int:
    """Print the table."""
    found = rates()
    base = next(iter(found.values()))
    for title, each in found.items():
        ratio = median(rate / of for rate, of in zip(each, base, strict=True))
        print(f"{title:<42} {max(each):12,.0f} a second   {ratio:.2f}")

    programs = toys()
    print("\nDPOR to the end (aim: one execution for each class)")
    for name in ("Counter", "Locked", "Philosophers", "MarkerScan", "NextKept", "Message"):
        report = campaign(getattr(programs, name), "dpor", None)
        rate = report.executions / report.seconds
        first = first_bug(getattr(programs, name), "dpor")
        print(
            f"  {name:<14} {report.executions:6} executions, {report.cut} cut, {rate:8,.0f}/s, "
            f"first finding in execution {first or '-'}; "
            f"{'exhausted' if report.notes and report.cut == 0 else 'see notes'}"
        )

    scenario: Any = find("two-scanners", smpvm.scenarios)
    for which in ("", "all"):
        report = campaign(scenario, "random", 100, which)
        rate = report.executions / report.seconds
        print(
            f"\nVM scenario two-scanners, {'every checker' if which else 'no checker'}: "
            f"{rate:,.0f} executions/s, {report.points / report.seconds:,.0f} points/s"
        )
    began = time.perf_counter()
    for _ in range(100):
        scenario(Kernel(SerialCarrier(RandomWalk(0).start(0)), spin_pool=scenario.spin_pool))
    share = (time.perf_counter() - began) * rate
    print(f"  construction of the machine: {share:.0f} % of that time")
    if "--frontrun" in sys.argv:
        from bench_frontrun import compare

        compare()
    return 0


if __name__ == "__main__":
    sys.exit(main())
