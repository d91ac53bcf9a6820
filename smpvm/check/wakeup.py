"""Lost wakeups: the condition of a sleeper has become true, but no thread has woken it.

Every sleep in the model states its condition.  If a timer ends a sleep whose condition holds, the
timer has *masked* a lost wakeup, unless the wakeup was still to come: the thread that made the
condition true calls wakeup before it sleeps or exits, or finds that others have undone the change.
So with free-running threads the condition must still hold after each thread that was running when
it was first seen true has slept or exited; a slow host causes no false report.  At rest, and when
the machine makes no progress, a sleeper without a timer whose condition holds is *lost*.  A wakeup
that finds the condition false is *spurious*: allowed, and counted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, site_of
from smpvm.check.held import ThreadState
from smpvm.check.stacks import RawStack, capture, functions

LOOK = 0.002
"""Host seconds between two checks of the conditions of timed sleeps."""


class SleepRecord:
    """One sleep of one thread."""

    __slots__ = (
        "called",
        "cond",
        "ident",
        "makers",
        "outlasted",
        "stack",
        "start",
        "timo",
        "wmesg",
    )

    def __init__(
        self,
        ident: Any,
        wmesg: str,
        timo: int,
        cond: Callable[[], bool] | None,
        start: int,
        stack: RawStack,
    ) -> None:
        self.ident = ident
        self.wmesg = wmesg
        self.timo = timo
        self.cond = cond
        self.start = start
        self.stack = stack
        self.called = False
        """wakeup has been called for it, but the timer was first: late, not lost."""
        self.makers: set[ThreadState] | None = None
        """Threads that ran when the condition was first seen true and have not slept since."""
        self.outlasted = False
        """The condition still held when the last of them slept."""


class LostWakeups(Checker):
    """The lost-wakeup checker."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.grace = 0.25
        """How late (host seconds) a wakeup may come."""
        self.spurious: Counter[str] = Counter()
        """Wakeups that found the condition false, by wmesg."""
        self._unstated: set[str] = set()
        """Timed sleeps that do not state their condition."""
        self._mutex = threading.Lock()
        self._late: list[tuple[float, ThreadState, SleepRecord]] = []
        """Sleeps that a timer ended although their condition holds, each with a deadline."""
        self._timed: dict[Any, list[SleepRecord]] = {}
        """Timed sleeps that have not returned, by sleep identity."""
        self._next_look = 0.0

    def sleep(
        self, td: Any, ident: Any, wmesg: str, timo: int, cond: Callable[[], bool] | None
    ) -> None:
        st = td.observed or self.tracker.state(td)
        start = self._ticks()
        st.sleeping = sleep = SleepRecord(ident, wmesg, timo, cond, start, capture(2))
        if self._timed and not self._serial():
            self._look(st)
        if timo and cond is not None:
            with self._mutex:
                self._timed.setdefault(ident, []).append(sleep)
        elif timo:
            self._unstated.add(f"{''.join(functions(sleep.stack, 1))} ({wmesg})")

    def thread_exit(self, td: Any) -> None:
        """It will call no more wakeups."""
        if self._timed and not self._serial():
            self._look(td.observed or self.tracker.state(td))

    def _look(self, st: ThreadState) -> None:
        """*st* sleeps or exits; from time to time, check which conditions have become true."""
        now = time.monotonic()
        with self._mutex:
            sleeps = [sleep for found in self._timed.values() for sleep in found]
            for sleep in sleeps:
                if sleep.makers:
                    sleep.makers.discard(st)
            if now < self._next_look:
                return
            self._next_look = now + LOOK
        running: set[ThreadState] | None = None
        for sleep in sleeps:
            if not self.holds(sleep):
                sleep.makers, sleep.outlasted = None, False
            elif sleep.makers is None:
                if running is None:
                    running = self._running() - {st}
                sleep.makers = set(running)
            elif not sleep.makers:
                sleep.outlasted = True

    def _running(self) -> set[ThreadState]:
        """The threads that may be about to call wakeup: those that do not sleep."""
        k = self.tracker.k
        if k is None:
            return set()
        states = [
            td.observed or self.tracker.state(td)
            for td in k.live_threads()
            if getattr(td.carrier_data, "host", None) is not None
        ]
        return {st for st in states if st.sleeping is None}

    def sleep_done(self, td: Any, ident: Any, wmesg: str, timed_out: bool) -> None:
        st = td.observed or self.tracker.state(td)
        sleep, st.sleeping = st.sleeping, None
        if sleep is None or sleep.cond is None or sleep.ident is not ident:
            return
        true = self.holds(sleep)
        lost = (
            timed_out and true and (self._serial() or sleep.outlasted or not self._running() - {st})
        )
        if sleep.timo:
            with self._mutex:
                # Add to one list before removing from the other: wakeup() looks without the mutex.
                if lost and not sleep.called:
                    self._timer_saved(st, sleep)
                self._timed[ident].remove(sleep)
                if not self._timed[ident]:
                    del self._timed[ident]
        if not timed_out and true is False:
            self.spurious[wmesg] += 1
        if self._late:
            self.settle()

    def wakeup(self, td: Any, ident: Any, sleepers: Any) -> None:
        """A wakeup that comes just after the timer was late, not lost."""
        if ident in self._timed or self._late:
            with self._mutex:
                for sleep in self._timed.get(ident, ()):
                    sleep.called = True
                self._late = [late for late in self._late if late[2].ident != ident]

    def _ticks(self) -> int:
        k = self.tracker.k
        return 0 if k is None else int(k.carrier.ticks())

    def _serial(self) -> bool:
        k = self.tracker.k
        return k is None or bool(k.carrier.serial)

    def holds(self, sleep: SleepRecord) -> bool | None:
        """Is the condition true now?  None if it cannot be evaluated (state half changed)."""
        assert sleep.cond is not None
        k = self.tracker.k
        try:
            if k is None:
                return bool(sleep.cond())
            with k.quietly():
                return bool(sleep.cond())
        except (AttributeError, KeyError, IndexError, TypeError, RuntimeError):
            return None

    def _timer_saved(self, st: ThreadState, sleep: SleepRecord) -> None:
        """The wakeup may still come: decided after the grace period, or at the next idle."""
        wait = float("inf") if self._serial() else self.grace
        self._late.append((time.monotonic() + wait, st, sleep))

    def idle(self) -> None:
        """No thread can run: a wakeup that is still missing will not come."""
        if self._late:
            self.settle(now=float("inf"))

    def settle(self, *, now: float | None = None) -> None:
        """Report the sleeps that were ended by a timer and whose wakeup has not come since."""
        now = time.monotonic() if now is None else now
        with self._mutex:
            due = [late for late in self._late if late[0] <= now]
            self._late = [late for late in self._late if late[0] > now]
        for _, st, sleep in due:
            self._report("masked-lost-wakeup", st, sleep)

    def stalled(self) -> list[str]:
        self.at_rest()
        return []

    def finish(self) -> None:
        if self.tracker.k is not None and self._serial():
            self.idle()

    def not_judged(self) -> list[str]:
        """A lost wakeup of such a sleep is masked by its timer, and cannot be detected."""
        return [f"timed sleep without cond: {site}" for site in sorted(self._unstated)]

    def summary(self) -> dict[str, Any]:
        return {"spurious_wakeups": dict(sorted(self.spurious.items()))}

    def at_rest(self) -> None:
        """No more wakeups will come: report the sleepers whose condition holds.

        With free-running threads a sleeper must be found twice, some time apart, so that a late
        wakeup is not taken for a lost one.
        """
        first = self._ready_sleepers()
        if (first or self._late) and not self._serial():
            time.sleep(self.grace)
            first = [(st, s) for st, s in self._ready_sleepers() if (st, s) in first]
        for st, sleep in first:
            # A timer that has not fired yet will mask it.
            self._report("masked-lost-wakeup" if sleep.timo else "lost-wakeup", st, sleep)
        self.settle(now=float("inf"))

    def _ready_sleepers(self) -> list[tuple[ThreadState, SleepRecord]]:
        found = []
        for st in self.tracker.all_states():
            sleep = st.sleeping
            if sleep is not None and sleep.cond is not None and self.holds(sleep):
                found.append((st, sleep))
        return found

    def _report(self, kind: str, st: ThreadState, sleep: SleepRecord) -> None:
        saved = "; only its timer wakes it" if kind == "masked-lost-wakeup" else ""
        self.log.add(
            Finding(
                kind,
                f"{st.td.name} sleeps on {sleep.ident} ({sleep.wmesg}) although its condition "
                f"already holds{saved}",
                sites=[site_of(st.td, f"sleeps on {sleep.ident} ({sleep.wmesg})", sleep.stack)],
                objects=[str(sleep.ident)],
                evidence=[
                    f"asleep since tick {sleep.start}"
                    + (f", timer of {sleep.timo} ticks" if sleep.timo else ", no timer"),
                    "the condition that it waits for holds, and no thread has called wakeup for it",
                ],
                identity=(sleep.wmesg, *functions(sleep.stack)),
            )
        )
