"""A vnode's owner that waits for memory, while the page-out daemon wants the vnode.

Situation: no page is free.  A thread has a vnode locked, as in VOP_WRITE, and needs a page of the
file for its buffer; the pages that the daemon could make free are this file's dirty one, and behind
it in the queue a process's.

Threads: ``writer`` locks the vnode, gets the page, waiting for memory, and unlocks; ``pagedaemon``
runs its rounds: it may wait for the vnode for a bounded time only; the disks complete writes.

What must hold: the writer gets its page, the file's page keeps what it holds.  The daemon's time
limit is how that is meant to end, so a wait that a timer breaks is no finding here.

C: vm_page_grab, vm_wait, vm_pageout_scan_inactive, vget (LK_TIMELOCK, LK_NOWAIT), vm_pageout_clean,
vm_pageout_thread, vm_page_free_wakeup.
"""

from __future__ import annotations

from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RETRY
from smpvm.scenarios.base import VA, VmScenario
from smpvm.scenarios.severe_memory import WAITS
from smpvm.vm.page.struct import VM_ALLOC_NORMAL, VM_ALLOC_RETRY


class VnodeMemory(VmScenario):
    """See the module."""

    name = "vnode-memory"
    title = "a vnode's owner that waits for memory against page-out of the file"
    repairs = WAITS
    pages = 5

    def setup(self) -> None:
        """A dirty page of a file, a dirty one of a process, nothing free."""
        self.vp = self.file({0: 1}, {0: 1})
        self.page(self.vp.v_object, 0, words={0: 2}, dirty=True)
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 3)
        self.to_inactive(self.page_at(self.p, VA), unmap=True)
        self.waste(0)
        self.limits(free_reserved=1, free_severe=1, free_min=1, free_target=2)
        self.limits(pageout_free_min=1, interrupt_free_min=0)
        self.disks()
        self.pagedaemon()
        self.thread("writer", self.writer)

    def writer(self) -> None:
        """The part of VOP_WRITE that gets a page for the buffer."""
        vm, vnode = self.vm, self.k.vnode
        assert vnode.vget(self.vp, LK_EXCLUSIVE | LK_RETRY) == 0
        m = vm.page.grab(self.vp.v_object, 1, VM_ALLOC_NORMAL | VM_ALLOC_RETRY)
        assert m is not None
        vm.pmap.write_contents(m, {0: 5})
        m.valid = 0xFF
        vm.page.activate(m)
        vm.page.wakeup(m)
        vnode.vput(self.vp)

    def check(self) -> None:
        """Both pages are as they were."""
        found = self._stored(self.vp.v_object, 0)
        assert found == (True, {0: 2}), f"the file's page: {found}"
        assert self.see(self.p, VA) == 3, "the process's page is lost"
