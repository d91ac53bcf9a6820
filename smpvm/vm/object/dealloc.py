"""Dropping references: vm_object_deallocate, and what the last reference leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smpvm.kern.cname import c, holds
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import ObjectsBase, VmObject
from smpvm.vm.param import (
    CHAINLK_EXCL,
    CHAINLK_MASK,
    OBJ_DEAD,
    OBJ_ONEMAPPING,
    OBJ_ONSHADOW,
    OBJPC_SYNC,
    OBJT_DEFAULT,
    OBJT_SWAP,
    OBJT_VNODE,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page

INTERNAL = (OBJT_DEFAULT, OBJT_SWAP)

# What one iteration of vm_object_deallocate_locked's loop does next.
DONE, AGAIN, SKIP = range(3)


class Deallocation(ObjectsBase):
    """vm_object_reference_*, vm_object_deallocate*, vm_object_terminate."""

    @c("vm_object_reference_locked", "vm_object.c:490-504")
    @holds("obj held, either mode; not chain locked")
    def reference_locked(self, obj: VmObject) -> None:
        """vm_object_reference_locked, vm_object.c:490-504: add one reference.

        *obj* is held in either mode and not chain locked (callers use chain_wait first), because a
        collapse depends on the reference count.  A vnode object also references its vnode.
        """
        self.assert_held(obj)
        self.k.kassert(not obj.chainlk & (CHAINLK_EXCL | CHAINLK_MASK), "ref-chainlocked", str(obj))
        self.atomic.add_int(obj, "ref_count", 1)
        if obj.type == OBJT_VNODE:
            self.k.vnode.vref(obj.handle)

    @c("vm_object_reference_quick", "vm_object.c:509-518")
    @holds("a reference on obj or its vnode")
    def reference_quick(self, obj: VmObject) -> None:
        """vm_object_reference_quick, vm_object.c:509-518: for vnode objects, without the token."""
        self.k.kassert(obj.type == OBJT_VNODE, "ref-quick-not-vnode", str(obj))
        self.atomic.add_int(obj, "ref_count", 1)
        self.k.vnode.vref(obj.handle)

    @c("vm_object_vndeallocate", "vm_object.c:716-768", blocks=True)
    @holds("obj held (exclusively unless returns_vp)")
    def vndeallocate(self, obj: VmObject, returns_vp: bool = False) -> Any:
        """vm_object_vndeallocate, vm_object.c:716-768: drop one reference of a vnode object.

        *obj* is held in either mode on entry and stays held (upgraded for the last reference).
        With *returns_vp* the caller must vrele the returned vnode after it has dropped *obj*;
        otherwise it is released here, and *obj* must be held exclusively.
        """
        k = self.k
        vp = obj.handle
        k.kassert(obj.type == OBJT_VNODE, "vndeallocate-not-vnode", str(obj))
        k.kassert(vp is not None, "vndeallocate-no-vnode", str(obj))
        self.assert_held(obj)
        k.kassert(obj.ref_count != 0, "vndeallocate-no-refs", str(obj))
        while True:
            count = obj.ref_count
            if count == 1:
                # The upgrade may release the token, so the count is compared again below.
                self.upgrade(obj)
            if self.atomic.cmpset_int(obj, "ref_count", count, count - 1):
                break
        if returns_vp:
            return vp
        k.vnode.vrele(vp)
        return None

    @c("vm_object_deallocate", "vm_object.c:781-843", blocks=True)
    @holds("a reference on obj; obj not held", "reference released")
    def deallocate(self, obj: VmObject | None) -> None:
        """vm_object_deallocate, vm_object.c:781-843: drop one reference; None is allowed.

        The caller owns that reference and does not hold *obj*.  Counts of 3 and below take the slow
        path with the token, others a compare-and-set.  Blocks.
        """
        if obj is None:
            return
        while True:
            count = obj.ref_count
            # As in the C, the second test never matters.
            if count <= 3 or (obj.type == OBJT_VNODE and count <= 1):
                self.hold(obj)
                self.deallocate_locked(obj)
                self.drop(obj)
                return
            if obj.type == OBJT_VNODE:
                # Read before the count drops: afterwards another thread may destroy the object.
                vp = obj.handle
                if self.atomic.cmpset_int(obj, "ref_count", count, count - 1):
                    self.k.vnode.vrele(vp)
                    return
            elif self.atomic.cmpset_int(obj, "ref_count", count, count - 1):
                return

    @c("vm_object_deallocate_locked", "vm_object.c:845-1118", blocks=True)
    @holds("obj held exclusively, with a reference", "obj held, reference released")
    def deallocate_locked(self, obj: VmObject) -> None:
        """vm_object_deallocate_locked, vm_object.c:845-1118: drop one reference.

        *obj* is held exclusively on entry and return.  Continues down the chain of backing objects
        whose last reference is dropped with it, and into the shadow that can now be collapsed.
        Blocks.
        """
        dlist: list[VmObject] = []
        at: VmObject | None = obj
        must_drop = False
        while True:
            while at is not None:
                if at.type == OBJT_VNODE:
                    at, must_drop = self._dealloc_vnode(at, must_drop)
                    break
                self.assert_held_excl(at)
                self.k.kassert(at.ref_count != 0, "dealloc-too-often", str(at))
                if self._dealloc_simple(at):
                    break
                if self._second_ref_is_shadow(at):
                    what, temp = self._dealloc_shadow(at, dlist)
                    if what == DONE:
                        break
                    if what == AGAIN:
                        if temp is not None:
                            if must_drop:
                                # Tokens are released in reverse order: swap so that the older one
                                # can go first.
                                self.lock_swap()
                                self.drop(at)
                            at, must_drop = temp, True
                        continue
                what, temp = self._dealloc_last(at)
                if what == DONE:
                    break
                if what == AGAIN:
                    continue
                if must_drop:
                    if temp is not None:
                        self.lock_swap()
                    self.drop(at)
                at, must_drop = temp, True
            if must_drop and at is not None:
                self.drop(at)
            if not dlist:
                return
            at = dlist.pop()
            self.lock(at)  # the collapse left a hold on it
            must_drop = True

    @c("vm_object_deallocate_locked", "vm_object.c:869-883", part=True, blocks=True)
    @holds("obj held", "dropped if must_drop")
    def _dealloc_vnode(self, obj: VmObject, must_drop: bool) -> tuple[VmObject | None, bool]:
        """End the chain at a vnode object.

        A shared hold is dropped before vrele, which may block.
        """
        if not must_drop:
            self.vndeallocate(obj)
            return obj, False
        vp = self.vndeallocate(obj, returns_vp=True)
        self.drop(obj)
        self.k.vnode.vrele(vp)
        return None, False

    @c("vm_object_deallocate_locked", "vm_object.c:893-920", part=True)
    @holds("obj held exclusively")
    def _dealloc_simple(self, obj: VmObject) -> bool:
        """Handle the cases that only decrement the count; returns True if that was all."""
        if obj.ref_count > 2:
            self.atomic.add_int(obj, "ref_count", -1)
            return True
        if obj.ref_count == 2 and obj.shadow_count == 0:
            if obj.type in INTERNAL:
                self.set_flag(obj, OBJ_ONEMAPPING)
            self.atomic.add_int(obj, "ref_count", -1)
            return True
        return False

    @c("vm_object_deallocate_locked", "vm_object.c:932-934", part=True)
    @holds("obj held exclusively")
    def _second_ref_is_shadow(self, obj: VmObject) -> bool:
        return (
            obj.ref_count == 2
            and obj.shadow_count == 1
            and obj.handle is None
            and obj.type in INTERNAL
        )

    @c("vm_object_deallocate_locked", "vm_object.c:935-1019", part=True, blocks=True)
    @holds("obj held exclusively", "obj held exclusively; on (AGAIN, shadow) the shadow held too")
    def _dealloc_shadow(self, obj: VmObject, dlist: list[VmObject]) -> tuple[int, VmObject | None]:
        """The other reference is a shadow's: collapse *obj* into it (vm_object.c:935-1019).

        Returns (DONE, None); (SKIP, None) if the shadow is chain locked; (AGAIN, None) to test
        *obj* again; or (AGAIN, shadow): the shadow is held and has a reference to drop.
        """
        k = self.k
        temp = next(reversed(obj.shadow_head), None)
        if temp is None:
            k.panic("shadow-head-empty", str(obj))
        self.hold(temp)
        # Each wait releases both tokens, so the other count may have grown in the meantime: loop.
        while temp.paging_in_progress or obj.paging_in_progress:
            self.pip_wait(temp, "objde1")
            self.pip_wait(obj, "objde2")
        if temp.chainlk & (CHAINLK_EXCL | CHAINLK_MASK):
            k.curthread().hit("vm_object_deallocate_locked:chainlocked")
            self.drop(temp)
            return SKIP, None
        # ChainLocks is a sibling of this class; use the combined one.
        chain = self.vm.object
        chain.chain_acquire(temp)
        first = next(reversed(obj.shadow_head), None)
        # The token was released by the waits above: check that the situation is still the same.
        if not self._second_ref_is_shadow(obj) or first is not temp:
            chain.chain_release(temp)
            self.drop(temp)
            return AGAIN, None
        k.kassert(obj.ref_count == 2, "dealloc-refs", str(obj))
        self.atomic.add_int(obj, "ref_count", -1)
        if temp.handle is not None or temp.type not in INTERNAL:
            chain.chain_release(temp)
            self.drop(temp)
            return DONE, None
        # An extra reference keeps temp alive during the collapse.
        self.atomic.add_int(temp, "ref_count", 1)
        k.kassert(temp.ref_count > 1, "dealloc-temp-refs", str(temp))
        chain.collapse(temp, dlist)
        chain.chain_release(temp)
        return AGAIN, temp

    @c("vm_object_deallocate_locked", "vm_object.c:1034-1093", part=True, blocks=True)
    @holds("obj held exclusively", "obj held exclusively; the backing object returned held too")
    def _dealloc_last(self, obj: VmObject) -> tuple[int, VmObject | None]:
        """Drop the last reference, if it still is the last (vm_object.c:1034-1093).

        Returns (DONE, None), (AGAIN, None), or (SKIP, backing object, held): *obj* is dead, and the
        reference that it had on its backing object is dropped next.
        """
        k = self.k
        k.kassert(obj.ref_count != 0, "dealloc-refs", str(obj))
        if obj.ref_count >= 2:
            self.atomic.add_int(obj, "ref_count", -1)
            return DONE, None
        k.kassert(obj.ref_count == 1, "dealloc-refs", str(obj))
        temp = self.hold_backing(obj)
        # Waiting for the backing object's token released obj's: it may have been referenced again.
        if obj.ref_count != 1:
            self.drop(temp)
            return AGAIN, None
        k.kassert(not obj.chainlk & (CHAINLK_EXCL | CHAINLK_MASK), "dealloc-chainlocked", str(obj))
        if temp is not None:
            if obj.flags & OBJ_ONSHADOW:
                self.off_shadow_list(obj, temp)
            obj.backing_object = None
        self.atomic.add_int(obj, "ref_count", -1)
        if not obj.flags & OBJ_DEAD:
            self.terminate(obj)
        return SKIP, temp

    @c("vm_object_deallocate_locked", "vm_object.c:1049-1057", part=True, blocks=True)
    @c("vm_object_collapse", "vm_object.c:2384-2392", part=True)
    @holds("obj held", "obj held; the object returned held (shared if a vnode's)")
    def hold_backing(self, obj: VmObject) -> VmObject | None:
        """Hold the backing object of *obj*; shared if it is a vnode object.

        *obj* is held.  Waiting for the token may let the backing object be replaced, so it is
        compared again.  Returns the backing object or None.
        """
        while (temp := obj.backing_object) is not None:
            if temp.type == OBJT_VNODE:
                self.hold_shared(temp)
            else:
                self.hold(temp)
            if temp is obj.backing_object:
                return temp
            self.drop(temp)
        return None

    @c("vm_object_deallocate_locked", "vm_object.c:1082-1087", part=True)
    @c("vm_object_collapse", "vm_object.c:2371-2376", part=True)
    @holds("obj and backing held")
    def off_shadow_list(self, obj: VmObject, backing: VmObject) -> None:
        """Remove *obj* from the shadow list of *backing*; both are held."""
        del backing.shadow_head[obj]
        backing.shadow_count -= 1
        backing.generation += 1
        self.clear_flag(obj, OBJ_ONSHADOW)

    @c("vm_object_shadow", "vm_object.c:1940-1944", part=True)
    @c("vm_object_collapse", "vm_object.c:2414-2421", part=True)
    @holds("obj and backing held")
    def on_shadow_list(self, obj: VmObject, backing: VmObject) -> None:
        """Add *obj* to the shadow list of *backing* (never a vnode object); both are held."""
        backing.shadow_head[obj] = None
        backing.shadow_count += 1
        backing.generation += 1
        self.set_flag(obj, OBJ_ONSHADOW)

    @c("vm_object_deallocate_list", "vm_object.c:2618-2630", blocks=True)
    @holds("a hold without token on each", "")
    def deallocate_list(self, dlist: list[VmObject]) -> None:
        """vm_object_deallocate_list, vm_object.c:2618-2630.

        Drop the references that a collapse deferred.

        The objects have a hold count but their tokens are not held.
        """
        while dlist:
            obj = dlist.pop()
            self.lock(obj)
            self.deallocate_locked(obj)
            self.drop(obj)

    # -- the end of an object

    @c("vm_object_terminate", "vm_object.c:1130-1246", blocks=True)
    @holds("obj held exclusively")
    def terminate(self, obj: VmObject) -> None:
        """vm_object_terminate, vm_object.c:1130-1246: destroy an object without references.

        *obj* is held exclusively on entry and return; the caller's drop frees the structure.  Waits
        for I/O, flushes a vnode object's pages, frees all pages and the swap.  Blocks.
        """
        k = self.k
        self.assert_held(obj)
        k.kassert(not obj.flags & OBJ_DEAD, "terminate-dead", str(obj))
        # From here on nobody may start new paging on the object; then wait for what is in progress.
        self.set_flag(obj, OBJ_DEAD)
        self.pip_wait(obj, "objtrm1")
        k.kassert(not obj.paging_in_progress, "terminate-paging", str(obj))
        if obj.type == OBJT_VNODE:
            vp = obj.handle
            self.vm.vnode_pager.vinvalbuf(vp, save=True)
            self.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC)
            self.vm.vnode_pager.vinvalbuf(vp, save=True)
        # The flush has started I/O of its own.
        self.pip_wait(obj, "objtrm2")
        k.kassert(obj.ref_count == 0, "terminate-referenced", str(obj))
        count = 0

        def callback(m: Page) -> int:
            nonlocal count
            count += 1
            self.user_yield(count)
            return self.terminate_callback(obj, m)

        obj.rb_memq.scan(callback)
        self.vm.pager.deallocate(obj)
        while len(obj.rb_memq):
            kprintf(k, "terminate-pages-left", object=obj, pages=obj.resident_page_count)
            obj.rb_memq.scan(callback)
        k.kassert(obj.resident_page_count == 0, "terminate-resident", str(obj))
        self.unlist(obj)
        k.kassert(obj.ref_count == 0, "terminate-referenced", str(obj))

    @c("vm_object_terminate_callback", "vm_object.c:1251-1284", blocks=True)
    @holds("obj held")
    def terminate_callback(self, obj: VmObject, m: Page) -> int:
        """vm_object_terminate_callback, vm_object.c:1251-1284.

        Free a page, or only remove a wired one.

        *obj* is held.  Sleeps for a busy page.
        """
        k, page = self.k, self.vm.page
        if m.object is not obj:
            kprintf(k, "terminate-race", object=obj, page=m)
            return 0
        page.busy_wait(m, True, "vmpgtrm")
        # The page may have left the object while this thread slept.
        if m.object is not obj:
            kprintf(k, "terminate-busied", object=obj, page=m)
            page.wakeup(m)
        elif m.wire_count == 0:
            page.free(m)
            k.curthread().hit("v_pfree")
        else:
            if m.queue != self.vm.pq.NONE:
                kprintf(k, "terminate-wired-queued", object=obj, page=m)
            page.remove(m)
            page.wakeup(m)
        return 0
