"""The allocator: search by colour, selection from the free and cache queues, reserve levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds
from smpvm.kern.shared import peek
from smpvm.kern.thread import TDF_SYSTHREAD
from smpvm.vm.page.reclaim import PageReclaim
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_NEED_COMMIT,
    PG_SBUSY,
    PG_UNMANAGED,
    VM_ALLOC_FORCE_ZERO,
    VM_ALLOC_INTERRUPT,
    VM_ALLOC_NORMAL,
    VM_ALLOC_NULL_OK,
    VM_ALLOC_QUICK,
    VM_ALLOC_RETRY,
    VM_ALLOC_SYSTEM,
    VM_ALLOC_ZERO,
    Page,
)
from smpvm.vm.param import VM_PAGE_BITS_ALL, VM_PROT_NONE

if TYPE_CHECKING:
    from smpvm.vm.object.objects import VmObject

_SOURCES = VM_ALLOC_NORMAL | VM_ALLOC_QUICK | VM_ALLOC_INTERRUPT | VM_ALLOC_SYSTEM
_ZERO = VM_ALLOC_ZERO | VM_ALLOC_FORCE_ZERO
U64 = (1 << 64) - 1


class PageAlloc(PageReclaim):
    """Taking pages off the free and cache queues.  Only ``grab`` waits for memory."""

    # -- colours

    @c("vm_get_pg_color", "vm_page.c:771-775", part=True)
    def cpu_topology(self, cpuid: int) -> tuple[int, int, int, int]:
        """(packages, cores in each, package and core of *cpuid*); 0 packages: unknown."""
        config = self.vm.config
        phys_ids, core_ids = config.phys_ids, config.core_ids
        if not (phys_ids and core_ids):
            return 0, 0, 0, 0
        phys_id, rest = divmod(cpuid, max(1, config.ncpus // phys_ids))
        return phys_ids, core_ids, phys_id % phys_ids, rest % core_ids

    @c("vm_get_pg_color", "vm_page.c:763-810")
    def get_pg_color(self, cpuid: int, obj: VmObject | None, pindex: int) -> int:
        """vm_get_pg_color, vm_page.c:763-810: the colour to try first (u16, to be masked).

        Spreads the CPUs over the colours by topology, so that they rarely contend for a queue.
        """
        size = self.vm.pq.L2_SIZE
        phys_ids, core_ids, phys_id, core_id = self.cpu_topology(cpuid)
        where = (pindex + (obj.pg_color if obj is not None else 0)) & U64
        if not (phys_ids and core_ids):
            return (cpuid * size // self.vm.config.ncpus + where) & 0xFFFF
        grpsize = size // phys_ids
        color = phys_id * grpsize
        if grpsize // core_ids >= self.vm.pq.SET_ASSOC:
            color += core_id * grpsize // core_ids
            color += where % (grpsize // core_ids)
        else:
            if grpsize > 16:
                color += 16 * (core_id % (grpsize // 16))
            color += where % 16
        return color & 0xFFFF

    # -- finding

    @c("vm_page_list_find", "vm_page.c:1487-1491")
    @c("_vm_page_list_find", "vm_page.c:1411-1437")
    @holds("no spinlock", "the page returned spinlocked, on no queue, not busied")
    def list_find(self, basequeue: int, index: int, prefer_zero: bool) -> Page | None:
        """vm_page_list_find, vm_page.c:1487-1491 (_vm_page_list_find, :1487-1491).

        Takes a page off a queue of colour *index* or near it.  The page is returned spinlocked, on
        no queue and not busied; None if there is none.  *prefer_zero* takes the tail of the first
        list.
        """
        number = basequeue + index
        q = self.queues[number]
        while True:
            m = q.tail if prefer_zero else q.head
            if m is None:
                return self._list_find2(basequeue, index)
            self.and_queue_spin_lock(m)
            # The queue was read without its lock: the page may have moved since.
            if m.queue == number:
                self.rem_queue_spinlocked(m)
                return m
            self.and_queue_spin_unlock(m)

    @c("_vm_page_list_find2", "vm_page.c:1443-1478")
    @holds("no spinlock", "the page returned spinlocked, on no queue, not busied")
    def _list_find2(self, basequeue: int, index: int) -> Page | None:
        """_vm_page_list_find2, vm_page.c:1443-1478: the same over widening sets of colours.

        The first set is PQ_SET_ASSOC colours wide, each following one twice as wide, up to all
        colours.
        """
        pq, queues = self.vm.pq, self.queues
        index &= pq.L2_MASK
        mask = (pq.SET_ASSOC - 1) >> 1
        while True:
            mask = ((mask << 1) | 1) & pq.L2_MASK
            for i in range(mask + 1):
                number = basequeue + ((index & ~mask) | ((index + i) & mask))
                q = queues[number]
                while (m := q.head) is not None:
                    self.and_queue_spin_lock(m)
                    if m.queue == number:
                        self.rem_queue_spinlocked(m)
                        return m
                    self.and_queue_spin_unlock(m)
            if mask == pq.L2_MASK:
                return None

    @c("vm_page_select_cache", "vm_page.c:1503-1544")
    @holds("no spinlock", "the page returned busied, not spinlocked")
    def select_cache(self, pg_color: int) -> Page | None:
        """vm_page_select_cache, vm_page.c:1503-1544: take a reusable page off the cache queue.

        Returned hard-busied and not spinlocked.  Pages that cannot be used are deactivated.
        """
        color = pg_color & self.vm.pq.L2_MASK
        while True:
            m = self.list_find(self.CACHE, color, False)
            if m is None:
                return None
            if self.busy_try(m, True):
                self._deactivate_locked(m, False)
                self.pool.unlock(m)
            elif (
                not m.flags & (PG_UNMANAGED | PG_NEED_COMMIT)
                and m.hold_count == 0
                and m.wire_count == 0
                and not m.dirty & m.valid
            ):
                self.pool.unlock(m)
                self.vm.pageout.pagedaemon_wakeup()
                return m
            else:
                self._deactivate_locked(m, False)
                self.wakeup_unlock(m)

    @c("vm_page_select_free", "vm_page.c:1553-1604")
    @holds("no spinlock", "the page returned busied, not spinlocked")
    def select_free(self, pg_color: int, prefer_zero: bool) -> Page | None:
        """vm_page_select_free, vm_page.c:1553-1604.

        Take a page off the free queue and hard-busy it.

        A page that another thread has busied is moved to the inactive queue, out of the way.
        Panics ``alloc-held-or-wired``.
        """
        k = self.k
        color = pg_color & self.vm.pq.L2_MASK
        while True:
            m = self.list_find(self.FREE, color, prefer_zero)
            if m is None:
                return None
            if self.busy_try(m, True):
                k.curthread().cnt["vm_page_select_free:busy"] += 1
                self._deactivate_locked(m, False)
                self.pool.unlock(m)
                continue
            if m.flags & (PG_UNMANAGED | PG_NEED_COMMIT):
                k.panic("alloc-flags", repr(m))
            if m.hold_count != 0 or m.wire_count != 0:
                k.panic("alloc-held-or-wired", f"{m} held {m.hold_count} wired {m.wire_count}")
            self.pool.unlock(m)
            self.vm.pageout.pagedaemon_wakeup()
            return m

    # -- allocating

    alloc_keeps = PG_BUSY | PG_SBUSY
    """The flags that vm_page_alloc leaves as they are (vm_page.c:1786)."""

    @c("vm_page_alloc", "vm_page.c:1633-1824", blocks=True)
    @holds(
        "obj held exclusively, or None; no spinlock",
        "obj held exclusively, or None; no spinlock; the page returned busied",
    )
    def alloc(self, obj: VmObject | None, pindex: int, page_req: int) -> Page | None:
        """vm_page_alloc, vm_page.c:1633-1824: a page for (obj, pindex), hard-busied, on no queue.

        *obj* is held exclusively, or None.  *page_req* is a set of VM_ALLOC bits.  Returns None
        when memory is short, or (with NULL_OK) when the index was taken in the meantime; without
        NULL_OK that panics ``alloc-collision``.  Does not wait for memory.
        """
        k = self.k
        td = k.curthread()
        color = self.get_pg_color(td.cpu, obj, pindex)
        if not page_req & _SOURCES:
            k.panic("alloc-request", f"page_req {page_req:#x}")
        if td.flags & TDF_SYSTHREAD:
            page_req |= VM_ALLOC_SYSTEM
        while True:
            free = peek(self.stats, "v_free_count")
            if self.may_use_free(page_req):
                m = self.select_free(color, page_req & _ZERO != 0)
                if m is not None:
                    break
                # It may have changed the count itself: busy pages go to the inactive queue.
                if peek(self.stats, "v_free_count") == free:
                    self._alloc_raced()
            elif not (page_req & VM_ALLOC_NORMAL and self._recycle_cache(color)):
                self.vm.pageout.add_deficit()
                self.vm.pageout.pagedaemon_wakeup()
                return None
        return self._alloc_setup(m, obj, pindex, page_req)

    @c("vm_page_alloc", "vm_page.c:1688-1691", part=True)
    def may_use_free(self, page_req: int) -> bool:
        """The reserve levels: may this request take a page off the free queue now?"""
        s = self.stats
        if s.v_free_count >= s.v_free_reserved:
            return True
        if page_req & VM_ALLOC_INTERRUPT and s.v_free_count > 0:
            return True
        return (
            page_req & VM_ALLOC_SYSTEM != 0
            and s.v_cache_count == 0
            and s.v_free_count > s.v_interrupt_free_min
        )

    @c("vm_page_alloc", "vm_page.c:1768-1769", part=True)
    def _alloc_raced(self) -> None:
        """v_free_count tells of pages that the queues do not show (yet): the C's loop ends only
        when somebody else changes either."""
        free = self.queues[self.FREE : self.FREE + self.vm.pq.L2_SIZE]
        self.k.carrier.relax(self.stats, *(q.spin for q in free))

    @c("vm_page_alloc", "vm_page.c:1706-1743", part=True, blocks=True)
    @holds("no spinlock", "")
    def _recycle_cache(self, color: int) -> bool:
        """Free one page of the cache queue, so that the next try finds it.  False if there is none.

        The object's token is only tried, because the caller may hold other locks; if that fails the
        page is deactivated.
        """
        m = self.select_cache(color)
        if m is None:
            return False
        if m.dirty:
            self.k.panic("cache-dirty", f"{m} on the cache queue")
        obj = m.object
        if obj is None:
            self.protect(m, VM_PROT_NONE)
            self.free(m)
        elif self.vm.object.hold_try(obj):
            self.protect(m, VM_PROT_NONE)
            self.free(m)
            self.vm.object.drop(obj)
        else:
            self.k.curthread().cnt["vm_page_alloc:object-locked"] += 1
            self.deactivate(m)
            self.wakeup(m)
        return True

    @c("vm_page_alloc", "vm_page.c:1775-1823", part=True, blocks=True)
    @holds(
        "m busied; obj held exclusively",
        "m busied; obj held exclusively; m unbusied if the index is taken",
    )
    def _alloc_setup(
        self, m: Page, obj: VmObject | None, pindex: int, page_req: int
    ) -> Page | None:
        """The second half of vm_page_alloc: reset *m* and insert it into *obj*."""
        k = self.k
        if m.dirty:
            k.panic("alloc-dirty", str(m))
        if m.queue:
            k.panic("alloc-queued", repr(m))
        # This also clears PG_WANTED of a thread that still sleeps on the page's former identity.
        self.flag_clear(m, ~self.alloc_keeps)
        if m.wire_count != 0:
            k.panic("alloc-held-or-wired", f"{m} wired {m.wire_count}")
        if m.busy != 0:
            k.panic("alloc-softbusy", str(m))
        m.act_count = 0
        m.valid = 0
        if (f := k.probe.page_alloc) is not None:
            f(k.curthread(), m)
        result: Page | None = m
        if obj is None:
            m.pindex = pindex
        elif not self.insert(m, obj, pindex):
            self.free(m)
            # A caller that blocked or upgraded its lock since its lookup passes NULL_OK: the index
            # may have been taken in the meantime.
            if not page_req & VM_ALLOC_NULL_OK:
                k.panic("alloc-collision", f"{obj} index {pindex}, {m}")
            result = None
        self.vm.pageout.pagedaemon_wakeup()
        return result

    @c("vm_page_grab", "vm_page.c:2709-2776", blocks=True)
    @holds("something that keeps obj", "the page returned busied")
    def grab(self, obj: VmObject, pindex: int, allocflags: int) -> Page | None:
        """vm_page_grab, vm_page.c:2709-2776: find or allocate page *pindex*, hard-busied.

        With RETRY it waits for as long as necessary.  Without RETRY it returns None after waiting
        for memory; after waiting for a busy page the C dereferences a NULL page (``null-page``).
        Holds the object itself.  Blocks.
        """
        k, objects = self.k, self.vm.object
        if not allocflags & (VM_ALLOC_NORMAL | VM_ALLOC_INTERRUPT | VM_ALLOC_SYSTEM):
            k.panic("grab-request", f"allocflags {allocflags:#x}")
        shared = True
        objects.hold_shared(obj)
        while True:
            m, error = self.lookup_busy_try(obj, pindex, True)
            if error and m is not None:
                self.sleep_busy(m, True, "pgrbwt")
                if not allocflags & VM_ALLOC_RETRY:
                    k.panic("null-page", "vm_page_grab after a busy page", kind="fault")
                continue
            if m is None:
                if shared:
                    # Allocation inserts into the object, which needs its token exclusively.  The
                    # upgrade releases the token in between, hence NULL_OK below.
                    objects.upgrade(obj)
                    shared = False
                if allocflags & VM_ALLOC_RETRY:
                    allocflags |= VM_ALLOC_NULL_OK
                m = self.alloc(obj, pindex, allocflags & ~VM_ALLOC_RETRY)
                if m is None:
                    self.vm_wait(0)
                    if allocflags & VM_ALLOC_RETRY:
                        continue
                    objects.drop(obj)
                    return None
            break
        if allocflags & VM_ALLOC_FORCE_ZERO or (m.valid == 0 and allocflags & VM_ALLOC_ZERO):
            self.vm.pmap.zero_page(m)
            m.valid = VM_PAGE_BITS_ALL
        objects.drop(obj)
        return m

    @c("vm_page_repurpose", "vm_page.c:1232-1290", blocks=True, uncalled=True)
    @holds(
        "obj held exclusively; m wired, not busied",
        "obj held exclusively; m wired, not busied; the page returned busied unless error",
    )
    def repurpose(
        self, obj: VmObject, pindex: int, also_m_busy: bool, m: Page | None
    ) -> tuple[Page | None, bool, bool, bool]:
        """vm_page_repurpose, vm_page.c:1232-1290: reuse the wired page *m* for (obj, pindex).

        *m* is wired and not busy.  Returns (page, error, must_reenter, iswired).  If *m* cannot be
        reused it is released, and (obj, pindex) is looked up instead.  Blocks.
        """
        if m is not None:
            if also_m_busy:
                self.k.panic("repurpose-softbusy", str(m))
            if self._repurposed(m, obj, pindex):
                return m, False, False, True
        found, error = self.lookup_busy_try(obj, pindex, also_m_busy)
        return found, error, True, False

    @c("vm_page_repurpose", "vm_page.c:1246-1278", part=True, blocks=True)
    @holds("obj held exclusively; m wired, not busied", "on True m busied and wired")
    def _repurposed(self, m: Page, obj: VmObject, pindex: int) -> bool:
        self.busy_wait(m, False, "biodep")
        if not self._simple(m):
            self.unwire(m, False)
            self.wakeup(m)
            return False
        if m.dirty or m.flags & PG_NEED_COMMIT:
            self.unwire(m, False)
            self.deactivate(m)
            self.wakeup(m)
            return False
        if m.queue:
            self.k.panic("repurpose-queued", repr(m))
        self.remove(m)
        m.valid = 0
        m.act_count = 0
        if self.insert(m, obj, pindex):
            return True
        self.unwire(m, False)
        self.free(m)
        return False

    @c("vm_page_repurpose", "vm_page.c:1249-1251", part=True)
    @holds("m busied")
    def _simple(self, m: Page) -> bool:
        complex_ = PG_UNMANAGED | PG_MAPPED | PG_FICTITIOUS | PG_SBUSY
        return not (m.flags & complex_ or m.busy or m.wire_count != 1 or m.hold_count)
