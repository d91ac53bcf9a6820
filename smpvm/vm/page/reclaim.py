"""Releasing pages: to the cache queue and to the free queue."""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.vm.console import kprintf
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_NEED_COMMIT,
    PG_REFERENCED,
    PG_UNMANAGED,
    Page,
)
from smpvm.vm.page.wait import PageWait
from smpvm.vm.param import ACT_INIT, VM_PROT_NONE, i32
from smpvm.vm.vm import Vm


class PageReclaim(PageWait):
    """Free, cache, and the madvise hint.  The calls that free or cache also clear PG_BUSY."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.dnweight = 0  # the static of vm_page_dontneed

    @c("vm_page_free", "vm_page2.h:344-348", blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def free(self, m: Page) -> None:
        """vm_page_free, vm_page2.h:344-348."""
        self.free_toq(m)

    @c("vm_page_free_zero", "vm_page2.h:354-370", blocks=True, uncalled=True)
    @holds("m busied; no spinlock", "m unbusied")
    def free_zero(self, m: Page) -> None:
        """vm_page_free_zero, vm_page2.h:354-370 (its check exists only with PMAP_DEBUG)."""
        self.free_toq(m)

    @c("vm_page_free_toq", "vm_page.c:2152-2231", blocks=True)
    @holds("m busied, unmapped, not wired; no spinlock", "m unbusied")
    def free_toq(self, m: Page) -> None:
        """vm_page_free_toq, vm_page.c:2152-2231.

        Remove from the object, put on the free or hold queue.

        *m* is hard-busied, unmapped and not wired on entry, and no longer busy on return.  May
        block on the object's token.  Panics ``free-mapped``, ``free-free``, ``free-softbusy``,
        ``free-wired``.
        """
        k = self.k
        td = k.curthread()
        td.cnt["v_tfree"] += 1
        self._free_check(m)
        if (f := k.probe.page_free) is not None:
            f(td, m)
        # Out of the object first: this may block on the object's token, so no spinlock may be held
        # yet.
        self.remove(m)
        self.and_queue_spin_lock(m)
        self.rem_queue_spinlocked(m)
        if m.flags & PG_FICTITIOUS:
            self.pool.unlock(m)
            self.wakeup(m)
            return
        m.valid = 0
        self.undirty(m)
        if m.wire_count != 0:
            k.panic("free-wired", f"{m} wire_count {m.wire_count}, index {m.pindex}")
        if m.flags & PG_UNMANAGED:
            self.flag_clear(m, PG_UNMANAGED)
        if m.flags & PG_NEED_COMMIT:
            self.flag_clear(m, PG_NEED_COMMIT)
        # A held page must not be reused yet: it waits on PQ_HOLD for vm_page_unhold.
        if m.hold_count != 0:
            self.add_queue_spinlocked(m, self.HOLD + m.pc)
        else:
            self.add_queue_spinlocked(m, self.FREE + m.pc)
        self.queue_spin_unlock(m)
        self.wakeup_unlock(m)
        self.free_wakeup()

    @c("vm_page_free_toq", "vm_page.c:2156-2168", part=True)
    @holds("m busied")
    def _free_check(self, m: Page) -> None:
        k = self.k
        if m.flags & PG_MAPPED:
            k.panic("free-mapped", str(m))
        if not m.flags & PG_BUSY:
            k.panic("free-unbusied", str(m))
        if m.busy or m.queue - m.pc == self.FREE:
            pg_busy = int(m.flags & PG_BUSY != 0)
            kprintf(
                k, "free-refused", pindex=m.pindex, busy=m.busy, pg_busy=pg_busy, hold=m.hold_count
            )
            k.panic("free-free" if m.queue - m.pc == self.FREE else "free-softbusy", str(m))

    @c("vm_page_cache", "vm_page.c:2511-2566", blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def cache(self, m: Page) -> None:
        """vm_page_cache, vm_page.c:2511-2566: put a clean page on the cache queue, unmapped.

        *m* is hard-busied on entry and no longer busy on return.  A page that cannot be cached
        stays where it is; a page that turns out dirty when its mappings are removed is deactivated.
        May block.  Panics ``cache-mapped``, ``cache-dirty``.
        """
        k = self.k
        if self._uncacheable(m, PG_UNMANAGED | PG_NEED_COMMIT):
            kprintf(k, "cache-busy-held", page=m)
            self.wakeup(m)
            return
        if m.queue - m.pc == self.CACHE:
            if m.flags & PG_MAPPED:
                k.panic("cache-mapped", str(m))
            self.wakeup(m)
            return
        self.cache_check(m)
        self.protect(m, VM_PROT_NONE)
        # vm_page_protect may have blocked, and has transferred the modified bits: check everything
        # again.
        if self._uncacheable(m, PG_UNMANAGED | PG_MAPPED):
            self.wakeup(m)
        elif m.dirty or m.flags & PG_NEED_COMMIT:
            self.deactivate(m)
            self.wakeup(m)
        else:
            self.and_queue_spin_lock(m)
            self.rem_queue_spinlocked(m)
            self.add_queue_spinlocked(m, self.CACHE + m.pc)
            self.queue_spin_unlock(m)
            self.wakeup_unlock(m)
            self.free_wakeup()

    @c("vm_page_cache", "vm_page.c:2534-2537", part=True)
    @holds("m busied")
    def cache_check(self, m: Page) -> None:
        """The caller has found *m* clean; but a mapping that goes, or is made read-only, makes it
        dirty all the same, although it is busy (pmap.c:2637, 3994).
        """
        if m.dirty:
            self.k.panic("cache-dirty", f"{m}, index {m.pindex}")

    @c("vm_page_cache", "vm_page.c:2514-2515,2547-2548", part=True)
    @holds("m busied")
    def _uncacheable(self, m: Page, bits: int) -> bool:
        return bool(m.flags & bits or m.busy or m.wire_count or m.hold_count)

    @c("vm_page_try_to_cache", "vm_page.c:2413-2444", blocks=True)
    @holds("m not busied by the caller; no spinlock", "")
    def try_to_cache(self, m: Page) -> bool:
        """vm_page_try_to_cache, vm_page.c:2413-2444: cache *m* if it is safe to do so.

        The caller does not have *m* busied.  Returns True if the page was cached.  May block.
        """
        self.pool.lock(m)
        if self.busy_try(m, True):
            self.pool.unlock(m)
            return False
        if m.dirty or m.hold_count or m.wire_count or m.flags & (PG_UNMANAGED | PG_NEED_COMMIT):
            self.wakeup_unlock(m)
            return False
        self.pool.unlock(m)
        self.test_dirty(m)
        if m.dirty or m.flags & PG_NEED_COMMIT:
            self.wakeup(m)
            return False
        self.cache(m)
        return True

    @c("vm_page_try_to_free", "vm_page.c:2452-2501", blocks=True)
    @holds("m not busied by the caller; no spinlock", "")
    def try_to_free(self, m: Page) -> bool:
        """vm_page_try_to_free, vm_page.c:2452-2501: free *m* if it is safe to do so.

        The caller does not have *m* busied; it may be on any queue.  Returns True if the page was
        freed.  May block.
        """
        self.pool.lock(m)
        if self.busy_try(m, True):
            self.pool.unlock(m)
            return False
        if (
            m.dirty
            or m.hold_count
            or m.wire_count
            or m.flags & (PG_UNMANAGED | PG_NEED_COMMIT)
            or m.queue - m.pc == self.FREE
            or m.queue - m.pc == self.HOLD
        ):
            self.wakeup_unlock(m)
            return False
        self.pool.unlock(m)
        self.test_dirty(m)
        if m.dirty or m.flags & PG_NEED_COMMIT:
            self.wakeup(m)
            return False
        self.protect(m, VM_PROT_NONE)
        # Removing the mappings may have transferred a modified bit.
        if m.dirty or m.flags & PG_NEED_COMMIT:
            self.wakeup(m)
            return False
        self.free(m)
        return True

    @c("vm_page_dontneed", "vm_page.c:2591-2640")
    @holds("m busied; no spinlock")
    def dontneed(self, m: Page) -> None:
        """vm_page_dontneed, vm_page.c:2591-2640: the owner does not need *m* for now.

        Usually moved to the head of the inactive queue; sometimes to its tail, or left alone.  *m*
        is hard-busied on entry and return.
        """
        dnw = self.dnweight = i32(self.dnweight + 1)
        base = m.queue - m.pc
        if not dnw & 0x01F0 or base == self.INACTIVE or base == self.CACHE:
            if m.act_count >= ACT_INIT:
                m.act_count -= 1
            return
        self.flag_clear(m, PG_REFERENCED)
        self.vm.pmap.clear_reference(m)
        if m.dirty == 0:
            self.test_dirty(m)
        athead = not (m.dirty or not dnw & 0x0070)
        self.pool.lock(m)
        self._deactivate_locked(m, athead)
        self.pool.unlock(m)
