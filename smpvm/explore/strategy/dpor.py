"""Optimal dynamic partial order reduction (Abdulla, Aronis, Jonsson and Sagonas, 2014).

Runs one execution of each class of executions that differ only in the order of independent steps.
After each execution its races are reversed: for a race (e, e') the sequence ``notdep(e).e'`` is
inserted into the wakeup tree of the state before e, unless the executions explored from there cover
it (the sleep set contains one of its weak initials).  A sleep-set-blocked execution is abandoned
and counted separately (``blocked``); programs of plain accesses, locks and atomics have none.

An acquire races with the acquire that excluded it, not with the release that admitted it.  An await
is enabled by the first write to what it read; that another write could have enabled it is handled
like a race.  Complete for the granularity: operations without schedule points are not permuted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from smpvm.explore.strategy.base import (
    Names,
    Op,
    Plain,
    Scheduler,
    SerialCarrier,
    SerialThread,
    Step,
    steps_of,
)
from smpvm.explore.trace.dependence import covers, gives_up, meet, same, writes
from smpvm.explore.trace.happens_before import Order, Prefix, Race, carrier_gates, touches
from smpvm.host.carrier import ATOMIC, READ, WAKEUP
from smpvm.host.serialthread import AWAIT, CLOCK, RESUME, START, Ending
from smpvm.text import plural

_GATES = (AWAIT, RESUME, START)


PATIENCE = 2_000
"""Steps in a row of one thread after which another thread is chosen."""

_TWO = object()
"""Marks a name that several objects have."""

Key = tuple[str, str, str, str]
"""An operation in a form that outlives the execution: kind, object's class and name, field."""


class Branch:
    """A node of a wakeup tree: the threads to run from here, in order of arrival."""

    __slots__ = ("children", "key")

    def __init__(self, key: Key | None = None) -> None:
        self.children: list[tuple[int, Branch]] = []
        self.key = key
        """The operation that leads to this node."""


class Operations(Names):
    """The operations of one execution in terms of names."""

    def __init__(self, carrier: SerialCarrier) -> None:
        super().__init__(carrier)
        self._log = carrier.log
        self._objects: dict[tuple[str, str], Any] | None = None

    def key(self, op: Op) -> Key | None:
        """The operation in terms of names; None for one on several objects."""
        _, kind, obj, field = op
        return None if kind == AWAIT else (kind, *self.name(obj), field)

    def op(self, tid: int, key: Key | None) -> Op | None:
        """The operation on the object of that name; None unless there is exactly one."""
        if key is None:
            return None
        if self._objects is None:
            self._objects = {}
            for _, kind, obj, _ in self._log:
                if kind != AWAIT and not same(self._objects.setdefault(self.name(obj), obj), obj):
                    self._objects[self.name(obj)] = _TWO
        obj = self._objects.get(key[1:3], _TWO)
        return None if obj is _TWO else (tid, key[0], obj, key[3])


class State:
    """One state of the current execution: enabled threads, sleep set, and wakeup tree."""

    __slots__ = ("at", "chosen", "enabled", "reads", "sleep", "todo")

    def __init__(
        self, at: int, enabled: list[int], reads: list[int], sleep: set[int], todo: Branch
    ) -> None:
        self.at = at
        """The log position of the step chosen here."""
        self.enabled = enabled
        self.reads = reads
        """Threads whose next operation is an atomic that would change nothing here."""
        self.sleep = sleep
        self.todo = todo
        self.chosen = -1


class Dpor(Plain):
    """A strategy that is its own scheduler: the frames are the state of the search."""

    name = "dpor"
    fair_after = False

    def __init__(self) -> None:
        self.every = True
        self.executions = 0
        self.blocked = 0
        self.diverged = 0
        self.failed = 0
        """Executions ended by a failure: what other threads would have done is unknown."""
        self._frames: list[State] = []
        self._depth = 0
        self._streak = 0
        """How many steps in a row the last thread has taken."""
        self._last = CLOCK
        self._fixed = 0
        """Frames below this depth are replayed from the previous execution."""
        self._prefix = Prefix()
        self._carrier: SerialCarrier
        self._names: Operations
        self._order: Order
        self._stopped = False
        self._exhausted = False
        self._deeds: list[Step] = []
        """The steps of the previous execution."""
        self._subtree: Branch | None = None
        """The wakeup tree of the state after the step chosen last."""

    # -- one execution

    def start(self, n: int) -> Scheduler | None:
        if n > 0 and not self._backtrack():
            self._exhausted = True
            return None
        self._depth = self._streak = 0
        self._last = CLOCK
        self._stopped = False
        return self

    def attach(self, carrier: SerialCarrier) -> None:
        self._carrier = carrier

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread | None:
        depth = self._depth
        self._depth = depth + 1
        if depth and self._frames[depth - 1].chosen == self._last:
            self._streak += 1
        else:
            self._streak = 0
        self._last = self._frames[depth - 1].chosen if depth else CLOCK
        if depth < self._fixed:
            frame = self._frames[depth]
            if frame.at == len(self._carrier.log):
                for thread in runnable:
                    if thread.tid == frame.chosen:
                        return thread
            self._diverge(depth)
            return None
        frame = self._push(runnable)
        chosen = self._new_choice(frame, runnable, current)
        if chosen is None:
            self._frames.pop()
            self._stopped = True
            return None
        frame.chosen = chosen.tid
        return chosen

    def _diverge(self, depth: int) -> None:
        """The scenario did not repeat its steps: abandon this execution, and drop the frames after
        *depth*."""
        self.diverged += 1
        self._prefix = Prefix()
        del self._frames[depth + 1 :]

    def _push(self, runnable: Sequence[SerialThread]) -> State:
        """The state after the last frame's step."""
        enabled = [s.tid for s in runnable]
        frames = self._frames
        sleep = self._asleep(frames[-1]) if frames and frames[-1].sleep else set()
        reads = [s.tid for s in runnable if s.update is not None and s.reads_only()]
        frame = State(len(self._carrier.log), enabled, reads, sleep, self._subtree or Branch())
        frames.append(frame)
        self._subtree = None
        return frame

    def _asleep(self, last: State) -> set[int]:
        """The threads that stay in the sleep set: their steps do not depend on the last step."""
        carrier = self._carrier
        done = carrier.log[last.at]
        doer = next(s for s in carrier.threads if s.tid == last.chosen)
        vain = last.at in carrier.vain  # and so would be any other wakeup now
        extra = [obj for obj in carrier.touched_at(last.at) if not covers(done, obj)]
        # The write that ended an await is the first of those that could have.
        ended = [
            look
            for s in carrier.threads
            if s.op[1] == AWAIT and s.cause == last.at
            for look in s.watched
        ]
        return {
            s.tid
            for s in carrier.threads
            if s.tid in last.sleep and s.tid != last.chosen and not s.done
            if (vain and s.op[1] == WAKEUP) or not meet(_now(s), done)
            if not touches(s.op, extra)
            if not _drops(s, doer, done, extra)
            if not any(writes(s.op, obj, field) for obj, field in ended)
        }

    def _new_choice(
        self, frame: State, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread | None:
        """The next branch of the wakeup tree, or any thread not in the sleep set."""
        while frame.todo.children:
            tid, subtree = frame.todo.children.pop(0)
            for thread in runnable:
                if thread.tid == tid and tid not in frame.sleep:
                    self._subtree = subtree
                    return thread
            if tid not in frame.enabled:
                self._try_all(frame)
        awake = [s for s in runnable if s.tid not in frame.sleep] if frame.sleep else runnable
        if not awake:
            return None
        if current is None or current not in awake:
            return awake[0]
        if self._streak > PATIENCE and len(awake) > 1:  # it may be spinning until others act
            self._streak = 0
            return next((s for s in awake if s.tid > current.tid), awake[0])
        return current

    def _try_all(self, frame: State) -> None:
        """The thread that the wakeup tree wants is not enabled: try all threads, to miss nothing.

        The tree was derived from another execution, in which the owner of the lock had released it
        before this acquire.
        """
        known = {tid for tid, _ in frame.todo.children}
        for tid in frame.enabled:
            if tid not in known and tid not in frame.sleep and tid != frame.chosen:
                frame.todo.children.append((tid, Branch()))

    # -- between executions

    def done(self, carrier: SerialCarrier) -> None:
        if self._stopped:
            self.blocked += 1
        elif carrier.stuck is not Ending.CUT:
            self.executions += 1
        self._compare(carrier)
        self.failed += carrier.failed
        # If the execution ended early, the pending operations of the threads count too.
        left = [] if self._stopped else [p for p in carrier.left if p[0][1] not in _GATES]
        n = len(carrier.log)
        gates = carrier_gates(carrier) | {n + i for i, (_, gated) in enumerate(left) if gated}
        pending = [op for op, _ in left]
        order = Order(
            carrier.log, carrier.causes, carrier.touches, pending, gates, self._prefix, carrier
        )
        self._order = order
        self._names = Operations(carrier)
        frames = {f.at: i for i, f in enumerate(self._frames)}
        for race in (*order.races, *order.other_causes()):
            self._reverse(order, race, frames)

    def _compare(self, carrier: SerialCarrier) -> None:
        """Check that the steps up to the new choice repeat those of the previous execution."""
        before, now = self._deeds, steps_of(carrier.log)
        self._deeds = now
        if self._fixed == 0 or (carrier.stuck is Ending.CUT and not self._stopped):
            return  # the first execution; or ``choose`` has noticed
        end = self._frames[self._fixed - 1].at
        if now[:end] != before[:end]:
            pairs = enumerate(zip_longest(now[:end], before[:end]))
            other = next(at for at, (mine, its) in pairs if mine != its)
            self._diverge(sum(frame.at < other for frame in self._frames))

    def _reverse(self, order: Order, race: Race, frames: dict[int, int]) -> None:
        """Insert the reversal of *race* into the wakeup tree of the state before it."""
        depth = frames.get(race.first)
        if depth is None:
            return
        frame = self._frames[depth]
        v = order.not_after(race.first)
        if race.second not in v:
            v.append(race.second)
        was, order.ops[race.second] = order.ops[race.second], order.turned(race)
        self._try(order, frame, v, race)
        order.ops[race.second] = was

    def _try(self, order: Order, frame: State, v: list[int], race: Race) -> None:
        """Schedule *v* to be run from *frame*, unless it is covered by what was run there."""
        tid = order.ops[race.second][0]
        if len(v) == 1 and tid not in frame.enabled:
            return
        for asleep in frame.sleep:
            if _weak_initial(order, v, asleep, self._pending(order, frame, asleep)):
                return
        self._insert(order, frame, v)

    def _insert(self, order: Order, frame: State, v: list[int]) -> None:
        node, first = frame.todo, True
        while v:
            for tid, child in node.children:
                if first:
                    op = self._pending(order, frame, tid)
                else:
                    op = self._names.op(tid, child.key)
                if _weak_initial(order, v, tid, op):
                    v = _without(order, v, tid)
                    if not child.children:
                        return
                    node, first = child, False
                    break
            else:
                for at in v:
                    branch = Branch(self._names.key(order.ops[at]))
                    node.children.append((order.ops[at][0], branch))
                    node = branch
                return

    def _pending(self, order: Order, frame: State, tid: int) -> Op | None:
        """The pending operation of *tid* in the state of *frame*."""
        for at in range(frame.at, len(order.ops)):
            if order.ops[at][0] == tid:
                return order.asked(at, tid in frame.reads)
        return next((op for op, _ in self._carrier.left if op[0] == tid), None)

    def _backtrack(self) -> bool:
        """Return to the deepest state with something left to try; False if there is none."""
        frames = self._frames
        while frames:
            frame = frames[-1]
            frame.sleep.add(frame.chosen)
            while frame.todo.children:
                tid, subtree = frame.todo.children.pop(0)
                if tid in frame.enabled and tid not in frame.sleep:
                    frame.chosen = tid
                    self._subtree = subtree
                    self._fixed = len(frames)
                    if not self.diverged:
                        self._prefix = self._order.prefix(frame.at)
                    return True
                if tid not in frame.enabled:
                    self._try_all(frame)
            frames.pop()
        return False

    def claim(self) -> str:
        if not self._exhausted or self.diverged or self.failed:
            return ""
        return f"every class of executions was run ({plural(self.executions, 'execution')})"

    def notes(self) -> list[str]:
        complete = plural(self.executions, "complete execution")
        lines = [f"dpor: {complete}, {self.blocked} cut by sleep sets"]
        if self.diverged:
            lines.append(f"dpor: {plural(self.diverged, 'execution')} could not be repeated")
        if self.failed:
            lines.append(
                f"dpor: {plural(self.failed, 'execution')} ended with a failure: nothing is "
                "proven, other threads may have had more to do"
            )
        return lines


def _now(thread: SerialThread) -> Op:
    """The pending operation, as a read if it is an atomic that would change nothing."""
    tid, kind, obj, field = thread.op
    return (tid, READ, obj, field) if kind == ATOMIC and thread.reads_only() else thread.op


def _drops(thread: SerialThread, doer: SerialThread, done: Op, extra: Sequence[Any]) -> bool:
    """May the pending operation release a token that the step involves, or the step one that the
    operation involves?"""
    mine = _tokens(thread.td) if gives_up(thread.op) else []
    its = _tokens(doer.td) if gives_up(done) else []
    return any(token in (done[2], *extra, *its) for token in mine) or thread.op[2] in its


def _tokens(td: Any) -> list[Any]:
    """The tokens that the thread holds."""
    return [ref.tok for ref in getattr(td, "toks", ())]


def _weak_initial(order: Order, v: Sequence[int], tid: int, op: Op | None) -> bool:
    """Can *v* equivalently begin with the next step of *tid* (*op*, None if unknown)?"""
    for i, at in enumerate(v):
        if order.ops[at][0] == tid:
            return not any(order.direct(v[j], at) for j in range(i))
    if op is None:
        return False
    return not any(order.clash(at, op) for at in v)


def _without(order: Order, v: list[int], tid: int) -> list[int]:
    """*v* without the first step of *tid*."""
    for i, at in enumerate(v):
        if order.ops[at][0] == tid:
            return v[:i] + v[i + 1 :]
    return v
