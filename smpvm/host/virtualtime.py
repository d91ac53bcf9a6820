"""Virtual time: when no thread can run, it advances to the earliest timer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from smpvm.host.serialthread import CLOCK, Op, SerialThread

_IDLE_FIRES: Final = 200
"""How many timers may fire in a row without a step of a non-daemon thread."""


class VirtualTime:
    """The ticks of one execution, and how long only daemons have been active."""

    def __init__(self) -> None:
        self.now = 0
        self.daemons: set[int] = {CLOCK}
        """Tids that the execution does not wait for."""
        self._idle_fires = 0
        self._last = 0

    def next(self, waiting: Sequence[SerialThread], log: Sequence[Op]) -> int | None:
        """The tick of the earliest timer of *waiting*; None if no timer will change anything."""
        timers = [s.deadline for s in waiting if s.deadline is not None]
        by_tid = self.daemons.__contains__
        if any(not by_tid(op[0]) for op in log[self._last :]):
            self._idle_fires = 0
        self._idle_fires += 1
        if not timers or self._idle_fires > _IDLE_FIRES:
            return None
        return max(self.now, min(timers))

    def move(self, to: int, log: Sequence[Op]) -> None:
        """Advance to tick *to*; the timer step is appended to *log* next."""
        self.now = to
        self._last = len(log) + 1
