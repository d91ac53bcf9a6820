"""fsync and the syncer against stores through a mapping.

Situation: a process has a page of a file mapped and has written to it.  While it goes on storing,
the file is synced: the page is made read-only, the file is taken off the record of dirty files, and
the page is written.  A later store must fault, and put the file on the record again.

Threads: ``writer`` stores twice; ``fsync`` locks the vnode and syncs it, as sys_fsync does, and
once more when the writer has ended.  In the second scenario the syncer does it, first in its own
way (it waits for nothing), at last as sync(2) does.  In the third the file has two pages, and the
page-out daemon scans beside them.

What must hold: what was stored before a sync begins is in the file when it has ended: the second
sync leaves the file as the process sees it.

C: sys_fsync, vfs_msync, vfs_msync_scan1, vfs_msync_scan2, vm_object_page_clean and its passes,
vm_object_page_collect_flush, vm_pageout_flush, vnode_pager_putpages, vm_fault,
vm_object_set_writeable_dirty, vm_page_protect, bpdone.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RETRY
from smpvm.scenarios.base import VA, VmScenario, fixed


class FsyncStore(VmScenario):
    """See the module."""

    name = "fsync-mapped"
    title = "fsync against stores through a mapping"
    pages_of_file = 1
    stores = 2
    sizes = fixed(stores=1)

    def setup(self) -> None:
        """A mapped file, its first page dirty."""
        n = self.pages_of_file
        self.vp = self.file(*({0: 1} for _ in range(n)))
        for i in range(n):
            self.page(self.vp.v_object, i, "active", words={0: 1})
        self.p = self.process()
        self.map(self.p, vp=self.vp, pages=n)
        self.write(self.p, VA, 2)
        self.disks()
        self.writing = self.thread("writer", self.writer, process=self.p)
        self.thread("fsync", self.syncs)

    def writer(self) -> None:
        """Store into the last page, then the first."""
        for i in range(self.stores):
            self.write(self.p, VA + (self.pages_of_file - 1) * PAGE_SIZE, 10 + i, word=1)
            self.write(self.p, VA, 20 + i)

    def syncs(self) -> None:
        """Beside the stores, and behind them."""
        self.sync()
        self.join(self.writing)
        self.last_sync()

    def sync(self) -> None:
        """sys_fsync."""
        vnode = self.k.vnode
        assert vnode.vget(self.vp, LK_EXCLUSIVE | LK_RETRY) == 0
        self.vm.vnode_pager.fsync(self.vp)
        vnode.vput(self.vp)

    def last_sync(self) -> None:
        """The one behind all stores."""
        self.sync()

    def check(self) -> None:
        """Memory and file agree."""
        n = self.pages_of_file
        last = [9 + self.stores, 19 + self.stores]
        got = [self.see(self.p, VA + (n - 1) * PAGE_SIZE, 1), self.see(self.p, VA)]
        assert got == last, f"the process reads {got} at the end"
        blocks = self.vm.vnode_pager.file(self.vp).blocks
        got = [blocks[n - 1].get(1, 0), blocks[0].get(0, 0)]
        assert got == last, f"all is synced, and the file holds {got}"


class SyncerStore(FsyncStore):
    """The syncer's turn instead of fsync."""

    name = "syncer-store"
    title = "the syncer against stores through a mapping"

    def sync(self) -> None:
        """The mount's turn of syncer_thread."""
        self.vm.syncer.sync_fsync()

    def last_sync(self) -> None:
        """sync(2), and it waits."""
        self.vm.syncer.sync_all()


class FsyncPageout(FsyncStore):
    """Two pages, and the page-out daemon."""

    name = "fsync-pageout"
    title = "fsync against stores and page-out of two file pages"
    repairs = ("launder-recheck",)
    pages_of_file = 2
    stores = 1

    def setup(self) -> None:
        """And the daemon."""
        super().setup()
        for i in range(2):
            self.write(self.p, VA + i * PAGE_SIZE, 2)
            self.to_inactive(self.page_at(self.p, VA + i * PAGE_SIZE))
        self.pagedaemon(self.launder)
