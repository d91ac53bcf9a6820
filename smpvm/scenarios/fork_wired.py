"""Fork of a wired mapping: its pages are copied at once.

Situation: a process has locked two pages of its memory; when it forks, the child gets copies, and
no copy-on-write, so that the parent's pages stay where they are.

Threads: ``parent`` forks, stores, waits for the child; ``writer``, another thread of the process,
stores to the second page; ``pagedaemon`` scans both queues; the child reads and stores.

What must hold: nobody sees the other's stores; wired pages stay wired, copies are on a queue.

True defect of the seed: ``alloc-wanted``, very rarely.

C: sys_mlock, vm_map_unwire, fork1, vmspace_fork, vm_map_copy_entry, vm_fault_copy_entry,
pmap_enter, vm_wait, vm_pageout_scan_inactive, vm_pageout_scan_active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario, fixed

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class ForkWired(VmScenario):
    """See the module."""

    name = "fork-wired"
    title = "fork of a wired mapping against stores and page-out"
    repairs = ("alloc-wanted",)
    sysctls = fixed(page_max_wired=64)
    pages = 8

    def setup(self) -> None:
        """Two locked pages."""
        self.p = self.process()
        self.map(self.p, pages=2)
        for i in range(2):
            self.write(self.p, VA + i * PAGE_SIZE, 1)
        assert self.vm.process.sys.mlock(self.p, VA, 2 * PAGE_SIZE) == 0
        self.disks()
        self.pagedaemon(self.scans)
        self.thread("parent", self.parent, process=self.p)
        self.thread("writer", self.write, self.p, VA + PAGE_SIZE, 4, process=self.p)

    def scans(self) -> None:
        """Both queues."""
        self.scan_active()
        self.launder()

    def parent(self) -> None:
        """Fork, store, wait."""
        process = self.vm.process
        process.fork1(self.p, self.child, name="child")
        self.write(self.p, VA, 2)
        process.wait(self.p)

    def child(self, q: Proc) -> None:
        """What was there at the fork."""
        got = [self.read(q, VA), self.read(q, VA + PAGE_SIZE)]
        assert got in ([1, 1], [1, 4]), f"the child reads {got}"
        self.write(q, VA, 3)
        assert self.read(q, VA) == 3, "the child's store is lost"

    def check(self) -> None:
        """The parent's stores."""
        got = [self.see(self.p, VA), self.see(self.p, VA + PAGE_SIZE)]
        assert got == [2, 4], f"the pages read {got} at the end"
