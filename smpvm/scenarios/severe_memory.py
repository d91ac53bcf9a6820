"""Memory is severely short: faults that stall, the daemon that writes, and its own wait.

Situation: fewer pages are free than v_free_severe.  A process faults on new memory, and on a page
that is in the cache; both stall its thread.  All other pages are dirty and anonymous, so that the
page-out daemon has to write them before anything is free.

Threads: ``writer`` stores to a new page, ``reader`` reads the cached one; ``pagedaemon`` runs its
rounds; the swap disk's thread completes writes, and puts the pages in front of those that are used.
In the second scenario the daemon itself needs a page in the middle of a write, as the buffer cache
does for it in VOP_WRITE, and waits until a process that exits gives some back.

What must hold: both get what they need, and not because a timer ran out; no store is lost.

True defects of the seed: the waits of low-memory.

C: vm_page_count_severe, vm_wait_pfault, vm_wait, vm_fault_object, vm_pageout_flush,
swp_pager_async_iodone, vm_pageout_thread, vm_page_alloc, vm_page_grab, vm_page_free_wakeup.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario
from smpvm.vm.page.struct import VM_ALLOC_NORMAL, VM_ALLOC_RETRY

WAITS = ("free-wait", "pagedaemon-wait", "back-off-wait", "request-hint", "deficit-count")


class SevereFault(VmScenario):
    """See the module."""

    name = "severe-fault"
    title = "faults against page-out when memory is severely short"
    repairs = WAITS
    pages = 8

    def setup(self) -> None:
        """Three dirty pages, a cached one, one free."""
        self.p = self.process()
        self.map(self.p, pages=5)
        for i in range(4):
            self.write(self.p, self.at(i), i + 1)
        for i in range(4):
            self.to_inactive(self.page_at(self.p, self.at(i)), unmap=True)
        m = self.object_at(self.p, VA).rb_memq.lookup(3)
        assert m is not None
        self.swapped(m.object, 3, {0: 4})
        assert not self.vm.page.busy_try(m, True)
        self.vm.page.undirty(m)
        self.vm.page.cache(m)
        self.waste(1)
        self.limits(free_reserved=2, free_severe=3, free_min=3, free_target=4)
        self.limits(pageout_free_min=1, interrupt_free_min=0)
        self.disks()
        self.pagedaemon()
        self.start()

    def at(self, i: int) -> int:
        """The address of page *i*."""
        return VA + i * PAGE_SIZE

    def start(self) -> None:
        """Two threads of the process."""
        self.thread("writer", self.write, self.p, self.at(4), 9, process=self.p)
        self.thread("reader", self.reader, process=self.p)

    def reader(self) -> None:
        """The cached page."""
        got = self.read(self.p, self.at(3))
        assert got == 4, f"the cached page reads {got}"

    def check(self) -> None:
        """All pages."""
        got = [self.see(self.p, self.at(i)) for i in range(5)]
        assert got == [1, 2, 3, 4, 9], f"the pages read {got} at the end"


class DaemonWaits(VmScenario):
    """The daemon needs a page itself."""

    name = "daemon-waits"
    title = "the page-out daemon's own wait for memory"
    repairs = ("free-wait",)
    pages = 4

    def setup(self) -> None:
        """Nothing is free, a process has two pages."""
        self.p = self.process()
        self.map(self.p, pages=2)
        for i in range(2):
            self.write(self.p, VA + i * PAGE_SIZE, 1)
        self.buffers = self.object()
        self.waste(0)
        self.limits(free_reserved=1, free_severe=1, free_min=1, free_target=2)
        self.limits(pageout_free_min=1, interrupt_free_min=0)
        self.pagedaemon(self.buffer)
        self.thread("proc", self.vm.process.run, self.p, self.use, process=self.p)

    def buffer(self) -> None:
        """A page for a buffer, in the middle of VOP_WRITE."""
        m = self.vm.page.grab(self.buffers, 0, VM_ALLOC_NORMAL | VM_ALLOC_RETRY)
        assert m is not None
        m.valid = 0xFF
        self.vm.page.activate(m)
        self.vm.page.wakeup(m)

    def use(self, p: object) -> None:
        """Read a page, then exit."""
        assert self.read(self.p, VA) == 1, "the page is lost"
