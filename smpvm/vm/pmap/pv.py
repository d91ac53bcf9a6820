"""The pmap seen from a page: tests of, and changes to, all mappings of one page."""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds, own
from smpvm.vm.page.struct import (
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_REFERENCED,
    PG_WRITEABLE,
    Page,
    words_point,
)
from smpvm.vm.param import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE
from smpvm.vm.pmap.pte import PTE_A, PTE_M, PTE_RW, PTE_W, PvEntry
from smpvm.vm.pmap.struct import Pmap, PmapBase

WORD_SIZE = 8
"""Bytes per word of a page's contents: word *n* is at byte 8 n."""
WORDS = PAGE_SIZE // WORD_SIZE

PV_SCAN_LIMIT = 16
"""How many mappings page_exists_quick checks."""
REFERENCED_LIMIT = 5
"""ts_referenced stops at this many references."""


class PmapPages(PmapBase):
    """Each call takes the page's spinlock; the caller must hold no spinlock."""

    # -- removing

    @c("pmap_remove_pv_pte", "pmap.c:2492-2660")
    @holds("pv locked")
    def remove_pv_pte(self, pv: PvEntry) -> None:
        """pmap_remove_pv_pte, pmap.c:2492-2660: clear the entry and transfer its bits to the page.

        *pv* is locked.  A modified entry makes the page dirty (busied or not), a referenced entry
        sets PG_REFERENCED.
        """
        m = pv.m
        assert m is not None
        old = self.mmu.update(pv, ~0)
        if old & PTE_M:
            self.vm.page.dirty(m)
        if old & PTE_A:
            self.vm.page.flag_set(m, PG_REFERENCED)
        if old & PTE_W:
            assert pv.pmap is not None
            self.atomic.add_int(pv.pmap, "wired_count", -1)

    @c("pmap_remove_pv_page", "pmap.c:2665-2685")
    @holds("pv locked; no spinlock")
    def remove_pv_page(self, pv: PvEntry) -> None:
        """pmap_remove_pv_page, pmap.c:2665-2685: remove *pv* from the page's list of mappings.

        *pv* is locked.  Removing the last mapping clears PG_MAPPED and PG_WRITEABLE.
        """
        m = pv.m
        assert m is not None
        self.pool.lock(m)
        pv.m = None
        before, behind = pv.pv_prev, pv.pv_next
        if before is None:
            m.pv_first = behind
        else:
            before.pv_next = behind
        if behind is None:
            m.pv_last = before
        else:
            behind.pv_prev = before
        pv.pv_next = pv.pv_prev = None
        if m.pv_first is None:
            self.vm.page.flag_clear(m, PG_MAPPED | PG_WRITEABLE)
        self.pool.unlock(m)

    @c("pmap_enter", "pmap.c:4246-4257", part=True)
    @holds("pv locked; m busied; no spinlock")
    def add_pv_page(self, pv: PvEntry, m: Page) -> None:
        """pmap_enter, pmap.c:4246-4257.

        The part that adds a mapping at the tail of the page's list.
        """
        self.pool.lock(m)
        pv.m = m
        last = m.pv_last
        pv.pv_prev = last
        if last is None:
            m.pv_first = pv
        else:
            last.pv_next = pv
        m.pv_last = pv
        self.vm.page.flag_set(m, PG_MAPPED)
        self.pool.unlock(m)

    @c("pmap_remove_all", "pmap.c:3892-3929", blocks=True)
    @holds("m busied; no spinlock")
    def remove_all(self, m: Page) -> None:
        """pmap_remove_all, pmap.c:3892-3929: remove *m* from every page table.

        *m* is hard-busied, so no mapping is added meanwhile.  May block on an entry's lock.
        """
        self.pool.lock(m)
        while (pv := m.pv_first) is not None:
            # The pv lock may block, so the page's spinlock has to be dropped before waiting for it.
            tried = self.pv.hold_try(pv)
            self.pool.unlock(m)
            if not tried:
                self.pv.lock(pv)
            # Without the spinlock the mapping may have been removed by its own address space.
            if pv.m is m:
                self.remove_pv_pte(pv)
                self.remove_pv_page(pv)
                self.pv_free(pv)
            else:
                self.pv.put(pv)
            self.pool.lock(m)
        if m.flags & (PG_MAPPED | PG_WRITEABLE):
            self.k.panic("remove-all-mapped", f"{m!r} has no mapping")
        self.pool.unlock(m)

    @c("pmap_page_protect", "pmap.c:4852-4867", blocks=True)
    @holds("m busied; no spinlock")
    def page_protect(self, m: Page, prot: int) -> None:
        """pmap_page_protect, pmap.c:4852-4867: lower the protection of all mappings of *m*.

        *m* is hard-busied.  A *prot* that includes write changes nothing.  May block.
        """
        if prot & VM_PROT_WRITE:
            return
        if prot & (VM_PROT_READ | VM_PROT_EXECUTE):
            self.clear_rw(m)
        else:
            self.remove_all(m)

    @c("pmap_clearbit", "pmap.c:4727-4844", part=True, blocks=True)
    @holds("m busied; no spinlock")
    def clear_rw(self, m: Page) -> None:
        """pmap_clearbit, pmap.c:4727-4844, for PG_RW: make all mappings read-only.

        A modified mapping makes the page dirty; as in the C, with the page's spinlock held.
        """
        self.vm.page.flag_clear(m, PG_WRITEABLE)
        if m.flags & PG_FICTITIOUS:
            return
        while not self._clear_rw_pass(m):
            pass

    @c("pmap_clearbit", "pmap.c:4780-4843", part=True, blocks=True)
    @holds("m busied; no spinlock")
    def _clear_rw_pass(self, m: Page) -> bool:
        """One walk over the mappings; returns False where the C restarts."""
        self.pool.lock(m)
        pv = m.pv_first
        while pv is not None:
            if pv.bits & PTE_RW:
                pmap = pv.pmap
                tried = self.pv.hold_try(pv)
                self.pool.unlock(m)
                if not tried:
                    self.pv.lock(pv)
                # The spinlock was dropped: the list of mappings may have changed, so start again.
                if pv.pmap is not pmap or pv.m is not m:
                    self.pv.put(pv)
                    return False
                old = self.mmu.update(pv, PTE_RW | PTE_M)
                self.pool.lock(m)
                if old & PTE_M:
                    self.vm.page.dirty(m)
                self.pv.put(pv)
            pv = pv.pv_next
        self.pool.unlock(m)
        return True

    # -- referenced and modified

    @c("pmap_ts_referenced", "pmap.c:4887-4913")
    @holds("no spinlock", "")
    def ts_referenced(self, m: Page) -> int:
        """pmap_ts_referenced, pmap.c:4887-4913.

        Count and clear the referenced bits, at most five.
        """
        if m.flags & PG_FICTITIOUS:
            return 0
        found = 0
        self.pool.lock(m)
        pv = m.pv_first
        while pv is not None:
            if pv.bits & PTE_A:
                self.mmu.update(pv, PTE_A)
                found += 1
                if found >= REFERENCED_LIMIT:
                    break
            pv = pv.pv_next
        self.pool.unlock(m)
        return found

    @c("pmap_is_modified", "pmap.c:4921-4928")
    @c("pmap_testbit", "pmap.c:4655-4710")
    @holds("no spinlock", "")
    def is_modified(self, m: Page) -> bool:
        """pmap_is_modified (pmap_testbit, pmap.c:4655-4710).

        Has any mapping been written through?
        """
        if m.flags & PG_FICTITIOUS or m.pv_first is None:
            return False
        self.pool.lock(m)
        found = False
        pv: PvEntry | None = m.pv_first
        while pv is not None:
            if pv.bits & PTE_M:
                found = True
                break
            pv = pv.pv_next
        self.pool.unlock(m)
        return found

    @c("pmap_clearbit", "pmap.c:4729-4774", part=True)
    @holds("no spinlock", "")
    def _clear_bit(self, m: Page, bit: int) -> None:
        """pmap_clearbit, pmap.c:4729-4774: the simple half, without PG_RW."""
        if m.flags & PG_FICTITIOUS:
            return
        self.pool.lock(m)
        pv = m.pv_first
        while pv is not None:
            if pv.bits & bit:
                self.mmu.update(pv, bit)
            pv = pv.pv_next
        self.pool.unlock(m)

    @c("pmap_clear_modify", "pmap.c:4933-4937")
    @holds("no spinlock", "")
    def clear_modify(self, m: Page) -> None:
        """pmap_clear_modify, pmap.c:4933-4937: clear the modified bits of all mappings."""
        self._clear_bit(m, PTE_M)

    @c("pmap_clear_reference", "pmap.c:4944-4948")
    @holds("no spinlock", "")
    def clear_reference(self, m: Page) -> None:
        """pmap_clear_reference, pmap.c:4944-4948: clear the referenced bits of all mappings."""
        self._clear_bit(m, PTE_A)

    @c("pmap_page_exists_quick", "pmap.c:4616-4637")
    @holds("no spinlock", "")
    def page_exists_quick(self, pmap: Pmap, m: Page) -> bool:
        """pmap_page_exists_quick, pmap.c:4616-4637.

        Is *pmap* among the first 16 mappings of *m*?
        """
        if m.flags & PG_FICTITIOUS:
            return False
        self.pool.lock(m)
        found = False
        pv: PvEntry | None = m.pv_first
        for _ in range(PV_SCAN_LIMIT):
            if pv is None:
                break
            if pv.pmap is pmap:
                found = True
                break
            pv = pv.pv_next
        self.pool.unlock(m)
        return found

    # -- contents

    @c("pmap_zero_page", "pmap.c:4549-4555")
    @holds("m busied")
    def zero_page(self, m: Page) -> None:
        """pmap_zero_page, pmap.c:4548: set all words to 0."""
        words_point(self.k, m, True)
        m.contents = None

    @c("pmap_zero_page_area", "pmap.c:4565-4571")
    @holds("m busied")
    def zero_page_area(self, m: Page, off: int, size: int) -> None:
        """pmap_zero_page_area, pmap.c:4564.

        Zero the words that begin in [off, off+size) (bytes).
        """
        words_point(self.k, m, True)
        contents = m.contents
        if contents is not None:
            first, last = -(-off // WORD_SIZE), -(-(off + size) // WORD_SIZE)
            for word in list(contents):
                if first <= word < last:
                    contents.pop(word, None)

    @c("pmap_copy_page", "pmap.c:4580-4588")
    @holds("both pages busied (or wired)")
    def copy_page(self, src: Page, dst: Page) -> None:
        """pmap_copy_page, pmap.c:4579: copy all words of *src*."""
        self.write_contents(dst, self.read_contents(src))

    @own
    def read_contents(self, m: Page) -> dict[int, int] | None:
        """A copy of the page's words, as a device reads them."""
        words_point(self.k, m, False)
        contents = m.contents
        return None if contents is None else contents.copy()

    @own
    def write_contents(self, m: Page, contents: dict[int, int] | None) -> None:
        """Store a copy of *contents* in the page, as a device writes it."""
        words_point(self.k, m, True)
        m.contents = contents.copy() if contents else None
