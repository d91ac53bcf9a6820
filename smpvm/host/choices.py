"""Choices among values: what a thread asks for, and what it gets in one execution.

A choice is known by its thread and how many the thread has made before: so other threads' steps do
not move it, and a strategy can ask for it again in another order of steps.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, NamedTuple

CHOOSE: Final = "choose"
"""The step of a choice that the scenario makes."""

Key = tuple[int, int]
"""(tid, how many choices the thread has made before)"""

RARE: Final = 4
"""By chance, one sleep of so many ends early."""


class Made(NamedTuple):
    """A choice that was made."""

    value: int
    n: int
    """How many values there were."""
    early: bool
    """It is about an early end of a sleep: there may be ``Choices.budget`` of those."""


class Choices:
    """The choices of one execution: as *given*, others by chance from *seed*, 0 without seed."""

    def __init__(self, given: Mapping[Key, int] | None = None, seed: str | None = None) -> None:
        self.made: dict[Key, Made] = {}
        self.budget = 0
        """How many sleeps may end early."""
        self._given = given or {}
        self._seed = seed
        self._random: random.Random | None = None
        self._counts: dict[int, int] = {}
        self._early = 0

    def pick(self, tid: int, n: int, *, early: bool = False) -> int:
        """One of 0 ... *n* - 1 for thread *tid*."""
        key = tid, self._counts.get(tid, 0)
        self._counts[tid] = key[1] + 1
        if self._seed is None or key in self._given:
            value = min(self._given.get(key, 0), n - 1)
        elif early:
            value = int(self._early < self.budget and self._draw(RARE) == 0)
        else:
            value = self._draw(n)
        self._early += early and value
        self.made[key] = Made(value, n, early)
        return value

    def _draw(self, n: int) -> int:
        if self._random is None:
            self._random = random.Random(self._seed)
        return self._random.randrange(n)

    def kept(self) -> dict[Key, int]:
        """What must be given to have the same again: 0 need not."""
        return {key: made.value for key, made in self.made.items() if made.value}


class Chooser:
    """Stands for a thread's choices in its steps: they depend on nobody else's."""

    __slots__ = ()

    def __str__(self) -> str:
        return "value"
