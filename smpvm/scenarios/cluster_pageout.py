"""Page-out in clusters: two or three dirty pages in one write.

Situation: three neighbouring pages of a process are dirty and inactive, the last one first in the
queue, so that the page-out daemon writes it together with those below it.

Threads: ``pagedaemon`` scans twice; ``writer`` stores to all three pages meanwhile; the disk's
thread completes the write.  In the second scenario the pages are a file's, and a second thread
calls msync, which writes clusters too; in the third the write to swap fails; in the fourth two
pages are the last that fit on swap.

What must hold: no store is lost; no page stays busy, in I/O or counted as paging; no swap block is
lost or owned twice.

True defects of the seed: see ``swap-error-hold`` for the write that fails.

C: vm_pageout_clean, vm_pageout_flush, swap_pager_putpages, swp_pager_getswapspace,
swp_pager_async_iodone, vnode_pager_putpages, vfs_busy_pages, bpdone, vm_object_page_clean,
vm_object_page_collect_flush, vm_page_protect, vm_fault_object.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.vnode import Vnode
from smpvm.scenarios.base import VA, VmScenario, fixed


class ClusterPageout(VmScenario):
    """See the module."""

    name = "cluster-pageout"
    title = "a cluster of three pages to swap against stores"
    size = 3
    scans = 2
    sizes = fixed(scans=1, size=2)
    vp: Vnode | None = None

    def setup(self) -> None:
        """Dirty inactive neighbours, the last one first."""
        self.p = self.process()
        self.make()
        for i in range(self.size):
            self.write(self.p, self.at(i), 1)
        for i in reversed(range(self.size)):
            self.to_inactive(self.page_at(self.p, self.at(i)))
        self.disks()
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("writer", self.writer, process=self.p)

    def make(self) -> None:
        """Anonymous memory."""
        self.map(self.p, pages=self.size)

    def at(self, i: int) -> int:
        """The address of page *i*."""
        return VA + i * PAGE_SIZE

    def writer(self) -> None:
        """Store to all pages, read back."""
        for i in range(self.size):
            self.write(self.p, self.at(i), 10 + i)
        got = [self.read(self.p, self.at(i)) for i in range(self.size)]
        assert got == self.last(), f"the pages read {got}"

    def last(self) -> list[int]:
        """What has been stored last."""
        return [10 + i for i in range(self.size)]

    def check(self) -> None:
        """All stores."""
        got = [self.see(self.p, self.at(i)) for i in range(self.size)]
        assert got == self.last(), f"the pages read {got} at the end"


class ClusterFile(ClusterPageout):
    """A file's pages, and msync."""

    name = "cluster-file"
    title = "clusters of file pages by page-out and msync against stores"
    repairs = ("launder-recheck",)

    def make(self) -> None:
        """A file."""
        self.vp = self.file(*({0: 1} for _ in range(self.size)))
        for i in range(self.size):
            self.page(self.vp.v_object, i, words={0: 1})
        self.map(self.p, vp=self.vp, pages=self.size)

    def setup(self) -> None:
        """And a thread that syncs."""
        super().setup()
        self.thread("syncer", self.sync, process=self.p)

    def sync(self) -> None:
        """msync of the whole file: what was stored before is in it afterwards."""
        assert self.vm.process.sys.msync(self.p, VA, self.size * PAGE_SIZE) == 0, "msync failed"


class ClusterError(ClusterPageout):
    """The device fails the first write."""

    name = "cluster-error"
    title = "a cluster of pages whose write to swap fails against stores"
    repairs = ("swap-error-hold",)

    def setup(self) -> None:
        """The next write fails."""
        super().setup()
        self.vm.swap.disk.fail_next("write")


class ClusterFull(ClusterPageout):
    """Swap has room for two pages."""

    name = "cluster-full"
    title = "a cluster of pages that does not fit on swap against stores"
    room = 2

    def setup(self) -> None:
        """Others have the rest of swap."""
        super().setup()
        other = self.object(64, swap=True)
        for i in range(self.vm.config.swap_pages - self.room):
            self.swapped(other, i, {0: 1})
