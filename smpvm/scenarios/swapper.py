"""The swapper: a process that is swapped out, and comes back.

Situation: a process has been swapped out (at this commit only its P_SWAPPEDOUT is set, and its
pages are preferred victims).  When its thread is on its way back to user mode it sleeps, and asks
the swapper to swap it in.

Threads: ``proc`` faults, and so comes to the boundary to user mode; ``swapper`` is process 0's
loop; ``vmdaemon`` makes a pass: a process that is swapped out may keep no page; in the second
scenario the process is killed while it is out, by the page-out daemon.

What must hold: the process runs again, and reads what it stored; a killed one ends.  Nobody sleeps
for what is so.

C: swapout, scheduler, scheduler_callback, faultin, swapin_request, userret, vm_daemon_callback,
vm_pageout_map_deactivate_pages, vm_pageout_scan_callback, killproc, exit1.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.proc import P_SWAPPEDOUT
from smpvm.scenarios.base import VA, VmScenario


class Swapper(VmScenario):
    """See the module."""

    name = "swapper"
    title = "a swapped-out process against the swapper and the swap daemon"

    def setup(self) -> None:
        """A process of one page, swapped out."""
        self.p = self.process()
        self.map(self.p, pages=2)
        self.write(self.p, VA, 1)
        self.p.p_token.get()
        self.vm.glue.swapout(self.p)
        self.p.p_token.release()
        self.disks()
        self.daemon("swapper", self.vm.glue.scheduler)
        self.start()

    def start(self) -> None:
        """The process, and the swap daemon."""
        self.thread("vmdaemon", self.deactivate)
        self.thread("proc", self.body, process=self.p)

    def deactivate(self) -> None:
        """One pass of vm_daemon."""
        self.k.proc.allproc_scan(self.vm.vmdaemon.daemon_callback, None)

    def body(self) -> None:
        """A fault, then user mode."""
        self.write(self.p, VA + PAGE_SIZE, 2)
        got = [self.read(self.p, VA), self.read(self.p, VA + PAGE_SIZE)]
        assert got == [1, 2], f"the process reads {got}"

    def check(self) -> None:
        """It is in."""
        assert not self.p.p_flags & P_SWAPPEDOUT, "the process is still out"


class SwapperKill(Swapper):
    """The process is killed for want of memory while it is out."""

    name = "swapper-kill"
    title = "a swapped-out process that is killed against the swapper"
    repairs = ("kill-flag",)

    def start(self) -> None:
        """The process in its whole life, and the kill scan."""
        self.pagedaemon(self.vm.pageout.kill_biggest)
        self.thread("proc", self.vm.process.run, self.p, lambda p: self.body(), process=self.p)

    def check(self) -> None:
        """It has ended."""
        assert not self.k.proc.all(), "the process is left"
