"""Lost wakeups: a sleeper whose condition has come true, and nobody told it.

Every sleep in the model states its condition.  When a timer ends a sleep whose condition holds,
the timer has *masked* a lost wakeup, unless the wakeup was merely on its way: whoever made the
condition true wakes before it sleeps or ends, or finds that others have undone it.  So among
free-running threads the condition must have outlasted every thread that ran when it was first seen
true; a host that is slow makes nobody guilty.  At rest, and when nothing moves, a sleeper without
a timer whose condition holds is *lost*.  A wakeup that finds the condition false is *spurious*:
allowed, and counted.
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
"""Host seconds between two looks at the conditions of those who sleep with a timer."""


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
        """A wakeup came for it, and yet the timer was first: late, but not lost."""
        self.makers: set[ThreadState] | None = None
        """Those who ran when the condition was first seen true and have not slept since."""
        self.outlasted = False
        """The condition was still true when the last of them slept."""


class LostWakeups(Checker):
    """Watches sleeps."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.grace = 0.25
        """How long (host seconds) a wakeup may be on its way."""
        self.spurious: Counter[str] = Counter()
        """Wakeups that found the condition false, by wmesg."""
        self._unstated: set[str] = set()
        """Sleeps with a timer that say nothing of what they wait for."""
        self._mutex = threading.Lock()
        self._late: list[tuple[float, ThreadState, SleepRecord]] = []
        """Sleeps that a timer ended although their condition holds, and until when to wait."""
        self._timed: dict[Any, list[SleepRecord]] = {}
        """Sleeps with a timer that have not returned, by identity."""
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
        """It will wake nobody any more."""
        if self._timed and not self._serial():
            self._look(td.observed or self.tracker.state(td))

    def _look(self, st: ThreadState) -> None:
        """*st* sleeps or ends; now and then, look whose condition has come true meanwhile."""
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
        """Those who may be about to wake somebody: carried threads that do not sleep."""
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
                # On the second list before off the first: wakeup() looks without the mutex.
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
        """A wakeup that comes just after the timer was not lost, only late."""
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
        """Is the condition true now?  None when it cannot be told (half-changed state)."""
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
        """The wakeup may be on its way still: judged after the grace, or at the next idle."""
        wait = float("inf") if self._serial() else self.grace
        self._late.append((time.monotonic() + wait, st, sleep))

    def idle(self) -> None:
        """No thread can run: a wakeup that has not come will not come."""
        if self._late:
            self.settle(now=float("inf"))

    def settle(self, *, now: float | None = None) -> None:
        """Report the sleeps that timers ended and whose wakeup has not come since."""
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
        """A wakeup lost to such a sleep is masked by its timer, and nobody can tell."""
        return [f"sleep with a timer and no cond: {site}" for site in sorted(self._unstated)]

    def summary(self) -> dict[str, Any]:
        return {"spurious_wakeups": dict(sorted(self.spurious.items()))}

    def at_rest(self) -> None:
        """Nobody will wake anybody any more: report the sleepers whose condition holds.

        Among free-running threads a sleeper must be found twice, some time apart, so that a
        wakeup on its way is not taken for a lost one.
        """
        first = self._ready_sleepers()
        if (first or self._late) and not self._serial():
            time.sleep(self.grace)
            first = [(st, s) for st, s in self._ready_sleepers() if (st, s) in first]
        for st, sleep in first:
            # A timer that has yet to fire will mask it.
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
        saved = "; only a timer ends it" if kind == "masked-lost-wakeup" else ""
        self.log.add(
            Finding(
                kind,
                f"{st.td.name} sleeps on {sleep.ident} ({sleep.wmesg}) for what is already so"
                f"{saved}",
                sites=[site_of(st.td, f"sleeps on {sleep.ident} ({sleep.wmesg})", sleep.stack)],
                objects=[str(sleep.ident)],
                evidence=[
                    f"asleep since tick {sleep.start}"
                    + (f", timer of {sleep.timo} ticks" if sleep.timo else ", no timer"),
                    "the condition that it waits for holds, and nobody has called wakeup for it",
                ],
                identity=(sleep.wmesg, *functions(sleep.stack)),
            )
        )
