"""Round-robin: fair and deterministic.  Also the fair suffix of the random strategies."""

from __future__ import annotations

from collections.abc import Sequence

from smpvm.explore.strategy.base import Plain, Scheduler, SerialThread


class Fair:
    """Each thread in turn, *quantum* steps at a time."""

    def __init__(self, quantum: int = 1) -> None:
        self.every = False
        self._quantum = quantum
        self._left = quantum
        self._last = -1

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread:
        if current is not None and current.tid == self._last and self._left > 0:
            self._left -= 1
            return current
        after = [s for s in runnable if s.tid > self._last]
        nxt = after[0] if after else runnable[0]
        self._last = nxt.tid
        self._left = self._quantum - 1
        return nxt


class RoundRobin(Plain):
    """One execution for each quantum 1, 2, 3, ... up to *quanta*."""

    name = "roundrobin"
    fair_after = False

    def __init__(self, quanta: int = 16) -> None:
        self.quanta = quanta

    def start(self, n: int) -> Scheduler | None:
        return Fair(n + 1) if n < self.quanta else None
