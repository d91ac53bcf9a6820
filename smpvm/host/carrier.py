"""The protocol between a kernel thread and its carrier.

A *carrier* runs kernel threads: free-running real threads (``native``), one thread at a time under
a scheduler (``serial``), or a script (the conformance runner).  Kernel code sees only this.

A *schedule point* comes before each operation that other threads can observe.  ``point`` announces
the next operation, so that a scheduler knows what every thread will do next.
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
"""The field of an operation that may release the thread's tokens: a sleep, a yield, and an acquire
of one more token, if it fails."""


Access = Callable[..., None]
"""Called before an access to a shared field with ``(obj, field)``, for a write the new value, and
the thread if it is known."""


Peek = Callable[[Any, str], Any]
"""Reads a shared field without an access event."""


class Compound(NamedTuple):
    """The operand of one step on fields of several objects."""

    parts: tuple[tuple[Any, str], ...]

    def __str__(self) -> str:
        return " and ".join(str(obj) for obj, _ in self.parts)


class Stopped(BaseException):
    """The run is being stopped: unwinds a kernel thread from its current wait.

    Not an ``Exception``, so that no handler in the model catches it.
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
        """The thread has ended and is no longer needed: drop its references."""
        self.main = nothing
        self.carrier_data = None


def nothing() -> None:
    """Do nothing."""


class Carrier(Protocol):
    """Runs kernel threads.  One carrier carries the threads of one machine."""

    serial: bool
    """True if one thread runs at a time and the scheduler decides every switch."""

    access_points: bool
    """True if plain reads and writes of shared fields are schedule points too."""

    stopping: bool
    """True once ``stop`` has been called: every wait raises ``Stopped``."""

    inert: bool
    """Serial carriers: while true, points do nothing (set-up, audits, a checker's own reads)."""

    tick: float
    """Host seconds per tick; 0 if time is virtual."""

    def adopt(self, td: Carried) -> None:
        """Make the calling host thread carry *td* (the boot thread)."""

    def spawn(self, td: Carried) -> None:
        """Start carrying *td*: it runs ``td.main()`` from now on."""

    def set_daemon(self, td: Carried) -> None:
        """*td* need not end for the run to be over."""

    def current(self) -> Carried:
        """The kernel thread that the calling host thread carries."""

    def point(
        self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
    ) -> None:
        """A schedule point before operation *kind* on *obj* (and its shared *field*).

        With *ready* the operation must wait while ``ready()`` is false (an acquire): a serial
        carrier does not let the thread continue until it is true.  Native carriers do nothing here;
        kernel code does not even call them (``Kernel.point`` is None).
        """

    def park(self, timeout: int | None) -> bool:
        """Block the current thread until ``unpark``, or for *timeout* ticks.

        One earlier ``unpark`` is remembered, and spurious returns are allowed, so the caller must
        recheck its condition in a loop.  Returns False if the timer ended the wait.
        Raises ``Stopped``.
        """

    def unpark(self, td: Carried) -> None:
        """Let *td* return from ``park`` (now, or the next time it parks)."""

    def relax(self, *watched: object) -> None:
        """One turn of a spin loop: the caller has read *watched* and must read it again.

        Native: a bounded number of quick turns, then yields.  Serial: the thread is not
        runnable until another thread has written one of *watched* (``touched``).
        Raises ``Stopped``.
        """

    def updates(self, value: Callable[[], Any], op: Callable[[Any], Any]) -> None:
        """The caller is about to announce an atomic that replaces ``value()`` by ``op(value())``;
        if *op* returns None, it stores nothing."""

    def updated(self, obj: object, old: Any, op: Callable[[Any], Any]) -> None:
        """The atomic on *obj* is done and found *old*; if it changed nothing, it was a read."""

    def in_vain(self) -> None:
        """The running step is a wakeup that found no thread to wake."""

    def touched(self, obj: object) -> None:
        """*obj* has been written: serial carriers wake the threads that relax on it."""

    def yield_(self) -> None:
        """Offer the CPU to another runnable thread (lwkt_yield).  Raises ``Stopped``."""

    def slice_over(self) -> bool:
        """lwkt_resched_wanted: has the caller run for a time slice since its last yield?

        Always true on serial carriers, where every yield is a decision of the scheduler.
        """

    def ticks(self) -> int:
        """Ticks since boot; ``hz`` of them make a kernel second."""

    def stop(self) -> None:
        """Stop the run: every wait of every thread raises ``Stopped``."""

    def join(self, timeout: float | None = None) -> list[Carried]:
        """Wait *timeout* host seconds for the threads to end; returns those that did not."""
