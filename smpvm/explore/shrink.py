"""Shrinking: the fewest context switches that still show the finding, and the smallest scenario.

Delta debugging (Zeller and Hildebrandt, 2002) over the switches of the execution; between them it
runs without preemption.  At the end no single switch can go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from smpvm.check.finding import Finding
from smpvm.explore.engine import Outcome, Settings, execute
from smpvm.explore.replay import Guided, switches_of
from smpvm.explore.scenario import ScenarioClass

Item = tuple[tuple[int, int], int]


@dataclass
class Shrunk:
    """The result: an execution with the finding, and what it took."""

    outcome: Outcome
    finding: Finding
    before: int
    """Switches of the original execution."""
    after: int
    """Switches of this one."""
    preemptions: int
    """Of these, those away from a thread that could have gone on."""
    runs: int


class Shrinker:
    """Shrinks one execution of *scenario* that has the finding with fingerprint *mark*."""

    def __init__(
        self, scenario: ScenarioClass, settings: Settings, mark: str, max_runs: int = 600
    ) -> None:
        self.scenario = scenario
        self.settings = replace(settings, digest=False)
        self.mark = mark
        self.runs = 0
        self.max_runs = max_runs
        self._best: Outcome | None = None
        self._preemptions = 0

    def shrink(self, outcome: Outcome) -> Shrunk | None:
        """None if not even all its switches show it again."""
        items: list[Item] = list(switches_of(outcome.carrier.log).items())
        before = len(items) - 1
        if not self._shows(items):
            return None
        items = self._minimise(items, self._shows)
        assert self._best is not None
        best = self._best
        # What the execution does without being told counts too.
        finding = best.find(self.mark)
        assert finding is not None
        after = len(switches_of(best.carrier.log)) - 1
        return Shrunk(best, finding, before, after, self._preemptions, self.runs)

    def _shows(self, items: list[Item]) -> bool:
        if self.runs >= self.max_runs:
            return False
        self.runs += 1
        guided = Guided(dict(items))
        outcome = execute(self.scenario, guided, self.settings)
        if outcome is None or outcome.find(self.mark) is None:
            return False
        self._best, self._preemptions = outcome, guided.preemptions
        return True

    def _minimise(self, items: list[Item], shows: Callable[[list[Item]], bool]) -> list[Item]:
        size = max(len(items) // 2, 1)
        while items:
            start, removed = 0, False
            while start < len(items):
                fewer = items[:start] + items[start + size :]
                if shows(fewer):
                    items, removed = fewer, True
                else:
                    start += size
            if size == 1 and not removed:
                break
            size = max(size // 2, 1)
        return items
