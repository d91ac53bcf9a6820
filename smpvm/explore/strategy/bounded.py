"""Preemption-bounded depth-first search (CHESS: Musuvathi and Qadeer, 2007).

Every execution with at most *bound* preemptions, each once.  A switch away from a thread that
could go on, and does not yield, is a preemption.  Without a bound: every interleaving there is.
"""

from __future__ import annotations

from collections.abc import Sequence

from smpvm.explore.strategy.base import Plain, Scheduler, SerialCarrier, SerialThread
from smpvm.explore.trace.schedule import step_text
from smpvm.host.carrier import YIELD
from smpvm.text import plural


class _Choice:
    __slots__ = ("did", "index", "n")

    def __init__(self, n: int) -> None:
        self.n = n
        self.index = 0
        self.did: str | None = None
        """What the chosen thread did; None where it has not been seen yet."""


class Bounded(Plain):
    """A strategy and its own scheduler: the stack of choices is the state of the search."""

    fair_after = False

    def __init__(self, bound: int | None = 2) -> None:
        self.name = "all" if bound is None else "bounded"
        self.every = False
        self.bound = bound
        self.executions = 0
        self.diverged = 0
        self._stack: list[_Choice] = []
        self._depth = 0
        self._used = 0
        self._exhausted = False

    def start(self, n: int) -> Scheduler | None:
        if n > 0:
            while self._stack and self._stack[-1].index + 1 >= self._stack[-1].n:
                self._stack.pop()
            if not self._stack:
                self._exhausted = True
                return None
            self._stack[-1].index += 1
            self._stack[-1].did = None
        self._depth = self._used = 0
        self.executions += 1
        return self

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread | None:
        goes_on = current is not None and current.op[1] != YIELD
        if goes_on and self.bound is not None and self._used >= self.bound:
            assert current is not None
            return current
        stack = self._stack
        if self._depth == len(stack):
            stack.append(_Choice(len(runnable)))
        choice = stack[self._depth]
        if choice.n != len(runnable):
            return None  # ``done`` sees that it did not come to the end of the stack
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

    def done(self, carrier: SerialCarrier) -> None:
        if self._depth < len(self._stack):
            self.diverged += 1
            del self._stack[self._depth :]

    def notes(self) -> list[str]:
        if not self.diverged:
            return []
        return [f"{self.name}: {plural(self.diverged, 'execution')} could not be repeated"]

    def claim(self) -> str:
        if not self._exhausted or self.diverged:
            return ""
        if self.bound is None:
            return f"every interleaving was run ({plural(self.executions, 'execution')})"
        most = f"at most {plural(self.bound, 'preemption')}"
        return f"every schedule of {most} was run ({plural(self.executions, 'execution')})"
