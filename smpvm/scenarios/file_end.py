"""Truncation, invalidation and reclaim of a file against page-out, msync and stores.

Situation: a process has a file of two pages mapped and has written to both, which are inactive. The
file gets shorter (or its pages are invalidated, or its vnode is reclaimed, as by a forced unmount),
while the page-out daemon writes the pages and the process uses or syncs its mapping.

Threads: ``file`` locks the vnode and truncates it to half a page, as ftruncate does (msyncs with
MS_INVALIDATE; reclaims the vnode); ``pagedaemon`` scans twice; ``user`` stores to the first page,
then calls msync for the whole mapping (stores only).

What must hold: the file holds no block behind its new end, and no page there is dirty or mapped;
what was stored in front of the end, or into a file that is only invalidated, is kept; who waits for
a page that leaves its object goes on; of a reclaimed vnode nothing is written any more, and a fault
on it is an invalid access, not a panic.

C: sys_ftruncate, vtruncbuf, vnode_pager_setsize, vm_object_page_remove and its callback,
vm_map_clean, vm_object_page_clean and its passes, vclean_vxlocked, vinvalbuf, vm_pager_deallocate,
vnode_pager_dealloc, vm_pageout_scan_inactive, vget, vnode_pager_putpages, vnode_pager_getpage,
vnode_pager_lock.
"""

from __future__ import annotations

from typing import ClassVar

from smpvm.config import PAGE_SIZE
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RETRY
from smpvm.scenarios.base import VA, VmScenario, fixed
from smpvm.vm.map.mmap import MS_INVALIDATE
from smpvm.vm.proc.process import SegFault

HALF = PAGE_SIZE // 2
TAIL = HALF // 8
"""The first word behind the new end."""


class TruncatePageout(VmScenario):
    """See the module."""

    name = "truncate-pageout"
    title = "truncation against page-out and msync"
    repairs: ClassVar[tuple[str, ...]] = ("launder-recheck",)
    scans = 2
    sizes = fixed(scans=1)

    def setup(self) -> None:
        """Two dirty inactive pages of a file, mapped."""
        self.vp = self.file({0: 1}, {0: 1})
        self.p = self.process()
        for i in range(2):
            self.page(self.vp.v_object, i, words={0: 1})
        self.map(self.p, vp=self.vp, pages=2)
        for va in (VA, VA + PAGE_SIZE):
            self.write(self.p, va, 2)
            self.write(self.p, va, 2, word=TAIL)
            self.to_inactive(self.page_at(self.p, va))
        self.disks()
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("user", self.user, process=self.p)
        self.thread("file", self.end, process=self.p)

    def user(self) -> None:
        """Store, and sync what is still there of the file."""
        self.write(self.p, VA, 3)
        self.vm.process.sys.msync(self.p, VA, 2 * PAGE_SIZE)

    def end(self) -> None:
        """ftruncate."""
        vnode = self.k.vnode
        assert vnode.vget(self.vp, LK_EXCLUSIVE | LK_RETRY) == 0
        self.vm.vnode_pager.truncate(self.vp, HALF)
        vnode.vput(self.vp)

    def check(self) -> None:
        """Half a page is left."""
        got = self.see(self.p, VA)
        assert got == 3, f"the page in front of the end reads {got}"
        got = self.see(self.p, VA, TAIL)
        assert got == 0, f"behind the end stands {got}"
        assert sorted(self.vm.vnode_pager.file(self.vp).blocks) in ([], [0])
        left = [m.pindex for m in self.vp.v_object.rb_memq]
        assert left in ([], [0]), f"pages {left} are left"


class InvalidatePageout(TruncatePageout):
    """msync(MS_INVALIDATE) by another thread of the process."""

    name = "invalidate-pageout"
    title = "msync(MS_INVALIDATE) against page-out and stores"
    repairs = ("launder-held", "launder-recheck")

    def user(self) -> None:
        """Store twice."""
        self.write(self.p, VA, 3)
        self.write(self.p, VA + PAGE_SIZE, 4)

    def end(self) -> None:
        """Invalidate the whole mapping."""
        sys = self.vm.process.sys
        assert sys.msync(self.p, VA, 2 * PAGE_SIZE, MS_INVALIDATE) == 0, "msync failed"

    def check(self) -> None:
        """Nothing is lost."""
        got = [self.see(self.p, va) for va in (VA, VA + PAGE_SIZE)]
        assert got == [3, 4], f"the pages read {got} at the end"


class ReclaimPageout(TruncatePageout):
    """The vnode is reclaimed under the mapping."""

    name = "reclaim-pageout"
    title = "reclaim of a mapped vnode against page-out and faults"
    repairs = ("launder-held", "launder-recheck", "pager-lock-ident")

    def user(self) -> None:
        """Store, for as long as that can be done."""
        try:
            self.write(self.p, VA, 3)
            self.read(self.p, VA + PAGE_SIZE)
        except SegFault:
            self.gone = True

    def end(self) -> None:
        """vgone of a vnode in use."""
        self.vm.vnode_pager.reclaim(self.vp)

    def check(self) -> None:
        """The object is not the file's any more."""
        assert self.vp.v_object is None, "the reclaimed vnode has an object"
