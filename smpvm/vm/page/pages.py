"""vm_page.c as one subsystem: ``vm.page``.  The page itself is in struct.py.

``Pages`` is a chain of subclasses, one file each: base → queues (locks) → bits → busy → move →
lookup → wait → reclaim → alloc.  Each uses only the ones before it.
"""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.kern.shared import poke
from smpvm.vm.page.alloc import PageAlloc
from smpvm.vm.page.queues import PageQueue
from smpvm.vm.page.struct import (
    PG_ACTIONLIST,
    PG_BUSY,
    PG_CLEANCHK,
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_MARKER,
    PG_NAMES,
    PG_NEED_COMMIT,
    PG_NOSYNC,
    PG_NOTMETA,
    PG_RAM,
    PG_REFERENCED,
    PG_SBUSY,
    PG_SWAPINPROG,
    PG_SWAPPED,
    PG_UNMANAGED,
    PG_WANTED,
    PG_WINATCFLS,
    PG_WRITEABLE,
    VM_ALLOC_FORCE_ZERO,
    VM_ALLOC_INTERRUPT,
    VM_ALLOC_NORMAL,
    VM_ALLOC_NULL_OK,
    VM_ALLOC_QUICK,
    VM_ALLOC_RETRY,
    VM_ALLOC_SYSTEM,
    VM_ALLOC_USE_GD,
    VM_ALLOC_ZERO,
    Page,
    flag_names,
)
from smpvm.vm.vm import Vm


class Pages(PageAlloc):
    """The resident page module: start-up here, everything else in the base classes."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        with self.k.quietly():
            self.queue_init()
            self.startup()

    @c("vm_page_queue_init", "vm_page.c:152-176")
    @holds("boot only", "")
    def queue_init(self) -> None:
        """vm_page_queue_init, vm_page.c:152-176: create the empty queues."""
        pq = self.vm.pq
        self.queues.extend(self.k.new(PageQueue, self.k, pq, n) for n in range(pq.COUNT))

    @c("vm_page_startup", "vm_page.c:273-422")
    @holds("boot only", "")
    def startup(self) -> None:
        """vm_page_startup, vm_page.c:273-422: put all physical pages on the free queues.

        Pages are added in ascending order, each at the head of its queue, so high pages are used
        first.
        """
        vm = self.vm
        lists: list[list[Page]] = [[] for _ in range(vm.pq.L2_SIZE)]
        for idx in range(vm.config.pages):
            m = self._add_new_page(idx)
            vm.page_array.append(m)
            lists[m.pc].append(m)
        for pc, pages in enumerate(lists):
            self._link_free(self.queues[self.FREE + pc], pages)
        self.stats.v_page_count = vm.config.pages
        self.stats.v_free_count = vm.config.pages

    @c("vm_add_new_page", "vm_page.c:214-256")
    @holds("boot only", "")
    def _add_new_page(self, idx: int) -> Page:
        """vm_add_new_page, vm_page.c:214-256: create one free page with its twisted colour."""
        size, mask = self.vm.pq.L2_SIZE, self.vm.pq.L2_MASK
        pc = (idx & mask) ^ (idx // size & mask) ^ (idx // (size * size) & mask)
        m: Page = self.k.new(Page, idx, self.FREE + pc, pc)
        return m

    @c("vm_add_new_page", "vm_page.c:253-255", part=True)
    @holds("boot only", "")
    def _link_free(self, q: PageQueue, pages: list[Page]) -> None:
        """Make *pages* the whole content of *q*, the last page at the head."""
        for before, behind in zip(pages[1:], pages, strict=False):
            poke(before, "q_next", behind)
            poke(behind, "q_prev", before)
        if pages:
            q.head, q.tail, q.lcnt = pages[-1], pages[0], len(pages)


__all__ = [
    "PG_ACTIONLIST",
    "PG_BUSY",
    "PG_CLEANCHK",
    "PG_FICTITIOUS",
    "PG_MAPPED",
    "PG_MARKER",
    "PG_NAMES",
    "PG_NEED_COMMIT",
    "PG_NOSYNC",
    "PG_NOTMETA",
    "PG_RAM",
    "PG_REFERENCED",
    "PG_SBUSY",
    "PG_SWAPINPROG",
    "PG_SWAPPED",
    "PG_UNMANAGED",
    "PG_WANTED",
    "PG_WINATCFLS",
    "PG_WRITEABLE",
    "VM_ALLOC_FORCE_ZERO",
    "VM_ALLOC_INTERRUPT",
    "VM_ALLOC_NORMAL",
    "VM_ALLOC_NULL_OK",
    "VM_ALLOC_QUICK",
    "VM_ALLOC_RETRY",
    "VM_ALLOC_SYSTEM",
    "VM_ALLOC_USE_GD",
    "VM_ALLOC_ZERO",
    "Page",
    "Pages",
    "flag_names",
]
