"""The protocol of search strategies: a strategy makes one scheduler per execution.

A ``Scheduler`` (host/serial) chooses the next thread within one execution.  A ``Strategy`` decides
what the next execution tries, and learns from the previous one.
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
"""A step in a form that outlives the execution: thread, kind, object number, field."""


def steps_of(log: Sequence[Op]) -> list[Step]:
    """The steps of an execution, with objects numbered in order of use.  A search that returns to
    a state of the previous execution must find that the same steps lead to it."""
    numbers: dict[object, int] = {}
    number = numbers.setdefault
    return [(tid, kind, number(obj, len(numbers)), field) for tid, kind, obj, field in log]


class Names:
    """The objects of one execution by class and name, which are the same in others."""

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
    """A way to search the interleavings of a scenario."""

    name: str

    @property
    def fair_after(self) -> bool:
        """True if executions end in a fair round-robin suffix before a livelock verdict."""

    def start(self, n: int) -> Scheduler | None:
        """The scheduler of execution *n*; None if nothing is left to try."""

    def attach(self, carrier: SerialCarrier) -> None:
        """The carrier of the execution that is about to begin."""

    def done(self, carrier: SerialCarrier) -> None:
        """That execution is over; *carrier* has its log."""

    def claim(self) -> str:
        """What is proven once ``start`` has returned None; "" if nothing."""

    def notes(self) -> list[str]:
        """Lines for the summary."""


class Plain:
    """Default methods of a strategy."""

    @property
    def fair_after(self) -> bool:
        """True by default."""
        return True

    def attach(self, carrier: SerialCarrier) -> None:
        """Does nothing."""

    def done(self, carrier: SerialCarrier) -> None:
        """Does nothing."""

    def claim(self) -> str:
        """Nothing is proven."""
        return ""

    def notes(self) -> list[str]:
        """No lines."""
        return []
