"""swap_pager.c: paging anonymous memory to and from the swap device.

The page-out daemon's writes are asynchronous (VM_PAGER_PEND; the device's thread completes them in
``async_iodone``); any other thread waits for its write and then runs the same completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smpvm.config import BLIST_MAX_ALLOC, PAGE_SHIFT, PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import (
    PG_RAM,
    PG_REFERENCED,
    PG_SWAPINPROG,
    PG_SWAPPED,
    PG_WANTED,
    VM_ALLOC_QUICK,
)
from smpvm.vm.pager.disk import READ, WRITE
from smpvm.vm.pager.swap_iodone import (
    NSWBUF_KVA,
    SWBIO_READ,
    SWBIO_SYNC,
    SWBIO_WRITE,
    SwapCompletion,
    SwapIo,
)
from smpvm.vm.pager.swap_meta import SWM_FREE, SWM_LOOK, SWM_POP
from smpvm.vm.param import (
    OBJT_DEFAULT,
    OBJT_SWAP,
    SWAPBLK_NONE,
    VM_PAGE_BITS_ALL,
    VM_PAGER_ERROR,
    VM_PAGER_FAIL,
    VM_PAGER_OK,
    VM_PAGER_PEND,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page

NSW_CLUSTER_MAX = 16
"""Pages in one I/O: MAX_PAGEOUT_CLUSTER, which is SWB_NPAGES (swap_pager.c:126, :374)."""
DMMAX = 32
"""Stripe of the swap device in pages: no I/O crosses a multiple of it."""
XIO_INTERNAL_PAGES = 32


class SwapPager(SwapCompletion):
    """swap_pager.c: ``vm.swap``."""

    @c("swap_pager_swap_init", "swap_pager.c:346-414")
    def swap_init(self) -> None:
        """swap_pager_swap_init, swap_pager.c:346-414: called once by the page-out daemon.

        Here the buffer limits are set up in the constructor; only the call itself is left.
        """
        k = self.k
        k.curthread().hit("swap_pager_swap_init")
        if (f := k.probe.call) is not None:
            f(k.curthread(), "swap_pager_swap_init")

    # -- for the rest of the VM

    @c("swap_pager_alloc", "swap_pager.c:428-440", blocks=True, uncalled=True)
    @holds("no spinlock", "")
    def alloc(self, size: int, offset: int = 0) -> VmObject:
        """swap_pager_alloc, swap_pager.c:428-440: a SWAP object of *size* bytes."""
        pages = (offset + PAGE_SIZE - 1 + size) >> PAGE_SHIFT
        obj = self.vm.object.allocate_hold(OBJT_DEFAULT, pages)
        self.meta_convert(obj)
        self.vm.object.drop(obj)
        return obj

    @c("swap_pager_dealloc", "swap_pager.c:453-467", blocks=True)
    @holds("obj held, dying; no spinlock")
    def dealloc(self, obj: VmObject) -> None:
        """swap_pager_dealloc, swap_pager.c:453-467: free all swap of a dying object.  Blocks."""
        self.vm.object.hold(obj)
        self.vm.object.pip_wait(obj, "swpdea")
        self.meta_free_all(obj)
        self.vm.object.drop(obj)

    @c("swap_pager_freespace", "swap_pager.c:574-580", blocks=True)
    @holds("something that keeps obj; no spinlock", "")
    def freespace(self, obj: VmObject, start: int, size: int) -> None:
        """swap_pager_freespace, swap_pager.c:574-580: free the swap of *size* pages.  Blocks."""
        self.vm.object.hold(obj)
        self.meta_free(obj, start, size)
        self.vm.object.drop(obj)

    @c("swap_pager_freespace_all", "swap_pager.c:585-591", blocks=True)
    @holds("something that keeps obj; no spinlock", "")
    def freespace_all(self, obj: VmObject) -> None:
        """swap_pager_freespace_all, swap_pager.c:585-591: free all swap of an object.  Blocks."""
        self.vm.object.hold(obj)
        self.meta_free_all(obj)
        self.vm.object.drop(obj)

    @c("swap_pager_page_inserted", "swap_pager.c:684-693")
    @holds("m busied; its object held exclusively")
    def page_inserted(self, m: Page) -> None:
        """swap_pager_page_inserted, swap_pager.c:684-693: set PG_SWAPPED if the page has swap."""
        obj: VmObject = m.object
        if obj.swblock_count:
            self.vm.object.hold(obj)
            if self.meta_ctl(obj, m.pindex, SWM_LOOK) != SWAPBLK_NONE:
                self.vm.page.flag_set(m, PG_SWAPPED)
            self.vm.object.drop(obj)

    @c("swap_pager_unswapped", "swap_pager.c:880-890", blocks=True)
    @holds("m busied; no spinlock")
    def unswapped(self, m: Page) -> None:
        """swap_pager_unswapped, swap_pager.c:880-890.

        Free the swap of the busied page *m*, now dirty.

        Blocks unless the caller holds the object.
        """
        if m.flags & PG_SWAPPED:
            obj: VmObject = m.object
            self.vm.object.hold(obj)
            self.k.kassert(m.flags & PG_SWAPPED, "unswapped-race", str(m))
            self.meta_ctl(obj, m.pindex, SWM_FREE)
            self.vm.page.flag_clear(m, PG_SWAPPED)
            self.vm.object.drop(obj)

    @c("swap_pager_copy", "swap_pager.c:763-824", blocks=True)
    @holds("both held exclusively, a pip reference on src")
    def copy(self, src: VmObject, dst: VmObject, base: int, destroysource: bool) -> None:
        """swap_pager_copy, swap_pager.c:763-824: move swap blocks from *src* to *dst*.

        Both are held.  Page 0 of *dst* is page *base* of *src*; a block that *dst* already has is
        kept.  With *destroysource* the rest of *src*'s swap is freed and *src* becomes DEFAULT
        again.  Blocks.
        """
        self.vm.object.assert_held(src)
        self.vm.object.assert_held(dst)
        for i in range(dst.size):
            if self.meta_ctl(dst, i, SWM_LOOK) == SWAPBLK_NONE:
                blk = self.meta_ctl(src, base + i, SWM_POP)
                if blk != SWAPBLK_NONE:
                    self.meta_build(dst, i, blk)
            else:
                self.meta_ctl(src, base + i, SWM_FREE)
        if destroysource:
            self.meta_free_all(src)
            if src.type == OBJT_SWAP:
                src.type = OBJT_DEFAULT

    @c("swap_pager_haspage", "swap_pager.c:841-858", blocks=True)
    @holds("something that keeps obj; no spinlock", "")
    def haspage(self, obj: VmObject, pindex: int) -> bool:
        """swap_pager_haspage, swap_pager.c:841-858: whether page *pindex* has swap.  Blocks."""
        self.vm.object.hold(obj)
        blk = self.meta_ctl(obj, pindex, SWM_LOOK)
        self.vm.object.drop(obj)
        return blk != SWAPBLK_NONE

    # -- page-in

    @c("swap_pager_getpage", "swap_pager.c:1212-1459", blocks=True)
    @holds("a pip reference on obj; mreq busied; no spinlock")
    def getpage(self, obj: VmObject, mreq: Page, seqaccess: int) -> int:
        """swap_pager_getpage, swap_pager.c:1212-1459: read the busied page *mreq* from swap.

        The caller has one paging reference.  Returns VM_PAGER_OK, VM_PAGER_FAIL (no swap) or
        VM_PAGER_ERROR; *mreq* stays busy.  Sleeps for the I/O; the object's token is released while
        asleep.
        """
        objects = self.vm.object
        objects.hold(obj)
        self.k.kassert(mreq.object is obj, "getpage-object", f"{obj}, {mreq}")
        raonly = mreq.valid == VM_PAGE_BITS_ALL
        if raonly:
            ahead = self._read_ahead_page(obj, mreq.pindex + 1)
            if ahead is None:
                objects.drop(obj)
                return VM_PAGER_OK
            mreq = ahead
        blk = self.meta_ctl(obj, mreq.pindex, SWM_LOOK)
        pages = self._burst(obj, mreq, blk)
        if blk == SWAPBLK_NONE:
            if raonly:
                self.vm.vnode_pager.freepage(mreq)
            objects.drop(obj)
            return VM_PAGER_OK if raonly else VM_PAGER_FAIL
        self._read(obj, pages, blk, -1 if raonly else 0)
        if raonly:
            objects.drop(obj)
            return VM_PAGER_OK
        self._wait_for(mreq)
        objects.drop(obj)
        return VM_PAGER_OK if mreq.valid == VM_PAGE_BITS_ALL else VM_PAGER_ERROR

    @c("swap_pager_getpage", "swap_pager.c:1248-1280", part=True, blocks=True)
    @holds("obj held exclusively", "obj held exclusively; the page returned busied")
    def _read_ahead_page(self, obj: VmObject, pindex: int) -> Page | None:
        """The page after a valid one, busied, if it can be read ahead (swap_burst_read)."""
        if not self.swap_burst_read or pindex >= obj.size:
            return None
        if self.meta_ctl(obj, pindex, SWM_LOOK) == SWAPBLK_NONE:
            return None
        return self._claim(obj, pindex)

    @c("swap_pager_getpage", "swap_pager.c:1257-1280,1310-1329", part=True, blocks=True)
    @holds("obj held exclusively", "obj held exclusively; the page returned busied")
    def _claim(self, obj: VmObject, pindex: int) -> Page | None:
        """Busy an invalid page at *pindex*, or allocate one without blocking; None if neither
        works.
        """
        page = self.vm.page
        m, error = page.lookup_busy_try(obj, pindex, True)
        if error:
            return None
        if m is None:
            return page.alloc(obj, pindex, VM_ALLOC_QUICK)
        if m.valid:
            page.wakeup(m)
            return None
        page.unqueue_nowakeup(m)
        return m

    @c("swap_pager_getpage", "swap_pager.c:1298-1334", part=True, blocks=True)
    @holds(
        "obj held exclusively; mreq busied",
        "obj held exclusively; mreq busied; all pages returned busied",
    )
    def _burst(self, obj: VmObject, mreq: Page, blk: int) -> list[Page]:
        """*mreq* and, with swap_burst_read, the invalid pages after it whose blocks follow on."""
        pages = [mreq]
        while self.swap_burst_read and len(pages) < XIO_INTERNAL_PAGES:
            pindex = mreq.pindex + len(pages)
            if pindex >= obj.size:
                break
            iblk = self.meta_ctl(obj, pindex, SWM_LOOK)
            if iblk != blk + len(pages) or (blk ^ iblk) & ~(DMMAX - 1):
                break
            m = self._claim(obj, pindex)
            if m is None:
                break
            pages.append(m)
        if len(pages) > 1:
            self.vm.page.flag_set(pages[-1], PG_RAM)
        return pages

    @c("swap_pager_getpage", "swap_pager.c:1356-1402", part=True, blocks=True)
    @holds(
        "obj held; pages busied", "obj held; the pages belong to the request, with pip references"
    )
    def _read(self, obj: VmObject, pages: Sequence[Page], blk: int, reqpage: int) -> None:
        k = self.k
        io = self._make_io(READ, blk, pages, SWBIO_READ)
        io.done = self._iodone
        io.reqpage = reqpage
        self.nsw_rcount.getpbuf(io)
        for m in pages:
            self.vm.page.flag_set(m, PG_SWAPINPROG)
        td = k.curthread()
        td.hit("v_swapin")
        td.cnt["v_swappgsin"] += len(pages)
        self.vm.object.pip_add(obj, len(pages))
        self.disk.strategy(io)

    @c("swap_pager_getpage", "swap_pager.c:1420-1440", part=True, blocks=True)
    @holds("m busied; the object held (token released while asleep)")
    def _wait_for(self, m: Page) -> None:
        """Sleep until PG_SWAPINPROG of the busied page *m* is clear (swap_pager.c:1420-1440)."""
        k = self.k
        while (flags := m.flags) & PG_SWAPINPROG:
            k.sleep.tsleep_interlock(m)
            if not k.atomic.cmpset_int(m, "flags", flags, flags | PG_WANTED | PG_REFERENCED):
                continue
            k.curthread().hit("v_intrans")
            if k.sleep.tsleep(
                m, PINTERLOCKED, "swread", k.hz * 20, cond=lambda: not m.flags & PG_SWAPINPROG
            ):
                kprintf(k, "swap-indefinite-wait", page=m)

    @c("swap_pager_getpage", "swap_pager.c:1356-1367", part=True)
    @c("swap_pager_putpages", "swap_pager.c:1611-1644", part=True)
    def _make_io(self, cmd: str, blk: int, pages: Sequence[Page], swbio: int) -> SwapIo:
        io = self.k.new(SwapIo, self.k, cmd, self.store, blk, pages)
        io.swbio = swbio
        return io

    # -- page-out

    @c("swap_pager_putpages", "swap_pager.c:1485-1683", blocks=True)
    @holds(
        "pages soft-busy, a pip reference for each; no spinlock",
        "PEND: released at completion; FAIL: the caller's",
    )
    def putpages(self, obj: VmObject, pages: Sequence[Page], flags: int) -> list[int]:
        """swap_pager_putpages, swap_pager.c:1485-1683: assign new swap to the pages and write them.

        The pages are soft-busy, and the caller has a paging reference for each.  Returns a status
        for each: VM_PAGER_PEND (the completion drops the soft busy and paging references; for
        threads other than the page-out daemon it has already run) or VM_PAGER_FAIL (no swap).
        Blocks.
        """
        k, objects = self.k, self.vm.object
        objects.hold(obj)
        if pages:
            k.kassert(pages[0].object is obj, "putpages-object", f"{obj}, {pages[0]}")
        self.meta_convert(obj)
        # Only the page-out daemon writes asynchronously: every other thread waits, which throttles
        # it.
        sync = 1 if k.curthread() is not self.vm.pageout.pagethread else flags
        self._adjust_async()
        status: list[int] = []
        while len(status) < len(pages):
            at = len(status)
            blk, n, io = self._alloc_cluster(obj, pages[at : at + NSW_CLUSTER_MAX], sync)
            # No swap for these n pages now, but fewer may still fit: go on with the rest.
            if io is None:
                status += [VM_PAGER_FAIL] * n
                continue
            run = pages[at : at + n]
            for j, m in enumerate(run):
                # New swap for every write: the old block, if any, is freed here.  The page stays
                # dirty until the write has succeeded.
                self.meta_build(obj, m.pindex, blk + j)
                if obj.type == OBJT_SWAP:
                    self.vm.page.dirty(m)
                self.vm.page.flag_set(m, PG_SWAPINPROG)
            td = k.curthread()
            td.hit("v_swapout")
            td.cnt["v_swappgsout"] += n
            self._write(io, sync)
            # Also after a synchronous write: its completion has already dropped the references.
            status += [VM_PAGER_PEND] * n
        objects.drop(obj)
        return status

    @c("swap_pager_putpages", "swap_pager.c:1522-1548", part=True, blocks=True)
    @holds("obj held")
    def _adjust_async(self) -> None:
        """Apply a changed swap_async_max (swap_pager.c:1522-1548)."""
        if self.swap_async_max == self.nsw_wcount_async_max:
            return
        self.swap_async_max = n = max(1, min(self.swap_async_max, NSWBUF_KVA // 2))
        self.vm_token.get()
        n -= self.nsw_wcount_async_max
        if self.nsw_wcount_async.count + n >= 0:
            self.nsw_wcount_async_max += n
            self.nsw_wcount_async.adjcount(n)
        self.vm_token.release()

    @c("swap_pager_putpages", "swap_pager.c:1568-1617", part=True, blocks=True)
    @holds("obj held", "obj held; the request charged with a buffer")
    def _alloc_cluster(
        self, obj: VmObject, pages: Sequence[Page], sync: int
    ) -> tuple[int, int, SwapIo | None]:
        """Allocate contiguous swap for the first of *pages*, and a buffer (swap_pager.c:1568-1617).

        If there is no run of that length, tries half of it, as long as that is more than 4.
        Returns (first block, pages, request); no request means that none of these pages gets swap
        now.
        """
        n = min(BLIST_MAX_ALLOC, len(pages))
        self.vm_token.get()
        while (blk := self.getswapspace(obj, n)) == SWAPBLK_NONE and n > 4:
            n >>= 1
        if blk == SWAPBLK_NONE:
            self.vm_token.release()
            return SWAPBLK_NONE, n, None
        if (blk ^ (blk + n)) & ~(DMMAX - 1):
            j = ((blk + DMMAX) & ~(DMMAX - 1)) - blk
            # One I/O must not cross a stripe of the device: give back what lies behind the
            # boundary.
            self.freeswapspace(obj, blk + j, n - j)
            n = j
        # getpbuf may sleep; vm_token is then released, but the blocks are already ours.
        io = self._make_io(WRITE, blk, pages[:n], SWBIO_WRITE)
        (self.nsw_wcount_sync if sync == 1 else self.nsw_wcount_async).getpbuf(io)
        self.vm_token.release()
        return blk, n, io

    @c("swap_pager_putpages", "swap_pager.c:1644-1680", part=True, blocks=True)
    @holds("obj held; io charged with a buffer")
    def _write(self, io: SwapIo, sync: int) -> None:
        if not sync:
            io.done = self._iodone
            self.disk.strategy(io)
            return
        io.swbio |= SWBIO_SYNC
        self.disk.strategy(io)
        self.disk.biowait(io, "swwrt")
        self.async_iodone(io)
