"""PCT, probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi and Nagarakatte, 2010).

Threads have random priorities; the runnable thread with the highest one runs.  At d - 1 random
steps the running thread drops below all others.  In each execution a bug of depth d among n threads
and k steps is hit with a probability of at least 1 / (n * k^(d-1)).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from smpvm.explore.strategy.base import Plain, Scheduler, SerialCarrier, SerialThread
from smpvm.host.carrier import YIELD


class _Priorities:
    def __init__(self, rnd: random.Random, depth: int, length: int) -> None:
        self.every = True
        self._random = rnd.random
        self._prio: dict[int, float] = {}
        self.steps = 0
        """Steps of non-daemon threads; those of daemons and disks are not counted."""
        self._floor = 0.0
        self._drops = {int(rnd.random() * length) for _ in range(depth - 1)}

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread:
        best = self._highest(runnable)
        if current is not None and current.op[1] == YIELD:
            self._lower(current)
            best = self._highest(runnable)
        if not best.daemon and self.steps in self._drops:
            self._drops.discard(self.steps)
            self._lower(best)
            best = self._highest(runnable)
        self.steps += not best.daemon
        return best

    def _highest(self, runnable: Sequence[SerialThread]) -> SerialThread:
        prio = self._prio
        best, top = runnable[0], -math.inf
        for thread in runnable:
            have = prio.get(thread.tid)
            if have is None:
                have = prio[thread.tid] = 1.0 + self._random()
            if have > top:
                best, top = thread, have
        return best

    def _lower(self, thread: SerialThread) -> None:
        self._floor -= 1.0
        self._prio[thread.tid] = self._floor


class Pct(Plain):
    """*depth* is d; k is the length of the longest execution so far (the first one measures it).

    Executions that reach the fair suffix do not count if others end by themselves: the priority
    drops would come long after the end of those.
    """

    name = "pct"

    def __init__(self, seed: int = 0, depth: int = 3, length: int = 0) -> None:
        self.seed = seed
        self.depth = depth
        self.length = length
        self.threads = 1
        self._endless = 0
        self._now: _Priorities

    def start(self, n: int) -> Scheduler:
        rnd = random.Random(f"{self.seed}/{n}")
        self._now = _Priorities(rnd, self.depth, self._k())
        return self._now

    def done(self, carrier: SerialCarrier) -> None:
        if carrier.steps_before_fair is None:
            self.length = max(self.length, self._now.steps)
        else:
            self._endless = max(self._endless, self._now.steps)
        self.threads = max(self.threads, len(carrier.threads))

    def _k(self) -> int:
        return max(self.length or self._endless, 1)

    def bound(self) -> float:
        """A lower bound of the probability that one execution hits a bug of this depth."""
        return float(1 / (self.threads * self._k() ** (self.depth - 1)))

    def notes(self) -> list[str]:
        if not self.length and not self._endless:
            return []  # nothing has been run
        return [
            f"pct: n = {self.threads} threads, k = {self._k()} steps, d = {self.depth}: "
            f"each execution hits a bug of depth d with p >= {self.bound():.3g}"
        ]
