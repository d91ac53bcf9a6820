"""How the serial carrier passes control between threads: greenlets, or real threads.

Either way exactly one thread runs at a time, and it decides which is next.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

from smpvm.host.carrier import nothing


@functools.cache
def _greenlet() -> Any:
    try:
        return importlib.import_module("greenlet")
    except ImportError:
        return None


def have_greenlet() -> bool:
    """Is greenlet installed?  Otherwise ``auto`` means real threads, which are slower."""
    return _greenlet() is not None


class Switcher(Protocol):
    """Makes the function that passes control to a thread, for boot and each spawned thread."""

    name: str

    def here(self) -> Callable[[], Any]:
        """The function that returns control to the calling host context."""

    def make(self, entry: Callable[[], None]) -> Callable[[], Any]:
        """A new context that runs *entry* when it first gets control; when *entry* returns, control
        passes to the context that called ``here``."""

    def close(self) -> None:
        """Release the contexts; there are no more switches."""


class _Worker:
    """A greenlet that runs one entry after another, for one execution after another.

    The first switch to a new greenlet costs 10 us (the host faults in its stack page by page), a
    switch to a waiting one half a microsecond.
    """

    __slots__ = ("context", "entry", "idle")

    def __init__(self, new: Callable[..., Any]) -> None:
        self.context = new(self._work)
        self.entry: Callable[[], None] = nothing
        self.idle = True

    def _work(self) -> None:
        while True:
            self.idle = False
            self.entry()
            self.entry = nothing
            self.idle = True
            self.context.parent.switch()


class _Pool(threading.local):
    """The idle workers of one host thread.

    A cache: it holds no state of any machine.
    """

    def __init__(self) -> None:
        self.idle: list[_Worker] = []


_POOL = _Pool()


class Greenlets:
    """Each thread on a greenlet of the calling host thread."""

    name = "greenlet"

    def __init__(self) -> None:
        self._lib = _greenlet()
        if self._lib is None:
            raise ImportError("greenlet is not installed")
        self._home: Any = None
        self._mine: list[_Worker] = []

    def here(self) -> Callable[[], Any]:
        self._home = self._lib.getcurrent()
        switch: Callable[[], Any] = self._home.switch
        return switch

    def make(self, entry: Callable[[], None]) -> Callable[[], Any]:
        idle = _POOL.idle
        worker = idle.pop() if idle else _Worker(self._lib.greenlet)
        worker.entry = entry
        context = worker.context
        context.parent = self._home
        context.gr_context = None  # start with fresh context variables
        self._mine.append(worker)
        switch: Callable[[], Any] = context.switch
        return switch

    def close(self) -> None:
        # Workers that never ran are idle too; one whose thread did not unwind is not.
        idle = _POOL.idle
        for worker in self._mine:
            if worker.idle and not worker.context.dead:
                worker.entry = nothing
                idle.append(worker)
        self._mine.clear()
        self._home = None


class _Baton:
    """A host thread and its baton: it runs while it holds the baton."""

    __slots__ = ("baton", "started", "thread")

    def __init__(self, thread: threading.Thread | None) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.thread = thread
        self.started = thread is None


class HostThreads:
    """Each thread on a real thread, all pinned to one CPU, which makes switches much faster."""

    name = "thread"

    def __init__(self) -> None:
        self._home = _Baton(None)
        self._at = self._home
        self._threads: list[threading.Thread] = []
        self._affinity: set[int] | None = None

    def here(self) -> Callable[[], Any]:
        if hasattr(os, "sched_setaffinity") and self._affinity is None:
            self._affinity = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {min(self._affinity)})
        return lambda: self._pass(self._home)

    def make(self, entry: Callable[[], None]) -> Callable[[], Any]:
        def body() -> None:
            seat.baton.acquire()
            entry()
            self._at = self._home
            self._home.baton.release()

        seat = _Baton(threading.Thread(target=body, daemon=True))
        return lambda: self._pass(seat)

    def _pass(self, to: _Baton) -> None:
        mine = self._at
        self._at = to
        if not to.started:
            to.started = True
            assert to.thread is not None
            self._threads.append(to.thread)
            to.thread.start()
        to.baton.release()
        mine.baton.acquire()

    def close(self) -> None:
        for thread in self._threads:
            thread.join(5.0)
        self._threads.clear()
        if self._affinity is not None:
            os.sched_setaffinity(0, self._affinity)
            self._affinity = None


def make_switcher(name: str) -> Switcher:
    """``greenlet``, ``thread``, or ``auto``: greenlets if installed."""
    if name == "thread" or (name == "auto" and _greenlet() is None):
        return HostThreads()
    if name in ("greenlet", "auto"):
        return Greenlets()
    raise ValueError(f"carrier {name!r}: known are greenlet, thread and auto")
