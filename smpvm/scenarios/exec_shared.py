"""Exec and exit of a process that shares its space, against the daemons.

Situation: a process has vforked: its child runs in its space until it execs, which gives the child
a space of its own and lets go of the shared one.

Threads: the child stores, execs, stores to its new space, exits; ``parent`` stores meanwhile, waits
for it, reads, exits; ``vmdaemon`` makes a pass over all processes, which may keep nothing; in the
second scenario the page-out daemon looks for the biggest process.

What must hold: the daemons use no space that is gone; the parent reads the child's store, and
nothing of what the child did behind its exec.

C: fork1 (RFMEM), vm_fork, vmspace_ref, vmspace_exec, pmap_replacevm, vmspace_rel, exec_new_vmspace,
pstall, vm_daemon_callback, vm_pageout_map_deactivate_pages, vm_pageout_scan_callback, exit1,
vmspace_relexit, vmspace_exitfree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.scenarios.base import VA, VmScenario

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class ExecShared(VmScenario):
    """See the module."""

    name = "exec-shared"
    title = "exec out of a shared space against the swap daemon"
    pages = 8

    def setup(self) -> None:
        """A process of one page."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.disks()
        self.p.p_rlimit_rss_cur = 0
        self.thread("parent", self.vm.process.run, self.p, self.parent, process=self.p)
        self.start()

    def start(self) -> None:
        """The swap daemon."""
        self.thread("vmdaemon", self.deactivate)

    def deactivate(self) -> None:
        """One pass of vm_daemon."""
        self.k.proc.allproc_scan(self.vm.vmdaemon.daemon_callback, None)

    def parent(self, p: Proc) -> None:
        """Vfork, store, wait, look."""
        process = self.vm.process
        process.fork1(p, self.child, name="child", share=True)
        self.write(p, VA, 2, word=1)
        process.wait(p)
        got = [self.read(p, VA, word) for word in (0, 1)]
        assert got in self.allowed(), f"the parent reads {got}"

    def allowed(self) -> list[list[int]]:
        """What the parent may read at last."""
        return [[3, 2]]

    def child(self, q: Proc) -> None:
        """Store, exec, use a space of its own."""
        self.write(q, VA, 3)
        self.vm.process.exec(q)
        self.map(q)
        self.write(q, VA, 4)
        assert self.read(q, VA) == 4, "after the exec a store is lost"


class ExecKill(ExecShared):
    """The kill scan; who is killed ends early."""

    name = "exec-kill"
    title = "exec out of a shared space against the kill scan"
    repairs = ("kill-flag",)

    def start(self) -> None:
        """The page-out daemon."""
        self.pagedaemon(self.vm.pageout.kill_biggest)

    def allowed(self) -> list[list[int]]:
        """A killed child may not have stored."""
        return [[1, 2], [3, 2]]
