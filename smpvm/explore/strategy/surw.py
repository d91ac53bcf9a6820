"""SURW, selectively uniform random walk (Zhao, Wolff, Mathur and Roychoudhury, 2025).

One object is chosen at random for each execution, and the orders of the steps on it are sampled
uniformly: the thread whose step on it comes next is drawn, weighted with the number of such steps
that each thread has left.  A thread about to take one out of turn waits; all other steps come in
any order.  The numbers of steps come from previous executions; the first is a plain random walk.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from smpvm.explore.strategy.base import Names, Plain, Scheduler, SerialCarrier, SerialThread
from smpvm.host.serialthread import AWAIT, CLOCK

_Name = tuple[str, str]


class _Uniform:
    """*chosen* is the object of this execution, with the steps on it that each thread has left."""

    def __init__(self, seed: str, chosen: Mapping[_Name, Mapping[int, int]]) -> None:
        self.every = False
        self.names: Names
        rnd = random.Random(seed)
        self._random = rnd.random
        names = sorted(chosen)
        self._name = names[int(rnd.random() * len(names))] if names else None
        self._left = Counter(chosen[self._name]) if self._name else Counter[int]()
        self._turn = CLOCK

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread:
        if self._name is None:
            return self._any(runnable)
        about = [s for s in runnable if self._on_it(s)]
        turn = next((s for s in runnable if s.tid == self._turn), None)
        if turn is None:
            turn = self._draw(runnable)
        free = [s for s in runnable if s is turn or s not in about]
        nxt = self._any(free)
        if nxt in about:
            self._left[nxt.tid] -= 1
            self._turn = CLOCK
        return nxt

    def _on_it(self, thread: SerialThread) -> bool:
        _, kind, obj, _ = thread.op
        return kind != AWAIT and self.names.name(obj) == self._name

    def _draw(self, runnable: Sequence[SerialThread]) -> SerialThread:
        """Draw the thread whose step on the object comes next."""
        weights = [max(self._left[s.tid], 0) for s in runnable]
        at = self._random() * sum(weights)
        for thread, weight in zip(runnable, weights, strict=True):
            at -= weight
            if at < 0:
                self._turn = thread.tid
                return thread
        thread = self._any(runnable)
        self._turn = thread.tid
        return thread

    def _any(self, threads: Sequence[SerialThread]) -> SerialThread:
        return threads[int(self._random() * len(threads))]


class Surw(Plain):
    """Never ends by itself."""

    name = "surw"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._steps: dict[_Name, dict[int, int]] = {}
        """Object → the most steps that each thread took on it, for objects used by several."""
        self._now: _Uniform

    def start(self, n: int) -> Scheduler:
        self._now = _Uniform(f"{self.seed}/{n}", self._steps)
        return self._now

    def attach(self, carrier: SerialCarrier) -> None:
        self._now.names = Names(carrier)

    def done(self, carrier: SerialCarrier) -> None:
        name = self._now.names.name
        counts: dict[_Name, Counter[int]] = {}
        taken: Counter[tuple[int, Any]] = Counter(
            (tid, obj) for tid, kind, obj, _ in carrier.log if kind != AWAIT and tid != CLOCK
        )
        for (tid, obj), n in taken.items():
            counts.setdefault(name(obj), Counter())[tid] += n
        for key, by_thread in counts.items():
            known = self._steps.get(key, {})
            if len(known.keys() | by_thread.keys()) > 1:
                most = Counter(known) | by_thread
                self._steps[key] = dict(sorted(most.items()))
