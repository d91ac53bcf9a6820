"""Object terminate against scan.

Situation: the last references to two anonymous objects are released, one after the other, while
their dirty pages are on the inactive queue and the page-out daemon launders them.  Terminate waits
for I/O, busies and frees each page and frees the swap; the scan may have a page busy, may have
written it, or may find its object dead.

Threads: ``owner`` releases the objects; ``pagedaemon`` scans; the swap disk completes writes.

What must hold: both end; all pages are free; the objects are gone, and their swap with them.

Defect of the C: vm_pageout_clean drops the object, and only then vm_pageout_flush counts its write
as paging in progress; terminate may check in between (``clean-counted``).

C: vm_object_deallocate, vm_object_terminate, vm_object_terminate_callback, vm_object_pip_wait,
swap_pager_dealloc, vm_pageout_scan_inactive, vm_pageout_clean, vm_pageout_flush,
swp_pager_async_iodone.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario, fixed


class TerminateScan(VmScenario):
    """See the module."""

    name = "terminate-scan"
    title = "object terminate against scan"
    repairs = ("clean-counted",)
    dirty_pages = 2
    sizes = fixed(dirty_pages=1)

    def setup(self) -> None:
        """Dirty pages of an object with one reference."""
        self.obj = self.object(swap=True)
        self.objects.remove(self.obj)
        for i in range(self.dirty_pages):
            self.page(self.obj, i, words={0: i + 1}, dirty=True)
        self.first = self.object(swap=True)
        self.objects.remove(self.first)
        self.page(self.first, 0, dirty=True)
        self.disks()
        self.pagedaemon(lambda: self.scan(pass_=1))
        self.thread("owner", self.owner)

    def owner(self) -> None:
        """Release both objects, as at exit."""
        self.vm.object.deallocate(self.first)
        self.vm.object.deallocate(self.obj)

    def check(self) -> None:
        """Nothing is left."""
        assert self.vm.stats.v_free_count == self.pages, "not every page is free"
        assert self.obj not in self.vm.object.all_objects(), "the object is still listed"
        assert self.vm.swap.blocks_in_use() == 0, "swap is left"
