"""pmap.c (amd64) as one subsystem, ``vm.pmap``: page tables, and the hardware's use of them.

Not modelled: page table pages, shared page table segments, the special case of the buffer map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds, own
from smpvm.vm.page.struct import (
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_MARKER,
    PG_REFERENCED,
    PG_UNMANAGED,
    PG_WRITEABLE,
    Page,
)
from smpvm.vm.param import (
    MAP_PREFAULT_MADVISE,
    MAP_PREFAULT_PARTIAL,
    OBJT_VNODE,
    VM_PAGE_BITS_ALL,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from smpvm.vm.pmap.pte import MISS, PTE_A, PTE_M, PTE_RW, PTE_V, PTE_W, PvEntry
from smpvm.vm.pmap.pv import WORD_SIZE, WORDS, PmapPages
from smpvm.vm.pmap.struct import PAGE_MASK, Pmap

if TYPE_CHECKING:
    from smpvm.vm.object.objects import VmObject

MAX_INIT_PT = 96
"""Size in pages above which a partial prefault is skipped."""
SEG_MASK = (1 << 21) - 1
"""A page table segment maps 2 MB."""


class Pmaps(PmapPages):
    """The pmap seen from an address space.  The caller must hold no spinlock."""

    # -- life

    @c("pmap_pinit", "pmap.c:1741-1809")
    def pinit(self) -> Pmap:
        """pmap_pinit, pmap.c:1741-1809: an empty page table."""
        pmap: Pmap = self.k.new(Pmap, self.k)
        return pmap

    @c("pmap_release", "pmap.c:2344-2379", blocks=True)
    @holds("nobody else uses pmap; no spinlock", "")
    def release(self, pmap: Pmap) -> None:
        """pmap_release, pmap.c:2344-2379: remove the last entries of a dead address space.

        May block on an entry's lock.  Panics ``pmap-release-wired``, ``pmap-release-resident``.
        """
        while ptes := self.mapped(pmap):
            for va in ptes:
                self._remove_va(pmap, va)
        self.k.kassert(pmap.resident_count == 0, "pmap-release-resident", str(pmap))
        self.k.kassert(pmap.wired_count == 0, "pmap-release-wired", str(pmap))

    @c("pmap_resident_count", "pmap.h:307")
    def resident_count(self, pmap: Pmap) -> int:
        """pmap_resident_count: the number of mapped pages."""
        return pmap.resident_count

    # -- entering

    @c("pmap_enter", "pmap.c:4056-4316", blocks=True)
    @holds("m busied; no spinlock")
    def enter(
        self, pmap: Pmap, va: int, m: Page, prot: int, wired: bool, entry: Any = None
    ) -> None:
        """pmap_enter, pmap.c:4056-4316: map *m* at *va*, replacing what is there.

        *m* is hard-busied.  *entry* would only be used for shared page tables.  May block on an
        entry's lock.  Panics ``pte-managed`` if a managed entry replaces an unmanaged one or vice
        versa.
        """
        va &= ~PAGE_MASK
        managed = not m.flags & PG_UNMANAGED
        new = PTE_V | PTE_A | (PTE_RW if prot & VM_PROT_WRITE else 0) | (PTE_W if wired else 0)
        pv = self.pv_alloc(pmap, va, managed)
        old = pv.bits
        if old:
            if pv.managed != managed:
                self.k.panic("pte-managed", f"{pv} for {m}")
            if pv.m is m and not (old ^ new) & (PTE_RW | PTE_W):
                self._entered(pv, m)
                return
            self._replace(pv)
        # On the page's list first: vm_page_protect must be able to find every valid entry.
        if managed:
            self.add_pv_page(pv, m)
        else:
            pv.m = m
        self.mmu.update(pv, ~0, new)
        if wired:
            self.atomic.add_int(pmap, "wired_count", 1)
        if new & PTE_RW:
            self.vm.page.flag_set(m, PG_WRITEABLE)
        if not managed:
            self.atomic.add_int(pmap, "resident_count", 1)
        self._entered(pv, m)

    @c("pmap_enter", "pmap.c:4191-4233", part=True)
    @holds("pv locked; no spinlock")
    def _replace(self, pv: PvEntry) -> None:
        """Clear an entry that is about to map another page or get another protection."""
        if pv.managed:
            self.remove_pv_pte(pv)
            self.remove_pv_page(pv)
        else:
            # As in the C, wired_count is not decremented if the entry was wired.
            self.mmu.update(pv, ~0)
            pv.m = None
            assert pv.pmap is not None
            self.atomic.add_int(pv.pmap, "resident_count", -1)

    @c("pmap_enter", "pmap.c:4305-4313", part=True)
    @holds("pv locked", "pv unlocked")
    def _entered(self, pv: PvEntry, m: Page) -> None:
        if pv.managed and not m.flags & PG_MAPPED:
            self.k.panic("enter-unmapped", f"{m} has mappings but not PG_MAPPED")
        self.pv.put(pv)

    @c("pmap_enter_quick", "pmap.c:4325-4329", blocks=True)
    @holds("m busied; no spinlock")
    def enter_quick(self, pmap: Pmap, va: int, m: Page) -> None:
        """pmap_enter_quick, pmap.c:4324: map *m* read-only and not wired."""
        self.enter(pmap, va, m, VM_PROT_READ, False)

    @c("pmap_object_init_pt", "pmap.c:4353-4426", blocks=True)
    @holds("no spinlock", "")
    def object_init_pt(
        self,
        pmap: Pmap | None,
        addr: int,
        prot: int,
        obj: VmObject | None,
        pindex: int,
        size: int,
        limit: int,
    ) -> None:
        """pmap_object_init_pt, pmap.c:4353-4426: map the resident pages of a file at once.

        *addr* and *size* are bytes.  Only for the current process's own page table.  *limit* is a
        set of MAP_PREFAULT bits.  Blocks.
        """
        if not prot & VM_PROT_READ or pmap is None or obj is None:
            return
        proc = self.k.curthread().proc
        if proc is None or proc.p_vmspace is None or proc.p_vmspace.vm_pmap is not pmap:
            return
        psize = size // PAGE_SIZE
        if obj.type != OBJT_VNODE or (
            limit & MAP_PREFAULT_PARTIAL
            and psize > MAX_INIT_PT
            and obj.resident_page_count > MAX_INIT_PT
        ):
            return
        psize = min(psize, obj.size - pindex)
        if psize <= 0:
            return
        if not (addr | psize * PAGE_SIZE | pindex * PAGE_SIZE) & SEG_MASK:
            return
        self.vm.object.hold_shared(obj)
        obj.rb_memq.scan(
            lambda p: self._init_pt_page(pmap, addr, p, pindex, limit), pindex, pindex + psize - 1
        )
        self.vm.object.drop(obj)

    @c("pmap_object_init_pt_callback", "pmap.c:4428-4463", blocks=True)
    @holds("the page's object held")
    def _init_pt_page(self, pmap: Pmap, addr: int, p: Page, start: int, limit: int) -> int:
        """pmap_object_init_pt_callback, pmap.c:4428-4463."""
        vm = self.vm
        if limit & MAP_PREFAULT_MADVISE and vm.stats.v_free_count < vm.stats.v_free_reserved:
            return -1
        if p.flags & PG_MARKER or vm.page.busy_try(p, True):
            return 0
        if p.valid == VM_PAGE_BITS_ALL and not p.flags & PG_FICTITIOUS:
            if p.queue - p.pc == vm.pq.CACHE:
                vm.page.deactivate(p)
            self.enter_quick(pmap, addr + (p.pindex - start) * PAGE_SIZE, p)
        vm.page.wakeup(p)
        self.k.lwkt_yield()
        return 0

    @c("pmap_copy", "pmap.c:4535-4539")
    def copy(self, dst: Pmap, src: Pmap, dst_addr: int, size: int, src_addr: int) -> None:
        """pmap_copy, pmap.c:4534: advisory; does nothing."""

    # -- removing and protecting ranges

    @c("pmap_scan", "pmap.c:3294-3480")
    def _range(self, pmap: Pmap, sva: int, eva: int) -> list[int]:
        """The mapped addresses in [sva, eva), ascending; walks the range or the table, whichever is
        smaller.
        """
        sva = (sva + PAGE_MASK) & ~PAGE_MASK
        if (eva - sva) // PAGE_SIZE < len(pmap.ptes):
            return [va for va in range(sva, eva, PAGE_SIZE) if self.look(pmap, va) is not None]
        return [va for va in self.mapped(pmap) if sva <= va < eva]

    @c("pmap_remove", "pmap.c:3803-3814", blocks=True)
    @holds("no spinlock", "")
    def remove(self, pmap: Pmap, sva: int, eva: int) -> None:
        """pmap_remove, pmap.c:3803-3814: remove the mappings in [sva, eva) (bytes).

        The pages may be busy or not.  May block on an entry's lock.
        """
        k = self.k
        if (f := k.probe.call) is not None:
            f(k.curthread(), "pmap_remove", map=pmap.map, start=sva, end=eva)
        for va in self._range(pmap, sva, eva):
            self._remove_va(pmap, va)

    @c("pmap_remove_pages", "pmap.c:4644-4649", blocks=True)
    @c("pmap_remove_noinval", "pmap.c:3816-3827")
    @holds("no spinlock", "")
    def remove_pages(self, pmap: Pmap, sva: int, eva: int) -> None:
        """pmap_remove_pages, pmap.c:4644-4649: the same for a process that exits."""
        for va in self._range(pmap, sva, eva):
            self._remove_va(pmap, va)

    @c("pmap_remove_callback", "pmap.c:3829-3884", blocks=True)
    @holds("no spinlock", "")
    def _remove_va(self, pmap: Pmap, va: int) -> None:
        """pmap_remove_callback, pmap.c:3829-3884."""
        pv = self.pv_get(pmap, va)
        if pv is None:
            return
        if pv.managed:
            self.remove_pv_pte(pv)
            self.remove_pv_page(pv)
        else:
            old = self.mmu.update(pv, ~0)
            pv.m = None
            if old & PTE_W:
                self.atomic.add_int(pmap, "wired_count", -1)
            self.atomic.add_int(pmap, "resident_count", -1)
        self.pv_free(pv)

    @c("pmap_protect", "pmap.c:3941-3961", blocks=True)
    @holds("no spinlock", "")
    def protect(self, pmap: Pmap, sva: int, eva: int, prot: int) -> None:
        """pmap_protect, pmap.c:3941-3961: reduce the mappings in [sva, eva) (bytes) to *prot*.

        Without read permission the mappings are removed; with write permission nothing changes.
        May block on an entry's lock.
        """
        if not prot & VM_PROT_READ:
            self.remove(pmap, sva, eva)
        elif not prot & VM_PROT_WRITE:
            for va in self._range(pmap, sva, eva):
                pv = self.pv_get(pmap, va)
                if pv is not None:
                    self._protect_pv(pv)
                    self.pv.put(pv)

    @c("pmap_protect_callback", "pmap.c:3963-4042")
    @holds("pv locked; no spinlock")
    def _protect_pv(self, pv: PvEntry) -> None:
        """pmap_protect_callback, pmap.c:3963-4042.

        Make read-only; transfers A and M to the page.
        """
        page = self.vm.page
        while True:
            old = new = pv.bits
            m = pv.m
            if pv.managed and m is not None:
                device = m.flags & PG_FICTITIOUS
                if old & PTE_A:
                    if not device:
                        page.flag_set(m, PG_REFERENCED)
                    new &= ~PTE_A
                if old & PTE_M:
                    if not device:
                        page.dirty(m)
                    new &= ~PTE_M
            new &= ~PTE_RW
            if new == old or self.mmu.cmpset(pv, old, new):
                return

    # -- asking about one address

    @c("pmap_extract", "pmap.c:1182-1227")
    def extract(self, pmap: Pmap, va: int) -> Page | None:
        """pmap_extract, pmap.c:1182-1227: the page mapped at *va*.  Takes no lock."""
        pv = self.look(pmap, va & ~PAGE_MASK)
        return pv.m if pv is not None and pv.bits & PTE_V else None

    @c("pmap_prefault_ok", "pmap.c:4474-4488")
    def prefault_ok(self, pmap: Pmap, va: int) -> bool:
        """pmap_prefault_ok, pmap.c:4474-4488: is *va* unmapped?"""
        pv = self.look(pmap, va & ~PAGE_MASK)
        return pv is None or not pv.bits & PTE_V

    @c("pmap_fault_page_quick", "pmap.c:1236-1278")
    @holds("no spinlock", "the page returned held (hold_count)")
    def fault_page_quick(self, pmap: Pmap, va: int, prot: int) -> Page | None:
        """pmap_fault_page_quick, pmap.c:1236-1278: the page at *va*, held, if *prot* allows it.

        Returns None if the caller must use the real fault code.  For a write the page is made
        dirty.
        """
        need = PTE_V | PTE_RW if prot & VM_PROT_WRITE else PTE_V
        pv = self.look(pmap, va & ~PAGE_MASK)
        if pv is None or pv.bits & need != need or not pv.managed or not self.pv.hold_try(pv):
            return None
        # The lookup took no lock: the entry may have left the page table before it was locked.
        m = pv.m if pv.pmap is pmap else None
        if m is not None:
            self.vm.page.hold(m)
            if prot & VM_PROT_WRITE:
                self.vm.page.dirty(m)
        self.pv.put(pv)
        return m

    @c("pmap_change_wiring", "pmap.c:4494-4525", blocks=True)
    @holds("no spinlock", "")
    def change_wiring(self, pmap: Pmap, va: int, wired: bool, entry: Any = None) -> None:
        """pmap_change_wiring, pmap.c:4494-4525: set or clear the wired bit of the entry at *va*.

        Takes pm_token; blocks.  If the entry has just been removed (the C then reads an empty word)
        it is not wired: unwiring it does nothing, wiring it panics ``wiring-unmapped``.
        """
        pmap.pm_token.get()
        pv = self.look(pmap, va & ~PAGE_MASK)
        if pv is None:
            if wired:
                self.k.panic("wiring-unmapped", f"{pmap} {va:#x}")
            pmap.pm_token.release()
            return
        if wired and not pv.bits & PTE_W:
            self.atomic.add_int(pmap, "wired_count", 1)
        elif not wired and pv.bits & PTE_W:
            self.atomic.add_int(pmap, "wired_count", -1)
        self.mmu.update(pv, 0 if wired else PTE_W, PTE_W if wired else 0)
        pmap.pm_token.release()

    @c("pmap_collect", "pmap.c:3228-3255")
    def collect(self) -> None:
        """pmap_collect, pmap.c:3228-3255: does nothing, because no code of this commit requests it.

        (pmap_pagedaemon_waken is only ever cleared.)
        """
        k = self.k
        if (f := k.probe.call) is not None:
            f(k.curthread(), "pmap_collect")

    # -- the hardware

    @own
    def access(self, pmap: Pmap, va: int, write: bool, word: int, value: int = 0) -> int:
        """A load or store of the running process: word number *word* of the page at *va*.

        Looks the entry up, then one atomic step, with a schedule point before it: checks the entry,
        sets its referenced (and modified) bit, and reads or writes the page's contents.  Returns
        the word, or MISS (-1) if the access faults; values are never negative.
        """
        pv = self.look(pmap, va & ~PAGE_MASK)
        return MISS if pv is None else self.mmu.access(pv, write, word, value)


__all__ = [
    "MISS",
    "PTE_A",
    "PTE_M",
    "PTE_RW",
    "PTE_V",
    "PTE_W",
    "WORDS",
    "WORD_SIZE",
    "Pmap",
    "Pmaps",
    "PvEntry",
]
