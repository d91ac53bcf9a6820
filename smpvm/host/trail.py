"""The record of one execution: the steps, what each wrote, and what enabled it."""

from __future__ import annotations

from typing import Any

from smpvm.host.carrier import WRITE
from smpvm.host.choices import Choices
from smpvm.host.serialthread import CLOCK, Change, Op, SerialThread


class Trail:
    """The record of an execution; append-only."""

    def __init__(self, access_points: bool) -> None:
        self.access_points = access_points
        self.log: list[Op] = []
        self.touches: list[tuple[int, Any]] = []
        """(log position, object) of each write reported by ``touched``; plain writes that are
        steps of their own are only in the log."""
        self.causes: dict[int, int] = {}
        """Log position of a step → that of the step that enabled it."""
        self.updates_at: dict[int, tuple[Any, Change]] = {}
        """Log position of an atomic → the value that it found, and its change."""
        self.idle: set[int] = set()
        """Log positions of plain writes that did not change the value, if a thread was waiting."""
        self.vain: set[int] = set()
        """Log positions of wakeups that found nobody to wake: they commute with their like."""
        self.gates: list[int] = []
        """Log positions of acquires, which take place only when ready."""
        self.choices = Choices()
        """What threads choose among values."""
        self.picks: list[tuple[int, int]] = []
        """(log position, value) of each: in the segment that begins with that step."""
        self.pruned_at: int | None = None
        """How many steps had been taken when an assumption first did not hold."""

    def touched_at(self, at: int) -> list[Any]:
        """What the recent step at log position *at* has written (``touched``)."""
        found = []
        for position, obj in reversed(self.touches):
            if position < at:
                break
            if position == at:
                found.append(obj)
        return found

    def looks(
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

    def touched_since(self, me: SerialThread, since: dict[tuple[Any, str], int]) -> int:
        """The first step of another thread that wrote something that *me* had read; -1 if none."""
        oldest = max(min(since.values()), 0)
        log = self.log
        writes = [
            (at, log[at][2])
            for at in range(oldest, len(log))
            if log[at][1] == WRITE and at not in self.idle
        ]
        for at, obj in reversed(self.touches):
            if at < oldest:
                break
            writes.append((at, obj))
        found = [
            at
            for at, obj in writes
            for (seen, field), look in since.items()
            if seen is obj and at >= look and same_field(log[at], obj, field)
            if log[at][0] != me.tid
        ]
        return min(found, default=CLOCK)


def same_field(op: Op | None, obj: object, field: str) -> bool:
    """Did step *op*, which wrote *obj*, write its *field* ("": any field)?"""
    return not field or op is None or op[2] is not obj or not op[3] or op[3] == field
