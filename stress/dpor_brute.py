"""DPOR against brute force: is every class of executions visited, and how often?

    python stress/dpor_brute.py [--random N] [--threads T] [--ops M] [--limit EXECUTIONS]

For the small programs of tests/explore, and for N random programs for each group of primitives:
runs all interleavings (up to LIMIT), classifies them by happens-before, then runs DPOR.  Prints
classes and executions of both; exit code 1 if DPOR missed a class.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.strategy.bounded import Bounded
from smpvm.explore.strategy.dpor import Dpor
from smpvm.explore.trace.happens_before import order_of

TESTS = Path(__file__).parents[1] / "tests" / "explore"
BARE = Settings(checks=frozenset(), digest=False)


def load(name: str) -> Any:
    """A module of tests/explore."""
    spec = importlib.util.spec_from_file_location(f"brute_{name}", TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classes(
    scenario: Any, strategy: Any, limit: int | None = None, settings: Settings = BARE
) -> tuple[int, set[Any], bool]:
    """(executions not abandoned, classes seen, whether the strategy was exhausted)."""
    seen: set[Any] = set()
    ended = n = 0
    with collected() as collector:
        while limit is None or n < limit:
            outcome = execute(scenario, strategy, settings, n)
            if outcome is None:
                return ended, seen, True
            n += 1
            # A failed assertion stops the other threads anywhere, so the trace is no full class.
            if outcome.stuck != "cut" and not outcome.carrier.failed:
                ended += 1
                seen.add(hash(order_of(outcome.carrier).signature()))
            outcome.forget()
            collector.after()
    return ended, seen, False


def compare(title: str, scenario: Any, limit: int) -> tuple[int, int, int] | None:
    """One program: (classes missed, redundant executions, cut ones); None if it is too big."""
    runs, brute, whole = classes(scenario, Bounded(None), limit)
    strategy = Dpor()
    executions, dpor, ended = classes(scenario, strategy, limit)
    if not (whole or ended):
        print(f"{title:<34} too big for both")
        return None
    missed = len(brute - dpor)
    redundant = executions - len(dpor)
    brute_text = f"{len(brute):5} classes in {runs:6} executions" if whole else "(too many)"
    print(
        f"{title:<34} brute force {brute_text:<32} "
        f"dpor {len(dpor):5} classes in {executions:5} executions, {strategy.blocked} cut"
        + (f"  MISSED {missed}" if missed else ""),
        flush=True,
    )
    return missed, redundant, strategy.blocked


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the first random program")
    parser.add_argument("--threads", type=int, default=2, help="of each random program")
    parser.add_argument("--ops", type=int, default=3, help="of each thread, at most")
    parser.add_argument("--limit", type=int, default=20_000)
    args = parser.parse_args()
    began = time.perf_counter()
    toys = load("toys")
    missed = redundant = cut = 0
    endless = ("Scenario", "Sharers")
    names = [n for n, toy in vars(toys).items() if isinstance(toy, type) and n not in endless]
    programs = [(n, getattr(toys, n)) for n in names]
    # Three of each are too many for brute force.
    programs.append(("Philosophers of 2", type("Two", (toys.Philosophers,), {"n": 2})))
    programs.append(("Locked by 2", type("Pair", (toys.Locked,), {"names": "ab"})))
    if args.random:
        made = load("test_random_programs")
        for kinds in made.GROUPS:
            seeds = range(args.seed, args.seed + args.random)
            for i, program in enumerate(made.programs(kinds, seeds, args.ops, args.threads)):
                case = type("Case", (made.Program,), {"program": program})
                programs.append((f"{'-'.join(kinds)} {i}", case))
    for title, scenario in programs:
        found = compare(title, scenario, args.limit)
        if found is not None:
            missed, redundant, cut = missed + found[0], redundant + found[1], cut + found[2]
    print(
        f"{len(programs)} programs, {missed} classes missed, {redundant} redundant executions, "
        f"{cut} cut by sleep sets, {time.perf_counter() - began:.0f} s"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
