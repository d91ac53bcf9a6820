"""Which threads can run, and which writes make others runnable: part of the serial carrier.

A thread that spins, or whose acquire is not possible, is removed from the runnable list until
something that it has read is written.  Only a step on its lock can make a possible acquire
impossible.  Threads whose acquires have the same ``ready`` share one *gate*, which is evaluated
once for all of them, and only after steps that it depends on: there may be a hundred threads.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Final

from smpvm.host.carrier import HOLDING, READ, WRITE, Compound
from smpvm.host.serialthread import AWAIT, Op, SerialThread
from smpvm.host.trail import Trail, same_field

_TOKENS: Final = 0
"""Stands for all tokens: no object has this ``id``."""
_ACCESSES: Final = frozenset((READ, WRITE))
"""Kinds of steps that change no lock."""
_tid = attrgetter("tid")


class _Gate:
    """Threads whose next step is an acquire with the same ``ready``; open if it may be true."""

    __slots__ = ("keys", "lock", "open", "ready", "threads")

    def __init__(self, thread: SerialThread, ready: Callable[[], bool]) -> None:
        self.ready = ready
        self.threads: list[SerialThread] = []
        self.open = True
        self.lock = thread.op[2]
        """Kept alive as long as its ``id`` is a key."""
        # An acquire that must also regain tokens depends on all of them.
        holding = thread.op[3] == HOLDING
        self.keys = (id(self.lock), _TOKENS) if holding else (id(self.lock),)


class Runnable:
    """The threads that can run, in tid order, and those that wait for writes."""

    def __init__(self, trail: Trail) -> None:
        self.threads: list[SerialThread] = []
        self.watching: dict[int, list[SerialThread]] = {}
        """``id`` of an object → the threads that spin until it is written.  Their ``watched``
        keeps the object alive."""
        self.slow = 0
        """Not 0: gates must be evaluated, or on_block reported, before the next choice."""
        self.tells = False
        """Does a thread get control once to report that its acquire must wait?"""
        self._trail = trail
        self._gates: dict[Callable[[], bool], _Gate] = {}
        self._by_key: dict[int, list[_Gate]] = {}
        self._fresh: dict[_Gate, None] = {}
        """Gates to be evaluated whatever the steps were."""
        self._asked = 0
        """The log position up to which the steps have been processed."""
        self._touched = 0
        self._told: list[SerialThread] = []

    def enable(self, thread: SerialThread) -> None:
        """*thread* can run."""
        thread.runnable = True
        insort(self.threads, thread, key=_tid)

    def disable(self, thread: SerialThread) -> None:
        """*thread* cannot run."""
        thread.runnable = False
        self.threads.remove(thread)

    # -- gates

    def gate(self, thread: SerialThread, ready: Callable[[], bool]) -> None:
        """A runnable thread has reached an acquire that may have to wait."""
        if not self.slow:
            self._from_here()
        gate = self._gates.get(ready)
        if gate is None:
            gate = self._gates[ready] = _Gate(thread, ready)
            for key in gate.keys:
                self._by_key.setdefault(key, []).append(gate)
        gate.threads.append(thread)
        self._fresh[gate] = None
        self.slow += 1

    def ungate(self, thread: SerialThread, ready: Callable[[], bool]) -> None:
        """Its acquire takes place."""
        gate = self._gates[ready]
        gate.threads.remove(thread)
        self.slow -= 1
        if not gate.threads:
            del self._gates[ready]
            self._fresh.pop(gate, None)
            for key in gate.keys:
                self._by_key[key].remove(gate)
                if not self._by_key[key]:
                    del self._by_key[key]

    def ask(self) -> None:
        """Close the gates whose acquires have become impossible since the last call."""
        asked = self._fresh
        self._fresh = {}
        for key in self._changed():
            asked.update(dict.fromkeys(self._by_key.get(key, ())))
        self._from_here()
        told = len(self._told)
        for gate in asked:
            if (gate.open or any(s.runnable for s in gate.threads)) and not gate.ready():
                self._shut(gate)
        self._told[told:] = sorted(self._told[told:], key=_tid)

    def _from_here(self) -> None:
        """The steps so far need not be processed for open gates."""
        self._asked, self._touched = len(self._trail.log), len(self._trail.touches)

    def ask_all(self) -> None:
        """State has changed without steps: evaluate all gates."""
        self._fresh.update(dict.fromkeys(self._gates.values()))

    def _changed(self) -> Iterator[int]:
        """The keys of all objects changed since the last call."""
        log, touches = self._trail.log, self._trail.touches
        for at in range(self._asked, len(log)):
            _, kind, obj, _ = log[at]
            if kind in _ACCESSES:
                continue
            if kind == AWAIT:
                yield from (id(one) for one, _ in obj)
            elif type(obj) is Compound:
                yield from (id(one) for one, _ in obj.parts)
            else:
                yield from _keys(obj)
        for at in range(self._touched, len(touches)):
            yield from _keys(touches[at][1])

    def _shut(self, gate: _Gate) -> None:
        """The acquires at *gate* are not possible: not runnable until their lock is written.

        The first time, the thread runs briefly to report ``on_block`` on its own stack; this is not
        logged as a step.
        """
        gate.open = False
        for thread in gate.threads:
            if thread.runnable:
                thread.runnable = False
                self.slow -= 1
                if not thread.blocked and self.tells:
                    thread.blocked = thread.tell = True
                    self._told.append(thread)
                    self.slow += 1
        self.threads[:] = [s for s in self.threads if s.runnable]

    def _open(self, gate: _Gate) -> None:
        """Their lock has been written: runnable, unless ``ready`` is false at the next choice."""
        gate.open = True
        self._fresh[gate] = None
        if not self.slow:
            self._from_here()
        for thread in gate.threads:
            if not thread.runnable:
                thread.runnable = True
                self.slow += 1
                self.threads.append(thread)
        self.threads.sort(key=_tid)

    def to_tell(self) -> SerialThread | None:
        """The next thread that must report that its acquire waits."""
        if not self._told:
            return None
        self.slow -= 1
        return self._told.pop(0)

    # -- writes

    def watch(self, thread: SerialThread) -> None:
        """*thread* cannot run until something in its ``watched`` is written."""
        for key in {id(obj) for obj, _ in thread.watched}:
            self.watching.setdefault(key, []).append(thread)

    def wake(self, at: int, obj: object) -> None:
        """The step at log position *at* has written *obj*."""
        if self._by_key:
            for key in _keys(obj):
                for gate in self._by_key.get(key, ()):
                    if not gate.open:
                        self._open(gate)
        if id(obj) not in self.watching:
            return
        op = self._trail.log[at] if at >= 0 else None
        for thread in tuple(self.watching.get(id(obj), ())):
            if _looks_at(thread, op, obj):
                self._unwatch(thread)
                thread.cause = at
                self.enable(thread)

    def _unwatch(self, thread: SerialThread) -> None:
        for key in {id(obj) for obj, _ in thread.watched}:
            self.watching[key].remove(thread)
            if not self.watching[key]:
                del self.watching[key]


def is_token(obj: object) -> bool:
    """Is it a token?  A blocking thread releases its tokens without announcing each."""
    return getattr(obj, "kind", "") == "token"


def _keys(obj: object) -> Iterable[int]:
    return (id(obj), _TOKENS) if is_token(obj) else (id(obj),)


def _looks_at(thread: SerialThread, op: Op | None, obj: object) -> bool:
    return any(o is obj and same_field(op, obj, f) for o, f in thread.watched)
