"""What a search strategy is: a maker of schedulers, one for each execution.

A ``Scheduler`` (host/serial) chooses the next thread within one execution.  A ``Strategy`` decides
what the next execution shall try, and learns from the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from smpvm.host.serial import SerialCarrier
from smpvm.host.serialthread import Op, Scheduler, SerialThread

__all__ = [
    "Names",
    "Op",
    "Plain",
    "Scheduler",
    "SerialCarrier",
    "SerialThread",
    "Step",
    "Strategy",
    "steps_of",
]

Step = tuple[int, str, int, str]
"""A step in terms that outlive the execution: thread, kind, number of the object, field."""


def steps_of(log: Sequence[Op]) -> list[Step]:
    """What an execution did, its objects numbered as they come: a search that goes back to a state
    of the execution before must find what led there as it was."""
    numbers: dict[object, int] = {}
    number = numbers.setdefault
    return [(tid, kind, number(obj, len(numbers)), field) for tid, kind, obj, field in log]


class Names:
    """The objects of one execution by class and name, which outlive it."""

    def __init__(self, carrier: SerialCarrier) -> None:
        self._carrier = carrier
        self._names: dict[Any, tuple[str, str]] = {}

    def name(self, obj: Any) -> tuple[str, str]:
        """Its class and its name."""
        name = self._names.get(obj)
        if name is None:
            td: Any = self._carrier.current()
            td.quiet += 1
            try:
                name = self._names[obj] = (type(obj).__name__, str(obj))
            finally:
                td.quiet -= 1
        return name


class Strategy(Protocol):
    """One way to search the interleavings of a scenario."""

    name: str

    @property
    def fair_after(self) -> bool:
        """True if executions end in a fair round-robin suffix before a livelock verdict."""

    def start(self, n: int) -> Scheduler | None:
        """The scheduler of execution *n*; None when nothing is left to try."""

    def attach(self, carrier: SerialCarrier) -> None:
        """The carrier of the execution that is about to begin."""

    def done(self, carrier: SerialCarrier) -> None:
        """That execution is over: *carrier* has its log."""

    def claim(self) -> str:
        """What is proven once ``start`` has returned None; "" if nothing is."""

    def notes(self) -> list[str]:
        """Figures worth a line in the summary."""


class Plain:
    """The parts of a strategy that most do not need."""

    @property
    def fair_after(self) -> bool:
        """They do."""
        return True

    def attach(self, carrier: SerialCarrier) -> None:
        """Nothing to know."""

    def done(self, carrier: SerialCarrier) -> None:
        """Nothing to learn."""

    def claim(self) -> str:
        """Nothing is proven."""
        return ""

    def notes(self) -> list[str]:
        """Nothing to say."""
        return []
