"""Low-memory waiters against the page-out daemon's wakeups.

Situation: too few free pages to allocate one, and three clean inactive pages.  Two threads allocate
a page each and wait for memory if there is none; the page-out daemon must be woken, free pages, and
wake the waiting threads.

Threads: ``user 1``, ``user 2`` allocate, waiting with vm_wait as vm_page_grab does; ``pagedaemon``
runs its rounds.

In another scenario a process waits for memory in a fault while ``pagedaemon`` kills it.

What must hold: each thread gets a page, and not because a timeout expired: no thread may sleep on a
condition that holds.

Defects of the C: vm_wait and vm_pageout_thread check their condition and then sleep in two steps,
so a wakeup in between is lost until the timeout (``free-wait``, ``pagedaemon-wait``); so does the
daemon when it backs off (``back-off-wait``).  pagedaemon_wakeup sees a pending request, the daemon
takes it and goes to sleep, and the request then added causes no wakeup (``request-hint``).

C: vm_page_alloc, vm_wait, pagedaemon_wakeup, vm_pageout_thread, vm_pageout_scan_inactive,
vm_pageout_scan_cache, vm_page_free_toq, vm_page_free_wakeup.
"""

from __future__ import annotations

from smpvm.scenarios.base import VA, VmScenario, fixed
from smpvm.vm.page.struct import VM_ALLOC_NORMAL


class LowMemory(VmScenario):
    """See the module."""

    name = "low-memory"
    title = "low-memory waiters against the page-out daemon's wakeups"
    repairs = ("free-wait", "pagedaemon-wait", "back-off-wait", "request-hint", "deficit-count")
    users = 2
    sizes = fixed(users=1)

    def setup(self) -> None:
        """Few free pages, few that can be freed."""
        obj = self.object()
        for i in range(3):
            self.page(obj, i)
        self.own = self.object()
        self.waste(1)
        self.limits(free_reserved=2, free_min=2, free_severe=1, free_target=3)
        self.limits(pageout_free_min=1, interrupt_free_min=0)
        self.pagedaemon()
        for i in range(self.users):
            self.thread(f"user {i + 1}", self.user, i)

    def user(self, pindex: int) -> None:
        """vm_page_alloc until it succeeds."""
        vm = self.vm
        vm.object.hold(self.own)
        while (m := vm.page.alloc(self.own, pindex, VM_ALLOC_NORMAL)) is None:
            vm.page.vm_wait(0)
        m.valid = 0xFF
        vm.page.activate(m)
        vm.page.wakeup(m)
        vm.object.drop(self.own)


class FaultKill(VmScenario):
    """A fault that waits for memory, against the kill of its process.

    The kill wakes those who wait for memory, so that the victim notices (vm_pageout.c:1540); a kill
    between the fault's check and its sleep is noticed when the timer ends (``free-wait``).
    """

    name = "fault-kill"
    title = "a fault that waits for memory against the kill of its process"
    repairs = ("free-wait",)

    def setup(self) -> None:
        """Memory severely short, and nothing that could be freed."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.limits(free_reserved=8, free_min=8, free_severe=8, free_target=9)
        self.pagedaemon(self.vm.pageout.kill_biggest)
        self.thread("proc", self.vm.page.vm_wait_pfault, process=self.p)
