"""vm_pageout_clean, vm_pageout_flush, vm_pageout_page_free: writing and freeing pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import BLIST_MAX_ALLOC
from smpvm.kern.cname import c, holds
from smpvm.vm.page.struct import PG_BUSY, PG_NEED_COMMIT, PG_UNMANAGED
from smpvm.vm.pageout.marker import ScanBase
from smpvm.vm.param import (
    VM_PAGE_BITS_ALL,
    VM_PAGER_BAD,
    VM_PAGER_OK,
    VM_PAGER_PEND,
    VM_PAGER_PUT_SYNC,
    VM_PROT_NONE,
    VM_PROT_READ,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.page.struct import Page


class Clean(ScanBase):
    """Collecting a cluster of dirty pages and writing it."""

    @c("vm_pageout_clean", "vm_pageout.c:243-365", blocks=True)
    @holds("m busied by the caller; no spinlock", "m unbusied")
    def clean(self, m: Page) -> int:
        """vm_pageout_clean, vm_pageout.c:243-365: write *m* and its dirty neighbours.

        The caller has *m* busied; it is unbusied on return.  Takes its object's token to search for
        neighbours; may block in the pager.  Returns the number of pages counted as written.
        """
        td = self.k.curthread()
        td.hit("vm_pageout_clean")
        if m.hold_count != 0 or m.flags & PG_UNMANAGED:
            td.hit("vm_pageout_clean:held")
            self.vm.page.wakeup(m)
            return 0
        obj: VmObject = m.object
        pindex = m.pindex
        objects = self.vm.object
        objects.hold(obj)
        mc = self.cluster_back(obj, pindex)
        mc.reverse()
        mc.append(m)
        mc += self.cluster_forward(obj, pindex)
        return self.clean_flush(obj, mc)

    @c("vm_pageout_clean", "vm_pageout.c:359-364", part=True, blocks=True)
    @holds("obj held; all of mc busied", "obj dropped; mc given up")
    def clean_flush(self, obj: VmObject, mc: list[Page]) -> int:
        """The end of vm_pageout_clean (vm_pageout.c:359-364): drop *obj*, then flush.

        Between the drop and the flush's pip_add only the busied pages show that I/O is about to
        start.
        """
        self.vm.object.drop(obj)
        return self.flush(mc, 0)

    @c("vm_pageout_clean", "vm_pageout.c:307-331", part=True)
    @holds("obj held (token, shared is enough)", "obj held; the pages returned are busied")
    def cluster_back(self, obj: VmObject, pindex: int) -> list[Page]:
        """Neighbours below *pindex* in its aligned cluster, busied, nearest first."""
        found: list[Page] = []
        for ib in range(pindex - 1, pindex - pindex % BLIST_MAX_ALLOC - 1, -1):
            # Only try: waiting for one page while others are busied could deadlock.
            p, error = self.vm.page.lookup_busy_try(obj, ib, True)
            if error or p is None:
                break
            if self.cluster_special(p) or not self.cluster_dirty(p):
                self.vm.page.wakeup(p)
                break
            self.k.curthread().hit("vm_pageout_clean:back")
            found.append(p)
        return found

    @c("vm_pageout_clean", "vm_pageout.c:333-357", part=True)
    @holds("obj held", "obj held; the pages returned are busied")
    def cluster_forward(self, obj: VmObject, pindex: int) -> list[Page]:
        """Neighbours above *pindex* in its aligned cluster, busied, nearest first."""
        found: list[Page] = []
        end = pindex - pindex % BLIST_MAX_ALLOC + BLIST_MAX_ALLOC
        for is_ in range(pindex + 1, end):
            if is_ >= obj.size:
                break
            p, error = self.vm.page.lookup_busy_try(obj, is_, True)
            if error or p is None:
                break
            if self.cluster_forward_special(p) or not self.cluster_dirty(p):
                self.vm.page.wakeup(p)
                break
            self.k.curthread().hit("vm_pageout_clean:forward")
            found.append(p)
        return found

    @c("vm_pageout_clean", "vm_pageout.c:314-315", part=True)
    @holds("p busied")
    def cluster_special(self, p: Page) -> bool:
        """Must *p*, now busied, stay out of the cluster?"""
        return bool(self.on_cache_queue(p) or p.flags & PG_UNMANAGED)

    @c("vm_pageout_clean", "vm_pageout.c:341-345", part=True)
    @holds("p busied")
    def cluster_forward_special(self, p: Page) -> bool:
        """The same for pages above, as in the C.

        It mistakes its own busy bit for another thread's, so no page is ever added above
        (vm_pageout.c:341-345).
        """
        self.k.curthread().hit("vm_pageout_clean:forward-refused")
        return bool(self.on_cache_queue(p) or p.flags & (PG_BUSY | PG_UNMANAGED) or p.busy)

    @c("vm_pageout_clean", "vm_pageout.c:314", part=True)
    @holds("p busied")
    def on_cache_queue(self, p: Page) -> bool:
        """p->queue - p->pc == PQ_CACHE."""
        return bool(p.queue - p.pc == self.vm.pq.CACHE)

    @c("vm_pageout_clean", "vm_pageout.c:319-324", part=True)
    @holds("p busied")
    def cluster_dirty(self, p: Page) -> bool:
        """Is *p*, which is busied, a dirty inactive page that is neither wired nor held?"""
        self.vm.page.test_dirty(p)
        dirty = p.dirty & p.valid or p.flags & PG_NEED_COMMIT
        inactive = p.queue - p.pc == self.vm.pq.INACTIVE
        return bool(dirty and inactive and p.wire_count == 0 and p.hold_count == 0)

    @c("vm_pageout_flush", "vm_pageout.c:379-482", blocks=True)
    @holds("all of mc busied, of one object; no spinlock", "all of mc given up")
    def flush(self, mc: Sequence[Page], flags: int) -> int:
        """vm_pageout_flush, vm_pageout.c:379-482: write the pages *mc*.

        *mc* are one or more pages of one object in ascending order of index, all busied by the
        caller; they are unbusied on return.  *flags* are VM_PAGER_PUT_*.  May block in the pager
        and for pages.  Returns the number of pages counted as written (done or in progress).
        """
        vm, k = self.vm, self.k
        page = vm.page
        k.curthread().hit("vm_pageout_flush")
        for m in mc:
            k.kassert(m.valid == VM_PAGE_BITS_ALL, "flush-invalid", f"{m}")
            page.io_start(m)
        for m in mc:
            # Read-only from here on: the modified bits move to m->dirty, and a write during the I/O
            # faults.  The soft busy count alone then protects the page until the I/O is done.
            page.protect(m, VM_PROT_READ)
            page.wakeup(m)

        obj: VmObject = mc[0].object
        vm.object.pip_add(obj, len(mc))
        if obj is vm.kernel_object:
            flags |= VM_PAGER_PUT_SYNC
        statuses = vm.pager.put_pages(obj, mc, flags)
        numpagedout = 0
        for m, status in zip(mc, statuses, strict=True):
            if status in (VM_PAGER_OK, VM_PAGER_PEND):
                numpagedout += 1
            elif status == VM_PAGER_BAD:
                self.flush_bad(m)
            # For VM_PAGER_PEND the pager's completion unbusies the page and drops the paging count.
            if status != VM_PAGER_PEND:
                self.flush_done(obj, m)
        return numpagedout

    @c("vm_pageout_flush", "vm_pageout.c:429-439", part=True, blocks=True)
    @holds("m soft-busy (not hard-busied)")
    def flush_bad(self, m: Page) -> None:
        """The page has no place in its object: discard the changes as if they had been written."""
        page = self.vm.page
        self.k.curthread().hit("vm_pageout_flush:bad")
        page.busy_wait(m, False, "pgbad")
        self.vm.pmap.clear_modify(m)
        page.undirty(m)
        page.wakeup(m)

    @c("vm_pageout_flush", "vm_pageout.c:468-479", part=True, blocks=True)
    @holds("m soft-busy, with a pip reference on obj", "soft busy and pip reference released")
    def flush_done(self, obj: VmObject, m: Page) -> None:
        """The pager has finished with *m*; for pages in progress the completion does this."""
        vm = self.vm
        vm.page.busy_wait(m, False, "pgouw")
        if vm.meter.count_severe():
            self.k.curthread().hit("vm_pageout_flush:severe")
            vm.page.deactivate(m)
        vm.page.io_finish(m)
        vm.page.wakeup(m)
        vm.object.pip_wakeup(obj)

    @c("vm_pageout_page_free", "vm_pageout.c:724-729", blocks=True)
    @holds("m busied by the caller", "m unbusied, unmapped and free")
    def page_free(self, m: Page) -> None:
        """vm_pageout_page_free, vm_pageout.c:724-729: unmap and free a page.

        The caller has the page busied.  May block on the object's token.
        """
        self.k.curthread().hit("vm_pageout_page_free")
        self.vm.page.protect(m, VM_PROT_NONE)
        self.vm.page.free(m)
