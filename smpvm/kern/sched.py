"""Offering the CPU (lwkt_thread.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.host.carrier import YIELD

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel


class Sched:
    """The scheduler as kernel code sees it."""

    def __init__(self, k: Kernel) -> None:
        self.k = k

    def lwkt_yield(self) -> None:
        """lwkt_yield: let others run.

        No spinlock may be held (Misuse); tokens are given up if the CPU really changes hands, so
        whatever they protect may have changed on return.
        """
        k = self.k
        td = k.curthread()
        if td.spins:
            k.misuse("sleep-with-spinlock", f"{td} yields with {td.spins[-1]} held")
        if (p := k.point) is not None:
            p(YIELD, self)
        if td.toks:
            k.token.drop_all(td)
            k.carrier.yield_()
            k.token.regain_all(td)
        else:
            k.carrier.yield_()

    def lwkt_user_yield(self) -> None:
        """lwkt_user_yield: the same, from long loops in system calls."""
        self.lwkt_yield()
