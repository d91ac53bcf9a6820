"""An object that five processes share, some of which exit and fork; many mappings of one page.

Situation: shared anonymous memory (in the second scenario a file) is mapped by four processes, each
of which has touched its page.  References come and go without the object's token where more than
two are left.

Threads: ``exit 1`` and ``exit 2`` release two of the spaces; ``parent`` forks, and the child
stores, reads and exits; ``pagedaemon`` scans, which removes or protects all the mappings of the
page, one after the other; ``writer`` stores in the fourth process.

What must hold: everybody sees the page; no store is lost; no reference is lost or left over.

C: vm_object_reference_quick, vm_object_deallocate, vm_object_deallocate_locked, vmspace_fork
(shared entries), vmspace_rel, vm_map_delete, pmap_remove_all, pmap_page_protect, pmap_enter,
pv_lock, pv_free, vm_fault, vm_page_cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.kern.vnode import Vnode
from smpvm.scenarios.base import VA, VmScenario
from smpvm.vm.map.mmap import MAP_ANON, MAP_FIXED, MAP_SHARED, PROT_RW

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class SharedMany(VmScenario):
    """See the module."""

    name = "shared-many"
    title = "an object with many references, exits and forks against page-out"

    def setup(self) -> None:
        """Four processes with the page mapped."""
        self.p = self.process()
        self.make()
        self.write(self.p, VA, 1)
        self.others = [self.process() for _ in range(3)]
        for q in self.others:
            self.vm.vmspace.rel(q.p_vmspace)
            q.p_vmspace = self.vm.vmspace.fork(self.p.p_vmspace)
            self.read(q, VA)
        self.to_inactive(self.page_at(self.p, VA))
        self.disks()
        for i in range(2):
            run = self.vm.process.run
            self.thread(f"exit {i + 1}", run, self.others[i], self.look, process=self.others[i])
        self.thread("writer", self.write, self.others[2], VA, 2, 1, process=self.others[2])
        self.thread("parent", self.parent, process=self.p)
        self.pagedaemon(lambda: self.launder(2))

    def make(self) -> None:
        """Shared anonymous memory."""
        flags = MAP_FIXED | MAP_ANON | MAP_SHARED
        assert self.vm.process.sys.mmap(self.p, VA, PAGE_SIZE, PROT_RW, flags) == (0, VA)

    def look(self, q: Proc) -> None:
        """Read, and exit."""
        got = self.read(q, VA)
        assert got in (1, 3), f"{q} reads {got}"

    def parent(self) -> None:
        """Fork, wait, read."""
        process = self.vm.process
        process.fork1(self.p, self.child, name="child")
        process.wait(self.p)
        got = self.read(self.p, VA)
        assert got == 3, f"the child stored 3, and the parent reads {got}"

    def child(self, q: Proc) -> None:
        """Store, read back."""
        self.write(q, VA, 3)
        got = self.read(q, VA)
        assert got == 3, f"the child stored 3 and reads {got}"

    def check(self) -> None:
        """Both words."""
        got = [self.see(self.p, VA, word) for word in (0, 1)]
        assert got == [3, 2], f"the page reads {got} at the end"


class SharedFile(SharedMany):
    """A file."""

    name = "shared-file"
    title = "a file with many mappings, exits and forks against page-out"
    vp: Vnode | None = None

    def make(self) -> None:
        """A file's page."""
        self.vp = self.file({0: 1})
        self.page(self.vp.v_object, 0, words={0: 1})
        self.map(self.p, vp=self.vp)
