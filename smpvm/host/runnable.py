"""Who can run, and which writes make others able to: the part of a serial carrier behind choices.

A thread that spins, or whose acquire is not possible, is taken off the list of the runnable until
something that it has looked at is written.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Any

from smpvm.host.carrier import HOLDING, WRITE
from smpvm.host.serialthread import CLOCK, Op, SerialThread


class Watched:
    """The log of what has been done, the runnable threads, and those that watch for writes."""

    def __init__(self, access_points: bool) -> None:
        self.access_points = access_points
        self.inert = True
        """True while the boot thread runs alone (set-up, audit): points do nothing."""
        self.log: list[Op] = []
        self.touches: list[tuple[int, Any]] = []
        """(log position, object) of each write that was told by ``touched``; plain writes that are
        steps of their own are in the log, and not here."""
        self.awaiting: list[SerialThread] = []
        """Threads whose spin, or whose acquire, waits for a write."""
        self.on_block: Callable[[Any, Any, str, int], None] | None = None
        """Told once for each acquire that has to wait: thread, lock, mode, 0 (no timer)."""
        self._runnable: list[SerialThread] = []
        self._gated = 0
        self._slow = 0
        """Not 0: who can run must be asked of each acquire (``_gated`` and ``_told``, summed)."""
        self._told: list[SerialThread] = []

    def _enable(self, thread: SerialThread) -> None:
        thread.runnable = True
        insort(self._runnable, thread)

    def _disable(self, thread: SerialThread) -> None:
        thread.runnable = False
        self._runnable.remove(thread)

    def _bar(self, thread: SerialThread) -> None:
        """The pending acquire is not possible: not runnable until its lock has been written.

        Where that is so for the first time the thread gets control to say it (``on_block``), on
        its own stack; that is no step.
        """
        self._disable(thread)
        self._gated -= 1
        self._slow -= 1
        thread.watched = ((thread.op[2], ""),)
        self.awaiting.append(thread)
        if not thread.blocked and self.on_block is not None:
            thread.blocked = thread.tell = True
            self._told.append(thread)
            self._slow += 1

    def _looks(
        self, me: SerialThread, watched: tuple[object, ...]
    ) -> tuple[tuple[tuple[Any, str], ...], dict[tuple[Any, str], int]]:
        """Which fields of *watched* the thread has read since its last relax, and where first."""
        since: dict[tuple[Any, str], int] = {}
        log, tid = self.log, me.tid
        whole = not self.access_points
        for at in range(len(log) - 1, max(me.looked, len(log) - 4000) - 1, -1):
            op = log[at]
            if op[0] == tid and any(op[2] is obj for obj in watched):
                since[(op[2], "" if whole else op[3])] = at
        for obj in watched:
            if not any(seen is obj for seen, _ in since):
                since[(obj, "")] = me.looked
        return tuple(since), since

    def _touched_since(self, me: SerialThread, since: dict[tuple[Any, str], int]) -> int:
        """The first step of another thread that wrote what *me* had looked at; -1 if none."""
        oldest = max(min(since.values()), 0)
        writes = [(at, self.log[at][2]) for at in range(oldest, len(self.log)) if self._plain(at)]
        for at, obj in reversed(self.touches):
            if at < oldest:
                break
            writes.append((at, obj))
        found = [
            at
            for at, obj in writes
            for (seen, field), look in since.items()
            if seen is obj and at >= look and _same_field(self.log[at], obj, field)
            if self.log[at][0] != me.tid
        ]
        return min(found, default=CLOCK)

    def _plain(self, at: int) -> bool:
        return self.log[at][1] == WRITE

    def touched_at(self, at: int) -> list[Any]:
        """What the step at log position *at*, one of the last, has written (``touched``)."""
        found = []
        for position, obj in reversed(self.touches):
            if position < at:
                break
            if position == at:
                found.append(obj)
        return found

    def touched(self, obj: object) -> None:
        """The running step writes *obj*: threads that await it can run again."""
        if self.inert:
            return
        at = len(self.log) - 1
        self.touches.append((at, obj))
        if self.awaiting:
            self._wake(at, obj)

    def wrote(self, obj: object) -> None:
        """The running step is a plain write of *obj*, logged as such."""
        if not self.inert:
            self._wake(len(self.log) - 1, obj)

    def _wake(self, at: int, obj: object) -> None:
        op = self.log[at] if at >= 0 else None
        for thread in list(self.awaiting):
            if thread.ready is None:
                if any(o is obj and _same_field(op, obj, f) for o, f in thread.watched):
                    self.awaiting.remove(thread)
                    thread.cause = at
                    self._enable(thread)
            elif thread.op[2] is obj or (thread.op[3] == HOLDING and is_token(obj)):
                self.awaiting.remove(thread)
                self._gated += 1
                self._slow += 1
                self._enable(thread)


def is_token(obj: object) -> bool:
    """A thread that blocks gives up its tokens without announcing each."""
    return getattr(obj, "kind", "") == "token"


def _same_field(op: Op | None, obj: object, field: str) -> bool:
    """Did step *op*, which wrote *obj*, write what was read as *field* ("": all of it)?"""
    return not field or op is None or op[2] is not obj or not op[3] or op[3] == field
