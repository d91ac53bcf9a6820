"""munmap, mprotect and fork by one thread of a process against a fault of another that pages in.

Situation: a page of a process is on swap only.  One of its threads faults on it, and lets go of the
map while it is read in.  Another one changes the map meanwhile.

Threads: ``faulter`` stores to the page and reads it back; ``mapper`` unmaps it (makes it read-only;
forks, and the child reads and stores); the swap disk's thread completes the read.

What must hold: the fault sees that the map has changed, and looks its entry up anew: nothing is
mapped where nothing may be, nor writeable where it may only be read.  Whoever may still see the
page sees what it held, and its own stores.

In the fourth scenario the page is in the object of a mapping that was copied at a fork, and is
wanted for writing, so that the fault moves it to the process's own object: then it must not be
mapped writeable if another thread has made the mapping read-only.

C: vm_fault, vm_fault_object, relock_map, swap_pager_getpage, sys_munmap, vm_map_delete,
sys_mprotect, vm_map_protect, pmap_protect, vmspace_fork, vm_map_copy_entry, vm_object_shadow,
vm_page_rename.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario
from smpvm.vm.param import VM_PROT_READ
from smpvm.vm.pmap.pte import PTE_RW
from smpvm.vm.proc.process import SegFault

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class MunmapFault(VmScenario):
    """See the module."""

    name = "munmap-fault"
    title = "munmap against a fault that pages in"

    def setup(self) -> None:
        """A page on swap, one in memory."""
        self.p = self.process()
        self.map(self.p, pages=2)
        self.write(self.p, VA, 1)
        self.write(self.p, VA + PAGE_SIZE, 5)
        self.place()
        self.denied = False
        self.disks()
        self.start()

    def place(self) -> None:
        """Page 0 is on swap only."""
        self.throw_out(self.page_at(self.p, VA))

    def start(self) -> None:
        """Two threads of the process."""
        self.thread("faulter", self.faulter, process=self.p)
        self.thread("mapper", self.mapper, process=self.p)

    def faulter(self) -> None:
        """Store and read back, if that is allowed."""
        try:
            self.write(self.p, VA, 2)
            assert self.read(self.p, VA) == 2, "the store is lost"
        except SegFault:
            self.denied = True

    def mapper(self) -> None:
        """munmap."""
        assert self.vm.process.sys.munmap(self.p, VA, PAGE_SIZE) == 0, "munmap failed"

    def check(self) -> None:
        """Nothing is mapped there."""
        m = self.vm.pmap.extract(self.p.p_vmspace.vm_pmap, VA)
        assert m is None, f"{m} is mapped where nothing is"
        assert self.see(self.p, VA + PAGE_SIZE) == 5, "the other page is lost"


class MprotectFault(MunmapFault):
    """The page becomes read-only."""

    name = "mprotect-fault"
    title = "mprotect against a fault that pages in"

    def mapper(self) -> None:
        """mprotect."""
        sys = self.vm.process.sys
        assert sys.mprotect(self.p, VA, PAGE_SIZE, VM_PROT_READ) == 0, "mprotect failed"

    def check(self) -> None:
        """The page is as before or as stored, and not writeable."""
        got = self.see(self.p, VA)
        assert got in ((1, 2) if self.denied else (2,)), f"the page reads {got} at the end"
        pv = self.vm.pmap.look(self.p.p_vmspace.vm_pmap, VA)
        bits = pv.bits if pv is not None else 0
        assert not bits & PTE_RW, "a read-only page is mapped writeable"


class ForkFault(MunmapFault):
    """The process forks."""

    name = "fork-fault"
    title = "fork against a fault that pages in"
    repairs = ("alloc-wanted", "move-recheck")
    pages = 8

    def mapper(self) -> None:
        """Fork, wait."""
        process = self.vm.process
        process.fork1(self.p, self.child, name="child")
        process.wait(self.p)

    def child(self, q: Proc) -> None:
        """Read, store, read back."""
        got = self.read(q, VA)
        assert got in (1, 2), f"the child reads {got}"
        self.write(q, VA, 3)
        got = self.read(q, VA)
        assert got == 3, f"the child stored 3 and reads {got}"

    def check(self) -> None:
        """The parent's store is there."""
        assert self.see(self.p, VA) == 2, f"the parent reads {self.see(self.p, VA)}"


class MprotectMove(MprotectFault):
    """The fault moves the page to the process's own object, the only one left that shadows it."""

    name = "mprotect-move"
    title = "mprotect against the fault that moves a page up for a copy-on-write store"
    repairs = ("alloc-wanted", "move-recheck")

    def place(self) -> None:
        """The page is one below the process's object, which a child's space shares."""
        self.space = self.vm.vmspace.fork(self.p.p_vmspace)
        self.write(self.p, VA + PAGE_SIZE, 6)
        self.throw_out(self.page_at(self.p, VA))

    def start(self) -> None:
        """The child's space goes: then the page need not be copied."""
        super().start()
        self.thread("exit", self.vm.vmspace.rel, self.space)
