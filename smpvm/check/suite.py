"""The checkers of one machine, built from a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from smpvm.check.accepted import Accepted
from smpvm.check.checker import Checker, Context
from smpvm.check.counts import Counts
from smpvm.check.discipline import Discipline
from smpvm.check.finding import FindingLog
from smpvm.check.held import HeldTracker
from smpvm.check.lifetime import Lifetime
from smpvm.check.lockevents import LockTrace
from smpvm.check.lockorder import LockOrder
from smpvm.check.markers import Markers
from smpvm.check.pagerule import PageRules
from smpvm.check.panics import Panics
from smpvm.check.policy import Policy
from smpvm.check.progress import Progress
from smpvm.check.race import Races
from smpvm.check.requests import Requests
from smpvm.check.undocumented import Undocumented
from smpvm.check.waitfor import WaitFor
from smpvm.check.wakeup import LostWakeups
from smpvm.kern.probe import Probe

C = TypeVar("C", bound=Checker)


class Row(NamedTuple):
    """One checker: its name for ``--check``, and its class."""

    name: str
    cls: type[Checker]
    default: bool = True
    """Is it on by default in a stress run?"""
    tracks: bool = False
    """Does it need the tracker to follow what threads hold?"""


CHECKERS: Final = (
    Row("order", LockOrder, tracks=True),
    Row("documented", Undocumented, tracks=True),
    Row("waitfor", WaitFor, tracks=True),
    Row("wakeup", LostWakeups),
    Row("race", Races, default=False),
    Row("marker", Markers),
    Row("discipline", Discipline),
    Row("policy", Policy),
    Row("request", Requests),
    Row("progress", Progress),
    Row("lifetime", Lifetime),
    Row("page", PageRules),
    Row("count", Counts, default=False),
)
CHECKS: Final = tuple(row.name for row in CHECKERS)
DEFAULT: Final = frozenset(row.name for row in CHECKERS if row.default)


def parse_checks(text: str) -> frozenset[str]:
    """``all``, ``none``, ``default``, or names from CHECKS joined by commas.

    Raises ValueError with one line for anything else.
    """
    if text == "all":
        return frozenset(CHECKS)
    if text == "none":
        return frozenset()
    if text == "default":
        return DEFAULT
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"check {name!r}: unknown; known are all, none, {', '.join(CHECKS)}")
    return frozenset(names)


def checks_text(checks: frozenset[str]) -> str:
    """The shortest text that ``parse_checks`` reads as *checks*."""
    if checks == frozenset(CHECKS):
        return "all"
    return ",".join(name for name in CHECKS if name in checks) or "none"


class CheckSuite:
    """Builds the checkers asked for.  Give ``observers`` to the Kernel, then call

    - ``idle()`` (serial carriers) when no thread can run, before time advances;
    - ``stalled()`` when a machine makes no progress;
    - ``at_rest()`` once the machine is at rest, before the threads are stopped;
    - ``finish()`` at the very end: it writes the final counts.

    Panics are always reported.  Findings go to *log*; at most one of *traces* may log events.  What
    the source declares as intended is only counted (``accepted``), unless *benign* is false.
    """

    def __init__(
        self,
        which: Iterable[str] = DEFAULT,
        log: FindingLog | None = None,
        *,
        traces: Sequence[LockTrace] = (),
        benign: bool = True,
    ) -> None:
        self.which = frozenset(which)
        self.log = FindingLog() if log is None else log
        self.traces = tuple(traces)
        self.tracker = tracker = HeldTracker()
        self.accepted = Accepted(heeded=benign)
        context = Context(tracker, self.log, self.accepted)
        wanted = self.which | ({"order"} if "documented" in self.which else set())
        rows = [row for row in CHECKERS if row.name in wanted]
        self.checkers = (Panics(context), *(row.cls(context) for row in rows))
        order, judge = self.find(LockOrder), self.find(Undocumented)
        if order is not None and judge is not None:
            order.on_edge.append(judge.edge)
        for trace in self.traces:
            trace.follow(tracker, order)
        tracks = bool(self.traces) or any(row.tracks for row in rows)
        # Otherwise the tracker only supplies the kernel and thread states.
        first: Probe = tracker if tracks else _Attach(tracker)
        self.observers: tuple[Probe, ...] = (first, *self.checkers)

    def find(self, cls: type[C]) -> C | None:
        """The checker of that class, if it was asked for."""
        return next((c for c in self.checkers if isinstance(c, cls)), None)

    def idle(self) -> None:
        """No thread can run: check for deadlocks."""
        for checker in self.checkers:
            checker.idle()

    def stalled(self) -> list[str]:
        """The machine makes no progress: returns the checkers' lines, as who waits for what."""
        return [line for checker in self.checkers for line in checker.stalled()]

    def at_rest(self) -> None:
        """At rest: no thread may sleep on a condition that holds, no marker may be left."""
        for checker in self.checkers:
            checker.at_rest()

    def finish(self) -> None:
        """The end of the run: write final counts and close the logs."""
        for checker in self.checkers:
            checker.finish()
        for trace in self.traces:
            trace.close()
        self.log.finish()

    def not_judged(self) -> list[str]:
        """What occurred that no checker can judge."""
        return [line for checker in self.checkers for line in checker.not_judged()]

    def summary(self) -> dict[str, Any]:
        """Numbers for the end of a report."""
        out: dict[str, Any] = {"checks": sorted(self.which), "findings": len(self.log)}
        for checker in self.checkers:
            out |= checker.summary()
        out["not_judged"] = self.not_judged()
        out["accepted"] = [d._asdict() | {"count": n} for d, n in self.accepted.counts().items()]
        if self.traces:
            out["log_events"] = sum(trace.written for trace in self.traces)
            out["log_dropped"] = sum(trace.dropped for trace in self.traces)
        return out


class _Attach(Probe):
    """Gives a tracker its kernel if the tracker itself observes nothing."""

    def __init__(self, tracker: HeldTracker) -> None:
        self._tracker = tracker

    def attach(self, kernel: Any) -> None:
        self._tracker.attach(kernel)
