"""The base class of checkers: observers of one machine that are also queried at fixed moments.

A new checker is one file with a subclass of ``Checker`` and one line in ``suite.CHECKERS``.  It
overrides the events that it needs (``kern.probe.Probe``) and those of the queries below that
concern it, and reports with ``self.log.add(Finding(...))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smpvm.check.accepted import Accepted
from smpvm.check.finding import FindingLog
from smpvm.check.held import HeldTracker
from smpvm.kern.probe import Probe


@dataclass(frozen=True)
class Context:
    """What the checkers of one machine share."""

    tracker: HeldTracker
    """Knows the kernel and the state of each thread.  It tracks what threads hold only if the row
    of some checker in the table says ``tracks``."""
    log: FindingLog
    accepted: Accepted
    """What is declared as intended; a checker asks here before it reports something."""


class Checker(Probe):
    """Default answers to all queries: nothing to report."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.tracker = context.tracker
        self.log = context.log
        self.accepted = context.accepted

    def idle(self) -> None:
        """On a serial carrier no thread can run; time is about to advance."""

    def stalled(self) -> list[str]:
        """The machine makes no progress.  Returns lines for the report that explain why."""
        return []

    def at_rest(self) -> None:
        """The machine is at rest, and its threads have not been stopped yet."""

    def finish(self) -> None:
        """The run is over: report what was deferred."""

    def not_judged(self) -> list[str]:
        """What occurred that this checker cannot judge; a proof must list it."""
        return []

    def summary(self) -> dict[str, Any]:
        """Numbers for the end of a report; the keys are used by no other checker."""
        return {}
