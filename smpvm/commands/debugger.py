"""``smpvm replay --break``: pdb in a thread of the model."""

from __future__ import annotations

import pdb
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from smpvm.check.stacks import kind_of
from smpvm.explore.strategy.base import SerialCarrier, SerialThread
from smpvm.host.carrier import Access, Peek
from smpvm.kern.cname import KEEP


class Debugger(pdb.Pdb):
    """pdb in a thread of the model: q runs on to the end, because the thread must not be ended.

    While pdb waits for a command, accesses to shared fields are not steps of the thread.
    """

    def __init__(self, carrier: SerialCarrier) -> None:
        super().__init__(
            skip=["smpvm.host.*", "smpvm.check.*", "smpvm.explore.*", "smpvm.report.*"]
        )
        self._carrier = carrier

    def interaction(self, frame: Any, traceback: Any) -> None:
        """Prompt, with schedule points switched off."""
        inert, self._carrier.inert = self._carrier.inert, True
        try:
            super().interaction(frame, traceback)
        finally:
            self._carrier.inert = inert

    def do_quit(self, arg: str) -> bool | None:
        """Leave pdb and let the replay run on to its end."""
        return self.do_continue(arg)

    do_q = do_exit = do_EOF = do_quit

    def stop_in(self, frame: FrameType) -> None:
        """Prompt at once, in *frame*: ``set_trace`` would wait for the next line event."""
        self.reset()
        at: FrameType | None = frame
        while at is not None:
            at.f_trace = self.trace_dispatch
            self.botframe = at
            at = at.f_back
        self.interaction(frame, None)
        if self.stoplineno != -1 or self.breaks:  # the user stepped on, or set a breakpoint
            sys.settrace(self.trace_dispatch)


def breaking(step: int) -> type[SerialCarrier]:
    """A carrier that enters pdb at that step, in the thread of the model that takes it."""

    class Breaking(SerialCarrier):
        def point(
            self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
        ) -> None:
            super().point(kind, obj, field, ready)
            self._maybe_break()

        def access_points_of(self, kind: str, seen: Access | None, peek: Peek) -> Access:
            self._able.slow += 1  # so that every access goes through ``point``
            return super().access_points_of(kind, seen, peek)

        def _step(self, me: SerialThread) -> None:
            # A thread starts, wakes up, or looks again.
            super()._step(me)
            self._maybe_break()

        def _maybe_break(self) -> None:
            if not self.inert and len(self.log) - 1 == step:
                here: FrameType | None = sys._getframe(2)
                while here is not None and kind_of(here.f_code) != KEEP:
                    here = here.f_back
                Debugger(self).stop_in(here or sys._getframe(2))

    return Breaking
