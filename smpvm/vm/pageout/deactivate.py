"""Deactivating the pages of one process: vm_pageout_object_deactivate_pages and its callers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT
from smpvm.vm.page.struct import PG_REFERENCED, PG_UNMANAGED
from smpvm.vm.pageout.marker import ScanBase
from smpvm.vm.param import (
    ACT_ADVANCE,
    ACT_DECLINE,
    ACT_MAX,
    OBJT_DEVICE,
    OBJT_MGTDEVICE,
    OBJT_PHYS,
    VM_MAX_USER_ADDRESS,
    VM_MIN_USER_ADDRESS,
    VM_PROT_NONE,
    i32,
)

if TYPE_CHECKING:
    from smpvm.vm.map.entry import VmMap
    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.page.struct import Page

U64 = (1 << 64) - 1


class DeactivateInfo:
    """The used part of struct rb_vm_page_scan_info; *desired* is an int there."""

    __slots__ = ("desired", "limit", "map")

    @c("vm_pageout_object_deactivate_pages", "vm_pageout.c:526-528", part=True)
    def __init__(self, map_: VmMap, desired: int, limit: int) -> None:
        self.map = map_
        self.desired = i32(desired)
        self.limit = limit


class Deactivate(ScanBase):
    """Resident limits: taking pages away from one map."""

    @c("vm_pageout_map_deactivate_pages", "vm_pageout.c:635-711", blocks=True)
    @holds("map not locked (taken with LK_NOWAIT); vmspace held (map token)", "map unlocked")
    def map_deactivate_pages(self, map_: VmMap, desired: int) -> None:
        """vm_pageout_map_deactivate_pages, vm_pageout.c:635-711: reduce a map to *desired* pages.

        Tries the map's lock (NOWAIT) and does nothing if that fails; holding objects may block.
        *desired* pages may stay resident; with 0 and nothing wired, everything is unmapped.
        """
        vm, td = self.vm, self.k.curthread()
        td.hit("vm_pageout_map_deactivate_pages")
        # Never wait for the lock: its owner may be waiting for memory, which this daemon has to
        # provide.
        if map_.lock.lockmgr(LK_EXCLUSIVE | LK_NOWAIT):
            td.hit("vm_pageout_map_deactivate_pages:locked")
            return
        bigobj, nothingwired = self.map_biggest_object(map_)
        if bigobj is not None:
            self.object_deactivate_held(map_, bigobj, desired)
        for entry in map_.entries():
            if self.map_resident(map_) & U64 <= desired:
                break
            obj = entry.vm_object
            if obj is not None:
                self.object_deactivate_held(map_, obj, desired)
        if desired == 0 and nothingwired:
            td.hit("vm_pageout_map_deactivate_pages:remove-all")
            vm.pmap.remove(map_.pmap, VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS)
        vm.map.unlock(map_)

    @c("vm_pageout_map_deactivate_pages", "vm_pageout.c:646-671", part=True)
    @holds("map locked exclusively")
    def map_biggest_object(self, map_: VmMap) -> tuple[VmObject | None, bool]:
        """The unshared object with the most resident pages, and whether no entry is wired."""
        bigobj: VmObject | None = None
        nothingwired = True
        for entry in map_.entries():
            obj = entry.vm_object
            if (
                obj is not None
                and obj.shadow_count <= 1
                and (bigobj is None or bigobj.resident_page_count < obj.resident_page_count)
            ):
                bigobj = obj
            if entry.wired_count > 0:
                nothingwired = False
        return bigobj, nothingwired

    @c("pmap_resident_count", "pmap.h:307")
    def map_resident(self, map_: VmMap) -> int:
        """pmap_resident_count(vm_map_pmap(map)), a long."""
        count: int = map_.pmap.resident_count
        return count

    @c("vm_pageout_map_deactivate_pages", "vm_pageout.c:692-694", part=True, blocks=True)
    @holds("map locked exclusively")
    def object_deactivate_held(self, map_: VmMap, obj: VmObject, desired: int) -> None:
        """Hold *obj* and deactivate its pages."""
        self.vm.object.hold(obj)
        self.object_deactivate_pages(map_, obj, desired, False)
        self.vm.object.drop(obj)

    @c("vm_pageout_object_deactivate_pages", "vm_pageout.c:496-550", blocks=True)
    @holds("map locked; obj held")
    def object_deactivate_pages(
        self, map_: VmMap, obj: VmObject, desired: int, map_remove_only: int
    ) -> None:
        """vm_pageout_object_deactivate_pages, vm_pageout.c:496-550: deactivate pages of a chain.

        The caller holds *obj* and has the map locked.  Walks down the backing objects, holding each
        before the one above is dropped; may block on their tokens.
        """
        vm, td = self.vm, self.k.curthread()
        td.hit("vm_pageout_object_deactivate_pages")
        lobject: VmObject | None = obj
        while lobject is not None:
            if self.map_resident(map_) & U64 <= desired:
                break
            if lobject.type in (OBJT_DEVICE, OBJT_MGTDEVICE, OBJT_PHYS):
                break
            if lobject.paging_in_progress:
                td.hit("vm_pageout_object_deactivate_pages:paging")
                break
            limit = 1 if lobject.shadow_count > 1 else map_remove_only
            info = DeactivateInfo(map_, desired, limit)
            lobject.rb_memq.scan(partial(self.object_deactivate_pages_callback, info=info))
            tobject = self.hold_backing(lobject, obj)
            if lobject is not obj:
                if tobject is not None:
                    td.hit("vm_pageout_object_deactivate_pages:swap")
                    # Tokens are released in reverse order: swap so that the upper object's can be
                    # released first.
                    vm.object.lock_swap()
                vm.object.drop(lobject)
            lobject = tobject
        if lobject is not obj and lobject is not None:
            vm.object.drop(lobject)

    @c("vm_pageout_object_deactivate_pages", "vm_pageout.c:533-539", part=True, blocks=True)
    @holds("lobject held", "lobject held; the object returned held too")
    def hold_backing(self, lobject: VmObject, first: VmObject) -> VmObject | None:
        """Hold the backing object of *lobject*, which may change while waiting for its token."""
        while (tobject := lobject.backing_object) is not None:
            self.k.kassert(tobject is not first, "backing-loop", f"{first}")
            self.vm.object.hold(tobject)
            if tobject is lobject.backing_object:
                return tobject
            self.k.curthread().hit("vm_pageout_object_deactivate_pages:backing-changed")
            self.vm.object.drop(tobject)
        return None

    @c("vm_pageout_object_deactivate_pages_callback", "vm_pageout.c:555-629", blocks=True)
    @holds("the page's object held")
    def object_deactivate_pages_callback(self, p: Page, info: DeactivateInfo) -> int:
        """vm_pageout_object_deactivate_pages_callback, vm_pageout.c:555-629: one page.

        The object is held.  Returns -1 if enough pages have been removed, 0 to continue.
        """
        vm, td = self.vm, self.k.curthread()
        page = vm.page
        td.hit("vm_pageout_object_deactivate_pages_callback")
        if self.map_resident(info.map) <= info.desired:
            return -1
        td.hit("v_pdpages")
        if page.busy_try(p, True):
            return 0
        if p.wire_count or p.hold_count or p.flags & PG_UNMANAGED:
            page.wakeup(p)
            return 0
        if not vm.pmap.page_exists_quick(info.map.pmap, p):
            page.wakeup(p)
            return 0
        actcount = vm.pmap.ts_referenced(p)
        if actcount:
            page.flag_set(p, PG_REFERENCED)
        elif p.flags & PG_REFERENCED:
            actcount = 1
        self.deactivate_page(p, info, actcount)
        page.wakeup(p)
        return 0

    @c(
        "vm_pageout_object_deactivate_pages_callback",
        "vm_pageout.c:584-626",
        part=True,
        blocks=True,
    )
    @holds("p busied; its object held")
    def deactivate_page(self, p: Page, info: DeactivateInfo, actcount: int) -> None:
        """Move one busied page a step towards the inactive queue (vm_pageout.c:584-626)."""
        vm, td = self.vm, self.k.curthread()
        page = vm.page
        page.and_queue_spin_lock(p)
        kind = p.queue - p.pc
        if kind != vm.pq.ACTIVE and p.flags & PG_REFERENCED:
            td.hit("vm_pageout_object_deactivate_pages_callback:activate")
            page.and_queue_spin_unlock(p)
            page.activate(p)
            self.deactivate_gain(p, actcount)
            page.flag_clear(p, PG_REFERENCED)
        elif kind == vm.pq.ACTIVE:
            if p.flags & PG_REFERENCED:
                self.deactivate_referenced(p)
            else:
                self.deactivate_idle(p, info)
        elif kind == vm.pq.INACTIVE:
            td.hit("vm_pageout_object_deactivate_pages_callback:unmap")
            page.and_queue_spin_unlock(p)
            page.protect(p, VM_PROT_NONE)
        else:
            page.and_queue_spin_unlock(p)

    @c("vm_pageout_object_deactivate_pages_callback", "vm_pageout.c:588", part=True)
    @holds("p busied")
    def deactivate_gain(self, p: Page, actcount: int) -> None:
        """Add the references found to act_count, a u_char, without a cap at ACT_MAX."""
        p.act_count = (p.act_count + actcount) & 0xFF

    @c(
        "vm_pageout_object_deactivate_pages_callback",
        "vm_pageout.c:591-604",
        part=True,
        blocks=True,
    )
    @holds("p busied; page and queue spinlocks", "p busied; no spinlock")
    def deactivate_idle(self, p: Page, info: DeactivateInfo) -> None:
        """Age an unreferenced active page.  Page and queue are locked on entry, not on return."""
        vm = self.vm
        count = p.act_count
        p.act_count = count - min(count, ACT_DECLINE)
        if not info.limit and (vm.sysctl.pageout_algorithm or p.act_count == 0):
            self.k.curthread().hit("vm_pageout_object_deactivate_pages_callback:deactivate")
            vm.page.and_queue_spin_unlock(p)
            vm.page.protect(p, VM_PROT_NONE)
            vm.page.deactivate(p)
        else:
            self.k.curthread().hit("vm_pageout_object_deactivate_pages_callback:declined")
            vm.queues[p.queue].requeue(p)
            vm.page.and_queue_spin_unlock(p)

    @c("vm_pageout_object_deactivate_pages_callback", "vm_pageout.c:605-620", part=True)
    @holds("p busied; page and queue spinlocks", "p busied; no spinlock")
    def deactivate_referenced(self, p: Page) -> None:
        """Reward a referenced active page.  Page and queue are locked on entry, not on return."""
        vm = self.vm
        page = vm.page
        self.k.curthread().hit("vm_pageout_object_deactivate_pages_callback:referenced")
        page.and_queue_spin_unlock(p)
        page.activate(p)
        page.flag_clear(p, PG_REFERENCED)
        page.and_queue_spin_lock(p)
        # The locks were dropped: the page may have left the queue.
        if p.queue - p.pc == vm.pq.ACTIVE:
            if p.act_count < ACT_MAX - ACT_ADVANCE:
                p.act_count += ACT_ADVANCE
            vm.queues[p.queue].requeue(p)
        page.and_queue_spin_unlock(p)
