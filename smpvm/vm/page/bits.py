"""The valid and dirty masks of a page, one bit for each 512-byte block."""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.vm.page.queues import PageLocks
from smpvm.vm.page.struct import PG_NEED_COMMIT, PG_NOSYNC, Page
from smpvm.vm.param import DEV_BSIZE, VM_PAGE_BITS_ALL

DEV_BSHIFT = 9
DEV_BMASK = DEV_BSIZE - 1
BLOCKS = PAGE_SIZE // DEV_BSIZE


class PageBits(PageLocks):
    """The valid and dirty masks (u8, one bit per block).  Nothing here blocks.

    *base* and *size* are bytes and stay within the page; the caller should have the page busied.
    """

    @c("vm_page_bits", "vm_page.c:2787-2805")
    def bits(self, base: int, size: int) -> int:
        """vm_page_bits, vm_page.c:2787-2805.

        The mask of the blocks that [base, base+size) touches.
        """
        if base + size > PAGE_SIZE:
            self.k.panic("page-bits", f"base {base} size {size}")
        if size == 0:
            return 0
        return (2 << ((base + size - 1) >> DEV_BSHIFT)) - (1 << (base >> DEV_BSHIFT))

    @c("_vm_page_zero_valid", "vm_page.c:2822-2864")
    @holds("m busied")
    def _zero_valid(self, m: Page, base: int, size: int) -> None:
        """_vm_page_zero_valid, vm_page.c:2822-2864: zero the rest of a partly covered end block.

        Only if that block is not valid yet: a valid block keeps its data.
        """
        if size == 0:
            return
        frag = base & ~DEV_BMASK
        if frag != base and not m.valid & (1 << (base >> DEV_BSHIFT)):
            self.vm.pmap.zero_page_area(m, frag, base - frag)
        end = base + size
        if end & DEV_BMASK and not m.valid & (1 << (end >> DEV_BSHIFT)):
            self.vm.pmap.zero_page_area(m, end, DEV_BSIZE - (end & DEV_BMASK))

    @c("vm_page_set_valid", "vm_page.c:2880-2885", uncalled=True)
    @holds("m busied")
    def set_valid(self, m: Page, base: int, size: int) -> None:
        """vm_page_set_valid, vm_page.c:2880-2885: mark the range valid."""
        self._zero_valid(m, base, size)
        m.valid |= self.bits(base, size)

    @c("vm_page_set_validclean", "vm_page.c:2901-2914")
    @holds("m busied")
    def set_validclean(self, m: Page, base: int, size: int) -> None:
        """vm_page_set_validclean, vm_page.c:2901-2914: mark the range valid and clean.

        Does not clear the modified bits in the pmap.
        """
        self._zero_valid(m, base, size)
        bits = self.bits(base, size)
        m.valid |= bits
        m.dirty &= ~bits
        if base == 0 and size == PAGE_SIZE:
            self.flag_clear(m, PG_NOSYNC)

    @c("vm_page_set_validdirty", "vm_page.c:2925-2935", uncalled=True)
    @holds("m busied")
    def set_validdirty(self, m: Page, base: int, size: int) -> None:
        """vm_page_set_validdirty, vm_page.c:2925-2935.

        Mark the range valid and dirty, and the object too.
        """
        bits = self.bits(base, size)
        m.valid |= bits
        m.dirty |= bits
        if (obj := m.object) is not None:
            self.vm.object.set_writeable_dirty(obj)

    @c("vm_page_clear_dirty", "vm_page.c:2947-2955")
    @holds("m busied")
    def clear_dirty(self, m: Page, base: int, size: int) -> None:
        """vm_page_clear_dirty, vm_page.c:2947-2955: mark the range clean."""
        m.dirty &= ~self.bits(base, size)
        if base == 0 and size == PAGE_SIZE:
            self.flag_clear(m, PG_NOSYNC)

    @c("vm_page_clear_dirty_end_nonincl", "vm_page2.h:174-181", uncalled=True)
    @holds("m busied")
    def clear_dirty_end_nonincl(self, m: Page, base: int, size: int) -> None:
        """vm_page_clear_dirty_end_nonincl, vm_page2.h:174-181.

        Without a partial block at the end.
        """
        size = (base + size) & ~DEV_BMASK
        if base < size:
            self.clear_dirty(m, base, size - base)

    @c("vm_page_clear_dirty_beg_nonincl", "vm_page2.h:193-201")
    @holds("m busied")
    def clear_dirty_beg_nonincl(self, m: Page, base: int, size: int) -> None:
        """vm_page_clear_dirty_beg_nonincl, vm_page2.h:193-201.

        Without a partial block at the start.
        """
        size += base
        base = (base + DEV_BMASK) & ~DEV_BMASK
        if base < size:
            self.clear_dirty(m, base, size - base)

    @c("vm_page_dirty", "vm_page.c:2966-2979")
    @holds("m busied normally (pmap comes without)")
    def dirty(self, m: Page) -> None:
        """vm_page_dirty, vm_page.c:2966-2979: mark the whole page dirty, and its object and vnode.

        Panics ``dirty-free-or-cache`` if the page is on a free or cache queue.
        """
        pqtype = m.queue - m.pc
        if pqtype == self.CACHE or pqtype == self.FREE:
            self.k.panic("dirty-free-or-cache", f"{m} is on {self.queues[m.queue]}")
        if m.dirty != VM_PAGE_BITS_ALL:
            m.dirty = VM_PAGE_BITS_ALL
            if (obj := m.object) is not None:
                self.vm.object.set_writeable_dirty(obj)

    @c("vm_page_undirty", "vm_page2.h:375-379")
    @holds("m busied, or soft-busy in the pager")
    def undirty(self, m: Page) -> None:
        """vm_page_undirty, vm_page2.h:374: clear m->dirty, not the modified bits in the pmap."""
        m.dirty = 0

    @c("vm_page_test_dirty", "vm_page.c:3072-3078")
    @holds("m busied; no spinlock")
    def test_dirty(self, m: Page) -> None:
        """vm_page_test_dirty, vm_page.c:3072-3078.

        Make the page dirty if a mapping has modified it.
        """
        if m.dirty != VM_PAGE_BITS_ALL and self.vm.pmap.is_modified(m):
            self.dirty(m)

    @c("vm_page_set_invalid", "vm_page.c:2989-2998", uncalled=True)
    @holds("m busied; its object held")
    def set_invalid(self, m: Page, base: int, size: int) -> None:
        """vm_page_set_invalid, vm_page.c:2989-2998: mark the range neither valid nor dirty."""
        bits = self.bits(base, size)
        m.valid &= ~bits
        m.dirty &= ~bits
        if (obj := m.object) is None:
            self.k.panic("null-object", f"vm_page_set_invalid of {m}", kind="fault")
        obj.generation += 1

    @c("vm_page_zero_invalid", "vm_page.c:3012-3046")
    @holds("m busied")
    def zero_invalid(self, m: Page, setvalid: bool) -> None:
        """vm_page_zero_invalid, vm_page.c:3012-3046: zero every invalid block.

        With *setvalid* the whole page is valid afterwards.
        """
        b = 0
        for i in range(BLOCKS + 1):
            if i == BLOCKS or m.valid & (1 << i):
                if i > b:
                    self.vm.pmap.zero_page_area(m, b << DEV_BSHIFT, (i - b) << DEV_BSHIFT)
                b = i + 1
        if setvalid:
            m.valid = VM_PAGE_BITS_ALL

    @c("vm_page_is_valid", "vm_page.c:3056-3065", uncalled=True)
    @holds("m busied")
    def is_valid(self, m: Page, base: int, size: int) -> bool:
        """vm_page_is_valid, vm_page.c:3056-3065.

        Is the range valid?  Size 0: is any block valid?
        """
        bits = self.bits(base, size)
        valid = m.valid
        return valid != 0 and valid & bits == bits

    @c("vm_page_need_commit", "vm_page.c:2673-2678", uncalled=True)
    @holds("m busied")
    def need_commit(self, m: Page) -> None:
        """vm_page_need_commit, vm_page.c:2673-2678.

        Clean, but must not be reused before a commit.
        """
        self.flag_set(m, PG_NEED_COMMIT)
        self.vm.object.set_writeable_dirty(m.object)

    @c("vm_page_clear_commit", "vm_page.c:2680-2684", uncalled=True)
    @holds("m busied")
    def clear_commit(self, m: Page) -> None:
        """vm_page_clear_commit, vm_page.c:2680-2684."""
        self.flag_clear(m, PG_NEED_COMMIT)

    @c("vm_page_zero_fill", "vm_page2.h:322-327")
    @holds("m busied")
    def zero_fill(self, m: Page) -> bool:
        """vm_page_zero_fill, vm_page2.h:321: zero the page.  Always returns True."""
        self.vm.pmap.zero_page(m)
        return True

    @c("vm_page_copy", "vm_page2.h:333-339")
    @holds("both pages busied (or wired)")
    def copy(self, src_m: Page, dest_m: Page) -> None:
        """vm_page_copy, vm_page2.h:332.

        Copy the data; *dest_m* becomes fully valid and fully dirty.
        """
        self.vm.pmap.copy_page(src_m, dest_m)
        dest_m.valid = VM_PAGE_BITS_ALL
        dest_m.dirty = VM_PAGE_BITS_ALL
