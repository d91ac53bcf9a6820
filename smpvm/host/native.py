"""Free-running real threads: the operating system decides which thread runs next.

Nothing here depends on the GIL.  Threads are never killed: ``stop`` sets a flag, and every wait
checks it and raises ``Stopped``.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from smpvm.host.carrier import Carried, Stopped

_YIELDS: Final = 12
"""Turns of one spin loop that only yield the CPU, before it starts to sleep."""
_SLEEP_MIN: Final = 20e-6
_SLEEP_MAX: Final = 1e-3  # host seconds
_SLICE: Final = 500e-6
"""Length of a time slice, in host seconds."""
_SAME_SPIN_NS: Final = 300_000
"""A turn later than this after the last one starts a new spin loop."""


def _gil_enabled() -> bool:
    asks: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return True if asks is None else asks()


def raise_in(thread: threading.Thread, kind: type[BaseException]) -> None:
    """Raise *kind* in another host thread at its next bytecode, so not while in a system call.

    For threads that do not notice the stop flag because they never wait.
    """
    if thread.ident is not None:
        ident, exception = ctypes.c_ulong(thread.ident), ctypes.py_object(kind)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, exception)


class _ThreadSlot:
    """The carrier's state of one thread: its permit, and the turns of its spin loop."""

    __slots__ = ("host", "last_turn", "permit", "slice_end", "turns")

    def __init__(self) -> None:
        self.permit = threading.Lock()
        self.permit.acquire()  # locked: no permit; released by unpark
        self.turns = 0
        self.last_turn = 0  # time.monotonic_ns() of the latest turn's end
        self.slice_end = 0.0
        self.host: threading.Thread | None = None


class NativeCarrier:
    """Runs each kernel thread on a host thread of its own.

    *tick_scale* is the length of a kernel second in host seconds; *hz* ticks make one.
    """

    serial = False
    access_points = False

    def __init__(self, *, hz: int = 100, tick_scale: float = 0.05) -> None:
        self.tick = tick_scale / hz
        """Host seconds per tick."""
        self.stopping = False
        self.inert = True
        self.quick_turns = 2 if _gil_enabled() else 60
        self._local = threading.local()
        self._epoch = time.monotonic()
        self._guard = threading.RLock()  # a signal handler may call stop
        self._live: dict[int, Carried] = {}  # by tid
        self._adopted: list[Carried] = []
        self.current: Callable[[], Carried] = partial(getattr, self._local, "td")

    # -- threads

    def adopt(self, td: Carried) -> None:
        """The calling host thread carries *td* from now on."""
        td.carrier_data = _ThreadSlot()
        self._local.td = td
        with self._guard:
            self._adopted.append(td)

    def disown(self) -> None:
        """Undoes ``adopt``: the calling host thread no longer carries a kernel thread."""
        td = self._local.td
        del self._local.td
        with self._guard:
            self._adopted.remove(td)

    def spawn(self, td: Carried) -> None:
        """Start a host thread for *td*."""
        seat = td.carrier_data = _ThreadSlot()
        seat.host = threading.Thread(target=self._body, args=(td,), name=td.name)
        with self._guard:
            self._live[td.tid] = td
        seat.host.start()

    def set_daemon(self, td: Carried) -> None:
        """Nothing to do: the caller of ``join`` decides what to wait for."""

    def _body(self, td: Carried) -> None:
        self._local.td = td
        try:
            td.main()
        except Stopped:
            pass
        finally:
            with self._guard:
                self._live.pop(td.tid, None)

    def live(self) -> list[Carried]:
        """The spawned threads that have not ended, oldest first."""
        with self._guard:
            return list(self._live.values())

    # -- waiting

    def point(
        self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
    ) -> None:
        """No schedule points here."""

    def park(self, timeout: int | None) -> bool:
        """Wait for the permit, at most *timeout* ticks; False on timeout."""
        seat: _ThreadSlot = self._local.td.carrier_data
        if self.stopping:
            raise Stopped
        if timeout is None:
            got = seat.permit.acquire()
        else:
            got = seat.permit.acquire(timeout=max(timeout, 0) * self.tick)
        if self.stopping:
            raise Stopped
        return got

    def unpark(self, td: Carried) -> None:
        """Give *td* its permit; one is remembered."""
        try:
            td.carrier_data.permit.release()
        except RuntimeError:  # it has one already
            return

    def relax(self, *watched: object) -> None:
        """One turn of a spin loop: quick at first, then yields of the host, then growing sleeps.

        A pure spin would starve the owner of the lock under the GIL.
        """
        if self.stopping:
            raise Stopped
        seat: _ThreadSlot = self._local.td.carrier_data
        if time.monotonic_ns() - seat.last_turn > _SAME_SPIN_NS:
            seat.turns = 0
        seat.turns += 1
        over = seat.turns - self.quick_turns
        if over > _YIELDS:
            time.sleep(min(_SLEEP_MAX, _SLEEP_MIN * (over - _YIELDS)))
        elif over > 0:
            time.sleep(0)
        seat.last_turn = time.monotonic_ns()

    def updates(self, value: Callable[[], Any], op: Callable[[Any], Any]) -> None:
        """Not needed."""

    def updated(self, obj: object, old: Any, op: Callable[[Any], Any]) -> None:
        """Not needed."""

    def in_vain(self) -> None:
        """Not needed."""

    def touched(self, obj: object) -> None:
        """Not needed: spinning threads poll."""

    def yield_(self) -> None:
        """Yield the CPU."""
        if self.stopping:
            raise Stopped
        os.sched_yield()  # sleep(0) is a real sleep of 70 microseconds
        # The wait for the CPU (the GIL) is not part of the new slice.
        seat: _ThreadSlot = self._local.td.carrier_data
        seat.slice_end = time.monotonic() + _SLICE

    def slice_over(self) -> bool:
        """lwkt_resched_wanted: has the caller run for a time slice since its last yield?"""
        if self.stopping:
            raise Stopped
        seat: _ThreadSlot = self._local.td.carrier_data
        return time.monotonic() >= seat.slice_end

    # -- time and the end

    def ticks(self) -> int:
        """Ticks since the carrier was made."""
        return int((time.monotonic() - self._epoch) / self.tick)

    def stop(self) -> None:
        """Set the flag and wake every waiter; may be called from any host thread."""
        self.stopping = True
        with self._guard:
            everybody = [*self._live.values(), *self._adopted]
        for td in everybody:
            self.unpark(td)

    def join(self, timeout: float | None = None) -> list[Carried]:
        """Wait *timeout* host seconds for the spawned threads; returns those still running."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while left := self.live():
            host = left[0].carrier_data.host
            if host.ident is None:  # spawn is about to start it
                time.sleep(_SLEEP_MIN)
            else:
                host.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if deadline is not None and time.monotonic() >= deadline:
                return self.live()
        return []
