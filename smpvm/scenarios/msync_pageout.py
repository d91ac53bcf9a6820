"""msync against page-out.

Situation: a process has written to the first page of a mapped file of two pages, and the page is
now on the inactive queue.  The process calls msync for the page while the page-out daemon writes
the same page and another thread stores to it.

Threads: ``syncer`` stores and calls msync; ``writer`` stores to another word of the page;
``pagedaemon`` scans; the file disk completes writes.

What must hold: once msync has returned, its store is in the file; no store is lost.

Defect of the C: vm_object_page_clean marks pages only if it cleans a whole object, and writes only
marked pages, so msync of a range writes nothing (``msync-range``).

In ``fsync-store`` a process stores through a mapping that a read fault has made, and again after
each fsync, while the syncer makes its round: what was stored before an fsync is in the file after
it.

C: vm_fault, vm_object_set_writeable_dirty, vfs_msync, sys_msync, vm_map_clean,
vm_object_page_clean, vm_object_page_collect_flush, vm_pageout_flush, vm_pageout_scan_inactive,
vget, vnode_pager_putpages.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.lockreq import LK_EXCLUSIVE
from smpvm.scenarios.base import VA, VmScenario


class MsyncPageout(VmScenario):
    """See the module."""

    name = "msync-pageout"
    title = "msync against page-out"
    repairs = ("msync-range",)

    def setup(self) -> None:
        """A mapped file page, dirty and inactive."""
        self.vp = self.file({0: 1}, {0: 1})
        self.page(self.vp.v_object, 0, words={0: 1})
        self.p = self.process()
        self.map(self.p, pages=2, vp=self.vp)
        self.write(self.p, VA, 2)
        self.to_inactive(self.page_at(self.p, VA), unmap=True)
        self.disks()
        self.pagedaemon(self.launder)
        self.thread("syncer", self.sync, process=self.p)
        self.thread("writer", lambda: self.write(self.p, VA, 5, word=1), process=self.p)

    def sync(self) -> None:
        """Store, msync, check the file."""
        self.write(self.p, VA, 3)
        assert self.vm.process.sys.msync(self.p, VA, PAGE_SIZE) == 0, "msync failed"
        on_disk = self.vm.vnode_pager.file(self.vp).blocks.get(0, {}).get(0, 0)
        assert on_disk == 3, f"msync has returned, and the file holds {on_disk}"

    def check(self) -> None:
        """Both stores."""
        got = [self.see(self.p, VA, word) for word in (0, 1)]
        assert got == [3, 5], f"the page reads {got} at the end"


class FsyncStore(VmScenario):
    """See the module."""

    name = "fsync-store"
    title = "stores between fsyncs, against the syncer"

    def setup(self) -> None:
        """A resident page of a file, mapped and not touched yet."""
        self.vp = self.file({0: 1})
        self.page(self.vp.v_object, 0, words={0: 1})
        self.p = self.process()
        self.map(self.p, vp=self.vp)
        self.disks()
        self.thread("writer", self.writer, process=self.p)
        self.thread("syncer", lambda: self.vm.syncer.msync(wait=True))

    def writer(self) -> None:
        """The first store needs no fault: the read has mapped the page writeable."""
        assert self.read(self.p, VA) == 1
        for value in (2, 3):
            self.write(self.p, VA, value)
            assert self.k.vnode.vn_lock(self.vp, LK_EXCLUSIVE) == 0
            self.vm.vnode_pager.fsync(self.vp)
            self.k.vnode.vn_unlock(self.vp)
            on_disk = self.vm.vnode_pager.file(self.vp).blocks[0].get(0, 0)
            assert on_disk == value, f"fsync has returned, and the file holds {on_disk}"
