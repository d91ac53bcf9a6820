"""Writing back and removing the pages of an object: page_clean (msync, syncer), page_remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import BLIST_MAX_ALLOC
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import ObjectsBase, VmObject
from smpvm.vm.page.struct import PG_CLEANCHK, PG_NEED_COMMIT, PG_NOSYNC
from smpvm.vm.param import (
    OBJ_CLEANING,
    OBJ_MIGHTBEDIRTY,
    OBJ_WRITEABLE,
    OBJPC_INVAL,
    OBJPC_NOSYNC,
    OBJPC_SYNC,
    OBJT_PHYS,
    OBJT_SWAP,
    OBJT_VNODE,
    VM_PAGER_CLUSTER_OK,
    VM_PAGER_IGNORE_CLEANCHK,
    VM_PAGER_PUT_INVAL,
    VM_PAGER_PUT_SYNC,
    VM_PROT_NONE,
    VM_PROT_READ,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page

MAX_PINDEX = (1 << 64) - 1


class CleanScan:
    """struct rb_vm_page_scan_info, as vm_object_page_clean uses it; bounds are inclusive."""

    __slots__ = ("count", "end", "error", "limit", "object", "pagerflags", "start")

    def __init__(self, obj: VmObject, start: int, end: int, limit: int, pagerflags: int) -> None:
        self.object = obj
        self.start = start
        self.end = end
        self.limit = limit
        self.pagerflags = pagerflags
        self.error = False
        self.count = 0

    def strayed(self, m: Page) -> bool:
        """Whether *m* is no longer one of the pages that the scan is for."""
        return m.object is not self.object or not self.start <= m.pindex <= self.end


class Cleaning(ObjectsBase):
    """vm_object_page_clean, vm_object_page_remove."""

    def page_clean(self, obj: VmObject, start: int, end: int, flags: int) -> None:
        """vm_object_page_clean, vm_object.c:1302-1385: write the dirty pages of [start, end) out.

        *flags* are OBJPC_*; *end* 0 means the whole vnode object (others are left alone).  The
        caller need not hold *obj*.  A whole scan first makes all pages read-only and takes the
        object off the dirty record; if anything was in the way, it stays on it.  Blocks.

        Only a whole scan marks pages PG_CLEANCHK, and only marked pages are written: as the C
        stands, a part of an object is never flushed.
        """
        self.hold(obj)
        if obj.type != OBJT_VNODE or not obj.flags & OBJ_MIGHTBEDIRTY:
            self.drop(obj)
            return
        sync = flags & (OBJPC_SYNC | OBJPC_INVAL)
        pagerflags = VM_PAGER_PUT_SYNC if sync else VM_PAGER_CLUSTER_OK
        if flags & OBJPC_INVAL:
            pagerflags |= VM_PAGER_PUT_INVAL
        self.set_flag(obj, OBJ_CLEANING)
        last = (obj.size if end == 0 else end) - 1
        info = CleanScan(obj, start, last, flags, pagerflags)
        whole = start == 0 and last == obj.size - 1
        if self.wants_marks(whole):
            self.mark_pass(obj, info, whole)
        while True:
            info.error, info.count = False, 0
            generation = obj.generation
            obj.rb_memq.scan(lambda m: self.page_clean_pass2(m, info), start, last)
            if not info.error and generation == obj.generation:
                break
        self.clear_flag(obj, OBJ_CLEANING)
        self.drop(obj)

    def wants_marks(self, whole: bool) -> bool:
        """Whether the marking pass is run: only for a scan of the *whole* object."""
        return whole

    def mark_pass(self, obj: VmObject, info: CleanScan, whole: bool) -> None:
        """vm_object.c:1350-1370: mark the pages and make them read-only, then off the record.

        The pass offers the CPU, and the object's token with it, at every 64th page: a read fault
        may map a page writeable again that has been dealt with.  The record goes all the same, and
        what is then written through that mapping, fsync and the syncer do not see.
        """
        obj.rb_memq.scan(lambda m: self.page_clean_pass1(m, info), info.start, info.end)
        if whole and not info.error:
            self.off_record(obj)

    def off_record(self, obj: VmObject) -> None:
        """The object may not be dirty any more, nor its vnode."""
        self.clear_flag(obj, OBJ_WRITEABLE | OBJ_MIGHTBEDIRTY)
        if obj.handle is not None:
            self.k.vnode.vclrobjdirty(obj.handle)

    def page_clean_pass1(self, m: Page, info: CleanScan) -> int:
        """vm_object_page_clean_pass1, vm_object.c:1390-1416: mark a page, make it read-only.

        The object is held.  A busy page, or a NOSYNC one that is to be skipped, sets ``error``.
        """
        page = self.vm.page
        info.count += 1
        self.user_yield(info.count)
        if info.strayed(m):
            kprintf(self.k, "page-clean-race", object=info.object, page=m)
            return 0
        page.flag_set(m, PG_CLEANCHK)
        if info.limit & OBJPC_NOSYNC and m.flags & PG_NOSYNC:
            info.error = True
        elif not page.busy_try(m, False):
            if m.object is info.object:
                page.protect(m, VM_PROT_READ)
            page.wakeup(m)
        else:
            info.error = True
        return 0

    def page_clean_pass2(self, m: Page, info: CleanScan) -> int:
        """vm_object_page_clean_pass2, vm_object.c:1421-1502: write a marked page if it is dirty.

        The object is held; waits for a busy page, and the writing blocks.
        """
        page, obj = self.vm.page, info.object
        if info.strayed(m):
            kprintf(self.k, "page-clean-race", object=obj, page=m)
            return 0
        if m.flags & PG_CLEANCHK:
            generation = obj.generation
            page.busy_wait(m, True, "vpcwai")
            if info.strayed(m) or obj.generation != generation:
                info.error = True
                page.wakeup(m)
            elif self._clean_wants(m, info):
                self.page_collect_flush(obj, m, info.pagerflags)
            else:
                page.wakeup(m)
        info.count += 1
        self.user_yield(info.count)
        return 0

    def _clean_wants(self, m: Page, info: CleanScan) -> bool:
        """Whether the busy page *m* is to be written; clears PG_CLEANCHK where it is done with."""
        page, pq = self.vm.page, self.vm.pq
        if m.valid == 0 or m.queue - m.pc == pq.CACHE:
            dirty = m.dirty & m.valid or m.flags & PG_NEED_COMMIT
            self.k.kassert(not dirty, "clean-cache-dirty", str(m))
            return False
        page.test_dirty(m)
        if not m.dirty & m.valid and not m.flags & PG_NEED_COMMIT:
            page.flag_clear(m, PG_CLEANCHK)
            return False
        if info.limit & OBJPC_NOSYNC and m.flags & PG_NOSYNC:
            page.flag_clear(m, PG_CLEANCHK)
            return False
        return True

    def page_collect_flush(self, obj: VmObject, m: Page, pagerflags: int) -> None:
        """vm_object_page_collect_flush, vm_object.c:1511-1602: write *m* and its dirty neighbours.

        *obj* is held, *m* busy on entry; all pages are released.  A cluster does not cross a
        multiple of BLIST_MAX_ALLOC.  Blocks.
        """
        self.assert_held(obj)
        page = self.vm.page
        at = m.pindex
        base = at - at % BLIST_MAX_ALLOC
        run = [m]
        for pindex in range(at - 1, base - 1, -1):
            if (other := self._collect(obj, pindex, pagerflags)) is None:
                break
            run.append(other)
        run.reverse()
        for pindex in range(at + 1, base + BLIST_MAX_ALLOC):
            if pindex >= obj.size or (other := self._collect(obj, pindex, pagerflags)) is None:
                break
            run.append(other)
        for each in run:
            page.flag_clear(each, PG_CLEANCHK)
            page.hold(each)
        self.vm.pageout.flush(run, pagerflags)
        for each in run:
            page.unhold(each)

    def _collect(self, obj: VmObject, pindex: int, pagerflags: int) -> Page | None:
        """A neighbour that belongs into the cluster, busied, or None."""
        page = self.vm.page
        m, error = page.lookup_busy_try(obj, pindex, True)
        if error or m is None:
            return None
        if not pagerflags & VM_PAGER_IGNORE_CLEANCHK and not m.flags & PG_CLEANCHK:
            page.wakeup(m)
            return None
        if m.queue - m.pc != self.vm.pq.CACHE:
            page.test_dirty(m)
            if m.dirty & m.valid or m.flags & PG_NEED_COMMIT:
                found: Page = m
                return found
        page.flag_clear(m, PG_CLEANCHK)
        page.wakeup(m)
        return None

    # -- removal

    def page_remove(self, obj: VmObject, start: int, end: int, clean_only: bool) -> None:
        """vm_object_page_remove, vm_object.c:2640-2706: throw away the pages of [start, end).

        *end* 0 means to the end and beyond.  With *clean_only* dirty pages stay.  Swap of the range
        goes too, unless it is the only copy.  The caller need not hold *obj*.  Waits for busy
        pages.
        """
        self.hold(obj)
        if obj.resident_page_count == 0 and obj.swblock_count == 0:
            self.drop(obj)
            return
        self.k.kassert(obj.type != OBJT_PHYS, "page-remove-phys", str(obj))
        self.pip_add(obj, 1)
        last = MAX_PINDEX if end == 0 else end - 1
        everything = start == 0 and last >= obj.size - 1
        count = 0

        def callback(m: Page) -> int:
            nonlocal count
            count += 1
            self.user_yield(count)
            return int(self.page_remove_callback(obj, m, clean_only))

        while obj.rb_memq.scan(callback, start, last):
            pass
        if obj.type != OBJT_SWAP or not clean_only:
            if everything:
                self.vm.swap.freespace_all(obj)
            else:
                self.vm.swap.freespace(obj, start, last - start + 1)
        self.pip_wakeup(obj)
        self.drop(obj)

    def page_remove_callback(self, obj: VmObject, m: Page, clean_only: bool) -> bool:
        """vm_object_page_remove_callback, vm_object.c:2715-2782.

        *obj* is held.  Returns True when a busy page has been slept for, and the scan is to be
        repeated.  Wired pages are unmapped and (unless *clean_only*) made invalid.
        """
        page = self.vm.page
        if m.object is not obj:
            kprintf(self.k, "page-remove-race", object=obj, page=m)
            return False
        if page.busy_try(m, True):
            page.sleep_busy(m, True, "vmopar")
            return True
        if m.object is not obj:
            kprintf(self.k, "page-remove-race", object=obj, page=m)
            page.wakeup(m)
            return False
        if m.wire_count != 0:
            page.protect(m, VM_PROT_NONE)
            if not clean_only:
                m.valid = 0
            page.wakeup(m)
            return False
        if clean_only and m.valid:
            page.test_dirty(m)
            if m.valid & m.dirty or m.flags & PG_NEED_COMMIT:
                page.wakeup(m)
                return False
        page.protect(m, VM_PROT_NONE)
        page.free(m)
        return False
