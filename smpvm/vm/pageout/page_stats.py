"""vm_pageout_page_stats: light ageing of the active queues while no paging is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds
from smpvm.vm.page.struct import PG_MARKER, PG_REFERENCED
from smpvm.vm.pageout.scan_active import ScanActive
from smpvm.vm.param import ACT_DECLINE, VM_PROT_NONE, i32, u32

if TYPE_CHECKING:
    from smpvm.vm.page.queues import PageQueue
    from smpvm.vm.page.struct import Page
    from smpvm.vm.vm import Vm


class PageStats(ScanActive):
    """The statistics scan; it shares act_advance with the active scan."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.fullintervalcount = 0
        """static: seconds since the last full scan (added once per queue, as in the C)."""

    @c("vm_pageout_page_stats", "vm_pageout.c:1603-1756", blocks=True)
    @holds("nothing", "")
    def page_stats(self, q: int) -> None:
        """vm_pageout_page_stats, vm_pageout.c:1603-1756: statistics scan of one active queue.

        Nothing is held on entry or return; does not block.  *q* is a colour.
        """
        vm, k = self.vm, self.k
        td = k.curthread()
        td.hit("vm_pageout_page_stats")
        if self.stats_shortage() <= 0:
            td.hit("vm_pageout_page_stats:no-shortage")
            return
        queue = vm.queues[vm.pq.ACTIVE + q]
        pcount = self.stats_length(q, queue.lcnt)
        spin, busy_try, base = queue.spin, vm.page.busy_try, queue.number

        marker, pcount = self.scan_open(queue, pcount)
        while True:
            m = queue.next(marker)
            if m is None:
                why = "queue"
                break
            if pcount <= 0:
                why = "maxscan"
                break
            pcount -= 1
            k.kassert(m.queue == base, "scan-queue")
            self.scan_hop(queue, marker, m)
            if m.flags & PG_MARKER:
                td.hit("vm_pageout_page_stats:marker")
                continue
            if busy_try(m, True):
                td.hit("vm_pageout_page_stats:busy")
                continue
            spin.unlock()
            k.kassert(m.queue == base, "scan-queue")
            self.stats_page(queue, m)
            vm.page.wakeup(m)
            spin.lock()
        self.scan_close(queue, marker, why)

    @c("vm_pageout_page_stats", "vm_pageout.c:1612-1615", part=True)
    def stats_shortage(self) -> int:
        """Pages missing from the free, cache and inactive queues together, if positive."""
        stats = self.vm.stats
        want = stats.v_inactive_target + stats.v_cache_max + stats.v_free_min
        return i32(want - (stats.v_free_count + stats.v_inactive_count + stats.v_cache_count))

    @c("vm_pageout_page_stats", "vm_pageout.c:1620-1629", part=True)
    def stats_length(self, q: int, pcount: int) -> int:
        """How many of the *pcount* pages of queue *q* to scan: a share, from time to time all of
        them.

        As in the C, the interval is added once per queue, as if each were a scan of its own.
        """
        sysctl = self.vm.sysctl
        self.stats_tick(q)
        if self.fullintervalcount >= sysctl.pageout_full_stats_interval:
            self.k.curthread().hit("vm_pageout_page_stats:full")
            self.fullintervalcount = 0
            return pcount
        return self.stats_share(pcount)

    @c("vm_pageout_page_stats", "vm_pageout.c:1623-1626", part=True)
    def stats_share(self, pcount: int) -> int:
        """The share of *pcount* pages that a partial scan covers; at least one."""
        sysctl = self.vm.sysctl
        pages = self.vm.stats.v_page_count
        if pages == 0:
            self.k.panic("divide", "v_page_count is 0", kind="divide")
        share = u32(sysctl.pageout_stats_max * pcount) // pages
        return min(pcount, i32(share + 1))

    @c("vm_pageout_page_stats", "vm_pageout.c:1621", part=True)
    def stats_tick(self, q: int) -> None:
        """Count another interval (vm_pageout.c:1621)."""
        interval = self.vm.sysctl.pageout_stats_interval
        self.fullintervalcount = i32(self.fullintervalcount + interval)

    @c("vm_pageout_page_stats", "vm_pageout.c:1679-1743", part=True, blocks=True)
    @holds("m busied; no spinlock")
    def stats_page(self, queue: PageQueue, m: Page) -> None:
        """Update the statistics of one page, which is busied by the scan and stays so."""
        vm, td = self.vm, self.k.curthread()
        if m.hold_count:
            td.hit("vm_pageout_page_stats:held")
            return
        actcount = 0
        if m.flags & PG_REFERENCED:
            vm.page.flag_clear(m, PG_REFERENCED)
            actcount = 1
        actcount += vm.pmap.ts_referenced(m)
        if actcount:
            td.hit("vm_pageout_page_stats:referenced")
            self.act_advance(m, actcount)
            self.requeue(queue, m)
        elif m.act_count == 0:
            td.hit("vm_pageout_page_stats:deactivate")
            vm.page.protect(m, VM_PROT_NONE)
            vm.page.deactivate(m)
        else:
            td.hit("vm_pageout_page_stats:declined")
            count = m.act_count
            m.act_count = count - min(count, ACT_DECLINE)
            self.requeue(queue, m)
