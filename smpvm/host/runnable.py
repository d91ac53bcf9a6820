"""Who can run, and which writes make others able to: the part of a serial carrier behind choices.

A thread that spins, or whose acquire is not possible, is taken off the list of the runnable until
something that it has looked at is written.  An acquire that is possible can become impossible by a
step on its lock only: so after each step those are asked that the step concerns, and nobody else.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from smpvm.host.carrier import HOLDING, Compound
from smpvm.host.serialthread import AWAIT, Op, SerialThread
from smpvm.host.trail import Trail, same_field

_TOKENS: Final = 0
"""Stands for all tokens: no object has this ``id``."""


class Runnable:
    """The threads that can run, in tid order, and those that watch for writes."""

    def __init__(self, trail: Trail) -> None:
        self.threads: list[SerialThread] = []
        self.watching: dict[int, list[SerialThread]] = {}
        """``id`` of an object → the threads whose spin, or whose acquire, waits for a write of it.
        A thread's own ``watched`` keeps the object."""
        self.slow = 0
        """Not 0: acquires must be asked, or threads told, before the next choice."""
        self.tells = False
        """Does a thread get control once to say that its acquire has to wait?"""
        self._trail = trail
        self._gated: dict[int, list[SerialThread]] = {}
        """The same for runnable threads whose acquire is possible."""
        self._fresh: list[SerialThread] = []
        """Those whose acquire has not been asked yet."""
        self._asked = 0
        """The log position up to which the steps have been looked at for those in ``_gated``."""
        self._touched = 0
        self._told: list[SerialThread] = []

    def enable(self, thread: SerialThread) -> None:
        """*thread* can run."""
        thread.runnable = True
        insort(self.threads, thread)

    def disable(self, thread: SerialThread) -> None:
        """It cannot."""
        thread.runnable = False
        self.threads.remove(thread)

    # -- gates: acquires that are possible, or not

    def gate(self, thread: SerialThread) -> None:
        """A runnable thread has come to an acquire that it may have to wait for."""
        self._fresh.append(thread)
        for key in _keys(thread):
            self._gated.setdefault(key, []).append(thread)
        self.slow += 1

    def ungate(self, thread: SerialThread) -> None:
        """It goes through, or has to wait."""
        if thread in self._fresh:
            self._fresh.remove(thread)
        _drop(self._gated, thread)
        self.slow -= 1

    def ask(self) -> None:
        """Bar those whose acquire has become impossible by the steps since the last time."""
        asked = set(self._fresh)
        for key in self._changed() if self._gated else ():
            asked.update(self._gated.get(key, ()))
        self._asked, self._touched = len(self._trail.log), len(self._trail.touches)
        self._fresh.clear()
        for thread in sorted(asked, key=attrgetter("tid")):
            if thread.ready is not None and not thread.ready():
                self._bar(thread)

    def ask_all(self) -> None:
        """Somebody has done things that are no steps."""
        self._asked = self._touched = 0

    def _changed(self) -> Iterator[int]:
        """The keys of all that was changed since the last time."""
        log, touches = self._trail.log, self._trail.touches
        for op in log[self._asked :]:
            if op[1] == AWAIT:
                yield from (id(obj) for obj, _ in op[2])
            elif type(op[2]) is Compound:
                yield from (id(obj) for obj, _ in op[2].parts)
            else:
                yield id(op[2])
                if is_token(op[2]):
                    yield _TOKENS
        for _, obj in touches[self._touched :]:
            yield id(obj)
            if is_token(obj):
                yield _TOKENS

    def _bar(self, thread: SerialThread) -> None:
        """The pending acquire is not possible: not runnable until its lock has been written.

        Where that is so for the first time the thread gets control to say it (``on_block``), on
        its own stack; that is no step.
        """
        self.disable(thread)
        self.ungate(thread)
        thread.watched = ((thread.op[2], ""),)
        self.watch(thread)
        if not thread.blocked and self.tells:
            thread.blocked = thread.tell = True
            self._told.append(thread)
            self.slow += 1

    def to_tell(self) -> SerialThread | None:
        """Who is next to say that its acquire has to wait."""
        if not self._told:
            return None
        self.slow -= 1
        return self._told.pop(0)

    # -- writes

    def watch(self, thread: SerialThread) -> None:
        """A thread that cannot run waits for a write."""
        for key in _keys(thread):
            self.watching.setdefault(key, []).append(thread)

    def wake(self, at: int, obj: object) -> None:
        """The step at log position *at* has written *obj*."""
        waiting = list(self.watching.get(id(obj), ()))
        if is_token(obj):
            waiting += [s for s in self.watching.get(_TOKENS, ()) if s not in waiting]
        op = self._trail.log[at] if at >= 0 else None
        for thread in waiting:
            if thread.ready is not None:
                _drop(self.watching, thread)
                self.gate(thread)
            elif _looks_at(thread, op, obj):
                _drop(self.watching, thread)
                thread.cause = at
            else:
                continue
            self.enable(thread)


def is_token(obj: object) -> bool:
    """A thread that blocks gives up its tokens without announcing each."""
    return getattr(obj, "kind", "") == "token"


def _looks_at(thread: SerialThread, op: Op | None, obj: object) -> bool:
    return any(o is obj and same_field(op, obj, f) for o, f in thread.watched)


def _keys(thread: SerialThread) -> set[int]:
    """What a wait depends on: an acquire that has tokens to have again, on all tokens."""
    if thread.ready is None:
        return {id(obj) for obj, _ in thread.watched}
    key = id(thread.op[2])
    return {key, _TOKENS} if thread.op[3] == HOLDING else {key}


def _drop(waiting: dict[int, list[SerialThread]], thread: SerialThread) -> None:
    for key in _keys(thread):
        waiting[key].remove(thread)
        if not waiting[key]:
            del waiting[key]
