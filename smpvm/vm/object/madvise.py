"""madvise for objects and pages, and helpers that protect or unmap a range of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SHIFT
from smpvm.kern.cname import c, holds
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import ObjectsBase, VmObject
from smpvm.vm.page.struct import PG_NEED_COMMIT, PG_UNMANAGED
from smpvm.vm.param import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    OBJ_ONEMAPPING,
    OBJ_WRITEABLE,
    OBJT_DEFAULT,
    OBJT_SWAP,
    VM_PAGE_BITS_ALL,
    VM_PROT_NONE,
    VM_PROT_READ,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page


class Madvise(ObjectsBase):
    """vm_object_madvise, vm_object_pmap_copy_1, vm_object_pmap_remove."""

    @c("vm_object_madvise", "vm_object.c:1707-1831", blocks=True)
    @holds("nothing held", "")
    def madvise(self, obj: VmObject | None, pindex: int, count: int, advise: int) -> None:
        """vm_object_madvise, vm_object.c:1707-1831: advice for *count* pages from *pindex* on.

        *advise* is MADV_WILLNEED, MADV_DONTNEED or MADV_FREE (the last only for DEFAULT and SWAP
        objects that are mapped once).  Searches the chain of backing objects for each page.  The
        caller holds nothing.  Blocks.
        """
        if obj is None:
            return
        self.hold(obj)
        for each in range(pindex, pindex + count):
            while self._madvise_one(obj, each, advise):
                pass
        self.drop(obj)

    @c("vm_object_madvise", "vm_object.c:1728-1778", part=True, blocks=True)
    @holds("obj held exclusively")
    def _madvise_one(self, obj: VmObject, pindex: int, advise: int) -> bool:
        """One page of the range.  Returns True if it had to sleep for a busy page: call it again.

        *obj* is held on entry and return.
        """
        page = self.vm.page
        at = obj
        while True:
            if advise == MADV_FREE and (
                at.type not in (OBJT_DEFAULT, OBJT_SWAP) or not at.flags & OBJ_ONEMAPPING
            ):
                break
            m, error = page.lookup_busy_try(at, pindex, True)
            if error and m is not None:
                page.sleep_busy(m, True, "madvpo")
                if at is not obj:
                    self.drop(at)
                return True
            if m is not None:
                self._madvise_page(at, m, pindex, advise)
                break
            if advise == MADV_FREE and at.type == OBJT_SWAP:
                self.vm.swap.freespace(at, pindex, 1)
            behind = self._hold_behind(obj, at)
            if behind is None:
                break
            pindex += at.backing_object_offset >> PAGE_SHIFT
            if at is not obj:
                self.lock_swap()
                self.drop(at)
            at = behind
        if at is not obj:
            self.drop(at)
        return False

    @c("vm_object_madvise", "vm_object.c:1762-1768", part=True, blocks=True)
    @holds("at held", "at held; the object returned held exclusively")
    def _hold_behind(self, top: VmObject, at: VmObject) -> VmObject | None:
        """The backing object of *at*, held exclusively, or None."""
        while (behind := at.backing_object) is not None:
            self.k.kassert(behind is not top, "madvise-loop", str(top))
            self.hold(behind)
            # Waiting for its token may have let a collapse replace it.
            if behind is at.backing_object:
                return behind
            self.drop(behind)
        return None

    @c("vm_object_madvise", "vm_object.c:1786-1826", part=True, blocks=True)
    @holds("m busied; at held", "m unbusied")
    def _madvise_page(self, at: VmObject, m: Page, pindex: int, advise: int) -> None:
        """Apply the advice to one resident page *m*, busied on entry and unbusied on return."""
        page = self.vm.page
        usual = (
            m.wire_count == 0
            and not m.flags & (PG_UNMANAGED | PG_NEED_COMMIT)
            and m.valid == VM_PAGE_BITS_ALL
        )
        if usual and advise == MADV_WILLNEED:
            page.activate(m)
        elif usual and advise == MADV_DONTNEED:
            page.dontneed(m)
        elif usual and advise == MADV_FREE:
            self.vm.pmap.clear_modify(m)
            m.dirty = 0
            m.act_count = 0
            if (f := self.k.probe.call) is not None:
                f(self.k.curthread(), "madvise_free", page=m)
            page.dontneed(m)
            if at.type == OBJT_SWAP:
                self.vm.swap.freespace(at, pindex, 1)
        page.wakeup(m)

    @c("vm_object_pmap_copy_1", "vm_object.c:1615-1632", blocks=True, uncalled=True)
    @holds("nothing held", "")
    def pmap_copy_1(self, obj: VmObject | None, start: int, end: int) -> None:
        """vm_object_pmap_copy_1, vm_object.c:1615-1632: make resident pages read-only.

        Unused in the C.  It does not busy the pages that it protects, so vm_page_protect would
        panic.
        """
        if obj is None or not obj.flags & OBJ_WRITEABLE:
            return
        self.hold(obj)
        for pindex in range(start, end):
            m = self.vm.page.lookup(obj, pindex)
            if m is not None:
                self.vm.page.protect(m, VM_PROT_READ)
        self.drop(obj)

    @c("vm_object_pmap_remove", "vm_object.c:1643-1661", blocks=True, uncalled=True)
    @c("vm_object_pmap_remove_callback", "vm_object.c:1666-1685")
    @holds("nothing held", "")
    def pmap_remove(self, obj: VmObject | None, start: int, end: int) -> None:
        """vm_object_pmap_remove, vm_object.c:1643-1661: unmap the pages of [start, end).

        Unused in the C, with the same flaw as ``pmap_copy_1``.
        """
        if obj is None:
            return
        self.hold(obj)
        count = 0

        def callback(m: Page) -> int:
            nonlocal count
            count += 1
            self.user_yield(count)
            if m.object is not obj:
                kprintf(self.k, "pmap-remove-race", object=obj, page=m)
            else:
                self.vm.page.protect(m, VM_PROT_NONE)
            return 0

        obj.rb_memq.scan(callback, start, end - 1)
        if start == 0 and end == obj.size:
            self.clear_flag(obj, OBJ_WRITEABLE)
        self.drop(obj)
