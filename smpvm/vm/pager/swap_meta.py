"""Swap space, and the mapping from an object's pages to swap blocks (metadata of swap_pager.c)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds, own
from smpvm.kern.guard import FREE, Guard, guarded
from smpvm.kern.token import Token
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import VmObject
from smpvm.vm.pager.swap_blist import Blist
from smpvm.vm.param import (
    OBJT_DEFAULT,
    OBJT_SWAP,
    SWAP_META_MASK,
    SWAP_META_PAGES,
    SWAPBLK_NONE,
)

if TYPE_CHECKING:
    from smpvm.vm.vm import Vm

SWM_LOOK = 0
SWM_FREE = 2
SWM_POP = 4


class SwBlock:
    """struct swblock (swap_pager.h:73-78): the swap blocks of SWAP_META_PAGES pages."""

    __slots__ = ("swb_count", "swb_index", "swb_pages")

    @c("swp_pager_meta_build", "swap_pager.c:2193-2199", part=True)
    def __init__(self, index: int) -> None:
        self.swb_index = index
        self.swb_count = 0
        self.swb_pages = [SWAPBLK_NONE] * SWAP_META_PAGES


@guarded(
    Guard("blist", "vm_token", "swap_pager.c:491, 542", container=True),
    Guard("vm_swap_anon_use", "vm_token", "swap_pager.c:514, 545", read=FREE),
    Guard("vm_swap_cache_use", "vm_token", "swap_pager.c:516, 547", read=FREE),
)
class SwapSpace:
    """The machine's swap blocks, and swp_pager_meta_*.

    ``vm_token`` protects the bitmap and the counts; taking it may block, which also releases the
    object's token.  The metadata are protected by the object's token.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = k = vm.k
        self.glob = vm.glob
        self.vm_token = Token(k, "vm", "vm_token")
        self.vm_swap_max = vm.config.swap_pages
        self.blist = k.container(Blist, self, "blist", self.vm_swap_max)
        self.vm_swap_anon_use = 0
        self.vm_swap_cache_use = 0
        self.nswap_lowat = 128
        self.nswap_hiwat = 512
        self.glob.vm_swap_size = self.vm_swap_max
        self.newswap()

    # -- space

    @c("swap_pager_newswap", "swap_pager.c:1690-1703")
    @holds("boot only", "")
    def newswap(self) -> None:
        """swap_pager_newswap, swap_pager.c:1690-1703.

        Set the water marks, 4% and 6% of all swap.
        """
        if self.vm_swap_max:
            self.nswap_lowat = self.vm_swap_max * 4 // 100
            self.nswap_hiwat = self.vm_swap_max * 6 // 100
        else:
            self.nswap_lowat = 128
            self.nswap_hiwat = 512
        self.sizecheck()

    @c("swp_sizecheck", "swap_pager.c:302-316")
    @holds("vm_token")
    def sizecheck(self) -> None:
        """swp_sizecheck, swap_pager.c:302-316: update swap_pager_almost_full, with hysteresis.

        Clears swap_pager_full (which makes the daemon kill) when the low mark is reached again.
        """
        glob = self.glob
        if glob.vm_swap_size < self.nswap_lowat:
            if glob.swap_pager_almost_full == 0:
                kprintf(self.k, "swap-almost-full", size=glob.vm_swap_size)
                glob.swap_pager_almost_full = 1
                glob.swap_fail_ticks = self.k.clock.ticks()
        else:
            glob.swap_pager_full = 0
            if glob.vm_swap_size > self.nswap_hiwat:
                glob.swap_pager_almost_full = 0

    @c("swp_pager_getswapspace", "swap_pager.c:486-521", blocks=True)
    @holds("obj held (its token may be lost for vm_token); no spinlock")
    def getswapspace(self, obj: VmObject, npages: int) -> int:
        """swp_pager_getswapspace, swap_pager.c:486-521: *npages* contiguous blocks for *obj*.

        *obj* is held; blocks only on vm_token.  Returns the first block, or SWAPBLK_NONE after
        setting swap_pager_full to 2.
        """
        glob = self.glob
        self.vm_token.get()
        blk = self.blist.alloc(npages)
        if blk == SWAPBLK_NONE:
            if glob.swap_pager_full != 2:
                code = "swap-full" if self.vm_swap_max else "swap-none"
                kprintf(self.k, code, pages=npages)
                glob.swap_pager_full = 2
                if glob.swap_pager_almost_full == 0:
                    glob.swap_fail_ticks = self.k.clock.ticks()
                glob.swap_pager_almost_full = 1
        else:
            glob.vm_swap_size -= npages
            if obj.type == OBJT_SWAP:
                self.vm_swap_anon_use += npages
            else:
                self.vm_swap_cache_use += npages
            self.sizecheck()
        self.vm_token.release()
        return blk

    @c("swp_pager_freeswapspace", "swap_pager.c:537-558", blocks=True)
    @holds("obj held (its token may be lost for vm_token); no spinlock")
    def freeswapspace(self, obj: VmObject, blk: int, npages: int) -> None:
        """swp_pager_freeswapspace, swap_pager.c:537-558: free blocks.  Blocks only on vm_token."""
        self.vm_token.get()
        if obj.type == OBJT_SWAP:
            self.vm_swap_anon_use -= npages
        else:
            self.vm_swap_cache_use -= npages
        try:
            self.blist.free(blk, npages)
        except ValueError as wrong:
            self.k.panic("blist-free", str(wrong))
        self.glob.vm_swap_size += npages
        self.sizecheck()
        self.vm_token.release()

    # -- meta data; the object is held throughout

    @c("swp_pager_lookup", "swap_pager.c:2113-2120")
    @holds("obj held")
    def lookup(self, obj: VmObject, index: int) -> SwBlock | None:
        """swp_pager_lookup, swap_pager.c:2113-2120; panics unless *obj* is held."""
        self.vm.object.assert_held(obj)
        return obj.swblock_root.get(index & ~SWAP_META_MASK)

    @c("swp_pager_meta_convert", "swap_pager.c:2140-2147")
    @holds("obj held exclusively")
    def meta_convert(self, obj: VmObject) -> None:
        """swp_pager_meta_convert, swap_pager.c:2140-2147.

        Turn a DEFAULT object into a SWAP object.
        """
        if obj.type == OBJT_DEFAULT:
            obj.type = OBJT_SWAP
            self.k.kassert(obj.swblock_count == 0, "swap-convert", str(obj))

    @c("swp_pager_meta_build", "swap_pager.c:2161-2228", blocks=True)
    @holds("obj held exclusively")
    def meta_build(self, obj: VmObject, index: int, blk: int) -> None:
        """swp_pager_meta_build, swap_pager.c:2161-2228: store page *index* of *obj* in block *blk*.

        A block that the page already had is freed, which may block.
        """
        self.k.kassert(blk != SWAPBLK_NONE, "swap-build-none", str(obj))
        self.vm.object.assert_held(obj)
        if obj.type == OBJT_DEFAULT:
            self.meta_convert(obj)
        swap = self.lookup(obj, index)
        if swap is None:
            swap = SwBlock(index & ~SWAP_META_MASK)
            obj.swblock_count += 1
            obj.swblock_root[swap.swb_index] = swap
        at = index & SWAP_META_MASK
        # Freeing may block and release the object's token: the entry is cleared first, then tested
        # again.
        while (old := swap.swb_pages[at]) != SWAPBLK_NONE:
            swap.swb_pages[at] = SWAPBLK_NONE
            self.freeswapspace(obj, old, 1)
            swap.swb_count -= 1
        swap.swb_pages[at] = blk
        swap.swb_count += 1

    @c("swp_pager_meta_free", "swap_pager.c:2244-2271", blocks=True)
    @holds("obj held exclusively")
    def meta_free(self, obj: VmObject, index: int, count: int) -> None:
        """swp_pager_meta_free, swap_pager.c:2244-2271: free the blocks of *count* pages.

        Blocks on vm_token, and yields the CPU after each metadata block.
        """
        self.vm.object.assert_held(obj)
        if obj.swblock_count == 0:
            self.k.kassert(not obj.swblock_root, "swap-count", str(obj))
            return
        if count == 0:
            return
        last = index + count - 1
        for base in self._pieces(obj, index & ~SWAP_META_MASK, last):
            swap = obj.swblock_root.get(base)
            if swap is not None:
                self.meta_free_callback(obj, swap, index, last)

    @c("rb_swblock_scancmp", "swap_pager.c:215-226")
    @holds("obj held")
    def _pieces(self, obj: VmObject, first: int, last: int) -> list[int]:
        """The indexes from *first* to *last* that have metadata, ascending."""
        root = obj.swblock_root
        if (last - first) // SWAP_META_PAGES < len(root):
            return [i for i in range(first, last + 1, SWAP_META_PAGES) if i in root]
        return sorted(i for i in root if first <= i <= last)

    @c("swp_pager_meta_free_callback", "swap_pager.c:2276-2329", blocks=True)
    @holds("obj held exclusively")
    def meta_free_callback(self, obj: VmObject, swap: SwBlock, first: int, last: int) -> None:
        """swp_pager_meta_free_callback, swap_pager.c:2276-2329.

        Pages first..last of one metadata block.
        """
        at = first & SWAP_META_MASK if swap.swb_index < first else 0
        reaches = swap.swb_index + SWAP_META_PAGES > last
        end = last & SWAP_META_MASK if reaches else SWAP_META_MASK
        while at <= end:
            blk = swap.swb_pages[at]
            if blk != SWAPBLK_NONE:
                swap.swb_pages[at] = SWAPBLK_NONE
                self.freeswapspace(obj, blk, 1)
                swap.swb_count -= 1
                if swap.swb_count == 0:
                    self._remove(obj, swap)
                    break
            at += 1
        self.k.sched.lwkt_yield()

    @c("swp_pager_remove", "swap_pager.c:2127-2133")
    @holds("obj held exclusively")
    def _remove(self, obj: VmObject, swap: SwBlock) -> None:
        """swp_pager_remove and zfree of an empty metadata block."""
        del obj.swblock_root[swap.swb_index]
        obj.swblock_count -= 1

    @c("swp_pager_meta_free_all", "swap_pager.c:2342-2368", blocks=True)
    @holds("obj held exclusively")
    def meta_free_all(self, obj: VmObject) -> None:
        """swp_pager_meta_free_all, swap_pager.c:2342-2368: free everything.  Blocks."""
        self.vm.object.assert_held(obj)
        while (base := next(iter(obj.swblock_root), None)) is not None:
            swap = obj.swblock_root.pop(base)
            for blk in swap.swb_pages:
                if blk != SWAPBLK_NONE:
                    self.freeswapspace(obj, blk, 1)
                    swap.swb_count -= 1
            self.k.kassert(swap.swb_count == 0, "swap-free-all", str(obj))
            obj.swblock_count -= 1
            self.k.sched.lwkt_yield()
        self.k.kassert(obj.swblock_count == 0, "swap-count", str(obj))

    @c("swp_pager_meta_ctl", "swap_pager.c:2392-2427", blocks=True)
    @holds("obj held (exclusively to free or pop)")
    def meta_ctl(self, obj: VmObject, index: int, what: int) -> int:
        """swp_pager_meta_ctl, swap_pager.c:2392-2427: the block of page *index*, or SWAPBLK_NONE.

        SWM_FREE frees it (returns SWAPBLK_NONE; blocks on vm_token), SWM_POP removes it from the
        metadata without freeing it.  *obj* is held, which is checked only if it has swap.
        """
        if obj.swblock_count == 0:
            return SWAPBLK_NONE
        swap = self.lookup(obj, index)
        if swap is None:
            return SWAPBLK_NONE
        at = index & SWAP_META_MASK
        blk = swap.swb_pages[at]
        if blk == SWAPBLK_NONE or what == SWM_LOOK:
            return blk
        swap.swb_pages[at] = SWAPBLK_NONE
        swap.swb_count -= 1
        if swap.swb_count == 0:
            self._remove(obj, swap)
        if what & SWM_FREE:
            self.freeswapspace(obj, blk, 1)
            return SWAPBLK_NONE
        return blk

    # -- for audits (at rest)

    @own
    def blocks_of(self, obj: VmObject) -> Iterator[tuple[int, int]]:
        """The swap of one object in order of page index: (page index, block).  Read-only."""
        for base in sorted(obj.swblock_root):
            for i, blk in enumerate(obj.swblock_root[base].swb_pages):
                if blk != SWAPBLK_NONE:
                    yield base + i, blk

    @own
    def blocks_in_use(self) -> int:
        """The number of blocks allocated in the bitmap.  Read-only."""
        return self.vm_swap_max - self.blist.free_count
