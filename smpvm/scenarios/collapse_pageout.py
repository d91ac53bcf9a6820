"""Collapse against page-out.

Situation: a process has forked and then written to one of its two pages: its object shadows one
that the child's address space shares.  The child's space is released, so that the shadowed object
is collapsed into the shadow, page by page, while the page-out daemon launders pages of both.

Threads: ``exit`` releases the child's space; ``pagedaemon`` scans; ``owner`` stores to its
copied page and reads the other; the swap disk completes writes.

What must hold: no page is lost: the copied page reads as last stored, the other as before the fork;
no swap block is lost or owned twice; no object is left behind.

C: vm_object_deallocate_locked, vm_object_collapse, vm_object_backing_scan_callback, vm_page_rename,
swap_pager_copy, vm_object_pip_wait, vm_pageout_clean, vm_pageout_flush, swp_pager_async_iodone.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario


class CollapsePageout(VmScenario):
    """See the module."""

    name = "collapse-pageout"
    title = "collapse against page-out"
    pages = 8

    def setup(self) -> None:
        """A shadow over a shared object; three dirty inactive pages."""
        vm = self.vm
        self.p = self.process()
        self.map(self.p, pages=2)
        self.write(self.p, VA, 1)
        self.write(self.p, VA + PAGE_SIZE, 2)
        self.child = vm.vmspace.fork(self.p.p_vmspace)
        self.write(self.p, VA, 3)
        for m in vm.page_array:
            if m.object is not None:
                self.to_inactive(m)
        self.disks()
        self.thread("exit", self.vm.vmspace.rel, self.child)
        self.pagedaemon(self.launder)
        self.thread("owner", self.owner, process=self.p)

    def owner(self) -> None:
        """Store to page 0, read page 1."""
        self.write(self.p, VA, 4)
        got = self.read(self.p, VA + PAGE_SIZE)
        assert got == 2, f"page 1 reads {got}"

    def check(self) -> None:
        """Both pages."""
        got = [self.see(self.p, va) for va in (VA, VA + PAGE_SIZE)]
        assert got == [4, 2], f"the pages read {got} at the end"
