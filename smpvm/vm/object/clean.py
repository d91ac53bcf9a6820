"""Writing and removing an object's pages: page_clean (msync, syncer), page_remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import BLIST_MAX_ALLOC
from smpvm.kern.cname import c, holds
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
    """struct rb_vm_page_scan_info, as vm_object_page_clean uses it; the bounds are inclusive."""

    __slots__ = ("count", "end", "error", "limit", "object", "pagerflags", "start")

    @c("vm_object_page_clean", "vm_object.c:1334-1343", part=True)
    def __init__(self, obj: VmObject, start: int, end: int, limit: int, pagerflags: int) -> None:
        self.object = obj
        self.start = start
        self.end = end
        self.limit = limit
        self.pagerflags = pagerflags
        self.error = False
        self.count = 0

    @c("vm_object_page_clean_pass1", "vm_object.c:1398-1400", part=True)
    @c("vm_object_page_clean_pass2", "vm_object.c:1428-1430", part=True)
    @holds("info.object held")
    def strayed(self, m: Page) -> bool:
        """Whether *m* has left the object or the range of the scan."""
        return m.object is not self.object or not self.start <= m.pindex <= self.end


class Cleaning(ObjectsBase):
    """vm_object_page_clean, vm_object_page_remove."""

    @c("vm_object_page_clean", "vm_object.c:1302-1385", blocks=True)
    @holds("a reference that keeps obj; the vnode locked normally", "")
    def page_clean(self, obj: VmObject, start: int, end: int, flags: int) -> None:
        """vm_object_page_clean, vm_object.c:1302-1385: write the dirty pages of [start, end).

        *flags* are OBJPC_*; *end* 0 means the whole object.  Does nothing for objects other than
        vnode objects.  The caller need not hold *obj*.  A scan of the whole object first makes all
        pages read-only and clears the object's dirty flags; if a page could not be processed the
        flags stay.  Blocks.

        Only a scan of the whole object marks pages PG_CLEANCHK, and only marked pages are written.
        So in the C a range smaller than the object is never written.
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
            # Pages were inserted or removed while a write blocked: scan again until nothing
            # changes.
            if not info.error and generation == obj.generation:
                break
        self.clear_flag(obj, OBJ_CLEANING)
        self.drop(obj)

    @c("vm_object_page_clean", "vm_object.c:1350", part=True)
    @holds("obj held")
    def wants_marks(self, whole: bool) -> bool:
        """Whether the marking pass runs: only for a scan of the *whole* object."""
        return whole

    @c("vm_object_page_clean", "vm_object.c:1350-1370", part=True, blocks=True)
    @holds("obj held", "obj held (token lost at every 64th page)")
    def mark_pass(self, obj: VmObject, info: CleanScan, whole: bool) -> None:
        """vm_object.c:1350-1370: mark the pages, make them read-only, then clear the dirty flags.

        The pass yields the CPU, and with it the object's token, at every 64th page: a read fault
        may then map a page writeable again that the pass has already processed.  The dirty flags
        are cleared all the same, and fsync and the syncer do not see what is later written through
        that mapping.
        """
        obj.rb_memq.scan(lambda m: self.page_clean_pass1(m, info), info.start, info.end)
        if whole and not info.error:
            self.off_record(obj)

    @c("vm_object_page_clean", "vm_object.c:1356-1368", part=True)
    @holds("obj held")
    def off_record(self, obj: VmObject) -> None:
        """Clear the dirty flags of the object and its vnode."""
        self.clear_flag(obj, OBJ_WRITEABLE | OBJ_MIGHTBEDIRTY)
        if obj.handle is not None:
            self.k.vnode.vclrobjdirty(obj.handle)

    @c("vm_object_page_clean_pass1", "vm_object.c:1390-1416", blocks=True)
    @holds("info.object held")
    def page_clean_pass1(self, m: Page, info: CleanScan) -> int:
        """vm_object_page_clean_pass1, vm_object.c:1390-1416: mark a page and make it read-only.

        The object is held.  A busy page, or a NOSYNC page that is to be skipped, sets ``error``.
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

    @c("vm_object_page_clean_pass2", "vm_object.c:1421-1502", blocks=True)
    @holds("info.object held")
    def page_clean_pass2(self, m: Page, info: CleanScan) -> int:
        """vm_object_page_clean_pass2, vm_object.c:1421-1502: write a marked page if it is dirty.

        The object is held.  Sleeps for a busy page, and the write blocks.
        """
        page, obj = self.vm.page, info.object
        if info.strayed(m):
            kprintf(self.k, "page-clean-race", object=obj, page=m)
            return 0
        if m.flags & PG_CLEANCHK:
            generation = obj.generation
            page.busy_wait(m, True, "vpcwai")
            # The sleep for the page released the token: the page may have left the object.
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

    @c("vm_object_page_clean_pass2", "vm_object.c:1459-1488", part=True)
    @holds("m busied; info.object held")
    def _clean_wants(self, m: Page, info: CleanScan) -> bool:
        """Whether the busied page *m* is to be written; if not, clears PG_CLEANCHK where
        appropriate.
        """
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

    @c("vm_object_page_collect_flush", "vm_object.c:1511-1602", blocks=True)
    @holds("obj held; m busied", "obj held; m unbusied")
    def page_collect_flush(self, obj: VmObject, m: Page, pagerflags: int) -> None:
        """vm_object_page_collect_flush, vm_object.c:1511-1602: write *m* with its dirty neighbours.

        *obj* is held and *m* busied on entry; all pages are unbusied on return.  A cluster does not
        cross a multiple of BLIST_MAX_ALLOC.  Blocks.
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
            # The C holds the pages across the flush, and wonders itself whether that is still
            # needed.
            page.flag_clear(each, PG_CLEANCHK)
            page.hold(each)
        self.vm.pageout.flush(run, pagerflags)
        for each in run:
            page.unhold(each)

    @c("vm_object_page_collect_flush", "vm_object.c:1533-1556", part=True)
    @holds("obj held", "obj held; the page returned busied")
    def _collect(self, obj: VmObject, pindex: int, pagerflags: int) -> Page | None:
        """A neighbouring page that belongs in the cluster, busied, or None."""
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

    @c("vm_object_page_remove", "vm_object.c:2640-2706", blocks=True)
    @holds("a reference that keeps obj", "")
    def page_remove(self, obj: VmObject, start: int, end: int, clean_only: bool) -> None:
        """vm_object_page_remove, vm_object.c:2640-2706: discard the pages of [start, end).

        *end* 0 means up to the end of the object and beyond.  With *clean_only* dirty pages stay.
        The range's swap is freed too, unless it may be the only copy.  The caller need not hold
        *obj*.  Sleeps for busy pages.
        """
        self.hold(obj)
        if obj.resident_page_count == 0 and obj.swblock_count == 0:
            self.drop(obj)
            return
        self.k.kassert(obj.type != OBJT_PHYS, "page-remove-phys", str(obj))
        # Keeps the object from being collapsed or terminated while the scan sleeps.
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

    @c("vm_object_page_remove_callback", "vm_object.c:2715-2782", blocks=True)
    @holds("obj held")
    def page_remove_callback(self, obj: VmObject, m: Page, clean_only: bool) -> bool:
        """vm_object_page_remove_callback, vm_object.c:2715-2782: discard one page.

        *obj* is held.  Returns True if it slept for a busy page: the scan must be repeated.  Wired
        pages are only unmapped and (unless *clean_only*) made invalid.
        """
        page = self.vm.page
        if m.object is not obj:
            kprintf(self.k, "page-remove-race", object=obj, page=m)
            return False
        if page.busy_try(m, True):
            page.sleep_busy(m, True, "vmopar")
            return True
        # Until it was busied the page could leave the object.
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
