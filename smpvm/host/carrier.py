"""The protocol between a kernel thread and whatever carries it.

A *carrier* runs kernel threads: free-running real threads (``native``), one thread at a time under
a scheduler (``serial``), or a script (the conformance runner).  Kernel code sees only this page.

A *schedule point* comes before each operation that other threads can tell apart.  ``point`` names
the operation about to happen, so that a scheduler knows what every thread would do next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

# Kinds of operation that a schedule point announces.
READ: Final = "read"
WRITE: Final = "write"
ATOMIC: Final = "atomic"
ACQUIRE: Final = "acquire"
ACQUIRE_SHARED: Final = "acquire-shared"
TRY: Final = "try"
RELEASE: Final = "release"
SLEEP: Final = "sleep"
WAKEUP: Final = "wakeup"
YIELD: Final = "yield"
IO: Final = "io"

COUNTED: Final = "semaphore"
"""The ``kind`` of objects that several threads may have acquired, and any thread releases."""

HOLDING: Final = "holding"
"""The field of an operation that gives up tokens in hand, or may: a sleep, a yield, and an acquire
of one more token, if it fails."""


Access = Callable[..., None]
"""What is called before an access to a shared field: ``(obj, field)``, for a write the new value,
and the thread where it is known."""


Peek = Callable[[Any, str], Any]
"""Reads a shared field, and nobody hears of it."""


class Compound(NamedTuple):
    """The operand of one step on fields of several objects."""

    parts: tuple[tuple[Any, str], ...]

    def __str__(self) -> str:
        return " and ".join(str(obj) for obj, _ in self.parts)


class Stopped(BaseException):
    """The run is being ended: unwinds a kernel thread from whatever wait it is in.

    Not an ``Exception``, so that no handler in the model swallows it.
    """


class Carried:
    """What a carrier knows of a thread: a name, a body, and a slot for its own use."""

    __slots__ = ("carrier_data", "main", "name", "tid")

    def __init__(self, tid: int, name: str, main: Callable[[], None]) -> None:
        self.tid = tid
        self.name = name
        self.main = main
        self.carrier_data: Any = None

    def __str__(self) -> str:
        return self.name

    def forget(self) -> None:
        """It has run, and will not be asked about: let go of what knows it in turn."""
        self.main = nothing
        self.carrier_data = None


def nothing() -> None:
    """What is left to do."""


class Carrier(Protocol):
    """Runs kernel threads.  One carrier carries the threads of one machine."""

    serial: bool
    """True where one thread runs at a time and every switch is a decision."""

    access_points: bool
    """True where plain reads and writes of shared fields are schedule points too."""

    stopping: bool
    """True once ``stop`` was called: every wait raises ``Stopped``."""

    inert: bool
    """Serial carriers: while true, points do nothing (set-up, audits, a checker's own reads)."""

    tick: float
    """Host seconds in a tick; 0 where time is virtual."""

    def adopt(self, td: Carried) -> None:
        """Make the calling host thread carry *td* (the boot thread)."""

    def spawn(self, td: Carried) -> None:
        """Start carrying *td*: it runs ``td.main()`` from now on."""

    def set_daemon(self, td: Carried) -> None:
        """*td* need not end: a run is over without it."""

    def current(self) -> Carried:
        """The kernel thread that the calling host thread carries."""

    def point(
        self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
    ) -> None:
        """A schedule point before operation *kind* on *obj* (and its shared *field*).

        With *ready* the operation is one that would have to wait while ``ready()`` is false
        (an acquire): a serial carrier does not run the thread on until it is true.  Native
        carriers do nothing here; kernel code does not even call them (``Kernel.point`` is None).
        """

    def park(self, timeout: int | None) -> bool:
        """Stop the current thread until ``unpark``, or *timeout* ticks.

        One earlier ``unpark`` is remembered, and a return without cause is allowed, so the caller
        rechecks its own condition in a loop.  Returns False when the timer ended the wait.
        Raises ``Stopped``.
        """

    def unpark(self, td: Carried) -> None:
        """Let *td* return from ``park`` (now, or when it next parks)."""

    def relax(self, *watched: object) -> None:
        """One turn of a spin: the caller looked at *watched*, and found that it must look again.

        Native: a bounded number of quick turns, then the host's yield.  Serial: the thread is not
        runnable until an operation of another thread has written one of *watched* (``touched``).
        Raises ``Stopped``.
        """

    def updates(self, value: Callable[[], Any], op: Callable[[Any], Any]) -> None:
        """The caller is about to announce an atomic that makes ``op(value())`` of ``value()``;
        where *op* returns None it stores nothing."""

    def updated(self, obj: object, old: Any, op: Callable[[Any], Any]) -> None:
        """It is done, on *obj*, and found *old*: one that changes nothing was a read."""

    def touched(self, obj: object) -> None:
        """*obj* has been written: serial carriers let threads that relax on it look again."""

    def yield_(self) -> None:
        """Offer the CPU to another runnable thread (lwkt_yield).  Raises ``Stopped``."""

    def slice_over(self) -> bool:
        """lwkt_resched_wanted: has the caller run for a time slice since it last yielded?

        Always true under a scheduler: there every yield is a decision.
        """

    def ticks(self) -> int:
        """Ticks since boot, ``hz`` of them in a kernel second."""

    def stop(self) -> None:
        """Begin the end of the run: every wait of every thread raises ``Stopped``."""

    def join(self, timeout: float | None = None) -> list[Carried]:
        """Wait (host seconds) for the carried threads to end; returns those that did not."""
