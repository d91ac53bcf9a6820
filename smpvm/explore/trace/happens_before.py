"""Happens-before over one execution's log: vector clocks, races, and the class of the trace.

Two executions are in the same class if they have the same steps of each thread and order all pairs
of dependent steps alike (Mazurkiewicz traces).  A step depends on earlier steps of its own thread,
on conflicting steps, and on the step that enabled it (``causes``: the spawn of its thread, the
wakeup that ended its sleep, the write that ended its await).  Time advances only when no thread can
run, so a timer step is ordered after all steps before it and before all steps after it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from smpvm.explore.trace.dependence import (
    apart,
    conflict,
    covers,
    is_acquire,
    named,
    parts,
    same,
)
from smpvm.host.carrier import (
    ACQUIRE,
    ACQUIRE_SHARED,
    ATOMIC,
    COUNTED,
    HOLDING,
    READ,
    RELEASE,
    WAKEUP,
    WRITE,
    YIELD,
    Compound,
)
from smpvm.host.serial import SerialCarrier
from smpvm.host.serialthread import AWAIT, TIMER, Op, unchanged
from smpvm.host.trail import Trail

Clock = list[int]

_MANY = frozenset((AWAIT, YIELD))
"""Kinds of steps that concern several objects, or none."""


@dataclass
class Race:
    """Two dependent steps that could occur in the opposite order: *first*, then *second*.

    *second* is a position in the log or past its end: in ``Order.ops`` the log is followed by the
    pending operations of threads that were alive when the execution ended.
    """

    first: int
    second: int


@dataclass
class Prefix:
    """The analysis of the first *n* steps, shared by all executions that begin with them."""

    n: int = 0
    slot: dict[int, int] = field(default_factory=dict)
    clocks: list[Clock] = field(default_factory=list)
    races: list[Race] = field(default_factory=list)


class Order:
    """The happens-before order of an execution."""

    def __init__(
        self,
        log: Sequence[Op],
        causes: dict[int, int],
        touches: Sequence[tuple[int, Any]],
        pending: Sequence[Op] = (),
        gated: frozenset[int] = frozenset(),
        prefix: Prefix | None = None,
        trail: Trail | None = None,
    ) -> None:
        """*pending* are operations that were not executed; *gated* are the positions (past the log
        for pending ones) of acquires that take place only when possible.
        The log begins with *prefix*.  *trail* knows what values the atomics found."""
        self.n = len(log)
        self.ops: list[Op] = [*log, *pending]
        self.causes = causes
        self.gated = gated
        tids = sorted({op[0] for op in self.ops})
        self.slot = {tid: i for i, tid in enumerate(tids)}
        self.extras: dict[int, list[Any]] = {}
        self._touches = touches
        self._updates = {} if trail is None else trail.updates_at
        self._idle = set() if trail is None else trail.idle
        self._vain = set() if trail is None else trail.vain
        for at, obj in touches:
            if not covers(self.ops[at], obj):
                self.extras.setdefault(at, []).append(obj)
        self.clocks: list[Clock] = []
        self.races: list[Race] = []
        self._history: defaultdict[Any, list[int]] = defaultdict(list)
        self._last: dict[int, int] = {}
        self._barrier: Clock | None = None
        self._barrier_at = -1
        known = 0
        if prefix is not None and prefix.slot == self.slot:
            known = prefix.n
            self.clocks += prefix.clocks
            self.races += prefix.races
        for at in range(known):
            self._done(at, self._alone(at))
        for at in range(known, len(self.ops)):
            self._add(at)

    def prefix(self, n: int) -> Prefix:
        """The first *n* steps."""
        races = [race for race in self.races if race.second < n]
        return Prefix(n, self.slot, self.clocks[:n], races)

    # -- building

    def _add(self, at: int) -> None:
        op = self.ops[at]
        tid, kind, obj, _ = op
        clock = self._before(at, tid)
        alone = False
        cause = self.causes.get(at)
        if cause is not None:
            clock = _join(clock, self.clocks[cause])
        if kind == TIMER:
            for last in self._last.values():
                clock = _join(clock, self.clocks[last])
        elif alone := self._alone(at):
            if obj in self._history:
                clock = self._meet(at, op, obj, clock, clock)
        else:
            program = clock
            for target in self._targets(at, op):
                clock = self._meet(at, op, target, clock, program)
        clock = clock.copy()
        clock[self.slot[tid]] = at
        self.clocks.append(clock)
        if at < self.n:  # no step comes after one that was not executed
            self._done(at, alone)

    def _done(self, at: int, alone: bool) -> None:
        """Record step *at* for later steps; *alone*: it concerns only one object."""
        op = self.ops[at]
        self._last[op[0]] = at
        if op[1] == TIMER:
            self._barrier, self._barrier_at = self.clocks[at], at
            return
        if alone:
            self._history[op[2]].append(at)
        else:
            for target in self._targets(at, op):
                self._history[target].append(at)

    def _before(self, at: int, tid: int) -> Clock:
        last = self._last.get(tid)
        clock = [-1] * len(self.slot) if last is None else self.clocks[last]
        if self._barrier is not None and (last is None or last < self._barrier_at):
            clock = _join(clock, self._barrier)
        return clock

    def _alone(self, at: int) -> bool:
        """Does the step concern only one object, as most do?"""
        _, kind, obj, _ = self.ops[at]
        return not (kind in _MANY or type(obj) is Compound or at in self.extras)

    def _targets(self, at: int, op: Op) -> list[Any]:
        own = named(op)
        extra = self.extras.get(at)
        return own if extra is None else [*own, *extra]

    def _meet(self, at: int, op: Op, target: Any, clock: Clock, program: Clock) -> Clock:
        """Order step *at* after the earlier steps on *target* that it conflicts with."""
        if at in self.gated:
            return self._meet_gate(at, target, clock, program)
        ops, slot, tid = self.ops, self.slot, op[0]
        reads = op[1] == READ and type(op[2]) is not Compound
        for prev in reversed(self._history.get(target, ())):
            before = ops[prev]
            if reads and before == op:
                break  # that read is already ordered after all conflicting steps
            if before[0] != tid and clock[slot[before[0]]] < prev:
                if not self._depends_on(prev, at, target):
                    continue
                self.races.append(Race(prev, at))
                clock = _join(clock, self.clocks[prev])
            if before[1] != READ and prev not in self._vain and _hides(before, op):
                break
        return clock

    def _meet_gate(self, at: int, target: Any, clock: Clock, program: Clock) -> Clock:
        """The same for an acquire that takes place only when possible.

        It cannot come before the release that admitted it, but before the acquire that excluded it:
        so it races with that one, unless they are ordered by other steps.
        """
        tid = self.ops[at][0]
        history = self._history.get(target, ())
        for i in range(len(history) - 1, -1, -1):
            prev = history[i]
            before = self.ops[prev]
            slot = self.slot[before[0]]
            if before[0] == tid or program[slot] >= prev:
                continue
            if not self._depends_on(prev, at, target):
                continue
            if not self._gave_back(prev, target) or self._spare(history, i, target):
                self.races.append(Race(prev, at))
            clock = _join(clock, self.clocks[prev])
            if before[1] == ACQUIRE and prev in self.gated and self._held(history, i):
                break
        return clock

    def _held(self, history: Sequence[int], i: int) -> bool:
        """Was that lock held exclusively: is the next step on it the release by the same thread?"""
        if i + 1 == len(history):
            return True
        nxt = history[i + 1]
        target = self.ops[history[i]][2]
        return self.ops[nxt][0] == self.ops[history[i]][0] and self._gave_back(nxt, target)

    def _gave_back(self, at: int, target: Any) -> bool:
        """Did step *at* release *target*: a release, tokens released by a thread that blocks, or
        the end of a joined thread?"""
        _, kind, obj, field = self.ops[at]
        if kind == RELEASE:
            return True
        other = at not in self.gated and not same(obj, target)
        return other and (field == HOLDING or kind == WAKEUP)

    def _spare(self, history: Sequence[int], i: int, target: Any) -> bool:
        """Could an acquire of *target* have come before that release as well?"""
        if getattr(target, "kind", "") != COUNTED:
            return self._was_shared(history, i)
        kinds = [op[1] for op in self.ops[history[i] : self.n] if op[2] is target]
        if any(kind not in (ACQUIRE, RELEASE) for kind in kinds):
            return True  # a try may have taken it, or not
        return bool(target.count - kinds.count(RELEASE) + kinds.count(ACQUIRE) > 0)

    def _was_shared(self, history: Sequence[int], i: int) -> bool:
        """Does that release end a shared hold (which need not exclude an acquire)?"""
        tid = self.ops[history[i]][0]
        for j in range(i - 1, -1, -1):
            op = self.ops[history[j]]
            if op[0] == tid and is_acquire(op):
                return op[1] == ACQUIRE_SHARED
        return False

    def _depends_on(self, prev: int, at: int, target: Any) -> bool:
        if self._conflict(prev, at):
            return True
        for one, other in ((prev, at), (at, prev)):
            if any(same(obj, target) for obj in self.extras.get(one, ())):
                op = self.ops[other]
                if op[1] == AWAIT or other in self.extras:
                    return True
                if any(same(part[2], target) for part in parts(op)):
                    return True
        return False

    def _conflict(self, a: int, b: int) -> bool:
        """Do the operations of two steps conflict?  Wakeups that wake nobody commute."""
        if a in self._vain and b in self._vain:
            return False
        return conflict(self.ops[a], self.ops[b])

    # -- queries

    def before(self, a: int, b: int) -> bool:
        """Does step *a* happen before step *b* (or is it *b* itself)?"""
        return self.clocks[b][self.slot[self.ops[a][0]]] >= a

    def direct(self, a: int, b: int) -> bool:
        """Does *b* depend directly on *a*, an earlier step?"""
        if self.ops[a][0] == self.ops[b][0] or self.causes.get(b) == a:
            return True
        if self._conflict(a, b):
            return True
        for obj in self.extras.get(a, ()):
            if any(same(obj, t) for t in self._targets(b, self.ops[b])):
                return True
        for obj in self.extras.get(b, ()):
            if any(same(obj, t) for t in self._targets(a, self.ops[a])):
                return True
        return False

    def clash(self, a: int, op: Op) -> bool:
        """Does the pending operation *op* of another thread depend on step *a*?"""
        vain = a in self._vain and op[1] == WAKEUP  # it would wake nobody either
        meets = not vain and conflict(self.ops[a], op)
        return meets or touches(op, self.extras.get(a, ()))

    def turned(self, race: Race) -> Op:
        """The second step of *race* if it came first: an atomic would find another value."""
        op, first = self.ops[race.second], self.ops[race.first]
        update = self._updates.get(race.second)
        if update is None or first[1] == READ:
            return op  # no atomic, or it finds the same value
        tid, _, obj, field = op
        found = self._updates.get(race.first)
        if found is not None and same(first[2], obj) and first[3] == field:
            return (tid, READ if unchanged(found[0], update[1]) else ATOMIC, obj, field)
        return (tid, ATOMIC, obj, field)

    def asked(self, at: int, reads: bool) -> Op:
        """Step *at* in another state; if it is an atomic, *reads* says whether it only reads."""
        tid, kind, obj, field = self.ops[at]
        if kind != ATOMIC and at not in self._updates:
            return self.ops[at]
        return (tid, READ if reads else ATOMIC, obj, field)

    def not_after(self, a: int) -> list[int]:
        """The steps after *a* in the log that do not happen after it."""
        slot = self.slot[self.ops[a][0]]
        clocks = self.clocks
        return [b for b in range(a + 1, self.n) if clocks[b][slot] < a]

    def other_causes(self) -> list[Race]:
        """Awaits that could have been ended by another step than the one that did.

        Not races, but handled like them: *second* is the await, without its cause before it.
        """
        awaits = [at for at in self.causes if self.ops[at][1] == AWAIT]
        if not awaits:
            return []
        written = [(at, obj) for at, obj in self._touches if at >= 0]
        written += [
            (at, op[2])
            for at, op in enumerate(self.ops[: self.n])
            if op[1] == WRITE and at not in self._idle
        ]
        by_thread: dict[int, list[tuple[int, Any]]] = {}
        for at, obj in sorted(written, key=itemgetter(0)):
            by_thread.setdefault(self.ops[at][0], []).append((at, obj))
        return [Race(self.causes[at], at) for at in awaits if self._another(at, by_thread)]

    def _another(self, at: int, by_thread: dict[int, list[tuple[int, Any]]]) -> bool:
        """Could a write other than its cause have ended the await *at*?"""
        op, cause = self.ops[at], self.causes[at]
        for tid, written in by_thread.items():
            if tid == op[0]:
                continue
            for i in range(bisect_right(written, cause, key=itemgetter(0)), len(written)):
                w, obj = written[i]
                if self.before(cause, w) or self.before(at, w):
                    break  # the same holds for all later steps of the thread
                if _wakes(self.ops[w], obj, op):
                    return True
        return False

    def signature(self) -> tuple[Any, ...]:
        """A value that is equal exactly for executions of the same class."""
        number: dict[int, tuple[int, int]] = {}
        counts: dict[int, int] = {}
        rows = []
        for at in range(self.n):
            tid = self.ops[at][0]
            counts[tid] = counts.get(tid, 0) + 1
            number[at] = (tid, counts[tid])
            clock = [number[p][1] if p >= 0 else 0 for p in self.clocks[at]]
            rows.append((tid, counts[tid], self.ops[at][1], self.ops[at][3], tuple(clock)))
        return tuple(sorted(rows))


def touches(op: Op, objs: Sequence[Any]) -> bool:
    """Does *op* concern one of *objs*?"""
    return bool(objs) and any(same(a, b) for a in named(op) for b in objs)


def order_of(carrier: SerialCarrier, gated: frozenset[int] = frozenset()) -> Order:
    """The order of the execution that *carrier* has just run, without pending operations."""
    gated = gated or carrier_gates(carrier)
    return Order(carrier.log, carrier.causes, carrier.touches, (), gated, trail=carrier)


def carrier_gates(carrier: SerialCarrier) -> frozenset[int]:
    """The log positions of acquires that take place only when possible."""
    return frozenset(carrier.gates)


def _join(a: Clock, b: Clock) -> Clock:
    return [x if x > y else y for x, y in zip(a, b, strict=True)]


def _hides(before: Op, op: Op) -> bool:
    """Is every earlier step on the object that conflicts with *op* ordered before *before*?"""
    if is_acquire(before) or apart(before[1], op[1]):
        return False
    if type(before[2]) is Compound or type(op[2]) is Compound:
        return False
    return not before[3] or (before[3] == op[3] and bool(op[3]))


def _wakes(write: Op, obj: Any, await_: Op) -> bool:
    return any(
        same(seen, obj) and (not field or not same(write[2], obj) or write[3] in ("", field))
        for seen, field in await_[2]
    )
