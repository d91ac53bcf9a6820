"""Moving pages between queues (unqueue, activate, deactivate), and hold and wire counts."""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.vm.page.busy import PageBusy
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_FICTITIOUS,
    PG_NEED_COMMIT,
    PG_UNMANAGED,
    PG_WINATCFLS,
    Page,
)
from smpvm.vm.param import ACT_INIT


class PageMoves(PageBusy):
    """Nothing here blocks, but each call takes spinlocks."""

    # -- queues

    @c("vm_page_unqueue_nowakeup", "vm_page.c:1352-1358")
    @holds("m busied normally; no spinlock")
    def unqueue_nowakeup(self, m: Page) -> None:
        """vm_page_unqueue_nowakeup, vm_page.c:1352-1358.

        Take *m* off its queue; no daemon wakeup.
        """
        self.and_queue_spin_lock(m)
        self.rem_queue_spinlocked(m)
        self.pool.unlock(m)

    @c("vm_page_unqueue", "vm_page.c:1366-1379")
    @holds("m busied normally; no spinlock")
    def unqueue(self, m: Page) -> None:
        """vm_page_unqueue, vm_page.c:1366-1379: take *m* off its queue.

        Wakes the page-out daemon if needed when that queue was FREE or CACHE.
        """
        self.and_queue_spin_lock(m)
        queue = self.rem_queue_spinlocked(m)
        self.pool.unlock(m)
        if queue == self.FREE or queue == self.CACHE:
            self.vm.pageout.pagedaemon_wakeup()

    @c("vm_page_activate", "vm_page.c:2055-2081")
    @holds("m busied normally; no spinlock")
    def activate(self, m: Page) -> None:
        """vm_page_activate, vm_page.c:2055-2081.

        Move to the active queue, act_count at least ACT_INIT.

        A wired or unmanaged page is only taken off its queue.
        """
        self.pool.lock(m)
        if m.queue - m.pc == self.ACTIVE:
            if m.act_count < ACT_INIT:
                m.act_count = ACT_INIT
            self.pool.unlock(m)
            return
        self.queue_spin_lock(m)
        oqueue = self.rem_queue_spinlocked(m)
        if oqueue == self.CACHE:
            self.k.curthread().cnt["v_reactivated"] += 1
        if m.wire_count == 0 and not m.flags & PG_UNMANAGED:
            if m.act_count < ACT_INIT:
                m.act_count = ACT_INIT
            self.add_queue_spinlocked(m, self.ACTIVE + m.pc)
        self.and_queue_spin_unlock(m)
        # The page was available memory until now: the daemon may have to replace it.
        if oqueue == self.CACHE or oqueue == self.FREE:
            self.vm.pageout.pagedaemon_wakeup()

    @c("_vm_page_deactivate_locked", "vm_page.c:2360-2384")
    @holds("page spinlock")
    def _deactivate_locked(self, m: Page, athead: bool) -> None:
        """_vm_page_deactivate_locked, vm_page.c:2360-2384.

        To the tail or head of the inactive queue.

        The page's spinlock is held on entry and return.  A page that is already inactive keeps its
        place; a wired or unmanaged page is only taken off its queue.
        """
        if m.queue - m.pc == self.INACTIVE:
            return
        self.queue_spin_lock(m)
        oqueue = self.rem_queue_spinlocked(m)
        if m.wire_count == 0 and not m.flags & PG_UNMANAGED:
            if oqueue == self.CACHE:
                self.k.curthread().cnt["v_reactivated"] += 1
            self.flag_clear(m, PG_WINATCFLS)
            self.add_queue_spinlocked(m, self.INACTIVE + m.pc, athead)
            if not athead:
                self.bump_heuristic()
        self.queue_spin_unlock(m)

    @c("vm_page_deactivate", "vm_page.c:2391-2397")
    @holds("no spinlock", "")
    def deactivate(self, m: Page) -> None:
        """vm_page_deactivate, vm_page.c:2391-2397: move to the tail of the inactive queue."""
        self.pool.lock(m)
        self._deactivate_locked(m, False)
        self.pool.unlock(m)

    @c("vm_page_deactivate_locked", "vm_page.c:2399-2403")
    @holds("page spinlock")
    def deactivate_locked(self, m: Page) -> None:
        """vm_page_deactivate_locked, vm_page.c:2399-2403.

        The same with the page's spinlock held.
        """
        self._deactivate_locked(m, False)

    # -- holds

    @c("vm_page_hold", "vm_page.c:939-951")
    @holds("no spinlock", "a hold on m (hold_count)")
    def hold(self, m: Page) -> None:
        """vm_page_hold, vm_page.c:939-951: the page may still be freed, but not reused.

        A page on the free queue moves to the hold queue.
        """
        self.pool.lock(m)
        self.atomic.add_int(m, "hold_count", 1)
        if m.queue - m.pc == self.FREE:
            self.queue_spin_lock(m)
            self.rem_queue_spinlocked(m)
            self.add_queue_spinlocked(m, self.HOLD + m.pc)
            self.queue_spin_unlock(m)
        self.pool.unlock(m)
        if (f := self.k.probe.page_hold) is not None:
            f(self.k.curthread(), m, 1)

    @c("vm_page_unhold", "vm_page.c:957-972")
    @holds("a hold on m; no spinlock", "hold released")
    def unhold(self, m: Page) -> None:
        """vm_page_unhold, vm_page.c:957-972.

        Drop a hold; the last one moves a PQ_HOLD page to PQ_FREE.

        Panics ``unhold-illegal`` (tested before the lock is taken, as in the C).
        """
        if m.hold_count <= 0 or m.queue - m.pc == self.FREE:
            self.k.panic("unhold-illegal", f"{m} hold_count {m.hold_count}")
        if (f := self.k.probe.page_hold) is not None:
            f(self.k.curthread(), m, -1)
        self.pool.lock(m)
        self.atomic.add_int(m, "hold_count", -1)
        if m.hold_count == 0 and m.queue - m.pc == self.HOLD:
            self.queue_spin_lock(m)
            self.rem_queue_spinlocked(m)
            self.add_queue_spinlocked(m, self.FREE + m.pc)
            self.queue_spin_unlock(m)
        self.pool.unlock(m)

    # -- wirings

    @c("vm_page_wire", "vm_page.c:2270-2289")
    @holds("m busied; no spinlock", "m busied and wired")
    def wire(self, m: Page) -> None:
        """vm_page_wire, vm_page.c:2270-2289: the first wiring takes the page off its queue.

        The caller has the page hard-busied.  Does nothing for a fictitious page.
        """
        k = self.k
        if not m.flags & PG_BUSY:
            k.panic("wire-unbusied", f"{m} is not busy")
        if m.flags & PG_FICTITIOUS:
            return
        if self.atomic.fetchadd_int(m, "wire_count", 1) == 0:
            if not m.flags & PG_UNMANAGED:
                self.unqueue(m)
            self.atomic.add_int(self.stats, "v_wire_count", 1)
        if m.wire_count == 0:
            k.panic("wire-overflow", str(m))
        if (f := k.probe.page_wire) is not None:
            f(k.curthread(), m, 1)

    @c("vm_page_unwire", "vm_page.c:2319-2347")
    @holds("m busied and wired; no spinlock", "m busied")
    def unwire(self, m: Page, activate: bool) -> None:
        """vm_page_unwire, vm_page.c:2319-2347.

        Dropping the last wiring puts the page back on a queue.

        The active queue with *activate* or if the page needs a commit, else the inactive queue.
        The caller has the page hard-busied.  Panics ``unwire-unwired``, ``enqueue-queued``.
        """
        k = self.k
        if not m.flags & PG_BUSY:
            k.panic("unwire-unbusied", f"{m} is not busy")
        if m.flags & PG_FICTITIOUS:
            return
        if m.wire_count <= 0:
            k.panic("unwire-unwired", f"{m} wire_count {m.wire_count}")
        if (f := k.probe.page_wire) is not None:
            f(k.curthread(), m, -1)
        if self.atomic.fetchadd_int(m, "wire_count", -1) != 1:
            return
        self.atomic.add_int(self.stats, "v_wire_count", -1)
        if m.flags & PG_UNMANAGED:
            return
        if activate or m.flags & PG_NEED_COMMIT:
            self.pool.lock(m)
            self.add_queue_spinlocked(m, self.ACTIVE + m.pc)
        else:
            self.pool.lock(m)
            self.flag_clear(m, PG_WINATCFLS)
            self.add_queue_spinlocked(m, self.INACTIVE + m.pc)
            self.bump_heuristic()
        self.and_queue_spin_unlock(m)

    @c("vm_page_wire_quick", "vm_page2.h:221-227", uncalled=True)
    @holds("m wired", "wired once more")
    def wire_quick(self, m: Page) -> None:
        """vm_page_wire_quick, vm_page2.h:221.

        One more wiring of a page that is already wired; need not be busied.
        """
        if self.atomic.fetchadd_int(m, "wire_count", 1) == 0:
            self.k.panic("wire-quick-unwired", str(m))
        if (f := self.k.probe.page_wire) is not None:
            f(self.k.curthread(), m, 1)

    @c("vm_page_unwire_quick", "vm_page2.h:236-250", uncalled=True)
    @holds("m wired", "on False wired once less")
    def unwire_quick(self, m: Page) -> bool:
        """vm_page_unwire_quick, vm_page2.h:236: drop one wiring unless it is the last.

        Returns True if it refused: the caller must busy the page and use ``unwire``.
        """
        k = self.k
        if m.wire_count <= 0:
            k.panic("unwire-quick-unwired", str(m))
        while True:
            wire_count = m.wire_count
            if wire_count == 1:
                return True
            if self.atomic.cmpset_int(m, "wire_count", wire_count, wire_count - 1):
                if (f := k.probe.page_wire) is not None:
                    f(k.curthread(), m, -1)
                return False

    @c("vm_page_unmanage", "vm_page.c:2253-2262")
    @holds("m busied; no spinlock")
    def unmanage(self, m: Page) -> None:
        """vm_page_unmanage, vm_page.c:2253-2262: no pv entries and no paging queue (OBJT_PHYS)."""
        if not m.flags & PG_BUSY:
            self.k.panic("unmanage-unbusied", f"{m} is not busy")
        if not m.flags & PG_UNMANAGED and m.wire_count == 0:
            self.unqueue(m)
        self.flag_set(m, PG_UNMANAGED)
