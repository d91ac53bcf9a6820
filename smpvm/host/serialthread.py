"""What a serial carrier and a scheduler know of one thread, and of one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from smpvm.host.carrier import Carried

# Kinds of step that only the serial carrier makes.
START: Final = "start"
AWAIT: Final = "await"
RESUME: Final = "resume"
TIMER: Final = "timer"

CLOCK: Final = -1
"""The tid of a timer step."""


class Ending(StrEnum):
    """Why an execution ended."""

    ENDED = ""
    """All have ended."""
    STUCK = "stuck"
    """Nobody can run, and no timer will change that."""
    LIVELOCK = "livelock"
    """It is endless, under a fair scheduler too."""
    LIMIT = "limit"
    """It was too long; nothing is known."""
    CUT = "cut"
    """The scheduler has ended it."""
    PRUNED = "pruned"
    """It was not to be: an assumption of the scenario did not hold."""


Op = tuple[int, str, Any, str]
"""One step, done or pending: tid, kind, object, field.

A plain tuple, because one is made at every schedule point.  For AWAIT the object is the tuple of
(object, field) that were looked at; the field "" means all of it.
"""


Change = Callable[[Any], Any]
"""What an atomic makes of a value; None: it stores nothing."""
Update = tuple[Callable[[], Any], Change]
"""How to look at the value, and what is made of it."""


def unchanged(old: Any, op: Change) -> bool:
    """Does *op* leave the value *old* as it is?  Then it is a read."""
    new = op(old)
    return new is None or bool(new == old)


class SerialThread:
    """What the serial carrier knows of one thread; this is what a scheduler chooses among."""

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
        """The operation that it does next."""
        self.ready: Callable[[], bool] | None = None
        self.runnable = False
        self.update: Update | None = None
        """What the pending operation, an atomic, makes of the value that it finds."""
        self.parked = False
        self.permit = False
        self.deadline: int | None = None
        self.watched: tuple[tuple[Any, str], ...] = ()
        self.looked = 0
        """Log position of the last relax: what it read before is forgotten."""
        self.cause = CLOCK
        """Log position of the step that made it runnable (-1: none)."""
        self.blocked = False
        """It has said that its acquire waits; ``tell``: it is to say so when it gets control."""
        self.tell = False
        self.started = False
        self.done = False
        self.daemon = False
        self.go: Callable[[], Any] = _nowhere

    def __str__(self) -> str:
        return self.td.name

    def reads_only(self) -> bool:
        """Would the pending operation, an atomic, leave the value as it is now?"""
        if self.update is None:
            return False
        value, op = self.update
        old = value()
        return unchanged(old, op)


def _nowhere() -> None:
    raise RuntimeError("thread has no context")


class Scheduler(Protocol):
    """Who runs next."""

    every: bool
    """True to be asked also where only one thread can run."""

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread | None:
        """One of *runnable* (in tid order, not empty); *current* is among them, or None.

        None ends the execution.
        """
