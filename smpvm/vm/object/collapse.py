"""Shadow objects (copy-on-write), and the operations that undo them: collapse and bypass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SHIFT
from smpvm.kern.cname import c, holds
from smpvm.vm.console import kprintf
from smpvm.vm.object.chain import ChainLocks
from smpvm.vm.object.dealloc import INTERNAL, Deallocation
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_NEED_COMMIT
from smpvm.vm.param import (
    CHAINLK_EXCL,
    CHAINLK_MASK,
    OBJ_DEAD,
    OBJ_ONEMAPPING,
    OBJ_ONSHADOW,
    OBJT_DEFAULT,
    OBJT_SWAP,
    OBJT_VNODE,
    VM_PROT_NONE,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page

OBSC_TEST_ALL_SHADOWED = 1
OBSC_COLLAPSE_NOWAIT = 2
OBSC_COLLAPSE_WAIT = 4

# Results of vm_object_backing_scan_callback.
GO_ON, RESTART, NOT_SHADOWED = 0, -1, -2


class Collapse(ChainLocks, Deallocation):
    """vm_object_shadow, vm_object_collapse, vm_object_coalesce."""

    @c("vm_object_shadow", "vm_object.c:1846-1970", blocks=True)
    @holds("the caller's reference on source; nothing held", "")
    def shadow(
        self, source: VmObject | None, offset: int, length: int, addref: bool
    ) -> tuple[VmObject, int]:
        """vm_object_shadow, vm_object.c:1846-1970.

        Put a new object of *length* pages over *source*.

        Returns (object, byte offset) to use instead of *source* and *offset*.  The caller's
        reference on *source* passes to the new object; if nobody else uses *source*, it is returned
        itself.  With *addref* the result has one more reference (for a second map entry).  The
        caller holds nothing.  Blocks.
        """
        uselist = source is not None and source.type != OBJT_VNODE
        if source is not None:
            if uselist:
                if self._unshared(source, addref):
                    return source, offset
            else:
                self.reference_quick(source)
                self.clear_flag(source, OBJ_ONEMAPPING)
        result = self.allocate(OBJT_DEFAULT, length)
        self.hold(result)
        if addref:
            self.reference_locked(result)
            self.clear_flag(result, OBJ_ONEMAPPING)
        self.k.kassert(result.backing_object is None, "shadow-backed", str(result))
        result.backing_object = source
        if source is not None:
            if uselist:
                # A collapse of source must not run while it gains a shadow.
                self.chain_wait(source)
                self.on_shadow_list(result, source)
            result.pg_color = self.quickcolor()
        result.backing_object_offset = offset
        self.drop(result)
        if source is not None:
            if uselist:
                self.deallocate_locked(source)
                self.drop(source)
            else:
                self.deallocate(source)
        return result, 0

    @c("vm_object_shadow", "vm_object.c:1875-1890", part=True, blocks=True)
    @holds("nothing", "on False source held, with a reference more")
    def _unshared(self, source: VmObject, addref: bool) -> bool:
        """Whether *source* needs no shadow.  If so it is not held on return.

        Otherwise it is returned held, with a temporary reference that prevents a collapse.
        """
        self.hold(source)
        self.chain_wait(source)
        alone = source.ref_count == 1 and source.handle is None and source.type in INTERNAL
        if not alone or addref:
            self.reference_locked(source)
            self.clear_flag(source, OBJ_ONEMAPPING)
        if alone:
            self.drop(source)
        return alone

    # -- looking at the pages of a backing object

    @c("vm_object_backing_scan", "vm_object.c:1981-2038", blocks=True)
    @holds("obj and backing held, chain locked")
    def backing_scan(self, obj: VmObject, backing: VmObject, op: int) -> bool:
        """vm_object_backing_scan, vm_object.c:1981-2038: run *op* over the pages of *backing*.

        Both objects are held.  Returns False if OBSC_TEST_ALL_SHADOWED finds that *obj* does not
        hide all of *backing*.  OBSC_COLLAPSE_WAIT first marks *backing* dead, and sleeps for its
        busy pages; OBSC_COLLAPSE_NOWAIT skips them.
        """
        k = self.k
        self.assert_held(obj)
        self.assert_held(backing)
        k.kassert(backing is obj.backing_object, "backing-scan", f"{obj}, {backing}")
        if op & OBSC_TEST_ALL_SHADOWED and backing.type != OBJT_DEFAULT:
            return False
        if op & OBSC_COLLAPSE_WAIT:
            k.kassert(not backing.flags & OBJ_DEAD, "backing-dead", str(backing))
            self.set_flag(backing, OBJ_DEAD)
            self.unlist(backing)
        offset = obj.backing_object_offset >> PAGE_SHIFT
        said = RESTART
        while said == RESTART:
            said = backing.rb_memq.scan(
                lambda m: self.backing_scan_callback(obj, backing, m, offset, op)
            )
        return said != NOT_SHADOWED

    @c("vm_object_backing_scan_callback", "vm_object.c:2043-2195", blocks=True)
    @holds("both objects held")
    def backing_scan_callback(
        self, obj: VmObject, backing: VmObject, m: Page, offset: int, op: int
    ) -> int:
        """vm_object_backing_scan_callback, vm_object.c:2043-2195: one page *m* of *backing*.

        *offset* is the page of *backing* that is visible as page 0 of *obj*.  Returns GO_ON,
        RESTART (slept for a busy page: start the scan again) or NOT_SHADOWED.
        """
        pindex = m.pindex
        new_pindex = pindex - offset
        if op & OBSC_TEST_ALL_SHADOWED:
            if pindex < offset or new_pindex >= obj.size:
                return GO_ON
            over = self.vm.page.lookup(obj, new_pindex)
            if (over is None or over.valid == 0) and not self.vm.pager.has_page(obj, new_pindex):
                return NOT_SHADOWED
        if op & (OBSC_COLLAPSE_WAIT | OBSC_COLLAPSE_NOWAIT):
            return self._collapse_page(obj, backing, m, pindex, offset, op)
        return GO_ON

    @c("vm_object_backing_scan_callback", "vm_object.c:2101-2192", part=True, blocks=True)
    @holds("both objects held exclusively")
    def _collapse_page(
        self, obj: VmObject, backing: VmObject, m: Page, pindex: int, offset: int, op: int
    ) -> int:
        """Move *m* up into *obj*, or free it if *obj* has its own page or ends before it."""
        page = self.vm.page
        new_pindex = pindex - offset
        if page.busy_try(m, True):
            if op & OBSC_COLLAPSE_NOWAIT:
                return GO_ON
            page.sleep_busy(m, True, "vmocol")
            # The sleep released both tokens: the scan starts again.
            return RESTART
        if m.object is not backing or m.pindex != pindex:
            kprintf(self.k, "backing-scan-race", object=backing, page=m)
            page.wakeup(m)
            return RESTART
        if op & OBSC_COLLAPSE_NOWAIT and (m.valid == 0 or m.wire_count or m.flags & PG_NEED_COMMIT):
            page.wakeup(m)
            return GO_ON
        # The resident page is the current copy: its swap block is no longer needed.
        if backing.type == OBJT_SWAP:
            self.vm.swap.freespace(backing, m.pindex, 1)
        outside = m.pindex < offset or new_pindex >= obj.size
        if outside or self._parent_has(obj, new_pindex):
            page.protect(m, VM_PROT_NONE)
            page.free(m)
            return GO_ON
        # A page on the cache queue must be clean, but the rename marks it dirty.
        if m.queue - m.pc == self.vm.pq.CACHE:
            page.deactivate(m)
        page.rename(m, obj, new_pindex)
        page.wakeup(m)
        return GO_ON

    @c("vm_object_backing_scan_callback", "vm_object.c:2166-2167", part=True, blocks=True)
    @holds("obj held")
    def _parent_has(self, obj: VmObject, pindex: int) -> bool:
        """Whether *obj* itself has the page, in memory or in swap."""
        if self.vm.page.lookup(obj, pindex) is not None:
            return True
        return self.vm.pager.has_page(obj, pindex)

    # -- collapse

    @c("vm_object_qcollapse", "vm_object.c:2207-2222", blocks=True)
    @holds("both held and chain locked")
    def qcollapse(self, obj: VmObject, backing: VmObject) -> None:
        """vm_object_qcollapse, vm_object.c:2207-2222.

        Move the pages that can be moved while I/O is running.

        Both objects are held and chain locked.
        """
        if backing.ref_count == 1:
            self.k.curthread().hit("vm_object_qcollapse")
            # The extra references keep other threads from collapsing or destroying it during the
            # scan.
            self.atomic.add_int(backing, "ref_count", 2)
            self.backing_scan(obj, backing, OBSC_COLLAPSE_NOWAIT)
            self.atomic.add_int(backing, "ref_count", -2)

    @c("vm_object_collapse", "vm_object.c:2234-2608", blocks=True)
    @holds("obj held exclusively and chain locked")
    def collapse(self, obj: VmObject, dlist: list[VmObject] | None = None) -> None:
        """vm_object_collapse, vm_object.c:2234-2608.

        Merge *obj* with its backing objects, as far as possible.

        *obj* is held and chain locked, with one reference more than its shadows need.  A backing
        object with no other reference is emptied into *obj* and destroyed; one that *obj* hides
        completely is bypassed and the reference on it dropped: by the caller, who finds it on
        *dlist* (hold count raised, token not held), or here if *dlist* is None.  Blocks.
        """
        k = self.k
        self.assert_held(obj)
        k.kassert(obj.chainlk & (CHAINLK_MASK | CHAINLK_EXCL), "collapse-unchained", str(obj))
        own: list[VmObject] = []
        out = own if dlist is None else dlist
        while True:
            found, backing = self._collapse_candidate(obj)
            if not found:
                if backing is None:
                    break
                continue
            assert backing is not None
            if not self._collapsible(obj, backing):
                break
            if obj.paging_in_progress or backing.paging_in_progress:
                # I/O in progress may have pages busy: do not wait for it, move only what can be
                # moved now.
                self.qcollapse(obj, backing)
                break
            if backing.ref_count == 1:
                self._collapse_into(obj, backing)
                self.chain_release(backing)
                self.drop(backing)
            else:
                if not self.backing_scan(obj, backing, OBSC_TEST_ALL_SHADOWED):
                    break
                self._bypass(obj, backing)
                self.chain_release(backing)
                self.unlock(backing)  # the list keeps the hold count
                out.append(backing)
        if backing is not None:
            self.chain_release(backing)
            self.drop(backing)
        self.deallocate_list(own)

    @c("vm_object_collapse", "vm_object.c:2257-2294", part=True, blocks=True)
    @holds("obj held and chain locked", "on (True, it) it held exclusively and chain locked")
    def _collapse_candidate(self, obj: VmObject) -> tuple[bool, VmObject | None]:
        """Find, hold and chain lock the backing object of *obj*.

        Returns (True, backing); (False, None) if there is nothing to collapse with; or (False,
        backing) if it changed in the meantime: nothing is held, and the caller tries again.
        """
        if obj.type not in INTERNAL:
            return False, None
        backing = obj.backing_object
        if backing is None or backing.type not in INTERNAL:
            return False, None
        self.hold(backing)
        # Waiting for its token may have released obj's: is it still the backing object?
        if backing is not obj.backing_object or backing.type not in INTERNAL:
            self.drop(backing)
            return False, backing
        self.chain_acquire(backing)
        # chain_acquire may have slept, which releases both tokens: check again.
        if backing is not obj.backing_object:
            self.chain_release(backing)
            self.drop(backing)
            return False, backing
        return True, backing

    @c("vm_object_collapse", "vm_object.c:2300-2309", part=True)
    @holds("both held")
    def _collapsible(self, obj: VmObject, backing: VmObject) -> bool:
        """Whether both objects are anonymous, without a handle, and not dead."""
        return all(
            o.handle is None and o.type in INTERNAL and not o.flags & OBJ_DEAD
            for o in (backing, obj)
        )

    @c("vm_object_collapse", "vm_object.c:2337-2461", part=True, blocks=True)
    @holds("both held exclusively and chain locked")
    def _collapse_into(self, obj: VmObject, backing: VmObject) -> None:
        """Empty *backing*, which only *obj* references, into *obj*, and destroy it (:2332-2462)."""
        k = self.k
        k.curthread().hit("vm_object_collapse:collapse")
        # Marks backing dead, so nobody starts paging on it, and moves or frees all its pages.
        self.backing_scan(obj, backing, OBSC_COLLAPSE_WAIT)
        if backing.type == OBJT_SWAP:
            # The copy may block: the paging counts keep both objects from being collapsed or
            # terminated.
            self.pip_add(backing, 1)
            self.pip_add(obj, 1)
            self.vm.swap.copy(backing, obj, obj.backing_object_offset >> PAGE_SHIFT, True)
            self.pip_wakeup(obj)
            self.pip_wakeup(backing)
        k.kassert(obj.backing_object is backing, "collapse-backing", str(obj))
        # obj leaves backing's list of shadows and joins that of the object behind it.
        if obj.flags & OBJ_ONSHADOW:
            self.off_shadow_list(obj, backing)
        behind = self.hold_backing(backing)
        if behind is not None:
            if backing.flags & OBJ_ONSHADOW:
                k.kassert(behind.type != OBJT_VNODE, "collapse-vnode-shadow", str(behind))
                self.off_shadow_list(backing, behind)
            backing.backing_object = None
        obj.backing_object = behind
        if behind is not None and behind.type != OBJT_VNODE:
            self.on_shadow_list(obj, behind)
        obj.backing_object_offset += backing.backing_object_offset
        self.drop(behind)
        # The calls above may have blocked: nobody may have found backing since.
        k.kassert(backing.ref_count == 1, "collapse-rereferenced", str(backing))
        k.kassert(len(backing.rb_memq) == 0, "collapse-pages-left", str(backing))
        self.atomic.add_int(backing, "ref_count", -1)
        if not backing.flags & OBJ_DEAD:
            self.terminate(backing)
        self.collapses += 1

    @c("vm_object_collapse", "vm_object.c:2481-2548", part=True, blocks=True)
    @holds("both held exclusively and chain locked")
    def _bypass(self, obj: VmObject, backing: VmObject) -> None:
        """*obj* hides all of *backing*: make the object behind it the new backing (:2473-2549)."""
        self.k.curthread().hit("vm_object_collapse:bypass")
        behind = self.hold_backing(backing)
        self.k.kassert(obj.backing_object is backing, "collapse-backing", str(obj))
        if obj.flags & OBJ_ONSHADOW:
            self.off_shadow_list(obj, backing)
        if behind is None:
            obj.backing_object = None
        else:
            if behind.type != OBJT_VNODE:
                # Like every new reference, it must not be added during a collapse of that object.
                self.chain_wait(behind)
                self.reference_locked(behind)
                self.on_shadow_list(obj, behind)
            else:
                self.reference_quick(behind)
            obj.backing_object_offset += backing.backing_object_offset
            obj.backing_object = behind
            self.drop(behind)
        self.bypasses += 1

    # -- coalesce

    @c("vm_object_coalesce", "vm_object.c:2805-2873", blocks=True)
    @holds("something that keeps prev (the map lock)", "")
    def coalesce(
        self, prev: VmObject | None, prev_pindex: int, prev_size: int, next_size: int
    ) -> bool:
        """vm_object_coalesce, vm_object.c:2805-2873: extend *prev* over the range that follows it.

        *prev* backs *prev_size* bytes from page *prev_pindex* on; the next *next_size* bytes have
        no object yet.  Returns whether *prev* (None: always) now covers them.  The caller need not
        hold it, but its map lock keeps it alive.  Blocks.
        """
        if prev is None:
            return True
        self.hold(prev)
        if prev.type not in INTERNAL:
            self.drop(prev)
            return False
        self.chain_acquire(prev)
        self.collapse(prev)
        ok = self._coalesce_locked(prev, prev_pindex, prev_size, next_size)
        self.chain_release(prev)
        self.drop(prev)
        return ok

    @c("vm_object_coalesce", "vm_object.c:2834-2868", part=True, blocks=True)
    @holds("prev held exclusively and chain locked")
    def _coalesce_locked(
        self, prev: VmObject, prev_pindex: int, prev_size: int, next_size: int
    ) -> bool:
        if prev.backing_object is not None:
            return False
        pages = next_size >> PAGE_SHIFT
        next_pindex = prev_pindex + (prev_size >> PAGE_SHIFT)
        if prev.ref_count > 1 and prev.size != next_pindex:
            return False
        if next_pindex < prev.size:
            self.vm.object.page_remove(prev, next_pindex, next_pindex + pages, False)
            if prev.type == OBJT_SWAP:
                self.vm.swap.freespace(prev, next_pindex, pages)
        if next_pindex + pages > prev.size:
            prev.size = next_pindex + pages
        return True
