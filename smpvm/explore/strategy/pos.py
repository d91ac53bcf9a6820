"""POS, partial order sampling (Yuan, Yang and Gu, 2018).

Every pending operation has a random priority, and the highest runs.  Then operations that conflict
with it get new priorities: so each order of the conflicting operations is about equally likely,
however many other steps there are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from smpvm.explore.strategy.base import Op, Plain, Scheduler, SerialThread
from smpvm.explore.trace.dependence import conflict


class _Sampler:
    def __init__(self, seed: str) -> None:
        self.every = True
        self._random = random.Random(seed).random
        self._drawn: dict[int, tuple[Op, float]] = {}

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread:
        drawn = self._drawn
        best, top = runnable[0], -1.0
        for thread in runnable:
            have = drawn.get(thread.tid)
            if have is None or have[0] is not thread.op:
                have = drawn[thread.tid] = (thread.op, self._random())
            if have[1] > top:
                best, top = thread, have[1]
        if len(runnable) > 1:
            done = best.op
            for thread in runnable:
                if thread is not best and conflict(thread.op, done):
                    drawn[thread.tid] = (thread.op, self._random())
        return best


class Pos(Plain):
    """Never ends by itself."""

    name = "pos"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def start(self, n: int) -> Scheduler:
        return _Sampler(f"{self.seed}/{n}")
