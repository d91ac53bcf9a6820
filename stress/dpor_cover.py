"""Does the portfolio see a class of executions that DPOR, which claims to visit all, missed?

    python stress/dpor_cover.py [--schedules N] [SCENARIO ...]

Built-in scenarios are too big for brute force, so those that DPOR exhausts are also run under N
schedules of the portfolio; each trace must be in a class that DPOR has visited.  Prints both
counts; exit code 1 if a class was missed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from dpor_brute import BARE, classes

import smpvm.scenarios
from smpvm.explore.registry import builtin
from smpvm.explore.strategy.dpor import Dpor
from smpvm.explore.strategy.portfolio import make_strategy

PROVEN = (
    "protect-kill",
    "swapout-request",
    "cache-lookup",
    "two-scanners-active",
    "two-scanners",
    "vnode-mapper",
)


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=PROVEN)
    parser.add_argument("--schedules", type=int, default=1000)
    args = parser.parse_args()
    scenarios = builtin(smpvm.scenarios)
    missed = 0
    for name in args.scenarios:
        scenario = scenarios[name]
        bare = replace(BARE, repairs=scenario.repairs)
        n, dpor, whole = classes(scenario, Dpor(), None, bare)
        _, seen, _ = classes(scenario, make_strategy("portfolio"), args.schedules, bare)
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
