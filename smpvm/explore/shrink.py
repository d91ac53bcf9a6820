"""Shrinking: the fewest context switches that still show the finding, and the smallest scenario.

Delta debugging (Zeller and Hildebrandt, 2002) over the switches of the execution, between which it
runs without preemption, and over the choices that are not 0.  At the end none of them can go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from smpvm.check.finding import Finding
from smpvm.explore.engine import Outcome, Settings, execute
from smpvm.explore.registry import resized, spec_of
from smpvm.explore.scenario import ScenarioClass
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.strategy.replay import Guided, switches_of
from smpvm.text import plural

Item = tuple[str, tuple[int, int], int]
"""A switch (as ``Guided`` takes it) or a choice: which, its key, its value."""

_SWITCH, _CHOICE = "switch", "choice"

STEPS = 3_000_000
"""Budget for shrinking one finding, in execution steps: half a minute for a small scenario."""
TRIES = 120
"""Executions within which a smaller scenario must show the finding."""


class Budget:
    """The budget for shrinking one finding: a number of steps, until *stop* returns true."""

    def __init__(self, stop: Callable[[], bool] = lambda: False, steps: int = STEPS) -> None:
        self._stop = stop
        self._left = steps
        self.ended = ""
        """Why shrinking ended early; "" if it did not."""

    def over(self) -> bool:
        """Is the budget used up?"""
        if not self.ended and self._stop():
            self.ended = "there was no time left"
        if not self.ended and self._left <= 0:
            self.ended = "it would take too long"
        return bool(self.ended)

    def spend(self, outcome: Outcome) -> None:
        """Charge one execution."""
        self._left -= outcome.steps


@dataclass
class Shrunk:
    """The result: an execution with the finding, and what was needed."""

    outcome: Outcome
    finding: Finding
    before: int
    """Switches of the original execution."""
    after: int
    """Switches of this one."""
    preemptions: int
    """The switches away from a thread that could have continued."""
    runs: int
    ended: str
    """Why it may not be minimal; "" if no single switch can be removed."""

    def text(self) -> str:
        """A line for the finding's evidence."""
        short = f"; not minimal: {self.ended}" if self.ended else ""
        return (
            f"schedule shrunk from {self.before} switches to {self.after}, including "
            f"{plural(self.preemptions, 'preemption')} ({plural(self.runs, 'execution')}{short})"
        )


class Shrinker:
    """Shrinks one execution of *scenario* that has the finding with fingerprint *mark*."""

    def __init__(
        self, scenario: ScenarioClass, settings: Settings, mark: str, budget: Budget | None = None
    ) -> None:
        self.scenario = scenario
        self.settings = replace(settings, digest=False)
        self.mark = mark
        self.budget = budget or Budget()
        self.runs = 0
        self._best: Outcome | None = None
        self._preemptions = 0

    def shrink(self, outcome: Outcome) -> Shrunk | None:
        """Shrink the sizes, then the switches; None if the unshrunk schedule does not reproduce the
        finding."""
        outcome = self._smaller(outcome)
        switches = switches_of(outcome.carrier.log)
        items = [(_SWITCH, key, to) for key, to in switches.items()]
        items += [(_CHOICE, key, v) for key, v in outcome.carrier.choices.kept().items()]
        before = len(switches) - 1
        if not self._shows(items):
            return None
        self._minimise(items)
        assert self._best is not None
        best = self._best
        # Switches that are not in the list count too.
        finding = best.find(self.mark)
        assert finding is not None
        after = len(switches_of(best.carrier.log)) - 1
        ended = self.budget.ended
        return Shrunk(best, finding, before, after, self._preemptions, self.runs, ended)

    def _smaller(self, outcome: Outcome) -> Outcome:
        """Choose the smallest sizes of the scenario with which a short search still finds it."""
        original = self.scenario
        spec = spec_of(original)
        sizes: dict[str, int] = {}
        for name, least in original.sizes.items():
            while (value := getattr(self.scenario, name)) > least:
                trial = {**sizes, name: value - 1}
                query = "&".join(f"{k}={v}" for k, v in trial.items())
                smaller = resized(original, f"{spec.partition('?')[0]}?{query}", trial)
                found = self._search(smaller)
                if found is None:
                    break
                self.scenario, sizes, outcome = smaller, trial, found
        return outcome

    def _search(self, scenario: ScenarioClass) -> Outcome | None:
        strategy = make_strategy("portfolio", seed=1)
        for n in range(TRIES):
            if self.budget.over():
                return None
            outcome = execute(scenario, strategy, self.settings, n)
            if outcome is None:
                return None  # every class was run
            self.budget.spend(outcome)
            if outcome.find(self.mark) is not None:
                return outcome
        return None

    def _shows(self, items: list[Item]) -> bool:
        if self._best is not None and self.budget.over():
            return False
        self.runs += 1
        guided = Guided(
            {key: to for what, key, to in items if what is _SWITCH},
            {key: value for what, key, value in items if what is _CHOICE},
        )
        outcome = execute(self.scenario, guided, self.settings)
        assert outcome is not None
        self.budget.spend(outcome)
        if outcome.find(self.mark) is None:
            return False
        self._best, self._preemptions = outcome, guided.preemptions
        return True

    def _minimise(self, items: list[Item]) -> None:
        """Remove switches, many at a time and then one by one, until none can be removed."""
        size = max(len(items) // 2, 1)
        while items and not self.budget.ended:
            start, removed = 0, False
            while start < len(items) and not self.budget.ended:
                fewer = items[:start] + items[start + size :]
                if self._shows(fewer):
                    items, removed = fewer, True
                else:
                    start += size
            if size == 1 and not removed:
                break
            size = max(size // 2, 1)
