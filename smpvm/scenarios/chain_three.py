"""A chain of three objects: faults through it, collapse and bypass, deactivation.

Situation: a process has forked twice, and stored to another of its three pages after each fork: its
mapping is an object that shadows one that shadows a third, each with one page.  Both children's
spaces go, so that the chain gets shorter from either end, by collapse or by bypass.

Threads: ``exit 1`` and ``exit 2`` release the children's spaces; ``owner`` reads the page at the
far end, stores to it, and reads all; in the second scenario the swap daemon takes the process's
pages away, as it is over its limit; in the third the page-out daemon launders them; in the fourth a
process of its own reads through one of the children's spaces.

What must hold: every page reads as it was stored last; no object is left behind, none is let go
twice.

C: vm_object_deallocate_locked, vm_object_collapse, vm_object_backing_scan and its callbacks,
vm_object_chain_acquire, vm_object_chain_wait, vm_object_chain_release_all, vm_fault_object,
vm_pageout_map_deactivate_pages, vm_pageout_object_deactivate_pages, vm_page_rename.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario


class ChainThree(VmScenario):
    """See the module."""

    name = "chain-three"
    title = "faults through a chain of three objects against collapse and bypass"
    repairs = ("alloc-wanted",)
    pages = 10

    def setup(self) -> None:
        """The chain, and two spaces that share parts of it."""
        fork = self.vm.vmspace.fork
        self.p = self.process()
        self.map(self.p, pages=3)
        for i in range(3):
            self.write(self.p, VA + i * PAGE_SIZE, 1)
        self.first = fork(self.p.p_vmspace)
        self.write(self.p, VA, 2)
        self.second = fork(self.p.p_vmspace)
        self.write(self.p, VA + PAGE_SIZE, 3)
        self.disks()
        self.start()
        self.thread("owner", self.owner, process=self.p)

    def start(self) -> None:
        """The other threads."""
        self.thread("exit 1", self.vm.vmspace.rel, self.first)
        self.thread("exit 2", self.vm.vmspace.rel, self.second)

    def owner(self) -> None:
        """Store to the page that was never copied, read all."""
        far = VA + 2 * PAGE_SIZE
        assert self.read(self.p, far) == 1, "the page at the end of the chain is lost"
        self.write(self.p, far, 4)
        got = [self.read(self.p, VA + i * PAGE_SIZE) for i in range(3)]
        assert got == [2, 3, 4], f"the pages read {got}"

    def check(self) -> None:
        """All three."""
        got = [self.see(self.p, VA + i * PAGE_SIZE) for i in range(3)]
        assert got == [2, 3, 4], f"the pages read {got} at the end"


class ChainDeactivate(ChainThree):
    """And the swap daemon."""

    name = "chain-deactivate"
    title = "deactivation through a chain of three objects against collapse"

    def start(self) -> None:
        """The swap daemon makes a pass: the process may keep nothing."""
        self.p.p_rlimit_rss_cur = 0
        self.thread("exit", self.exits)
        self.thread("vmdaemon", self.deactivate)

    def exits(self) -> None:
        """Both spaces."""
        self.vm.vmspace.rel(self.second)
        self.vm.vmspace.rel(self.first)

    def deactivate(self) -> None:
        """One pass of vm_daemon."""
        self.k.proc.allproc_scan(self.vm.vmdaemon.daemon_callback, None)


class ChainPageout(ChainDeactivate):
    """And the page-out daemon."""

    name = "chain-pageout"
    title = "page-out of a chain of three objects against collapse and bypass"

    def start(self) -> None:
        """All pages are inactive and dirty."""
        for m in self.vm.page_array:
            if m.object is not None:
                self.to_inactive(m)
        self.thread("exit", self.exits)
        self.pagedaemon(self.launder)


class ChainReader(ChainThree):
    """A child lives, and reads and stores through its part of the chain."""

    name = "chain-reader"
    title = "two processes in one chain of objects, one of them storing, one exiting"

    def start(self) -> None:
        """A child of its own for the middle of the chain."""
        q = self.vm.process.create()
        self.vm.vmspace.rel(q.p_vmspace)
        q.p_vmspace = self.second
        self.q = q
        self.thread("child", self.vm.process.run, q, self.child, process=q)
        self.thread("exit", self.vm.vmspace.rel, self.first)

    def child(self, q: object) -> None:
        """What was there at the second fork."""
        got = [self.read(self.q, VA + i * PAGE_SIZE) for i in range(3)]
        assert got == [2, 1, 1], f"the child reads {got}"
        self.write(self.q, VA + 2 * PAGE_SIZE, 6)
        assert self.read(self.q, VA + 2 * PAGE_SIZE) == 6, "the child's store is lost"
