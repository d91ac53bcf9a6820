"""Swap completion against fault.

Situation: a page is only on swap.  Two threads of its process fault on it at once: one reads it in,
the other finds it busy; meanwhile the page-out daemon scans.  In the second scenario the page is in
memory, and its write to swap is in flight when the faults come; in the third that write fails.  In
the last, two faults compete for the last I/O buffer.

Threads: ``reader`` and ``writer`` of one process; ``pagedaemon``; the swap disk's thread, which
runs the completion.

What must hold: both threads see the page's data, and the store is kept, whatever happens to the
page; nothing is left busy, in I/O, or marked as being swapped.

Defects of the C: the completion of a failed write accesses the swap metadata of an object that it
does not hold (``swap-error-hold``); the release of a buffer wakes sleepers only if another one was
already free (``buffer-wakeup``).

C: swap_pager_getpage, swp_pager_async_iodone, vm_page_flash, vm_fault_object, vm_page_sleep_busy,
vm_pageout_scan_inactive, swap_pager_putpages, swap_pager_unswapped, getpbuf_kva,
relpbuf.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario


class SwapFault(VmScenario):
    """See the module."""

    name = "swap-fault"
    title = "swap completion against fault"

    def setup(self) -> None:
        """A page on swap."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.place()
        self.disks()
        self.thread("reader", self.reader, process=self.p)
        self.thread("writer", self.writer, process=self.p)
        self.pagedaemon(self.scans)

    def place(self) -> None:
        """Free the page as if it had been written to swap long ago."""
        vm, m = self.vm, self.page_at(self.p, VA)
        self.to_inactive(m, unmap=True)
        self.swapped(m.object, m.pindex, {0: 1})
        assert not vm.page.busy_try(m, True)
        vm.page.undirty(m)
        vm.page.free(m)

    def scans(self) -> None:
        """Both queues."""
        self.scan_active(pass_=9, avail=8)
        self.launder(2)

    def reader(self) -> None:
        """Read word 0."""
        got = self.read(self.p, VA)
        assert got == 1, f"word 0 reads {got}"

    def writer(self) -> None:
        """Write word 1, read both."""
        self.write(self.p, VA, 2, word=1)
        got = [self.read(self.p, VA, word) for word in (0, 1)]
        assert got == [1, 2], f"the page reads {got}"

    def check(self) -> None:
        """Both words."""
        got = [self.see(self.p, VA, word) for word in (0, 1)]
        assert got == [1, 2], f"the page reads {got} at the end"


class SwapWriteFault(SwapFault):
    """The page is dirty and inactive; the faults come during its write."""

    name = "swap-write-fault"
    title = "completion of a swap write against fault"

    def place(self) -> None:
        """Make the page ready to be laundered, and unmapped."""
        self.to_inactive(self.page_at(self.p, VA), unmap=True)


class SwapErrorFault(SwapWriteFault):
    """The write fails: the page must stay in memory, dirty."""

    name = "swap-error-fault"
    title = "completion of a failed swap write against fault"
    repairs = ("swap-error-hold",)

    def setup(self) -> None:
        """The next write fails."""
        super().setup()
        self.vm.swap.disk.fail_next("write")


class SwapBuffers(VmScenario):
    """Two page-ins and one free buffer (as if fifteen others were in use)."""

    name = "swap-buffers"
    title = "two page-ins for the last I/O buffer"
    repairs = ("buffer-wakeup",)

    def setup(self) -> None:
        """Two pages on swap."""
        self.p = self.process()
        self.map(self.p, pages=2)
        self.write(self.p, VA, 1)
        obj = self.object_at(self.p, VA)
        for i in range(2):
            self.swapped(obj, i, {0: i + 1})
        m = self.page_at(self.p, VA)
        self.to_inactive(m, unmap=True)
        assert not self.vm.page.busy_try(m, True)
        self.vm.page.undirty(m)
        self.vm.page.free(m)
        self.vm.swap.nsw_rcount.count = 1
        self.disks()
        for i in range(2):
            self.thread(f"reader {i + 1}", self.reader, i, process=self.p)

    def reader(self, i: int) -> None:
        """Read page *i*."""
        got = self.read(self.p, VA + i * PAGE_SIZE)
        assert got == i + 1, f"page {i} reads {got}"
