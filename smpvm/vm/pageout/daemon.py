"""vm_pageout.c: the page-out daemon, combined into one class; this file has its thread and wakeup.

marker          shared by all scans: the marker page, and the counters of a round
scan_inactive   vm_pageout_scan_inactive
scan_active     vm_pageout_scan_active
scan_cache      vm_pageout_scan_cache, and the kill scan
page_stats      vm_pageout_page_stats
clean           vm_pageout_clean, vm_pageout_flush
deactivate      vm_pageout_object_deactivate_pages, vm_pageout_map_deactivate_pages
coverage        the table of functions and branches whose runs are counted
vmdaemon        the swap daemon (vm_daemon), a separate subsystem
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds, own
from smpvm.kern.thread import TDF_SYSTHREAD
from smpvm.vm.pageout.deactivate import Deactivate
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.pageout.page_stats import PageStats
from smpvm.vm.pageout.scan_cache import ScanCache
from smpvm.vm.pageout.scan_inactive import ScanInactive
from smpvm.vm.param import c_div, i32, u32

if TYPE_CHECKING:
    from smpvm.kern.thread import Thread
    from smpvm.vm.vm import Vm


class Round:
    """The local variables of the daemon's thread that survive from one round to the next."""

    __slots__ = ("avail_shortage", "pass_", "q1iterator", "q2iterator")

    @c("vm_pageout_thread", "vm_pageout.c:1793-1796", part=True)
    def __init__(self) -> None:
        self.pass_ = 0
        """Consecutive rounds that did not reach their target."""
        self.q1iterator = 0
        self.q2iterator = 0
        self.avail_shortage = 0


class Pageout(ScanInactive, ScanCache, PageStats, Deactivate):
    """vm_pageout.c; its static variables are fields of this class and its base classes."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.pagethread: Thread | None = None
        """The daemon's thread; set by whoever starts it."""

    @c("PQAVERAGE", "vm_pageout.c:220-231")
    def pqaverage(self, n: int) -> int:
        """PQAVERAGE, vm_pageout.c:220-231: each queue's share of *n* pages, with slop.

        Half of the queues are enough to reach *n*.  With one colour the C would divide by zero
        (PQ_L2_SIZE / 2); the kernel has 256 colours, and the model then uses a divisor of 1.
        """
        size = self.vm.pq.L2_SIZE
        half = size // 2 or 1
        if n >= 0:
            return i32(c_div(n + (size - 1), half) + 1)
        return i32(c_div(n - (size - 1), half) - 1)

    @c("vm_pageout_free_page_calc", "vm_pageout.c:1758-1782")
    def free_page_calc(self, count: int) -> int:
        """vm_pageout_free_page_calc, vm_pageout.c:1758-1782.

        Compute the free limits from v_page_count.

        *count* is in pages (u64).  Returns 1 if the limits were set.
        """
        self.k.curthread().hit("vm_pageout_free_page_calc")
        stats = self.vm.stats
        if count < stats.v_page_count:
            return 0
        if stats.v_page_count > 1024:
            stats.v_free_min = 64 + (stats.v_page_count - 1024) // 200
        else:
            stats.v_free_min = 64
        stats.v_free_reserved = u32(stats.v_free_min * 4) // 8 + 7
        stats.v_free_severe = u32(stats.v_free_min * 4) // 8
        stats.v_pageout_free_min = u32(stats.v_free_min * 2) // 8 + 7
        stats.v_interrupt_free_min = stats.v_free_min // 8 + 7
        return 1

    # -- the thread

    @c("vm_pageout_thread", "vm_pageout.c:1790-2066", blocks=True)
    @holds("nothing", "does not return")
    def thread(self) -> None:
        """vm_pageout_thread, vm_pageout.c:1790-2066.

        The body of the daemon's thread; never returns.
        """
        self.k.curthread().hit("vm_pageout_thread")
        self.thread_start()
        r = Round()
        while True:
            if not self.thread_wait():
                continue
            self.thread_round(r)
            self.thread_rest(r)

    @c("vm_pageout_thread", "vm_pageout.c:1797-1880", part=True)
    @holds("nothing", "")
    def thread_start(self) -> None:
        """Choose the targets that were not configured (vm_pageout.c:1797-1880)."""
        vm, k = self.vm, self.k
        stats, sysctl = vm.stats, vm.sysctl
        td = k.curthread()
        td.flags |= TDF_SYSTHREAD
        self.free_page_calc(stats.v_page_count)
        factor = 4 if stats.v_free_count > 6144 else 2
        stats.v_free_target = u32(factor * stats.v_free_min + stats.v_free_reserved)
        if stats.v_free_count > 2048:
            stats.v_cache_min = stats.v_free_target
            stats.v_cache_max = u32(2 * stats.v_cache_min)
        else:
            stats.v_cache_min = 0
            stats.v_cache_max = 0
        stats.v_inactive_target = stats.v_free_count // 4

        if sysctl.page_max_wired == 0:
            sysctl.page_max_wired = stats.v_free_count // 3
        if sysctl.pageout_stats_max == 0:
            sysctl.pageout_stats_max = stats.v_free_target
        if sysctl.pageout_stats_interval == 0:
            sysctl.pageout_stats_interval = 5
        if sysctl.pageout_full_stats_interval == 0:
            sysctl.pageout_full_stats_interval = sysctl.pageout_stats_interval * 4
        if sysctl.pageout_stats_free_max == 0:
            sysctl.pageout_stats_free_max = 5
        vm.swap.swap_init()

    @c("vm_pageout_thread", "vm_pageout.c:1898-1910", part=True, blocks=True)
    @holds("nothing", "")
    def thread_wait(self) -> bool:
        """Sleep until there is work.

        False if it timed out and only the statistics scan was run.
        """
        vm, k = self.vm, self.k
        glob = vm.glob
        # No interlock between this test and the sleep: a request made in between waits for the
        # timeout, after which paging_needed() is tested again.
        if glob.vm_pages_needed == 0:
            error = self.daemon_sleep(i32(vm.sysctl.pageout_stats_interval * k.hz))
            if error and not vm.meter.paging_needed() and glob.vm_pages_needed == 0:
                k.curthread().hit("vm_pageout_thread:stats")
                for q in range(vm.pq.L2_SIZE):
                    self.page_stats(q)
                return False
            self.ask_itself()
        return True

    @c("vm_pageout_thread", "vm_pageout.c:1909", part=True)
    @holds("nothing")
    def ask_itself(self) -> None:
        """The daemon works as if somebody had asked for pages (vm_pageout.c:1909, 2036)."""
        self.vm.glob.vm_pages_needed = 1

    @c("vm_pageout_thread", "vm_pageout.c:1899-1901", part=True, blocks=True)
    @holds("nothing", "")
    def daemon_sleep(self, timo: int) -> int:
        """The daemon's tsleep (vm_pageout.c:1899), at most *timo* ticks, without an interlock."""
        return self.k.sleep.tsleep(
            self.vm.idents.vm_pages_needed, 0, "psleep", timo, cond=self.pages_are_needed
        )

    @own
    def pages_are_needed(self) -> bool:
        """The condition that the daemon sleeps on (used only by checkers)."""
        return bool(self.vm.glob.vm_pages_needed)

    @c("vm_pageout_thread", "vm_pageout.c:1912-2011", part=True, blocks=True)
    @holds("nothing", "")
    def thread_round(self, r: Round) -> None:
        """One round over the queues (vm_pageout.c:1912-2011); updates r.avail_shortage."""
        vm, td = self.vm, self.k.curthread()
        td.hit("v_pdwakeups")
        vm.pmap.collect()
        tally = Tally()
        r.avail_shortage = i32(vm.meter.paging_target() + self.take_deficit())
        if r.avail_shortage > 0:
            self.round_inactive(r, tally)
        inactive_shortage = self.inactive_shortage(r.avail_shortage)
        if inactive_shortage > 0:
            self.round_active(r, inactive_shortage, tally)
        self.scan_cache(r.avail_shortage, r.pass_, tally.vnodes_skipped, tally.recycle_count)

    @c("vm_pageout_thread", "vm_pageout.c:1933-1934", part=True)
    @holds("nothing")
    def take_deficit(self) -> int:
        """The pages that failed allocations have asked for: extra demand, once."""
        glob = self.vm.glob
        deficit: int = glob.vm_pageout_deficit
        glob.vm_pageout_deficit = 0
        return deficit

    @c("vm_page_alloc", "vm_page.c:1752", part=True)
    @holds("")
    def add_deficit(self) -> None:
        """An allocation has failed (vm_page.c:1752, 1759)."""
        glob = self.vm.glob
        glob.vm_pageout_deficit = i32(glob.vm_pageout_deficit + 1)

    @c("vm_pageout_thread", "vm_pageout.c:1936-1950", part=True, blocks=True)
    @holds("nothing", "")
    def round_inactive(self, r: Round, tally: Tally) -> None:
        """Scan inactive queues from where the last round stopped, until there are enough pages."""
        mask = self.vm.pq.L2_MASK
        share = self.pqaverage(r.avail_shortage)
        delta = q = 0
        while q < self.vm.pq.L2_SIZE:
            delta += self.scan_inactive(r.pass_, q + r.q1iterator & mask, share, tally)
            if r.avail_shortage - delta <= 0:
                break
            q += 1
        r.avail_shortage -= delta
        r.q1iterator = self.next_start(r.q1iterator, q)

    @c("vm_pageout_thread", "vm_pageout.c:1949,2002", part=True)
    def next_start(self, start: int, q: int) -> int:
        """The start of the next round, after one from *start* that ended at its *q*-th queue.

        The C keeps the number of queues scanned, not the position (vm_pageout.c:1949, 2002).
        """
        return q + 1

    @c("vm_pageout_thread", "vm_pageout.c:1958-1977", part=True)
    def inactive_shortage(self, avail_shortage: int) -> int:
        """Pages to move from active to inactive: up to the target, some more when short."""
        stats = self.vm.stats
        shortage = stats.v_inactive_target - stats.v_inactive_count
        if avail_shortage > 0:
            tenth = stats.v_inactive_target // 10
            shortage += min(u32(avail_shortage * 2), tenth)
        return i32(shortage)

    @c("vm_pageout_thread", "vm_pageout.c:1985-2003", part=True, blocks=True)
    @holds("nothing", "")
    def round_active(self, r: Round, inactive_shortage: int, tally: Tally) -> None:
        """Scan active queues from where the last round stopped, until there are enough pages."""
        mask = self.vm.pq.L2_MASK
        avail, inactive = self.pqaverage(r.avail_shortage), self.pqaverage(inactive_shortage)
        delta = q = 0
        while q < self.vm.pq.L2_SIZE:
            delta += self.scan_active(r.pass_, q + r.q2iterator & mask, avail, inactive, tally)
            if inactive_shortage - delta <= 0 and r.avail_shortage - delta <= 0:
                break
            q += 1
        r.avail_shortage -= self.active_gain(delta)
        r.q2iterator = self.next_start(r.q2iterator, q)

    @c("vm_pageout_thread", "vm_pageout.c:2001", part=True)
    def active_gain(self, delta: int) -> int:
        """How many of the *delta* pages of an active scan count as available.

        All of them, although most have only moved to another queue (vm_pageout.c:2001).
        """
        return delta

    @c("vm_pageout_thread", "vm_pageout.c:2016-2064", part=True, blocks=True)
    @holds("nothing", "")
    def thread_rest(self, r: Round) -> None:
        """After a round: back off while short, else wake the waiters (vm_pageout.c:2016-2064)."""
        glob, td = self.vm.glob, self.k.curthread()
        if r.avail_shortage > 0:
            r.pass_ = i32(r.pass_ + 1)
            self.thread_back_off(r.pass_)
        elif glob.vm_pages_needed:
            r.pass_ = 0
            if self.waiters_may_go():
                td.hit("vm_pageout_thread:wake-waiters")
                self.take_requests()
                self.k.sleep.wakeup(self.vm.idents.v_free_count)
            else:
                td.hit("vm_pageout_thread:still-short")
                self.still_short()
        else:
            r.pass_ = 0

    @own
    def still_short(self) -> None:
        """Shortage met, but memory still below the minimum: the next round starts at once."""

    @c("vm_pageout_thread", "vm_pageout.c:2057-2058", part=True)
    def waiters_may_go(self) -> bool:
        """Are there enough free and cache pages for the threads that sleep in vm_wait?"""
        meter = self.vm.meter
        return not meter.count_min(self.vm.sysctl.page_free_hysteresis) or not meter.count_target()

    @c("vm_pageout_thread", "vm_pageout.c:2018-2048", part=True, blocks=True)
    @holds("nothing", "")
    def thread_back_off(self, pass_: int) -> None:
        """Short again, for the *pass_*-th time in a row: wait before the next round, or not."""
        glob, td, hz = self.vm.glob, self.k.curthread(), self.k.hz
        if pass_ < 10 and glob.vm_pages_needed > 1:
            # Other threads have raised requests during the round: retry at once, unless swap is
            # full.
            if glob.swap_pager_full:
                td.hit("vm_pageout_thread:delay-swap-full")
                self.pdelay(c_div(hz, 5))
            else:
                td.hit("vm_pageout_thread:retry-at-once")
        elif pass_ < 10:
            # Few requests: wait a little, but let a new request end the wait.
            td.hit("vm_pageout_thread:delay")
            self.delay_for_request(c_div(hz, 10))
            self.ask_itself()
        elif glob.swap_pager_full == 0:
            # Ten rounds without success: wait in any case, so that the daemon does not take the
            # whole CPU.
            td.hit("vm_pageout_thread:delay-forced")
            self.pdelay(c_div(hz, 10))
        else:
            td.hit("vm_pageout_thread:delay-catastrophe")
            self.pdelay(hz)

    @c("vm_pageout_thread", "vm_pageout.c:2059,2034", part=True)
    def take_requests(self) -> None:
        """Clear vm_pages_needed; requests that are not met must be raised again."""
        self.vm.glob.vm_pages_needed = 0

    @c("vm_pageout_thread", "vm_pageout.c:2034-2035", part=True, blocks=True)
    @holds("nothing", "")
    def delay_for_request(self, timo: int) -> None:
        """Wait for *timo* ticks or for a request: first clears the pending request, then sleeps."""
        self.take_requests()
        self.k.sleep.tsleep(
            self.vm.idents.vm_pages_needed, 0, "pdelay", timo, cond=self.pages_are_needed
        )

    @c("vm_pageout_thread", "vm_pageout.c:2026-2027,2041-2047", part=True, blocks=True)
    @holds("nothing", "")
    def pdelay(self, timo: int) -> None:
        """Wait for *timo* ticks on the daemon's wait channel, for no particular condition."""
        self.k.sleep.tsleep(self.vm.idents.vm_pages_needed, 0, "pdelay", timo, cond=lambda: False)

    # -- the wakeup

    @c("pagedaemon_wakeup", "vm_pageout.c:2091-2102")
    def pagedaemon_wakeup(self) -> None:
        """pagedaemon_wakeup, vm_pageout.c:2091-2102: wake the daemon if paging is needed.

        Called after a page left the free or cache queue.  No lock is needed; does not block.
        """
        vm, k = self.vm, self.k
        if vm.meter.paging_needed() and k.curthread() is not self.pagethread:
            td = k.curthread()
            glob = vm.glob
            td.hit("pagedaemon_wakeup")
            if glob.vm_pages_needed == 0:
                td.hit("pagedaemon_wakeup:wake")
                glob.vm_pages_needed = 1
                k.sleep.wakeup(vm.idents.vm_pages_needed)
            elif vm.meter.count_min(0):
                td.hit("pagedaemon_wakeup:hint")
                glob.vm_pages_needed = i32(glob.vm_pages_needed + 1)


__all__ = ["Pageout", "Tally"]
