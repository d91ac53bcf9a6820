"""The request for swap-out against the sleep of the swap daemon.

Situation: the page-out daemon is short of memory twice within a second and requests swap-out each
time; the swap daemon may be about to sleep, asleep, or just done with the previous request.

Threads: ``pagedaemon`` makes two requests; ``vmdaemon`` is the swap daemon.

What must hold: at rest no request is pending, and the swap daemon does not sleep while one is.

Defects of the C: the request is set after the wakeup, and not atomically; a second request within
a second causes no wakeup (``swapout-ask``); the daemon clears requests made while it was working,
and sleeps without checking for one (``swapout-take``).

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
        """Make the requests; then give the swap daemon three seconds."""
        for _ in range(self.asks):
            self.vm.pageout.cache_request_swapout()
        self.k.sleep.tsleep(self, 0, "later", 3 * self.k.hz, cond=lambda: False)

    def check(self) -> None:
        """No request is pending."""
        assert not self.vm.vmdaemon.swapout_requested(), "a request is pending, the daemon sleeps"
