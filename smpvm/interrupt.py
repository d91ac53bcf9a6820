"""Interrupts: a first SIGINT or SIGTERM asks for an orderly end, a second one ends the process.

Also how a process ends when threads of a model would keep it alive.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from smpvm.exits import INCONCLUSIVE

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
PATIENCE: Final = 5.0
"""Host seconds that threads may take to end, once the report is out."""


def no() -> bool:
    """Nothing else asks for an end."""
    return False


class StopRequest:
    """A flag that a signal handler may set at any moment; *also*: another reason to stop.

    Not a ``threading.Event``: the thread that the handler runs in may hold its lock, and the
    handler would then wait for ever.
    """

    __slots__ = ("_also", "_made")

    def __init__(self, also: Callable[[], bool] = no) -> None:
        self._made = False
        self._also = also

    def set(self) -> None:
        """Make the request."""
        self._made = True

    def is_set(self) -> bool:
        """Has it been made?"""
        return self._made or self._also()

    def wait(self, seconds: float) -> bool:
        """Sleep that many host seconds, unless it has been made; returns whether it has."""
        time.sleep(0 if self.is_set() else seconds)
        return self.is_set()


@contextmanager
def interrupts(also: Callable[[], bool] = no) -> Iterator[StopRequest]:
    """SIGINT or SIGTERM sets the request; a second one ends the process at once.

    A thread of the model must not see KeyboardInterrupt: it would look like a defect of the model.
    Outside the main thread, where Python allows no signal handlers, only *also* asks for the end.
    """
    asked = StopRequest(also)

    def handler(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(INCONCLUSIVE)
        asked.set()

    with handled_by(handler):
        yield asked


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Both signals go to *handler*; in threads other than the main one this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


def leave(code: int, patience: float = PATIENCE) -> int:
    """The last act of a command: returns *code* for the interpreter to exit with.

    A thread that does not end would keep the process for ever: it is named on standard error, and
    the process ends here.
    """
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: os._exit(code))
    end = time.monotonic() + patience
    left = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    for thread in left:
        thread.join(max(0.0, end - time.monotonic()))
    names = [thread.name for thread in left if thread.is_alive()]
    if names:
        with suppress(OSError, ValueError):
            print(f"smpvm: threads that do not end: {', '.join(names)}", file=sys.stderr)
        os._exit(code)
    for number in SIGNALS:
        # The interpreter's own end would put the default back for a handler, and lose the code.
        signal.signal(number, signal.SIG_IGN)
    return code
