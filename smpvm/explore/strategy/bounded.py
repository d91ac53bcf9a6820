"""Preemption-bounded search (CHESS: Musuvathi and Qadeer, 2007).

A switch away from a thread that could continue and does not yield is a preemption.  First all
executions without one are run, then those with one, and so on up to the bound: most bugs need few.
Each is run once; alternatives that need one more preemption are queued for the next round.  Without
a bound: every interleaving, depth first.

*reduced*: of the executions that differ only in the order of independent steps one is enough.  A
state is identified by the class of the trace that led to it; an execution that reaches a known
state with no fewer preemptions is abandoned.  (Musuvathi and Qadeer, Partial-order reduction for
context-bounded state exploration, 2007.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from smpvm.explore.strategy.base import Plain, Scheduler, SerialCarrier, SerialThread
from smpvm.explore.trace.schedule import step_text
from smpvm.explore.trace.tracehash import TraceHash
from smpvm.host.carrier import YIELD
from smpvm.text import plural

_State = tuple[int, tuple[tuple[int, int], ...], int]
"""The class of the trace, the steps of each thread, and the thread that ran last."""


class _Choice:
    __slots__ = ("did", "index", "n")

    def __init__(self, n: int, index: int = 0) -> None:
        self.n = n
        """How many of the runnable threads to try here."""
        self.index = index
        self.did: str | None = None
        """The operation of the chosen thread; None if not yet known."""


class Bounded(Plain):
    """A strategy that is its own scheduler: the stack of choices is the state of the search."""

    fair_after = False

    def __init__(self, bound: int | None = 2, *, reduced: bool = False) -> None:
        self.name = "all" if bound is None else "dpor" if reduced else "bounded"
        self.every = False
        self.bound = bound
        self.executions = 0
        self.cut = 0
        """Executions that reached a known state."""
        self.diverged = 0
        self._round = 0 if bound is not None else None
        """The preemptions of the executions of this round."""
        self._later: deque[tuple[int, ...]] = deque()
        """Paths of choices that need one more preemption."""
        self._now: deque[tuple[int, ...]] = deque()
        self._given = 0
        """The choices below this depth come from an entry of ``_now`` and are fixed."""
        self._seen: dict[_State, int] | None = {} if reduced else None
        """State → the fewest preemptions with which it was reached."""
        self._stack: list[_Choice] = []
        self._depth = 0
        self._used = 0
        self._exhausted = False
        self._stopped = False
        self._hash: TraceHash | None = None

    def start(self, n: int) -> Scheduler | None:
        if n > 0 and not self._next():
            self._exhausted = True
            return None
        self._depth = self._used = 0
        self._stopped = False
        return self

    def _next(self) -> bool:
        """The next execution: of this round, or of the next one."""
        stack = self._stack
        while len(stack) > self._given and stack[-1].index + 1 >= stack[-1].n:
            stack.pop()
        if len(stack) > self._given:
            stack[-1].index += 1
            stack[-1].did = None
            return True
        if not self._now:
            if not self._later:
                return False
            assert self._round is not None
            self._round += 1
            self._now, self._later = self._later, deque()
        path = self._now.popleft()
        self._stack = [_Choice(0, index) for index in path]
        self._given = len(path)
        return True

    def attach(self, carrier: SerialCarrier) -> None:
        self._hash = None if self._seen is None else TraceHash(carrier)

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread | None:
        goes_on = current is not None and current.op[1] != YIELD
        if self._depth == len(self._stack):
            if self._known(current):
                self._stopped = True
                return None
            self._stack.append(_Choice(self._width(runnable, goes_on)))
        choice = self._stack[self._depth]
        if choice.index >= len(runnable):
            return None  # ``done`` sees that the stack was not used up
        nxt = runnable[choice.index]
        if current is not None:
            nxt = [current, *(s for s in runnable if s is not current)][choice.index]
        does = step_text(nxt.op)
        if choice.did not in (None, does):
            return None
        choice.did = does
        self._depth += 1
        if nxt is not current and goes_on:
            self._used += 1
        return nxt

    def _width(self, runnable: Sequence[SerialThread], goes_on: bool) -> int:
        """How many threads to try at a new choice; the others are left to the next round."""
        if not goes_on or self._round is None or self._used < self._round:
            return len(runnable)
        if self.bound is not None and self._round < self.bound:
            path = tuple(choice.index for choice in self._stack)
            self._later += [(*path, i) for i in range(1, len(runnable))]
        return 1

    def _known(self, current: SerialThread | None) -> bool:
        """Has this state been explored with as few preemptions?"""
        if self._hash is None or self._seen is None:
            return False
        number = self._hash.value()
        state = (number, self._hash.counts(), -1 if current is None else current.tid)
        fewest = self._seen.get(state)
        if fewest is not None and fewest <= self._used:
            return True
        self._seen[state] = self._used
        return False

    def done(self, carrier: SerialCarrier) -> None:
        if self._stopped:
            self.cut += 1
        else:
            self.executions += 1
        if self._depth < len(self._stack):
            self.diverged += 1
            del self._stack[self._depth :]

    def notes(self) -> list[str]:
        notes = []
        if self._seen is not None:
            runs = plural(self.executions, "complete execution")
            notes.append(f"{self.name}: {runs}, {self.cut} cut at a known state")
        if self._round and not self._exhausted and not self.diverged:
            most = plural(self._round - 1, "preemption")
            notes.append(f"{self.name}: every schedule with at most {most} was run")
        if self.diverged:
            notes.append(f"{self.name}: {plural(self.diverged, 'execution')} could not be repeated")
        return notes

    def claim(self) -> str:
        if not self._exhausted or self.diverged:
            return ""
        runs = plural(self.executions, "execution")
        if self.bound is None:
            return f"every interleaving was run ({runs})"
        most = f"at most {plural(self.bound, 'preemption')}"
        if self._seen is not None:
            return f"every class of executions with {most} was run ({runs})"
        return f"every schedule with {most} was run ({runs})"
