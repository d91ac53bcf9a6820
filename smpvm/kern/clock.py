"""Kernel time: ticks, and whole seconds since boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import own

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel


def i32(n: int) -> int:
    """*n* as a C int."""
    return ((n + 0x80000000) & 0xFFFFFFFF) - 0x80000000


class Clock:
    """The time as kernel code reads it; *start* is the initial value of ``ticks``."""

    def __init__(self, k: Kernel, start: int = 0) -> None:
        self.k = k
        self.start = start
        self.uptime_start = 0

    @own
    def set(self, ticks: int, time_uptime: int) -> None:
        """Continue from these values (a machine loaded from a saved state)."""
        now = self.k.carrier.ticks()
        self.start = ticks - now
        self.uptime_start = time_uptime - now // self.k.hz

    @own
    def ticks(self) -> int:
        """The variable ``ticks``: hz per second, an i32 that wraps."""
        return i32(self.start + self.k.carrier.ticks())

    @own
    def time_uptime(self) -> int:
        """The variable ``time_uptime``: seconds since boot."""
        return self.uptime_start + self.k.carrier.ticks() // self.k.hz
