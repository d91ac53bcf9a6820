"""Detects code of a scenario that does not return, and reports the thread and its line.

Reporting every step would cost too much, so a host thread checks the length of the log a few
times a second.  It neither decides switches nor writes to the log: no digest depends on it.

CPU time without a step counts.  Wall-clock time counts only while no thread of the process runs or
waits for a CPU, so a loaded or suspended host does not trigger the watchdog.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from smpvm.check.stacks import HOME
from smpvm.host import switcher

HANG: Final = 10.0
"""Default timeout: seconds without a step."""
HURRY: Final = 1.0
"""The timeout once the run is to end."""
EVERY: Final = 0.2
"""Host seconds between two looks."""
IDLE: Final = 0.1
"""The share of a CPU below which a process counts as waiting."""


class Watch(Protocol):
    """Called with the part of the scenario that runs from now on: "import", "set-up", "thread",
    "check", or "" if none runs."""

    def __call__(self, phase: str, carrier: Any = None) -> None:
        """*carrier* has the log of the execution."""


def unwatched(phase: str, carrier: Any = None) -> None:
    """The default: no watchdog."""


class Watchdog:
    """Calls *on_hang* once, with one line, from a thread of its own; *beat* at every look.

    *patience*: CPU seconds without a step, or wall-clock seconds in which nothing runs; when
    *hurry* returns true, a shorter time is enough.
    """

    def __init__(
        self,
        patience: float,
        on_hang: Callable[[str], None],
        *,
        beat: Callable[[], None] = lambda: None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        self.patience = patience
        self.hurry = hurry
        self._on_hang = on_hang
        self._beat = beat
        self._now: tuple[int, str, Any] = (0, "", None)
        self._over = threading.Event()

    def __call__(self, phase: str, carrier: Any = None) -> None:
        """As ``Watch``."""
        self._now = (self._now[0] + 1, phase, carrier)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the body runs."""
        thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    def _run(self) -> None:
        me = threading.get_native_id()
        before: tuple[int, int] | None = None
        clock, cpu = time.monotonic(), time.process_time()
        busy = idle = 0.0
        while not self._over.wait(EVERY):
            self._beat()
            then, used = clock, cpu
            clock, cpu = time.monotonic(), time.process_time()
            number, phase, carrier = self._now
            at = (number, 0 if carrier is None else _steps(carrier))
            if not phase or at != before:
                before, busy, idle = at, 0.0, 0.0
                continue
            busy += cpu - used
            if cpu - used < IDLE * (clock - then) and asleep(me):
                idle += min(clock - then, 2 * EVERY)
            if max(busy, idle) > (min(self.patience, HURRY) if self.hurry() else self.patience):
                self._on_hang(describe(phase, carrier, busy, idle, me))
                return


def _steps(carrier: Any) -> int:
    return len(getattr(carrier, "log", ()))  # a carrier that has been dropped has none


def asleep(me: int) -> bool:
    """Do all threads of this process except *me* (a native id) sleep?  True if unknown."""
    with suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            if task.name != str(me):
                with suppress(FileNotFoundError):  # the thread has just ended
                    if (task / "stat").read_text().rpartition(") ")[2][:1] == "R":
                        return False
    return True


def describe(phase: str, carrier: Any, busy: float, idle: float, me: int) -> str:
    """One line: which thread or part does not return, and the line where it is."""
    who, step = phase, ""
    if phase == "thread":
        step = " without a step"
        with suppress(AttributeError):
            who = f"thread {carrier.current().name}"
    what = (
        f"used {busy:.0f} s of CPU time{step}"
        if busy >= idle
        else f"waited {idle:.0f} s outside the model"
    )
    return f"{who} {what} ({_place(me)})"


def _place(me: int) -> str:
    """The scenario's current line: ``function, file:line``."""
    frames = [frame for ident, frame in sys._current_frames().items() if ident != _ident(me)]
    # With host threads as carriers, all but one wait in the switcher for their turn.
    running = [f for f in frames if f.f_code.co_filename != switcher.__file__]
    candidates = [_own(frame) for frame in running or frames]
    frame = min(candidates, key=_rank, default=None)
    if frame is None:
        return "?"
    return f"{frame.f_code.co_name}, {frame.f_code.co_filename}:{frame.f_lineno}"


def _ident(native: int) -> int | None:
    return next((t.ident for t in threading.enumerate() if t.native_id == native), None)


def _own(innermost: FrameType) -> FrameType:
    """The innermost frame of the scenario's own code, or else the innermost of all."""
    stack, frame = [innermost], innermost.f_back
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return min(stack, key=_rank)


def _rank(frame: FrameType) -> int:
    """0 for the user's files, 1 for those of smpvm, 2 for libraries."""
    name = frame.f_code.co_filename
    if name.startswith(HOME):
        return 1
    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
    return 2 if name.startswith(libraries) or not os.path.exists(name) else 0
