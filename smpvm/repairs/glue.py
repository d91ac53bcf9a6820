"""Repairs of vm_glue.c."""

from __future__ import annotations

from smpvm.kern.proc import P_SWAPPEDOUT, P_SYSTEM, P_WEXIT, PLOCK_MASK, Proc
from smpvm.repairs.base import repair
from smpvm.vm.proc.glue import Glue


@repair(
    "swapout-held",
    "Allow for the scan's own hold when selecting processes to swap out",
    "swappable (vm_glue.c:455-457, 505)",
)
class SwapoutHeld(Glue):
    """swappable() allows for the hold of the scan itself, so idle processes are swapped out.

    In the C it rejects a held process, and allproc_scan holds each process that it passes to it.
    """

    def swappable(self, p: Proc) -> bool:
        held = p.p_lock & PLOCK_MASK
        return held <= 1 and not p.p_flags & (P_SYSTEM | P_SWAPPEDOUT | P_WEXIT)
