"""Ctrl-C, or SIGTERM, as a wish: whoever runs looks whether it was made, and ends in good order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from smpvm.exits import INCONCLUSIVE


class StopRequest:
    """A flag that a signal handler may set at any moment.

    Not a ``threading.Event``: its lock may be had by the very thread that the handler runs in, and
    then the handler would wait for ever.
    """

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made = False

    def set(self) -> None:
        """Make it."""
        self._made = True

    def is_set(self) -> bool:
        """Has it been made?"""
        return self._made

    def wait(self, seconds: float) -> bool:
        """Sleep that long; returns whether it has been made."""
        time.sleep(0 if self._made else seconds)
        return self._made


@contextmanager
def interrupts() -> Iterator[StopRequest]:
    """Ctrl-C (or SIGTERM) makes the wish; a second one ends the program at once.

    A model thread must not be hit by KeyboardInterrupt: it would look like a defect of the model.
    Outside the main thread, where Python allows no handlers, nothing makes it.
    """
    asked = StopRequest()

    def handler(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            sys.stdout.flush()
            os._exit(INCONCLUSIVE)
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, before in old.items():
            signal.signal(number, before)
