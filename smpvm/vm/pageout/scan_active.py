"""vm_pageout_scan_active: pages that are rarely used go to the inactive queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds
from smpvm.vm.page.struct import PG_MARKER, PG_NEED_COMMIT, PG_REFERENCED
from smpvm.vm.pageout.marker import ScanBase, Tally
from smpvm.vm.param import ACT_ADVANCE, ACT_MAX, OBJT_DEFAULT, OBJT_SWAP, VM_PROT_NONE

if TYPE_CHECKING:
    from smpvm.kern.thread import Thread
    from smpvm.vm.page.queues import PageQueue
    from smpvm.vm.page.struct import Page


class ActiveScan:
    """The local variables of one scan."""

    __slots__ = ("avail_shortage", "delta", "inactive_shortage", "pass_", "queue", "tally", "td")

    @c("vm_pageout_scan_active", "vm_pageout.c:1188-1192", part=True)
    def __init__(
        self,
        td: Thread,
        queue: PageQueue,
        pass_: int,
        avail_shortage: int,
        inactive_shortage: int,
        tally: Tally,
    ) -> None:
        self.td = td
        self.queue = queue
        self.pass_ = pass_
        self.avail_shortage = avail_shortage
        self.inactive_shortage = inactive_shortage
        self.tally = tally
        self.delta = 0


class ScanActive(ScanBase):
    """The scan and its steps.  Each step has the page busied by the scan."""

    @c("vm_pageout_scan_active", "vm_pageout.c:1183-1393", blocks=True)
    @holds("nothing", "")
    def scan_active(
        self, pass_: int, q: int, avail_shortage: int, inactive_shortage: int, tally: Tally
    ) -> int:
        """vm_pageout_scan_active, vm_pageout.c:1183-1393: scan one active queue.

        Nothing is held on entry or return; yields the CPU for each page, otherwise does not block.
        The shortages are in pages and may be negative.  Returns the pages deactivated or cached,
        and adds those taken while memory is short to *tally.recycle_count*.
        """
        vm, k = self.vm, self.k
        td = k.curthread()
        td.hit("vm_pageout_scan_active")
        queue = vm.queues[vm.pq.ACTIVE + q]
        s = ActiveScan(td, queue, pass_, avail_shortage, inactive_shortage, tally)
        spin, busy_try = queue.spin, vm.page.busy_try
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
            if s.avail_shortage - s.delta <= 0 and s.inactive_shortage <= 0:
                why = "target"
                break
            k.kassert(m.queue == base, "scan-queue")
            # The marker passes the page before the queue is unlocked: it keeps the scan's place
            # while m moves.
            self.scan_hop(queue, marker, m)
            if m.flags & PG_MARKER:
                td.hit("vm_pageout_scan_active:marker")
                continue
            if busy_try(m, True):
                td.hit("vm_pageout_scan_active:busy")
                continue
            # PG_BUSY now keeps the page's identity; the page's spinlock must not be taken under the
            # queue's.
            spin.unlock()
            k.kassert(m.queue == base, "scan-queue")
            lwkt_yield()
            self.active_page(s, m)
            spin.lock()
        self.scan_close(queue, marker, why)
        return s.delta

    @c("vm_pageout_scan_active", "vm_pageout.c:1264-1378", part=True, blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def active_page(self, s: ActiveScan, m: Page) -> None:
        """Process one page.  Busied on entry, unbusied on return."""
        td = s.td
        if m.hold_count != 0:
            td.hit("vm_pageout_scan_active:held")
            self.active_requeue(s, m)
            return
        td.hit("v_pdpages")
        actcount = self.active_references(m)
        if actcount and m.object.ref_count != 0:
            td.hit("vm_pageout_scan_active:referenced")
            self.active_requeue(s, m)
            return
        self.active_decline(m)
        if self.active_idle(s, m):
            self.active_deactivate(s, m)
        else:
            td.hit("vm_pageout_scan_active:declined")
            self.active_requeue(s, m)

    @c("vm_pageout_scan_active", "vm_pageout.c:1367-1377,1308-1318,1265-1275", part=True)
    @holds("m busied; no spinlock", "m unbusied")
    def active_requeue(self, s: ActiveScan, m: Page) -> None:
        """Move to the tail if it is still on the queue; unbusies the page."""
        self.requeue(s.queue, m)
        self.vm.page.wakeup(m)

    @c("vm_pageout_scan_active", "vm_pageout.c:1290-1301", part=True)
    @holds("m busied; no spinlock")
    def active_references(self, m: Page) -> int:
        """Transfer the page's references to act_count and clear them; returns how many.

        References are ignored if nobody uses the object: then 0 (vm_pageout.c:1290-1301).
        """
        actcount = 0
        obj = m.object
        if obj is not None and obj.ref_count != 0:
            if m.flags & PG_REFERENCED:
                actcount = 1
            actcount += self.vm.pmap.ts_referenced(m)
            if actcount:
                self.act_advance(m, actcount)
        self.vm.page.flag_clear(m, PG_REFERENCED)
        return actcount

    @c("vm_pageout_scan_active", "vm_pageout.c:1296-1298", part=True)
    @c("vm_pageout_page_stats", "vm_pageout.c:1698-1700", part=True)
    @holds("m busied")
    def act_advance(self, m: Page, actcount: int) -> None:
        """Raise act_count, at most to ACT_MAX; the sum wraps as a u_char before it is compared."""
        count = (m.act_count + ACT_ADVANCE + actcount) & 0xFF
        m.act_count = min(count, ACT_MAX)

    @c("vm_pageout_scan_active", "vm_pageout.c:1320-1330", part=True)
    @holds("m busied")
    def active_decline(self, m: Page) -> None:
        """Age an unused page, by different amounts for files and anonymous memory
        (vm_pageout.c:1320-1330).

        As in the C, m->object is followed before it is tested: a page without object is a NULL
        dereference here, although the test that follows expects such pages.
        """
        obj = m.object
        if obj is None:
            self.k.panic("null-object", f"{m} is on the active queue without object", kind="fault")
        self.active_age(m, anonymous=obj.type in (OBJT_DEFAULT, OBJT_SWAP))

    @c("vm_pageout_scan_active", "vm_pageout.c:1323-1328", part=True)
    @holds("m busied")
    def active_age(self, m: Page, *, anonymous: bool) -> None:
        """Subtract the decline for this kind of page from act_count, at most down to 0."""
        sysctl = self.vm.sysctl
        decline = sysctl.anonmem_decline if anonymous else sysctl.filemem_decline
        count = m.act_count
        m.act_count = count - min(count, decline)

    @c("vm_pageout_scan_active", "vm_pageout.c:1331-1334", part=True)
    @holds("m busied")
    def active_idle(self, s: ActiveScan, m: Page) -> bool:
        """Has the page been unused long enough to be deactivated?"""
        obj = m.object
        return (
            bool(self.vm.sysctl.pageout_algorithm)
            or obj is None
            or obj.ref_count == 0
            or m.act_count < s.pass_ + 1
        )

    @c("vm_pageout_scan_active", "vm_pageout.c:1346-1365", part=True, blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def active_deactivate(self, s: ActiveScan, m: Page) -> None:
        """Deactivate the page, or, while memory is short, cache a clean one directly."""
        page, td = self.vm.page, s.td
        s.inactive_shortage -= 1
        short = s.avail_shortage - s.delta > 0
        obj = m.object
        if short or (obj is not None and obj.ref_count == 0):
            if short:
                s.tally.recycle_count += 1
            # Unmapping transfers the modified bits, so m->dirty is final below.
            page.protect(m, VM_PROT_NONE)
            if m.dirty == 0 and not m.flags & PG_NEED_COMMIT and short:
                td.hit("vm_pageout_scan_active:cache")
                self.active_cache(m)
                s.delta += 1
                return
        td.hit("vm_pageout_scan_active:deactivate")
        page.deactivate(m)
        page.wakeup(m)
        s.delta += 1

    @c("vm_pageout_scan_active", "vm_pageout.c:1356", part=True, blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def active_cache(self, m: Page) -> None:
        """Move directly to the cache queue; unbusies the page."""
        self.vm.page.cache(m)
