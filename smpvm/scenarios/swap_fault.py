"""Swap completion against fault.

Situation: a page is on swap only.  Two threads of its process fault on it at once: one reads it in,
the other finds it busy; once it is there the page-out daemon scans.  In the second scenario the
page is in memory with its write to swap in flight, when the faults come.

Threads: ``reader`` and ``writer`` of one process; ``pagedaemon``; the swap disk's thread, which runs
the completion.

What must hold: both see the page as it was, the store is kept, whatever the page's fate; nothing is
left busy, in I/O, or marked as being swapped.

C: swap_pager_getpage, swp_pager_async_iodone, vm_page_flash, vm_fault_object, vm_page_sleep_busy,
vm_pageout_scan_inactive, swap_pager_putpages, swap_pager_unswapped.
"""

from __future__ import annotations

from smpvm.scenarios.small import VA, Situation, expect


class SwapFault(Situation):
    """See the module."""

    name = "swap-fault"
    title = "swap completion against fault"

    def set_up(self) -> None:
        """A page on swap."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.place()
        self.disks()

    def place(self) -> None:
        """Throw the page out as if it had been written long ago."""
        vm, m = self.vm, self.page_at(self.p, VA)
        self.to_inactive(m, unmap=True)
        self.swapped(m.object, m.pindex, {0: 1})
        assert not vm.page.busy_try(m, True)
        vm.page.undirty(m)
        vm.page.free(m)

    def threads(self) -> None:
        """Two threads of the process, and the daemon."""
        self.spawn("reader", self.reader, self.p)
        self.spawn("writer", self.writer, self.p)
        self.pagedaemon(self.scans)

    def scans(self) -> None:
        """Both queues."""
        self.scan_active(pass_=9, avail=8)
        self.scan(pass_=1)

    def reader(self) -> None:
        """Read word 0."""
        got = self.read(self.p, VA)
        expect(got == 1, f"word 0 reads {got}")

    def writer(self) -> None:
        """Write word 1, read both."""
        self.write(self.p, VA, 2, word=1)
        got = [self.read(self.p, VA, word) for word in (0, 1)]
        expect(got == [1, 2], f"the page reads {got}")

    def check(self) -> None:
        """Both words."""
        got = [self.read(self.p, VA, word) for word in (0, 1)]
        expect(got == [1, 2], f"the page reads {got} at the end")


class SwapWriteFault(SwapFault):
    """The page is dirty and inactive; the faults meet its write."""

    name = "swap-write-fault"
    title = "completion of a swap write against fault"

    def place(self) -> None:
        """Ready to be laundered, and not mapped."""
        self.to_inactive(self.page_at(self.p, VA), unmap=True)
