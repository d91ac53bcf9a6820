"""The checkers of one machine, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from smpvm.check.finding import FindingLog
from smpvm.check.held import HeldTracker
from smpvm.check.lockevents import LockTrace
from smpvm.check.lockorder import LockOrder
from smpvm.check.markers import Markers
from smpvm.check.panics import Panics
from smpvm.check.race import Races
from smpvm.check.waitfor import WaitFor
from smpvm.check.wakeup import LostWakeups
from smpvm.kern.probe import Probe

CHECKS: Final = ("order", "waitfor", "wakeup", "race", "marker")
DEFAULT: Final = frozenset(CHECKS) - {"race"}


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

    - ``idle()`` (serial carriers) when no thread can run, before time moves on;
    - ``stalled()`` when a machine makes no progress;
    - ``at_rest()`` once everything is quiet and before the threads are stopped;
    - ``finish()`` at the very end: final counts are written.

    Panics are always watched.  Findings go to *log*; of *traces* at most one may log events.
    """

    def __init__(
        self,
        which: Iterable[str] = DEFAULT,
        log: FindingLog | None = None,
        *,
        traces: Sequence[LockTrace] = (),
    ) -> None:
        self.which = frozenset(which)
        self.log = FindingLog() if log is None else log
        self.traces = tuple(traces)
        self.tracker = tracker = HeldTracker()
        self.panics = Panics(tracker, self.log)
        self.order = LockOrder(tracker, self.log) if "order" in self.which else None
        self.waitfor = WaitFor(tracker, self.log) if "waitfor" in self.which else None
        self.wakeup = LostWakeups(tracker, self.log) if "wakeup" in self.which else None
        self.race = Races(tracker, self.log) if "race" in self.which else None
        self.marker = Markers(tracker, self.log) if "marker" in self.which else None
        for trace in self.traces:
            trace.follow(tracker, self.order)
        held = self.order is not None or self.waitfor is not None or bool(self.traces)
        found = (
            tracker if held else None,
            self.panics,
            self.waitfor,
            self.wakeup,
            self.race,
            self.marker,
        )
        self.observers: tuple[Probe, ...] = tuple(o for o in found if o is not None)
        if not held:
            # The others still ask the tracker for the kernel and for thread states.
            self.observers += (_Attach(tracker),)

    def idle(self) -> int:
        """No thread can run: is it a deadlock?  Returns the number of cycles."""
        if self.wakeup is not None:
            self.wakeup.idle()
        return self.waitfor.analyse() if self.waitfor is not None else 0

    def stalled(self) -> list[str]:
        """Nothing moves: look for deadlocks and lost wakeups; returns who waits for what."""
        if self.wakeup is not None:
            self.wakeup.at_rest()
        if self.waitfor is None:
            return []
        self.waitfor.analyse()
        return self.waitfor.describe()

    def at_rest(self) -> None:
        """All is quiet: nobody may be asleep for what is so, no marker may be left."""
        if self.wakeup is not None:
            self.wakeup.at_rest()
        if self.waitfor is not None:
            self.waitfor.analyse()
        if self.marker is not None:
            self.marker.at_rest()

    def finish(self) -> None:
        """The end of the run: write final counts and the log's end."""
        k = self.tracker.k
        if self.wakeup is not None and k is not None and k.carrier.serial:
            self.wakeup.idle()
        for trace in self.traces:
            trace.close()
        self.log.finish()

    def summary(self) -> dict[str, Any]:
        """Numbers for the end of a report."""
        out: dict[str, Any] = {"checks": sorted(self.which), "findings": len(self.log)}
        if self.order is not None:
            out["lock_order_edges"] = len(self.order.graph.edges)
        if self.waitfor is not None:
            out["cycles_broken_by_a_timer"] = self.waitfor.breakable
        if self.wakeup is not None:
            out["spurious_wakeups"] = dict(sorted(self.wakeup.spurious.items()))
        if self.race is not None:
            out["benign_races"] = {f"{c}.{f}": n for c, f, n, _ in self.race.counts()}
        if self.marker is not None:
            out["scans_followed"] = self.marker.scans_seen
        if self.traces:
            out["log_events"] = sum(trace.written for trace in self.traces)
            out["log_dropped"] = sum(trace.dropped for trace in self.traces)
        return out


class _Attach(Probe):
    """Tells a tracker its kernel, where the tracker itself watches nothing."""

    def __init__(self, tracker: HeldTracker) -> None:
        self._tracker = tracker

    def attach(self, kernel: Any) -> None:
        self._tracker.attach(kernel)
