"""A store to a page that a read fault has mapped writeable, against reclaim, and beside a fork.

Situation: a process has read a page of its anonymous memory.  The page is clean, but the fault has
mapped it writeable, so that a store needs no fault: only the mapping knows of it.  The page has
gone to the inactive queue, and the page-out daemon, which finds it clean, caches and frees it.

Threads: ``writer`` stores and reads back; ``pagedaemon`` scans twice.  In the second scenario
another thread of the process forks meanwhile, and the child reads the page.  In the third another
thread makes it read-only.  In the fourth the page is one of a file, and the process has written to
it before it was written out.

True defect of the seed: vm_page_cache panics when the page has become dirty since its caller looked
(``cache-dirty``).

What must hold: the store is not lost, whether it comes before, between or behind the daemon's looks
at the page; the child sees the page as it was at some time during the fork; nobody panics.

C: vm_fault (the map's protection, not the access, is entered), pmap_enter, vm_page_test_dirty,
vm_pageout_scan_inactive, vm_page_cache, vm_page_protect, pmap_remove_all, vmspace_fork,
vm_map_copy_entry, pmap_protect, vm_pageout_scan_cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario, fixed
from smpvm.vm.param import VM_PROT_READ
from smpvm.vm.proc.process import SegFault

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class ReadStore(VmScenario):
    """See the module."""

    name = "read-store"
    title = "a store to a page mapped writeable by a read fault, against reclaim"
    scans = 2
    sizes = fixed(scans=1)

    def setup(self) -> None:
        """One clean inactive page, mapped."""
        self.p = self.process()
        self.map(self.p)
        self.read(self.p, VA)
        self.to_inactive(self.page_at(self.p, VA))
        self.disks()
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("writer", self.writer, process=self.p)

    def writer(self) -> None:
        """Store and read back."""
        self.write(self.p, VA, 2)
        got = self.read(self.p, VA)
        assert got == 2, f"the writer stored 2 and reads {got}"

    def check(self) -> None:
        """The store is what is read."""
        got = self.see(self.p, VA)
        assert got == 2, f"the page reads {got} at the end"


class ReadStoreFork(ReadStore):
    """Another thread of the process forks."""

    name = "read-store-fork"
    title = "a store to a page mapped writeable by a read fault, against reclaim and fork"
    repairs = ("cache-dirty", "alloc-wanted")
    pages = 8

    def setup(self) -> None:
        """And the thread that forks."""
        super().setup()
        self.thread("forker", self.forker, process=self.p)

    def forker(self) -> None:
        """Fork, and wait for the child."""
        process = self.vm.process
        process.fork1(self.p, self.child, name="child")
        process.wait(self.p)

    def child(self, q: Proc) -> None:
        """What was there at the time of the fork."""
        got = self.read(q, VA)
        assert got in (0, 2), f"the child reads {got}"


class ReadStoreProtect(ReadStore):
    """Another thread of the process makes the page read-only."""

    name = "read-store-protect"
    title = "a store to a page mapped writeable by a read fault, against reclaim and mprotect"
    repairs = ("cache-dirty",)
    scans = 1
    stored = True

    def setup(self) -> None:
        """And the thread that protects."""
        super().setup()
        sys = self.vm.process.sys
        args = self.p, VA, PAGE_SIZE, VM_PROT_READ
        self.thread("protector", sys.mprotect, *args, process=self.p)

    def writer(self) -> None:
        """Store, if that is still allowed."""
        try:
            self.write(self.p, VA, 2)
        except SegFault:
            self.stored = False

    def check(self) -> None:
        """What has been stored is there."""
        got = self.see(self.p, VA)
        assert got == (2 if self.stored else 0), f"the page reads {got} at the end"


class ReadStoreFile(ReadStore):
    """The page is one of a shared file mapping, clean since it was written out."""

    name = "read-store-file"
    title = "a store to a clean file page that is mapped writeable, against reclaim"

    def setup(self) -> None:
        """A file page that has been stored to, then cleaned but not protected, as by a read."""
        self.vp = self.file({0: 1})
        self.page(self.vp.v_object, 0, words={0: 1})
        self.p = self.process()
        self.map(self.p, vp=self.vp)
        self.vm.object.set_writeable_dirty(self.vp.v_object)
        self.read(self.p, VA)
        self.to_inactive(self.page_at(self.p, VA))
        self.disks()
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("writer", self.writer, process=self.p)
