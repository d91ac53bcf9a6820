"""Fault against page-out of the same page: busy, flush, protect.

Situation: a process has written one page, which is now on the inactive queue, dirty and unmapped
(``mapped``: still mapped, so that a store needs no fault until the page is protected).  The
page-out daemon launders it (busy; soft busy and read-only; swap write in flight; clean) and caches
it in its second scan, while the process keeps writing to it.

Threads: ``pagedaemon`` scans twice; ``writer`` stores and reads back twice; the swap disk's thread
completes the write.

What must hold: no store is lost, whether it has reached the hardware bit, the page bits or the swap
block when the page goes; no thread waits forever; nothing is left busy or in I/O.

C: vm_pageout_scan_inactive, vm_pageout_clean, vm_pageout_flush, vm_page_protect, pmap_clearbit,
swap_pager_putpages, swp_pager_async_iodone, vm_fault, vm_fault_object, vm_page_lookup_busy_try,
vm_page_sleep_busy, pmap_enter.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario, fixed


class FaultPageout(VmScenario):
    """See the module."""

    name = "fault-pageout"
    title = "fault against page-out of the same page (busy, flush, protect)"
    mapped = False
    scans = 2
    stores = 2
    sizes = fixed(scans=1, stores=1)

    def setup(self) -> None:
        """One dirty inactive page, mapped."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.to_inactive(self.page_at(self.p, VA), unmap=not self.mapped)
        self.disks()
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("writer", self.writer, process=self.p)

    def writer(self) -> None:
        """Store and read back."""
        for i in range(self.stores):
            self.write(self.p, VA, 10 + i)
            got = self.read(self.p, VA)
            assert got == 10 + i, f"the writer stored {10 + i} and reads {got}"

    def check(self) -> None:
        """The last store is read back."""
        got = self.see(self.p, VA)
        assert got == 9 + self.stores, f"the page reads {got} at the end"


class StorePageout(FaultPageout):
    """The page is still mapped writeable when the daemon scans it."""

    name = "store-pageout"
    title = "stores through a live mapping against page-out of the page"
    mapped = True

    def writer(self) -> None:
        """The same after an access elsewhere, so that the daemon may come first."""
        self.read(self.p, self.map(self.p, VA + 16 * PAGE_SIZE))
        super().writer()

    def launder(self, scans: int = 1) -> None:
        """And then the active queue, to which the stores have moved the page."""
        super().launder(scans)
        self.scan_active(pass_=20, avail=8)
        self.vm.pageout.cache_drain()
