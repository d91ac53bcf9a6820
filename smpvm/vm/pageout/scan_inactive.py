"""vm_pageout_scan_inactive: clean pages go to the cache queue, dirty ones to their pager."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds, own
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT, LK_TIMELOCK
from smpvm.vm.console import kprintf
from smpvm.vm.page.struct import PG_MARKER, PG_NEED_COMMIT, PG_REFERENCED, PG_WINATCFLS
from smpvm.vm.pageout.clean import Clean
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.param import (
    ACT_ADVANCE,
    OBJ_DEAD,
    OBJ_MIGHTBEDIRTY,
    OBJT_DEFAULT,
    OBJT_SWAP,
    OBJT_VNODE,
    i32,
)

if TYPE_CHECKING:
    from smpvm.kern.thread import Thread
    from smpvm.kern.vnode import Vnode
    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.page.queues import PageQueue
    from smpvm.vm.page.struct import Page

LAUNDER_ALL_OUT = 10000
"""How many dirty pages a scan may write if the first pass was not enough."""


class InactiveScan:
    """The local variables of one scan."""

    __slots__ = (
        "avail_shortage",
        "delta",
        "maxlaunder",
        "pass_",
        "queue",
        "tally",
        "td",
        "vpfailed",
    )

    @c("vm_pageout_scan_inactive", "vm_pageout.c:745-753", part=True)
    def __init__(
        self,
        td: Thread,
        queue: PageQueue,
        pass_: int,
        avail_shortage: int,
        maxlaunder: int,
        tally: Tally,
    ) -> None:
        self.td = td
        self.queue = queue
        self.pass_ = pass_
        self.avail_shortage = avail_shortage
        self.maxlaunder = maxlaunder
        self.tally = tally
        self.delta = 0
        self.vpfailed: Vnode | None = None
        """The last vnode that could not be locked; may be stale, only compared."""


class ScanInactive(Clean):
    """The scan and its steps.

    Unless noted otherwise, each step has the page busied by the scan.
    """

    @c("vm_pageout_scan_inactive", "vm_pageout.c:741-1181", blocks=True)
    @holds("nothing", "")
    def scan_inactive(self, pass_: int, q: int, avail_shortage: int, tally: Tally) -> int:
        """vm_pageout_scan_inactive, vm_pageout.c:741-1181: scan one inactive queue.

        Nothing is held on entry or return.  May block: for a vnode's lock and in the pager, and it
        yields the CPU for each page.  *pass_* is the number of consecutive rounds that did not
        reach their target, *q* a colour, *avail_shortage* the number of pages wanted.  Returns the
        pages freed, cached or being written, and adds to *tally.vnodes_skipped*.
        """
        vm, k = self.vm, self.k
        td = k.curthread()
        td.hit("vm_pageout_scan_inactive")
        queue = vm.queues[vm.pq.INACTIVE + q]
        maxlaunder = self.inactive_maxlaunder(pass_)
        s = InactiveScan(td, queue, pass_, avail_shortage, maxlaunder, tally)
        cnt, spin, busy_try = td.cnt, queue.spin, vm.page.busy_try
        lwkt_yield, base = k.lwkt_yield, queue.number

        marker, maxscan = self.scan_open(queue)
        while True:
            m = queue.next(marker)
            if m is None:
                why = "queue"
                break
            if maxscan <= 0:
                why = "maxscan"
                break
            maxscan -= 1
            if s.avail_shortage - s.delta <= 0:
                why = "target"
                break
            k.kassert(m.queue == base, "scan-queue")
            # The marker passes the page before the queue is unlocked: it keeps the scan's place
            # while m moves.
            self.scan_hop(queue, marker, m)
            cnt["v_pdpages"] += 1
            if m.flags & PG_MARKER:
                td.hit("vm_pageout_scan_inactive:marker")
                continue
            # Only try: nobody may block with a spinlock held, and a busy page is in use anyway.
            if busy_try(m, True):
                td.hit("vm_pageout_scan_inactive:busy")
                continue
            # PG_BUSY now keeps the page's identity; the page's spinlock must not be taken under the
            # queue's.
            spin.unlock()
            k.kassert(m.queue == base, "scan-queue")
            lwkt_yield()
            self.inactive_page(s, m)
            spin.lock()
            if self.inactive_enough():
                td.hit("vm_pageout_scan_inactive:stop-early")
                s.delta = max(s.delta, s.avail_shortage)
                why = "stop"
                break
        self.scan_close(queue, marker, why)
        return s.delta

    @c("vm_pageout_scan_inactive", "vm_pageout.c:771-774", part=True)
    def inactive_maxlaunder(self, pass_: int) -> int:
        """How many dirty pages this scan may write."""
        return LAUNDER_ALL_OUT if pass_ else max(self.vm.sysctl.max_launder, 1)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:1166", part=True)
    def inactive_enough(self) -> bool:
        """Free and cache pages are well above the target: stop, and report full success."""
        return self.vm.meter.paging_target() < -self.vm.sysctl.max_launder

    @c("vm_pageout_scan_inactive", "vm_pageout.c:841-1146", part=True, blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def inactive_page(self, s: InactiveScan, m: Page) -> None:
        """Process one page.  Busied on entry, unbusied on return."""
        if m.wire_count:
            self.inactive_wired(s, m)
        elif m.hold_count:
            s.td.hit("vm_pageout_scan_inactive:held")
            self.inactive_requeue(s, m)
        elif not self.inactive_reactivated(s, m):
            self.inactive_unused(s, m)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:841-847", part=True)
    @holds("m busied; no spinlock", "m unbusied")
    def inactive_wired(self, s: InactiveScan, m: Page) -> None:
        """A wired page does not belong on the queue: take it off (vm_pageout.c:841-847)."""
        s.td.hit("vm_pageout_scan_inactive:wired")
        self.vm.page.unqueue_nowakeup(m)
        self.vm.page.wakeup(m)
        kprintf(self.k, "wired-on-inactive", page=m)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:853-864,958-969,1001-1012", part=True)
    @holds("m busied; no spinlock", "m unbusied")
    def inactive_requeue(self, s: InactiveScan, m: Page) -> None:
        """Move to the tail for another cycle, if still on the queue; unbusies the page."""
        self.inactive_to_tail(s, m)
        self.vm.page.wakeup(m)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:853-863,1106-1112", part=True)
    @holds("m busied; no spinlock")
    def inactive_to_tail(self, s: InactiveScan, m: Page) -> None:
        """Requeue, and update the counter for swapcache; the page stays busy."""
        self.requeue(s.queue, m, heuristic=True)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:868-909", part=True)
    @holds("m busied; no spinlock", "on True m unbusied")
    def inactive_reactivated(self, s: InactiveScan, m: Page) -> bool:
        """Move back to the active queue if referenced; returns whether it was (then unbusied).

        References are in two places: the bits in the page tables, and PG_REFERENCED, which counts
        for more.  Both are ignored if nobody uses the object (vm_pageout.c:868-909).
        """
        vm = self.vm
        obj = m.object
        if obj is None or obj.ref_count == 0:
            vm.page.flag_clear(m, PG_REFERENCED)
            vm.pmap.clear_reference(m)
        elif not m.flags & PG_REFERENCED and (actcount := vm.pmap.ts_referenced(m)):
            s.td.hit("vm_pageout_scan_inactive:reactivated-pmap")
            self.inactive_activate(m, actcount + ACT_ADVANCE)
            return True
        if m.flags & PG_REFERENCED:
            s.td.hit("vm_pageout_scan_inactive:reactivated-flag")
            vm.page.flag_clear(m, PG_REFERENCED)
            actcount = vm.pmap.ts_referenced(m)
            self.inactive_activate(m, actcount + ACT_ADVANCE + 1)
            return True
        return False

    @c("vm_pageout_scan_inactive", "vm_pageout.c:888-890,905-907", part=True)
    @holds("m busied; no spinlock", "m unbusied")
    def inactive_activate(self, m: Page, more: int) -> None:
        """Activate with a bonus.  The sum is a u_char and is not capped at ACT_MAX."""
        self.vm.page.activate(m)
        m.act_count = (m.act_count + more) & 0xFF
        self.vm.page.wakeup(m)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:924-1146", part=True, blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def inactive_unused(self, s: InactiveScan, m: Page) -> None:
        """An unreferenced page: free it, cache it, let it cycle once more, or launder it."""
        page, td = self.vm.page, s.td
        # A mapping may have modified the page since; a partly dirty page counts as fully dirty.
        if m.dirty == 0:
            page.test_dirty(m)
        else:
            page.dirty(m)
        commit = m.flags & PG_NEED_COMMIT
        if m.valid == 0 and not commit:
            td.hit("vm_pageout_scan_inactive:invalid")
            self.page_free(m)
            td.hit("v_dfree")
            s.delta += 1
        elif m.dirty == 0 and not commit:
            td.hit("vm_pageout_scan_inactive:cache")
            page.cache(m)
            s.delta += 1
        elif self.inactive_second_chance(s, m):
            td.hit("vm_pageout_scan_inactive:second-chance")
            page.flag_set(m, PG_WINATCFLS)
            self.inactive_requeue(s, m)
        elif s.maxlaunder > 0:
            self.inactive_launder(s, m)
        else:
            td.hit("vm_pageout_scan_inactive:launder-limit")
            page.wakeup(m)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:944", part=True)
    @holds("m busied")
    def inactive_second_chance(self, s: InactiveScan, m: Page) -> bool:
        """A dirty page cycles twice before it is written, unless memory is already short.

        Writing is far more expensive than freeing a clean page.
        """
        return not m.flags & PG_WINATCFLS and s.pass_ == 0

    @c("vm_pageout_scan_inactive", "vm_pageout.c:970-1146", part=True, blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def inactive_launder(self, s: InactiveScan, m: Page) -> None:
        """Write a dirty page, if object and swap policy allow it (vm_pageout.c:970-1146)."""
        td = s.td
        obj = m.object
        if not self.swap_pageouts_ok(obj) or obj is None or obj.flags & OBJ_DEAD:
            td.hit("vm_pageout_scan_inactive:no-launder")
            self.inactive_requeue(s, m)
            return
        vp: Vnode | None = None
        if obj.type == OBJT_VNODE:
            vp = self.inactive_vnode_lock(s, m, obj)
            if vp is None:
                return
        td.hit("vm_pageout_scan_inactive:launder")
        # The page is unbusied on return and must not be touched again.
        count = self.clean(m)
        s.delta += count
        s.maxlaunder -= count
        if vp is not None:
            self.k.vnode.vput(vp)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:981-992", part=True)
    def swap_pageouts_ok(self, obj: VmObject | None) -> bool:
        """May a page of this object be written now?  Only swap has a policy."""
        sysctl = self.vm.sysctl
        if obj is not None and obj.type != OBJT_SWAP and obj.type != OBJT_DEFAULT:
            return True
        defer, disable = sysctl.defer_swapspace_pageouts, sysctl.disable_swapspace_pageouts
        ok = not (defer or disable)
        return ok or bool(not disable and defer and self.vm.meter.count_min(0))

    @c("vm_pageout_scan_inactive", "vm_pageout.c:1041-1120", part=True, blocks=True)
    @holds("m busied; no spinlock", "the vnode returned locked and m busied; None: m unbusied")
    def inactive_vnode_lock(self, s: InactiveScan, m: Page, obj: VmObject) -> Vnode | None:
        """Lock the vnode of *m*'s object.  The page must not be busy while waiting for it.

        Therefore the page is only held during the wait, and everything is rechecked afterwards.
        Returns the locked vnode with *m* busied again, or None with *m* unbusied.  Blocks for at
        most the vnode lock's timeout (vm_pageout.c:1041-1120).
        """
        vm, k, td = self.vm, self.k, s.td
        page = vm.page
        vp: Vnode | None = obj.handle
        # Never wait for ever: the vnode's owner may itself be waiting for memory.  A vnode that
        # just timed out is only tried, so that its many pages do not stall the scan.
        flags = LK_EXCLUSIVE | (LK_NOWAIT if vp is s.vpfailed else LK_TIMELOCK)
        # The lock order is vnode, then busy: unbusy the page first.  The hold keeps it from being
        # reused.
        page.hold(m)
        page.wakeup(m)
        if vp is None:
            k.panic("null-vnode", f"{obj} lost its handle", kind="fault")
        if error := k.vnode.vget(vp, flags):
            td.hit("vm_pageout_scan_inactive:" + self.vget_failure(flags, error))
            s.vpfailed = vp
            vm.glob.pageout_lock_miss = i32(vm.glob.pageout_lock_miss + 1)
            self.inactive_skip_vnode(s, obj)
            page.unhold(m)
            return None
        # While it was not busy the page may have been freed, moved or renamed.
        if self.inactive_moved(s, m, obj, vp):
            td.hit("vm_pageout_scan_inactive:moved")
            self.inactive_skip_vnode(s, obj)
            k.vnode.vput(vp)
            page.unhold(m)
            return None
        if page.busy_try(m, True):
            td.hit("vm_pageout_scan_inactive:busied-meanwhile")
            k.vnode.vput(vp)
            page.unhold(m)
            return None
        # Busy again: the hold is no longer needed.  If another hold remains, it may be in I/O.
        page.unhold(m)
        if m.hold_count:
            td.hit("vm_pageout_scan_inactive:held-meanwhile")
            self.inactive_to_tail(s, m)
            self.inactive_skip_vnode(s, obj)
            page.wakeup(m)
            k.vnode.vput(vp)
            return None
        return vp

    @staticmethod
    @own
    def vget_failure(flags: int, error: int) -> str:
        """The coverage name of a vget that failed."""
        return "vget-nowait" if flags & LK_NOWAIT else "vget-timeout"

    @c("vm_pageout_scan_inactive", "vm_pageout.c:1062-1063,1078-1079,1113-1114", part=True)
    def inactive_skip_vnode(self, s: InactiveScan, obj: VmObject) -> None:
        """Count a skipped page of a file that may be dirty."""
        if obj.flags & OBJ_MIGHTBEDIRTY:
            s.tally.vnodes_skipped += 1

    @c("vm_pageout_scan_inactive", "vm_pageout.c:1075-1077", part=True)
    @holds("m held (hold_count), the vnode locked")
    def inactive_moved(self, s: InactiveScan, m: Page, obj: VmObject, vp: Vnode) -> bool:
        """After a wait with *m* only held: is it no longer the page that the scan found?"""
        return m.queue != s.queue.number or m.object is not obj or obj.handle is not vp
