"""The request for swap-out, and the swap daemon that sleeps.

Situation: the page-out daemon is short of memory twice within a second and asks for swap-out each
time; the swap daemon may be just going to sleep, asleep, or just done with the request before.

Threads: ``pagedaemon`` asks twice; ``vmdaemon`` is the swap daemon.

What must hold: when all is quiet no request is left standing, and the swap daemon does not sleep
for one that has been made.

True defects of the seed: it wakes first and says what for afterwards, unatomically; within a second
it does not wake at all; the daemon clears what came in while it worked, and sleeps without a look
(``swapout-ask``, ``swapout-take``).

C: vm_pageout_scan_cache (vm_pageout.c:1495-1496), vm_req_vmdaemon, vm_daemon, swapout_procs,
allproc_scan.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario, fixed


class SwapoutRequest(VmScenario):
    """See the module."""

    name = "swapout-request"
    title = "vmdaemon request and sleep"
    repairs = ("swapout-ask", "swapout-take")
    asks = 2
    sizes = fixed(asks=1)
    pages = 2

    def setup(self) -> None:
        """The swap daemon has not run for long."""
        self.vm.vmdaemon.lastrun = -1000
        td = self.daemon("vmdaemon", self.vm.vmdaemon.daemon)
        self.vm.vmdaemon.vmthread = td
        self.pagedaemon(self.ask)

    def ask(self) -> None:
        """Ask each time that memory is short; then let the swap daemon have three seconds."""
        for _ in range(self.asks):
            self.vm.pageout.cache_request_swapout()
        self.k.sleep.tsleep(self, 0, "later", 3 * self.k.hz, cond=lambda: False)

    def check(self) -> None:
        """Nothing stands."""
        assert not self.vm.vmdaemon.swapout_requested(), "a request is left, the daemon sleeps"
