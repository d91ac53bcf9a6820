"""Repairs of vm_glue.c."""

from __future__ import annotations

from smpvm.kern.proc import P_SWAPPEDOUT, P_SYSTEM, P_WEXIT, PLOCK_MASK, Proc
from smpvm.repairs.base import repair
from smpvm.vm.proc.glue import Glue


@repair(
    "swapout-held",
    "let a process be swapped out although the scan itself holds it",
    "swappable (vm_glue.c:384-386)",
)
class SwapoutHeld(Glue):
    """swappable() allows for the hold of the scan itself, so that idle processes do go."""

    def swappable(self, p: Proc) -> bool:
        held = p.p_lock & PLOCK_MASK
        return held <= 1 and not p.p_flags & (P_SYSTEM | P_SWAPPEDOUT | P_WEXIT)
