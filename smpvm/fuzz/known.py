"""Is a finding a defect that is known: one with a repair?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from smpvm.explore.engine import Settings
from smpvm.explore.shrink import Budget
from smpvm.fuzz.shape import Program
from smpvm.fuzz.shrink import shows
from smpvm.repairs.catalogue import REPAIRS

STEPS = 300_000
"""What the question may take, in steps of executions."""


def known(program: Program, mark: str, settings: Settings) -> list[str]:
    """The repair with which the finding *mark* does not show any more; [] if there is none, or if
    several are needed.

    Halves the repairs, so that some six short searches answer.
    """
    budget = Budget(steps=STEPS)
    names = [name for name in REPAIRS if name not in settings.repairs]

    def gone(some: Sequence[str]) -> bool:
        repaired = replace(settings, repairs=(*settings.repairs, *some))
        return shows(program, mark, repaired, budget) is None and not budget.over()

    if not names or not gone(names):
        return []
    while len(names) > 1:
        half = names[: len(names) // 2]
        rest = names[len(half) :]
        if gone(half):
            names = half
        elif gone(rest):
            names = rest
        else:
            return []
    return names
