"""Repairs of the swap-out request, which the page-out daemon makes and the swap daemon serves.

In the C the request is a plain int.  The page-out daemon wakes the swap daemon first and sets a bit
afterwards (vm_pageout.c:1495-1496); within a second of the last wakeup it does not even wake it
(:2113-2118).  The swap daemon clears the whole request after acting on what it read (:2133-2137),
and sleeps without checking for a request (:2133).  So a request can be lost, or remain for ever.

Neither repair has an effect while the defect ``swapout-held`` remains: nothing is swapped out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.repairs.base import repair
from smpvm.vm.pageout.daemon import Pageout
from smpvm.vm.pageout.vmdaemon import VmDaemon
from smpvm.vm.param import VM_SWAP_IDLE, VM_SWAP_NORMAL

if TYPE_CHECKING:
    from smpvm.vm.vm import Vm

_REQUEST = "vm_pageout_req_swapout"


@repair(
    "swapout-ask",
    "Store a swap-out request atomically, before waking the swap daemon",
    "vm_pageout_scan_cache (vm_pageout.c:1495-1496)",
)
class SwapoutAsk(Pageout):
    """Store the request atomically, then wake the swap daemon."""

    def cache_request_swapout(self) -> None:
        """vm_pageout.c:1495-1496 in the opposite order."""
        self._ask(VM_SWAP_NORMAL)

    def cache_idle_swap(self) -> None:
        """The same for idle processes (vm_pageout.c:1475-1482)."""
        now = self.k.clock.time_uptime()
        if self.vm.sysctl.swap_idle_enabled and now != self.lsec:
            self.k.curthread().hit("vm_pageout_scan_cache:idle-swap")
            self._ask(VM_SWAP_IDLE)
            self.lsec = now

    def _ask(self, bits: int) -> None:
        self.k.atomic.set_int(self.vm.glob, _REQUEST, bits)
        self.vm.vmdaemon.req_vmdaemon()


@repair(
    "swapout-take",
    "Take a swap-out request in one step, and check for one before sleeping",
    "vm_daemon, vm_req_vmdaemon (vm_pageout.c:2113-2118, 2133-2137)",
)
class SwapoutTake(VmDaemon):
    """Take the request in one step, check for one before sleeping, and wake for every request.

    The limit of one swap-out a second is now kept by the swap daemon itself.
    """

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self._due = 0
        """The tick before which no swap-out starts."""

    def req_vmdaemon(self) -> None:
        """vm_req_vmdaemon: its limit of once a second applies only to calls without a request."""
        if self.swapout_requested():
            self.k.curthread().hit("vm_req_vmdaemon")
            self.k.sleep.wakeup(self.vm.idents.vm_daemon_needed)
        else:
            super().req_vmdaemon()

    def daemon_sleep(self) -> None:
        """Sleep unless there is a request; if there is one, wait for the rest of the second."""
        k, ident = self.k, self.vm.idents.vm_daemon_needed
        k.sleep.tsleep_interlock(ident)
        if not self.swapout_requested():
            k.sleep.tsleep(ident, PINTERLOCKED, "psleep", 0, cond=self.swapout_requested)
        early = self._due - k.carrier.ticks()
        if early > 0 and self.swapout_requested():
            k.sleep.tsleep(self, 0, "swpace", early, cond=lambda: False)

    def daemon_swapout(self) -> None:
        """vm_pageout.c:2134-2137 with the request taken before it is served."""
        request = self.k.atomic.swap_int(self.vm.glob, _REQUEST, 0)
        if request:
            self.k.curthread().hit("vm_daemon:swapout")
            self.vm.glue.swapout_procs(request)
            self._due = self.k.carrier.ticks() + self.k.hz
