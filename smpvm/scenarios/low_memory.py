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

In ``kill-wait`` nothing can be made free: a process waits for memory in a fault, and the page-out
daemon kills it.  It must be told, and not find out when its timer has run out.

C: vm_page_alloc, vm_wait, vm_wait_pfault, pagedaemon_wakeup, vm_pageout_thread,
vm_pageout_scan_inactive, vm_pageout_scan_cache, vm_page_free_toq, vm_page_free_wakeup, killproc.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario, fixed
from smpvm.vm.page.struct import VM_ALLOC_NORMAL
from smpvm.vm.proc.process import ProcessKilled, SegFault


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


class KillWait(VmScenario):
    """See the module."""

    name = "kill-wait"
    title = "a process that waits for memory in a fault, against its kill"
    repairs = ("free-wait",)

    def setup(self) -> None:
        """A process with one page of two, and no memory left."""
        self.p = self.process()
        self.map(self.p, pages=2)
        self.write(self.p, VA, 1)
        self.waste(0)
        self.limits(free_reserved=2, free_min=2, free_severe=1, free_target=3)
        self.thread("victim", self.victim, process=self.p)
        self.pagedaemon(self.vm.pageout.kill_biggest)

    def victim(self) -> None:
        """Touch the other page: only the kill ends the fault."""
        try:
            self.write(self.p, VA + PAGE_SIZE, 2)
        except (ProcessKilled, SegFault):
            return
        raise AssertionError("the store has found memory")
