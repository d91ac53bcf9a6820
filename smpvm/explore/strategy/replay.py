"""Replay of a recorded schedule, step by step, and detection of where it diverges.

``Replay`` follows the recorded threads exactly.  ``Guided`` is used for shrinking: it follows only
the switches ("after its 4th step, switch from thread 1 to thread 2") and runs without preemption in
between, so that it can run a schedule from which parts have been removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smpvm.explore.strategy.base import Op, Plain, Scheduler, SerialCarrier, SerialThread
from smpvm.explore.trace.schedule import Schedule, checksum, step_text
from smpvm.host.choices import Choices, Key
from smpvm.host.serialthread import CLOCK
from smpvm.host.tso import FENCE

Switches = Mapping[tuple[int, int], int]
"""(thread, number of its steps so far) → the thread to switch to; thread -1 is the start."""


class Replay(Plain):
    """One execution.  ``diverged`` says at which step and why it left the record; "" if not."""

    name = "replay"
    fair_after = True

    def __init__(self, schedule: Schedule) -> None:
        self.every = True
        self.schedule = schedule
        self.diverged = ""
        self.reasons: dict[int, str] = {}
        """Log position → why there is a switch here."""
        self._steps = schedule.steps()
        self._at = 0
        self._last: SerialThread | None = None
        self._carrier: SerialCarrier

    def start(self, n: int) -> Scheduler | None:
        return self if n == 0 else None

    def attach(self, carrier: SerialCarrier) -> None:
        self._carrier = carrier
        carrier.choices = Choices(self.schedule.choices)

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread | None:
        at = self._at
        self._at += 1
        nxt: SerialThread | None = None
        if at < len(self._steps):
            nxt = next((s for s in runnable if s.tid == self._steps[at]), None)
            if nxt is None and not self.diverged:
                names = ", ".join(f"{s} ({s.tid})" for s in runnable)
                self.diverged = f"step {at}: thread {self._steps[at]} cannot run; runnable: {names}"
                return None
        elif not self.diverged:
            self.diverged = f"step {at}: the recorded execution had ended here"
            return None
        nxt = nxt or current or runnable[0]
        self._explain(nxt, current)
        return nxt

    def _explain(self, nxt: SerialThread, current: SerialThread | None) -> None:
        last, self._last = self._last, nxt
        if last is None or last is nxt:
            return
        if last.done:
            why = f"{last} has ended"
        elif current is last:
            why = f"{last} is preempted"
        elif last.parked and not last.runnable:
            why = f"{last} sleeps"
        elif last.op[1] == FENCE:
            why = f"{last} waits for its stores"
        elif last.ready is not None:
            why = f"{last} waits for {last.op[2]}"
        else:
            why = f"{last} spins"
        self.reasons[len(self._carrier.log)] = why

    def done(self, carrier: SerialCarrier) -> None:
        # A step may have differed long before a thread could not run.
        self.diverged = self._other(carrier) or self.diverged

    def _other(self, carrier: SerialCarrier) -> str:
        """The first run of steps that differs from the record; "" if none does."""
        steps = [op for op in carrier.log if op[0] != CLOCK]
        at = 0
        for tid, n, check in self.schedule.runs:
            if len(steps) < at + n:
                if self.diverged:
                    return ""
                return f"step {len(steps)}: the execution ended before the record"
            if checksum(steps[at : at + n]) != check:
                done = ", ".join(map(step_text, steps[at : at + min(n, 6)]))
                return (
                    f"steps {at} to {at + n - 1}: thread {tid} does other operations than "
                    f"recorded: {done}" + (", ..." if n > 6 else "")
                )
            at += n
        return ""


class Guided(Plain):
    """Runs without preemption except for the given switches."""

    name = "guided"
    fair_after = True

    def __init__(self, switches: Switches, choices: Mapping[Key, int] | None = None) -> None:
        self.every = True
        self._switches = switches
        self._choices = choices
        self.preemptions = 0
        self._taken: dict[int, int] = {}
        self._last = CLOCK

    def attach(self, carrier: SerialCarrier) -> None:
        carrier.choices = Choices(self._choices)

    def start(self, n: int) -> Scheduler | None:
        return self if n == 0 else None

    def choose(
        self, runnable: Sequence[SerialThread], current: SerialThread | None
    ) -> SerialThread:
        last = self._last
        want = self._switches.get((last, self._taken.get(last, 0)), last)
        nxt = None
        for thread in runnable:
            if thread.tid == want:
                nxt = thread
        if nxt is None:
            nxt = next((s for s in runnable if s.tid == last), None)
        if nxt is None:
            nxt = next((s for s in runnable if s.tid > last), runnable[0])
        if current is not None and nxt is not current:
            self.preemptions += 1
        self._last = nxt.tid
        self._taken[nxt.tid] = self._taken.get(nxt.tid, 0) + 1
        return nxt


def switches_of(log: Sequence[Op]) -> dict[tuple[int, int], int]:
    """The switches of an execution, in the form that ``Guided`` takes."""
    out: dict[tuple[int, int], int] = {}
    taken: dict[int, int] = {}
    last = CLOCK
    for tid, *_ in log:
        if tid == CLOCK:
            continue
        if tid != last:
            out[(last, taken.get(last, 0))] = tid
        last = tid
        taken[tid] = taken.get(tid, 0) + 1
    return out
