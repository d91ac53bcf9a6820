"""Free-running real threads: the operating system picks who runs next.

Nothing here leans on the GIL.  A thread is never killed: ``stop`` raises a flag, and every wait
notices it and raises ``Stopped``.
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
"""Turns of one spin that only offer the CPU, before the sleeps begin."""
_SLEEP_MIN: Final = 20e-6
_SLEEP_MAX: Final = 1e-3  # host seconds
_SLICE: Final = 500e-6
"""Host seconds that a thread which offers the CPU may keep it all the same."""
_SAME_SPIN_NS: Final = 300_000
"""A turn that comes later than this after the last one begins a new spin."""


def _gil_enabled() -> bool:
    asks: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return True if asks is None else asks()


def raise_in(thread: threading.Thread, kind: type[BaseException]) -> None:
    """Raise *kind* in another host thread, at its next bytecode; one in a system call stays there.

    For threads that do not notice the stop flag because they never wait.
    """
    if thread.ident is not None:
        ident, exception = ctypes.c_ulong(thread.ident), ctypes.py_object(kind)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, exception)


class _ThreadSlot:
    """What the carrier knows of one thread: its permit, and how far its spin has come."""

    __slots__ = ("host", "last_turn", "permit", "slice_end", "turns")

    def __init__(self) -> None:
        self.permit = threading.Lock()
        self.permit.acquire()  # locked: no permit; released by unpark
        self.turns = 0
        self.last_turn = 0  # time.monotonic_ns() of the latest turn's end
        self.slice_end = 0.0
        self.host: threading.Thread | None = None


class NativeCarrier:
    """Carries each kernel thread on a host thread of its own.

    *tick_scale* is the length of a kernel second in host seconds; *hz* ticks make one.
    """

    serial = False
    access_points = False

    def __init__(self, *, hz: int = 100, tick_scale: float = 0.05) -> None:
        self.tick = tick_scale / hz
        """Host seconds in a tick."""
        self.stopping = False
        self.inert = True
        self.quick_turns = 2 if _gil_enabled() else 60
        self._local = threading.local()
        self._epoch = time.monotonic()
        self._guard = threading.RLock()  # over _live, _adopted; a signal handler may call stop
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
        """The calling host thread carries nobody any more (undoes ``adopt``)."""
        td = self._local.td
        del self._local.td
        with self._guard:
            self._adopted.remove(td)

    def spawn(self, td: Carried) -> None:
        """A host thread of its own for *td*."""
        seat = td.carrier_data = _ThreadSlot()
        seat.host = threading.Thread(target=self._body, args=(td,), name=td.name)
        with self._guard:
            self._live[td.tid] = td
        seat.host.start()

    def set_daemon(self, td: Carried) -> None:
        """Nothing to do: whoever waits for the end of a run says for whom."""

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
        """Wait for the permit, *timeout* ticks at most; False when the timer ended it."""
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
        """One turn of a spin: quick at first, then the host's yield, then sleeps that grow.

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
        """Nobody asks."""

    def updated(self, obj: object, old: Any, op: Callable[[Any], Any]) -> None:
        """Nobody asks."""

    def touched(self, obj: object) -> None:
        """Nobody is waiting for a note: spinners look for themselves."""

    def yield_(self) -> None:
        """Offer the CPU."""
        if self.stopping:
            raise Stopped
        os.sched_yield()  # sleep(0) is a real sleep: its timer takes 70 microseconds
        # Waiting for the CPU (the GIL) is no part of the new slice.
        seat: _ThreadSlot = self._local.td.carrier_data
        seat.slice_end = time.monotonic() + _SLICE

    def slice_over(self) -> bool:
        """lwkt_resched_wanted: has the caller run for a time slice since it last yielded?"""
        if self.stopping:
            raise Stopped
        seat: _ThreadSlot = self._local.td.carrier_data
        return time.monotonic() >= seat.slice_end

    # -- time and the end

    def ticks(self) -> int:
        """Ticks since the carrier was made."""
        return int((time.monotonic() - self._epoch) / self.tick)

    def stop(self) -> None:
        """Raise the flag and wake every waiter; may be called from any host thread."""
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
