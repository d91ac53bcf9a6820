"""Random walk: at each point a runnable thread, all equally likely."""

from __future__ import annotations

import random
from collections.abc import Sequence

from smpvm.explore.strategy.base import Plain, Scheduler, SerialThread


class _Walk:
    __slots__ = ("_random", "every")

    def __init__(self, seed: str) -> None:
        self.every = False
        self._random = random.Random(seed).random

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread:
        return runnable[int(self._random() * len(runnable))]


class RandomWalk(Plain):
    """Never ends by itself."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def start(self, n: int) -> Scheduler:
        return _Walk(f"{self.seed}/{n}")
