"""A process that is killed while its pages are read in from swap.

Situation: the page-out daemon is out of swap and kills the biggest process, which is waiting for a
page to be read in, or for memory; another process shares its memory.

Threads: ``big`` reads two pages that are on swap, then exits; ``small``, its child, reads one of
them; ``pagedaemon`` kills; the swap disk's thread completes the reads.

What must hold: the killed one ends, whatever it waits for; the other reads what is there; nothing
of the killed one is left busy, held, or on swap.

True defect of the seed: ``kill-flag``.

C: vm_pageout_scan_cache, vm_pageout_scan_callback, killproc, vm_fault, vm_fault_object,
swap_pager_getpage, swp_pager_async_iodone, vm_wait_pfault, userret, exit1, vmspace_relexit,
vm_map_delete, vm_object_deallocate_locked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class KillSwapin(VmScenario):
    """See the module."""

    name = "kill-swapin"
    title = "a kill for want of memory against swap-in"
    repairs = ("kill-flag", "alloc-wanted")

    def setup(self) -> None:
        """Two pages on swap, shared by a fork; the parent has a third."""
        self.p = self.process()
        self.map(self.p, pages=3)
        for i in range(2):
            self.write(self.p, VA + i * PAGE_SIZE, i + 1)
        for i in range(2):
            self.throw_out(self.page_at(self.p, VA + i * PAGE_SIZE))
        self.q = self.process()
        self.vm.vmspace.rel(self.q.p_vmspace)
        self.q.p_vmspace = self.vm.vmspace.fork(self.p.p_vmspace)
        self.write(self.p, VA + 2 * PAGE_SIZE, 3)
        self.disks()
        self.pagedaemon(self.vm.pageout.kill_biggest)
        run = self.vm.process.run
        run = self.vm.process.run
        self.thread("big", run, self.p, self.both, process=self.p)
        self.thread("small", run, self.q, self.one, process=self.q)

    def both(self, p: Proc) -> None:
        """Both pages; store to one."""
        got = [self.read(p, VA + i * PAGE_SIZE) for i in range(2)]
        assert got == [1, 2], f"the parent reads {got}"
        self.write(p, VA, 5)

    def one(self, q: Proc) -> None:
        """The second page."""
        got = self.read(q, VA + PAGE_SIZE)
        assert got == 2, f"the child reads {got}"

    def check(self) -> None:
        """Both have ended."""
        assert not self.k.proc.all(), "a process is left"
