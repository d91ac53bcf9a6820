"""Low-memory waiters against the page-out daemon's wakeups.

Situation: too few free pages to allocate one, and three clean inactive pages.  Two threads allocate
a page each and wait for memory if there is none; the page-out daemon must be woken, free pages, and
wake the waiting threads.

Threads: ``user 1``, ``user 2`` allocate, waiting with vm_wait as vm_page_grab does; ``pagedaemon``
runs its rounds.

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

from smpvm.scenarios.base import VmScenario, fixed
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
