"""Collapse against completion of swap I/O, with swap full.

Situation: a process's object shadows one that a child's space shares.  Pages of both are on swap,
being written there, or dirty, and swap has no room but for one page more.

Threads: ``exit`` releases the child's space, so that the objects are collapsed and their swap moves
over; ``pagedaemon`` writes pages; ``owner`` stores to one page and reads the others; the swap
disk's thread completes.

What must hold: every page reads as it was stored last; no swap block is lost or owned twice; no
page is clean that is nowhere else.

C: vm_object_collapse, vm_object_backing_scan_callback, swap_pager_copy, swp_pager_meta_ctl,
swap_pager_putpages, swp_pager_getswapspace, swp_pager_async_iodone, swap_pager_unswapped,
vm_object_pip_wait, vm_page_rename.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario


class CollapseFull(VmScenario):
    """See the module."""

    name = "collapse-full"
    title = "collapse against completion of swap I/O, with swap full"
    repairs = ("alloc-wanted",)
    pages = 8
    room = 1

    def setup(self) -> None:
        """Page 0 in both objects, page 1 below, page 2 below and on swap only."""
        self.p = self.process()
        self.map(self.p, pages=3)
        for i in range(3):
            self.write(self.p, VA + i * PAGE_SIZE, i + 1)
        self.throw_out(self.page_at(self.p, VA + 2 * PAGE_SIZE))
        self.child = self.vm.vmspace.fork(self.p.p_vmspace)
        self.write(self.p, VA, 4)
        for m in self.vm.page_array:
            if m.object is not None:
                self.to_inactive(m)
        other = self.object(64, swap=True)
        for i in range(self.vm.config.swap_pages - 1 - self.room):
            self.swapped(other, i, {0: 9})
        self.disks()
        self.thread("exit", self.vm.vmspace.rel, self.child)
        self.pagedaemon(self.launder)
        self.thread("owner", self.owner, process=self.p)

    def owner(self) -> None:
        """Store to page 0, read the others."""
        self.write(self.p, VA, 5)
        got = [self.read(self.p, VA + i * PAGE_SIZE) for i in (1, 2)]
        assert got == [2, 3], f"the other pages read {got}"

    def check(self) -> None:
        """All pages."""
        got = [self.see(self.p, VA + i * PAGE_SIZE) for i in range(3)]
        assert got == [5, 2, 3], f"the pages read {got} at the end"
