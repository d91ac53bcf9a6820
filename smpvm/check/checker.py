"""What a checker is: an observer of one machine that is also asked now and then what it thinks.

A new checker is one file with a subclass of ``Checker`` and one line in ``suite.CHECKERS``.  It
overrides the events that it wants (``kern.probe.Probe``) and those of the questions below that it
has an answer to, and reports with ``self.log.add(Finding(...))``.
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
    """Knows the kernel and each thread's state; what threads hold only for checkers whose row in
    the table says ``tracks``."""
    log: FindingLog
    accepted: Accepted
    """What is declared as meant; a checker that would report something asks here first."""


class Checker(Probe):
    """Every question, with nothing to say."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.tracker = context.tracker
        self.log = context.log
        self.accepted = context.accepted

    def idle(self) -> None:
        """No thread can run, on a serial carrier: time is about to move on."""

    def stalled(self) -> list[str]:
        """The machine makes no progress.  Returns lines that say why, for the report."""
        return []

    def at_rest(self) -> None:
        """All is quiet, and the threads have not been stopped yet."""

    def finish(self) -> None:
        """The run is over: report what was put off."""

    def not_judged(self) -> list[str]:
        """What came up that this checker can say nothing about: a proof must name it."""
        return []

    def summary(self) -> dict[str, Any]:
        """Numbers for the end of a report, under names that no other checker uses."""
        return {}
