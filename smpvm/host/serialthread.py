"""Threads and steps as seen by the serial carrier and its schedulers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from smpvm.host.carrier import Carried

# Kinds of step that only the serial carrier produces.
START: Final = "start"
AWAIT: Final = "await"
RESUME: Final = "resume"
TIMER: Final = "timer"

CLOCK: Final = -1
"""The tid of a timer step."""


class Ending(StrEnum):
    """Why an execution ended."""

    ENDED = ""
    """All threads have ended."""
    STUCK = "stuck"
    """No thread can run, and no timer will change that."""
    LIVELOCK = "livelock"
    """It does not end, even under a fair scheduler."""
    LIMIT = "limit"
    """It was too long, so it was abandoned without a verdict."""
    CUT = "cut"
    """The scheduler abandoned it."""
    PRUNED = "pruned"
    """An assumption of the scenario did not hold."""


Op = tuple[int, str, Any, str]
"""One step, done or pending: tid, kind, object, field.

A plain tuple, because one is made at every schedule point.  For AWAIT the object is a tuple of the
(object, field) pairs that were read; the field "" means the whole object.
"""


Change = Callable[[Any], Any]
"""The new value that an atomic computes from the old; None: it stores nothing."""
Update = tuple[Callable[[], Any], Change]
"""A function that reads the value, and the change."""


def unchanged(old: Any, op: Change) -> bool:
    """Does *op* leave the value *old* unchanged?  Then it counts as a read."""
    new = op(old)
    return new is None or bool(new == old)


class SerialThread:
    """The serial carrier's state of one thread; schedulers choose among these."""

    __slots__ = (
        "blocked",
        "cause",
        "daemon",
        "deadline",
        "done",
        "go",
        "looked",
        "op",
        "parked",
        "permit",
        "ready",
        "runnable",
        "started",
        "td",
        "tell",
        "tid",
        "update",
        "watched",
    )

    def __init__(self, td: Carried) -> None:
        self.td = td
        self.tid = td.tid
        self.op: Op = (td.tid, START, td, "")
        """Its next operation."""
        self.ready: Callable[[], bool] | None = None
        self.runnable = False
        self.update: Update | None = None
        """If the pending operation is an atomic: how it changes the value."""
        self.parked = False
        self.permit = False
        self.deadline: int | None = None
        self.watched: tuple[tuple[Any, str], ...] = ()
        self.looked = 0
        """Log position of the last relax: earlier reads do not count."""
        self.cause = CLOCK
        """Log position of the step that made it runnable (-1: none)."""
        self.blocked = False
        """It has reported that its acquire waits; ``tell``: it must do so when it gets control."""
        self.tell = False
        self.started = False
        self.done = False
        self.daemon = False
        self.go: Callable[[], Any] = _nowhere

    def __str__(self) -> str:
        return self.td.name

    def reads_only(self) -> bool:
        """Would the pending operation, an atomic, leave the present value unchanged?"""
        if self.update is None:
            return False
        value, op = self.update
        old = value()
        return unchanged(old, op)


def _nowhere() -> None:
    raise RuntimeError("thread has no context")


class Scheduler(Protocol):
    """Chooses the thread that runs next."""

    every: bool
    """True to be called even if only one thread can run."""

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread | None:
        """One of *runnable* (in tid order, not empty); *current* is among them, or None.

        None ends the execution.
        """
