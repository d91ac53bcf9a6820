"""How the serial carrier passes control from one thread to another: greenlets, or real threads.

Either way exactly one thread runs at a time, and the thread that runs says who is next.
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
    """Can greenlets be had?  Without them ``auto`` means real threads, which are slower."""
    return _greenlet() is not None


class Switcher(Protocol):
    """Makes, for the boot thread and for each spawned one, the call that passes control to it."""

    name: str

    def here(self) -> Callable[[], Any]:
        """The calling host context as a place to return to."""

    def make(self, entry: Callable[[], None]) -> Callable[[], Any]:
        """A new context that runs *entry* when control first comes; at its end control goes back
        to the context that called ``here``."""

    def close(self) -> None:
        """Nobody will switch any more."""


class _Worker:
    """A greenlet that runs one entry after another, for one execution after another.

    A new greenlet's first call costs 10 us (its stack comes from the host, page by page), a switch
    to one that waits half a microsecond.
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
    """The workers of one host thread that have nothing to do.

    A cache: nothing of any machine is in it.
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
        context.gr_context = None  # context variables begin anew
        self._mine.append(worker)
        switch: Callable[[], Any] = context.switch
        return switch

    def close(self) -> None:
        # Those that never ran are idle too; one whose thread would not be unwound is not.
        idle = _POOL.idle
        for worker in self._mine:
            if worker.idle and not worker.context.dead:
                worker.entry = nothing
                idle.append(worker)
        self._mine.clear()
        self._home = None


class _Baton:
    """A host thread's place: it runs while it has the baton."""

    __slots__ = ("baton", "started", "thread")

    def __init__(self, thread: threading.Thread | None) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.thread = thread
        self.started = thread is None


class HostThreads:
    """Each thread on a real thread, all pinned to one CPU: the hand-off is several times faster."""

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
    """``greenlet``, ``thread``, or ``auto``: greenlets where they can be had."""
    if name == "thread" or (name == "auto" and _greenlet() is None):
        return HostThreads()
    if name in ("greenlet", "auto"):
        return Greenlets()
    raise ValueError(f"carrier {name!r}: known are greenlet, thread and auto")
