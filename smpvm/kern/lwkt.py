"""Yielding the CPU (lwkt_thread.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.host.carrier import HOLDING, YIELD
from smpvm.kern.cname import c, holds

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel


class Sched:
    """The scheduler as kernel code sees it."""

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self._resched_wanted = k.carrier.slice_over

    def __str__(self) -> str:
        return "sched"

    @c("lwkt_yield", "lwkt_thread.c:1061-1087", blocks=True)
    @holds("no spinlock", "no spinlock (tokens lost meanwhile)")
    def lwkt_yield(self) -> None:
        """lwkt_yield (lwkt_thread.c:1062): let other threads run if the time slice is over.

        No spinlock may be held (Misuse; the C returns at once).  The tokens are released meanwhile,
        so what they protect may have changed on return.
        """
        k = self.k
        td = k.curthread()
        if td.spins:
            k.misuse("sleep-with-spinlock", f"{td} yields with {td.spins[-1]} held")
        if not self._resched_wanted():
            return
        if (p := k.point) is not None:
            p(YIELD, self, HOLDING if td.toks else "")
        if td.toks:
            k.token.drop_all(td)
            k.carrier.yield_()
            k.token.regain_all(td)
        else:
            k.carrier.yield_()

    @c("lwkt_user_yield", "lwkt_thread.c:1127-1171", blocks=True)
    @holds("no spinlock", "no spinlock (tokens lost meanwhile)")
    def lwkt_user_yield(self) -> None:
        """lwkt_user_yield: the same, for long loops in system calls."""
        self.lwkt_yield()
