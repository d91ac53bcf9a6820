"""Exec and exit against map deactivation (NOWAIT), and against the kill scan.

Situation: a process that is over its resident limit accesses its memory and then execs, or exits,
while the swap daemon removes pages from its map, which it may lock only without waiting; or while
the page-out daemon, out of swap, looks for the biggest process to kill.

Threads: ``proc`` writes and execs (exits); ``vmdaemon`` makes one pass over all processes;
``pagedaemon`` scans, so that the process has to wait with its map locked; in the
last scenario ``pagedaemon`` kills the biggest process.

In another scenario a process changes the protection of one of its pages, so that map entries are
split and merged during the kill scan.

What must hold: no thread waits forever; the scans use no space, map or process that is gone; every
hold is released; what was written reads back until the exec; nothing is left of a process that has
exited.

Defect of the C: the kill scan walks a map's entries holding only the map's token, which
vm_map_protect and other functions that split entries do not take (``map-token``).

C: vm_daemon_callback, vm_pageout_map_deactivate_pages, vm_pageout_object_deactivate_pages,
allproc_scan, exec_new_vmspace, exit1, vmspace_relexit, vmspace_exitfree,
vm_pageout_scan_cache, vm_pageout_scan_callback, killproc, pstall, vmspace_swap_count,
vm_map_protect, vm_map_simplify_entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario
from smpvm.vm.map.mmap import PROT_RW
from smpvm.vm.param import VM_PROT_READ

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class ExecDeactivate(VmScenario):
    """See the module."""

    name = "exec-deactivate"
    title = "exec against map deactivation (NOWAIT)"
    limit = 0
    """The resident limit, in bytes."""

    def setup(self) -> None:
        """See ``make`` and ``start``."""
        self.make()
        self.start()

    def make(self) -> None:
        """A process with one page."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.to_inactive(self.page_at(self.p, VA), unmap=True)
        self.disks()
        self.p.p_rlimit_rss_cur = self.limit

    def start(self) -> None:
        """The process, the swap daemon, and the page-out daemon, whose I/O it waits for."""
        self.pagedaemon(self.launder)
        self.thread("vmdaemon", self.deactivate)
        self.thread("proc", self.body, process=self.p)

    def deactivate(self) -> None:
        """One pass of vm_daemon."""
        self.k.proc.allproc_scan(self.vm.vmdaemon.daemon_callback, None)

    def body(self) -> None:
        """Use memory, exec, use memory again."""
        self.use(self.p)
        self.vm.process.exec(self.p)
        self.map(self.p)
        self.write(self.p, VA, 3)
        assert self.read(self.p, VA) == 3, "after the exec a store is lost"

    def use(self, p: Proc) -> None:
        """Store a word, and read it back."""
        self.write(p, VA, 2)
        assert self.read(p, VA) == 2, "a store is lost"


class ExitDeactivate(ExecDeactivate):
    """The process exits."""

    name = "exit-deactivate"
    title = "exit against map deactivation (NOWAIT)"

    def body(self) -> None:
        """Use memory, exit."""
        self.use(self.p)
        self.vm.process.exit1(self.p, 0)


class ExitKill(ExecDeactivate):
    """The kill scan instead of the swap daemon, and two processes, one of which exits."""

    name = "exit-kill"
    title = "exit against the kill scan"
    repairs = ("kill-flag",)

    def make(self) -> None:
        """A small and a big process."""
        super().make()
        self.big = self.process()
        self.map(self.big, pages=2)
        for i in range(2):
            self.write(self.big, VA + i * PAGE_SIZE, 5)

    def start(self) -> None:
        """The daemon, and both processes."""
        self.pagedaemon(self.vm.pageout.kill_biggest)
        self.thread("small", self.vm.process.run, self.p, self.use, process=self.p)
        self.thread("big", self.vm.process.run, self.big, self.use, process=self.big)

    def check(self) -> None:
        """Both have ended; the audit checks the rest."""
        assert not self.k.proc.all(), "a process is left"


class ProtectKill(ExecDeactivate):
    """mprotect of the middle of a mapping against the kill scan."""

    name = "protect-kill"
    title = "mprotect against the kill scan"
    repairs = ("map-token",)

    def make(self) -> None:
        """One mapping of three pages."""
        self.p = self.process()
        self.map(self.p, pages=3)
        self.write(self.p, VA, 1)

    def start(self) -> None:
        """The daemon and the process."""
        self.pagedaemon(self.vm.pageout.kill_biggest)
        self.thread("proc", self.body, process=self.p)

    def body(self) -> None:
        """Read-only, and back."""
        sys, va = self.vm.process.sys, VA + PAGE_SIZE
        for prot in (VM_PROT_READ, PROT_RW):
            assert sys.mprotect(self.p, va, PAGE_SIZE, prot) == 0, "mprotect failed"

    def check(self) -> None:
        """The mapping is intact."""
        assert self.see(self.p, VA) == 1, "the page is lost"
