"""Ctrl-C as a wish: whoever runs looks whether it was made, and ends in good order."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INCONCLUSIVE = 3
"""The exit code of a run that was ended before it could say anything."""


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C sets the event; a second one ends the program at once.

    A model thread must not be hit by KeyboardInterrupt: it would look like a defect of the model.
    Outside the main thread, where Python allows no handlers, nothing sets the event.
    """
    asked = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            sys.stdout.flush()
            os._exit(INCONCLUSIVE)
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    old = signal.signal(signal.SIGINT, handler)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, old)
