"""Faults on a page of a file that is not in memory: two at once, and reads that fail.

Situation: two processes have a file mapped, one of them privately, none of its pages is in memory.
Both fault on the same page at once; only one of them can read it in.

Threads: ``one`` reads page 0, stores to it; ``other`` reads both pages; ``pagedaemon`` scans; the
file disk completes reads, in the second scenario the first with an error; in the third a thread
locks both pages into memory, and the second read fails.

What must hold: everybody sees the file's data, or gets an error for his own read; a page without
data is not left behind; the private store is not in the file; wiring that fails leaves nothing
wired.

C: vm_fault, vm_fault_object, vnode_pager_lock, vnode_pager_getpage, vnode_pager_freepage, bpdone,
vfs_busy_pages, vm_page_sleep_busy, vm_pageout_scan_inactive, sys_mlock, vm_fault_wire.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario, fixed
from smpvm.vm.map.mmap import MAP_FIXED, MAP_PRIVATE, PROT_RW
from smpvm.vm.proc.process import SegFault


class FileFault(VmScenario):
    """See the module."""

    name = "file-fault"
    title = "two faults on one page of a file that is not in memory"
    repairs = ("alloc-wanted",)
    errors = 0
    """Reads that fail."""
    pages = 8

    def setup(self) -> None:
        """A file, two processes."""
        self.vp = self.file({0: 1}, {0: 2})
        self.p, self.q = self.process(), self.process()
        flags = MAP_FIXED | MAP_PRIVATE
        size = 2 * PAGE_SIZE
        got = self.vm.process.sys.mmap(self.p, VA, size, PROT_RW, flags, self.vp)
        assert got == (0, VA)
        self.map(self.q, vp=self.vp, pages=2)
        for _ in range(self.errors):
            self.vm.vnode_pager.disk.fail_next("read")
        self.disks()
        self.start()

    def start(self) -> None:
        """Both, and the daemon."""
        self.thread("one", self.one, process=self.p)
        self.thread("other", self.other, process=self.q)
        self.pagedaemon(self.scans)

    def scans(self) -> None:
        """Both queues."""
        self.scan_active(pass_=9, avail=8)
        self.launder()

    def one(self) -> None:
        """Read, store privately, read back."""
        try:
            assert self.read(self.p, VA) == 1, "the private mapping reads wrong"
            self.write(self.p, VA, 5)
            assert self.read(self.p, VA) == 5, "the private store is lost"
        except SegFault:
            assert self.errors, "a fault failed"

    def other(self) -> None:
        """Both pages."""
        try:
            got = [self.read(self.q, VA + i * PAGE_SIZE) for i in range(2)]
            assert got == [1, 2], f"the shared mapping reads {got}"
        except SegFault:
            assert self.errors, "a fault failed"

    def check(self) -> None:
        """The file."""
        got = [self.see(self.q, VA + i * PAGE_SIZE) for i in range(2)]
        assert got == [1, 2], f"the file reads {got}"


class FileFaultError(FileFault):
    """The first read fails."""

    name = "file-fault-error"
    title = "two faults on one page of a file, the read of which fails"
    errors = 1


class FileWireError(FileFault):
    """Locking the mapping fails at its second page, or succeeds."""

    name = "file-wire-error"
    title = "mlock of a file mapping, a read of which fails, against a fault"
    sysctls = fixed(page_max_wired=64)
    errors = 1

    def start(self) -> None:
        """A thread that locks instead."""
        self.page(self.vp.v_object, 0, words={0: 1})
        self.thread("locker", self.locker, process=self.p)
        self.thread("other", self.other, process=self.q)
        self.pagedaemon(self.launder)

    def locker(self) -> None:
        """mlock, munlock."""
        sys = self.vm.process.sys
        if sys.mlock(self.p, VA, 2 * PAGE_SIZE) == 0:
            assert sys.munlock(self.p, VA, 2 * PAGE_SIZE) == 0
