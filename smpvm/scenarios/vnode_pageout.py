"""Vnode page-out against a writer that holds the vnode and faults: the TIMELOCK path.

Situation: a dirty page of a mapped file is inactive.  A writer has the vnode locked exclusively (as
a file system does in VOP_READ or VOP_WRITE) and accesses the page, so that it faults: vnode lock
first, then the page.  The page-out daemon has the page first and needs the vnode.  So it must not
wait with the page busy: it holds the page, unbusies it, waits for the vnode with a timeout, and
rechecks everything.

Threads: ``pagedaemon`` scans twice (the second time the same vnode is only tried); ``writer``
faults on other memory first, locks the vnode, stores through its mapping, unlocks; the file disk
completes writes.  In ``vnode-slow`` the writer holds the vnode for longer than the daemon waits for
it, and there are two such pages.

The map lock, which faults take before the vnode lock, is taken after it here: there is no deadlock,
because both requests are shared, and with uiomove's TDF_DEADLKTREAT this one overtakes waiting
exclusive requests.

What must hold: no deadlock, with or without the timeout; no store is lost.

C: vm_pageout_scan_inactive (vm_pageout.c:990-1146), vget, vm_pageout_clean, vnode_pager_putpages,
vm_fault, vnode_pager_lock, vm_page_hold, vm_page_unhold.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.lockreq import LK_EXCLUSIVE
from smpvm.kern.thread import TDF_DEADLKTREAT
from smpvm.scenarios.base import VA, VmScenario, fixed

BUFFER = VA + 16 * PAGE_SIZE


class VnodePageout(VmScenario):
    """See the module."""

    name = "vnode-pageout"
    title = "vnode page-out against a writer that holds the vnode and faults (TIMELOCK)"
    mapped = False
    scans = 2
    stores = 1
    treat = TDF_DEADLKTREAT
    """What uiomove sets while it copies."""
    sizes = fixed(scans=1)

    def setup(self) -> None:
        """A file of one page, mapped, written to, inactive."""
        self.vp = self.file({0: 1}, {0: 1})
        self.page(self.vp.v_object, 0, words={0: 1})
        self.p = self.process()
        self.map(self.p, vp=self.vp)
        self.map(self.p, BUFFER)
        self.write(self.p, VA, 2)
        self.to_inactive(self.page_at(self.p, VA), unmap=not self.mapped)
        self.disks()
        self.start()

    def start(self) -> None:
        """The daemon and a writer."""
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("writer", self.writer, process=self.p)

    def writer(self) -> None:
        """VOP_READ into a buffer that is a mapping of the file itself."""
        vnode = self.k.vnode
        for i in range(self.stores):
            self.read(self.p, BUFFER)
            assert vnode.vn_lock(self.vp, LK_EXCLUSIVE) == 0
            self.uiomove(10 + i)
            vnode.vn_unlock(self.vp)

    def uiomove(self, value: int) -> None:
        """Copy out to the page."""
        td = self.k.curthread()
        td.flags |= self.treat
        self.write(self.p, VA, value)
        td.flags &= ~self.treat

    def check(self) -> None:
        """The store is in memory."""
        assert self.see(self.p, VA) == 9 + self.stores, "the store is not in memory"


class VnodeMapper(VnodePageout):
    """The map lock against the vnode lock with three threads, without page-out.

    ``writer`` holds the vnode and faults; ``reader`` faults on the same page, and so holds the map
    shared while it waits for the vnode; ``mapper`` waits for the map exclusively, and would block
    the writer's shared request without TDF_DEADLKTREAT.
    """

    name = "vnode-mapper"
    title = "a writer that holds the vnode and faults, a fault, and mmap"

    def start(self) -> None:
        """Three threads of the process."""
        self.thread("writer", self.writer, process=self.p)
        self.thread("reader", self.read, self.p, VA, process=self.p)
        self.thread("mapper", self.map, self.p, VA + 32 * PAGE_SIZE, process=self.p)


class VnodeSlow(VnodePageout):
    """The writer holds the vnode for a tenth of a second: the daemon times out, then only tries."""

    name = "vnode-slow"
    title = "vnode page-out against a slow holder of the vnode (TIMELOCK, then NOWAIT)"

    def setup(self) -> None:
        """A second dirty page of the file."""
        super().setup()
        self.page(self.vp.v_object, 1, words={0: 1}, dirty=True)

    def writer(self) -> None:
        """A VOP_WRITE that waits for a device write."""
        vnode, k = self.k.vnode, self.k
        assert vnode.vn_lock(self.vp, LK_EXCLUSIVE) == 0
        k.sleep.tsleep(self, 0, "slow", k.hz // 10, cond=lambda: False)
        self.uiomove(10)
        vnode.vn_unlock(self.vp)
