"""A hash of the class of a trace: cheap, for counting classes and recognizing states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smpvm.explore.trace.dependence import IDENTITY, covers, parts, shares
from smpvm.host.carrier import HOLDING, READ, YIELD, Compound
from smpvm.host.serialthread import AWAIT, Op
from smpvm.host.trail import Trail


class _Place:
    """The steps on one object: *last* is the hash of the latest step on the whole object, *since*
    the sum over later steps, *fields* the latest write of each field and the reads after it."""

    __slots__ = ("fields", "last", "since")

    def __init__(self) -> None:
        self.last = self.since = 0
        self.fields: dict[str, list[int]] = {}

    def whole(self, step: tuple[int, int]) -> int:
        """A step on the whole object; returns its hash."""
        one = hash((step, self.last, self.since))
        self.last, self.since = one, 0
        self.fields.clear()
        return one

    def part(self, step: tuple[int, int], field: str, read: bool) -> int:
        """A step on one field; returns its hash."""
        have = self.fields.get(field)
        if have is None:
            have = self.fields[field] = [self.last, 0]
        if read:
            one = hash((step, have[0]))
            have[1] += one
        else:
            one = hash((step, have[0], have[1]))
            have[0], have[1] = one, 0
        self.since += one
        return one


class TraceHash:
    """A hash of the class of the trace so far, updated step by step.

    Each step is hashed with the latest steps that it depends on; the sum does not depend on the
    order of the others.
    """

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._places: dict[Any, _Place] = {}
        self._counts: dict[int, int] = {}
        self._total = 0
        self._at = self._touched = self._picked = 0

    def value(self) -> int:
        """The hash over all steps so far."""
        log, touches, picks = self._trail.log, self._trail.touches, self._trail.picks
        while self._at < len(log):
            at = self._at
            self._at += 1
            extra = []
            while self._touched < len(touches) and touches[self._touched][0] <= at:
                by, obj = touches[self._touched]
                self._touched += 1
                if by == at and not covers(log[at], obj):
                    extra.append(obj)
            self._add(log[at], extra, at in self._trail.vain)
            while self._picked < len(picks) and picks[self._picked][0] <= at:
                tid, value = log[at][0], picks[self._picked][1]
                self._picked += 1
                self._total += hash((value, tid, self._counts[tid]))
        return self._total & 0xFFFFFFFFFFFFFFFF

    def counts(self) -> tuple[tuple[int, int], ...]:
        """How many steps each thread has taken."""
        return tuple(sorted(self._counts.items()))

    def _add(self, op: Op, extra: Sequence[Any], vain: bool) -> None:
        tid, kind, obj, _ = op
        places, counts = self._places, self._counts
        counts[tid] = n = counts.get(tid, 0) + 1
        if kind in (AWAIT, YIELD):
            return
        for _, _, one, name in parts(op) if type(obj) is Compound else (op,):
            place = places.get(one)
            if place is None:
                place = places[one] = _Place()
            if kind in IDENTITY:
                name = "as identity"
            elif name == HOLDING:
                name = ""
            reads = vain or kind == READ or shares(kind, one)
            if name or reads:
                self._total += place.part((tid, n), name, reads)
            else:
                self._total += place.whole((tid, n))
        for other in extra:
            self._total += places.setdefault(other, _Place()).whole((tid, n))


def trace_hash(trail: Trail) -> int:
    """A hash of the class of a whole trace, for counting distinct ones."""
    return TraceHash(trail).value()
