"""Does the portfolio see a class of executions that DPOR, which claims all of them, does not?

    python stress/dpor_cover.py [--schedules N] [SCENARIO ...]

Built-in scenarios are too big for brute force.  So those that DPOR exhausts are run under N
schedules of the portfolio as well, and each trace must be of a class that DPOR has visited.
Prints both counts; exit code 1 if a class was missed.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import smpvm.scenarios
from smpvm.explore.dpor import Dpor
from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.find import builtin
from smpvm.explore.hb import order_of
from smpvm.explore.portfolio import make_strategy

PROVEN = (
    "protect-kill",
    "swapout-request",
    "cache-lookup",
    "two-scanners-active",
    "two-scanners",
    "vnode-mapper",
)


def classes(scenario: Any, strategy: Any, limit: int | None) -> tuple[int, set[int], bool]:
    """(executions, classes, whether the strategy came to its end)."""
    settings = Settings(checks=frozenset(), digest=False, repairs=scenario.repairs)
    seen: set[int] = set()
    n = 0
    with collected() as collector:
        while limit is None or n < limit:
            outcome = execute(scenario, strategy, settings, n)
            if outcome is None:
                return n, seen, True
            n += 1
            if outcome.stuck != "cut":
                seen.add(hash(order_of(outcome.carrier).signature()))
            outcome.forget()
            collector.after()
    return n, seen, False


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=PROVEN)
    parser.add_argument("--schedules", type=int, default=1000)
    args = parser.parse_args()
    scenarios = builtin(smpvm.scenarios)
    missed = 0
    for name in args.scenarios:
        n, dpor, whole = classes(scenarios[name], Dpor(), None)
        _, seen, _ = classes(scenarios[name], make_strategy("portfolio"), args.schedules)
        not_seen = len(seen - dpor)
        missed += not_seen
        print(
            f"{name:<22} dpor {len(dpor):5} classes in {n:5} executions"
            f"{'' if whole else ' (not all)'}, portfolio {len(seen):5} classes in "
            f"{args.schedules}" + (f"  MISSED {not_seen}" if not_seen else ""),
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
