"""Exhaustive search where threads also choose among values.

For fixed values a scenario is one whose only choices are the scheduler's.  So the search is run
once for each way to choose, depth first: at first every choice is 0; what choices were met is
noted, and then the last one that has a value left takes its next.  A choice that comes late in a
thread may not be met under other values: the list is what was met with those before it.
"""

from __future__ import annotations

from collections.abc import Callable

from smpvm.explore.strategy.base import Plain, Scheduler, SerialCarrier, Strategy
from smpvm.host.choices import Choices, Key, Made
from smpvm.host.serialthread import Ending
from smpvm.text import plural


class Chosen(Plain):
    """Runs a search that *make* makes, again and again."""

    def __init__(self, make: Callable[[], Strategy]) -> None:
        self._make = make
        self.inner = make()
        self.name = self.inner.name
        self.ways = 1
        """How many ways to choose were begun."""
        self.executions = 0
        self._given: dict[Key, int] = {}
        self._met: dict[Key, Made] = {}
        self._budget = 0
        self._first = 0
        """The number of the execution with which the inner search began."""
        self._claims: list[str] = []
        self._doubt: list[str] | None = None
        """What the first search that proved nothing has to say."""

    @property
    def fair_after(self) -> bool:
        """As the inner search has it."""
        return self.inner.fair_after

    def start(self, n: int) -> Scheduler | None:
        while (scheduler := self.inner.start(n - self._first)) is None:
            claim = self.inner.claim()
            self._claims.append(claim)
            if not claim and self._doubt is None:
                self._doubt = self.inner.notes()
            if not self._next():
                return None
            self.ways += 1
            self.inner, self._first = self._make(), n
        return scheduler

    def attach(self, carrier: SerialCarrier) -> None:
        budget = carrier.choices.budget
        carrier.choices = Choices(self._given)
        carrier.choices.budget = budget
        self.inner.attach(carrier)

    def done(self, carrier: SerialCarrier) -> None:
        made = carrier.choices.made
        if made:
            self._budget = carrier.choices.budget
            for key, one in made.items():
                known = self._met.get(key)
                if known is None or known.n < one.n:
                    self._met[key] = one
        self.inner.done(carrier)
        if any(key not in made or made[key].value != v for key, v in self._given.items() if v):
            carrier.stuck = Ending.CUT  # the same comes with fewer choices, or a smaller one
        self.executions += carrier.stuck is not Ending.CUT

    def _next(self) -> bool:
        """The next way to choose; False if there is none."""
        order = [*self._given, *(key for key in self._met if key not in self._given)]
        while order:
            key = order.pop()
            made = self._met.get(key)
            value = self._given.get(key, 0) + 1
            if made is not None and value < made.n and not (made.early and self._spent(order)):
                self._given = {k: self._given.get(k, 0) for k in order} | {key: value}
                self._met = {k: m for k, m in self._met.items() if k in self._given}
                return True
        return False

    def _spent(self, order: list[Key]) -> bool:
        """Do as many of these sleeps end early as may?"""
        early = sum(
            bool(self._given.get(k)) for k in order if k in self._met and self._met[k].early
        )
        return early >= self._budget

    def claim(self) -> str:
        if self.ways == 1:
            return self.inner.claim()
        if not self._claims or not all(self._claims):
            return ""
        every, _, _ = self._claims[0].rpartition(" (")
        runs = plural(self.executions, "execution")
        return f"{every}, for each of {self.ways} ways to choose ({runs})"

    def notes(self) -> list[str]:
        notes = self.inner.notes() if self._doubt is None else self._doubt
        if self.ways > 1:
            notes = [
                *notes,
                f"{self.name}: {plural(self.ways, 'way')} to choose; the last is noted",
            ]
        return notes
