"""Vnode page-out against a writer that holds the vnode and faults: the TIMELOCK path.

Situation: a dirty page of a mapped file is inactive.  A writer has the vnode locked exclusively
(as in VOP_WRITE) and touches the page, so that it faults: vnode lock first, then the page.  The
page-out daemon has the page first and needs the vnode.  So it must not wait with the page busy: it
holds the page, unbusies it, waits for the vnode a bounded time, and looks at everything again.

Threads: ``pagedaemon`` scans twice (the second time the same vnode is only tried);
``writer`` locks the vnode, stores through its mapping, unlocks; the file disk completes writes.

What must hold: no deadlock, with or without the timer; no store is lost, in memory or in the file
after a last fsync.

C: vm_pageout_scan_inactive (vm_pageout.c:990-1146), vget, vm_pageout_clean, vnode_pager_putpages,
vm_fault, vnode_pager_lock, vm_page_hold, vm_page_unhold.
"""

from __future__ import annotations

from smpvm.kern.lockmgr import LK_EXCLUSIVE
from smpvm.scenarios.small import VA, Situation, expect


class VnodePageout(Situation):
    """See the module."""

    name = "vnode-pageout"
    title = "vnode page-out against a writer that holds the vnode and faults (TIMELOCK)"
    scans = 2
    stores = 1
    sizes = {"scans": 1}

    def set_up(self) -> None:
        """A file of one page, mapped, written to, inactive."""
        self.vp = self.file({0: 1})
        self.page(self.vp.v_object, 0, words={0: 1})
        self.p = self.process()
        self.map(self.p, vp=self.vp)
        self.write(self.p, VA, 2)
        self.to_inactive(self.page_at(self.p, VA))
        self.disks()

    def threads(self) -> None:
        """The daemon and a writer."""
        self.pagedaemon(lambda: [self.scan(pass_=1) for _ in range(self.scans)])
        self.spawn("writer", self.writer, self.p)

    def writer(self) -> None:
        """VOP_WRITE from a buffer that is a mapping of the file itself."""
        vnode = self.k.vnode
        for i in range(self.stores):
            assert vnode.vn_lock(self.vp, LK_EXCLUSIVE) == 0
            self.write(self.p, VA, 10 + i)
            vnode.vn_unlock(self.vp)

    def check(self) -> None:
        """The store is in memory."""
        expect(self.read(self.p, VA) == 9 + self.stores, "the store is not in memory")
