"""Lock discipline: a field is used only with the lock that it is declared to belong to.

The declarations stand next to the fields, with the line of the C (``kern.guard``).  No order and no
second thread is needed: one access without the lock is the defect, in whatever run.  What the
source does knowingly is declared as a site, and only counted.

Smallest program that has it: ``q.head = m`` without ``q.spin``; its twin takes the lock first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

from smpvm.check.accepted import UNGUARDED, Declared, Tally
from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, fingerprint, site_of
from smpvm.check.held import describe_held
from smpvm.check.stacks import c_functions, capture, functions, site
from smpvm.kern.guard import EXCL, Guard

HOME: Final = str(Path(__file__).parent) + "/"


def _observes() -> bool:
    """Is the access a checker's?  Then one is called from the kernel code, further out."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(HOME):
            return True
        frame = frame.f_back
    return False


class Discipline(Checker):
    """The checker: the kernel has looked for the lock already (``Probe.unguarded``)."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._places: dict[tuple[Guard, bool, int], Finding | Tally] = {}
        """What counts each place that has been told of."""

    def unguarded(self, td: Any, obj: Any, guard: Guard, lock: Any, writes: bool) -> None:
        if (k := self.tracker.k) is None or (k.carrier.inert and k.carrier.serial):
            return
        if _observes():
            return
        key = (guard, writes, site(3))
        known = self._places.get(key)
        if known is not None:
            known.count += 1
            return
        self._places[key] = self._accept(obj, guard, writes) or self._report(
            td, obj, guard, lock, writes
        )

    def _accept(self, obj: Any, guard: Guard, writes: bool) -> Tally | None:
        """Count it, if the source declares that place."""
        if not self.accepted.heeded:
            return None
        deeds = ("write" if writes else "read", "both")
        sites = [
            s
            for s in (*guard.sites, *getattr(type(obj), "__benign__", ()))
            if s.field == guard.field and s.deed in deeds
        ]
        inside = c_functions(capture(4)) if sites else set()
        for s in sites:
            if not s.function or s.function in inside:
                what = f"{type(obj).__name__}.{s.field}"
                declared = Declared(UNGUARDED, what, s.function, s.at, s.why)
                tally = self.accepted.tally(declared)
                tally.count += 1
                return tally
        return None

    def _report(self, td: Any, obj: Any, guard: Guard, lock: Any, writes: bool) -> Finding:
        stack = capture(4)
        deed = "changes" if writes else "reads"
        what = f"{type(obj).__name__}.{guard.field}"
        identity = (what, deed, *functions(stack, 1))
        if (known := self.log.seen(fingerprint(UNGUARDED, *identity))) is not None:
            return known
        mode = guard.write if writes else guard.read
        how = " exclusively" if mode == EXCL and writes else ""
        held = "?" if td.observed is None else describe_held(td.observed)
        return self.log.add(
            Finding(
                UNGUARDED,
                f"{td.name} {deed} {what} of {obj} without {lock}",
                sites=[site_of(td, f"{deed} {guard.field} of {obj}", stack)],
                objects=[str(obj), str(lock)],
                evidence=[f"{guard.at}: only with {lock} held{how}", f"held: {held}"],
                identity=identity,
            )
        )
