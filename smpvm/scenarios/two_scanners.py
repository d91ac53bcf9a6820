"""Two scanners on one queue.

Situation: the inactive queue holds a clean page, a referenced one and a dirty one, and two threads
scan it at the same time, so that each meets the other's marker (as the page-out daemon meets the
marker of swapcache), once after and once before a page that moves.

Threads: ``scanner 1`` and ``scanner 2``, each one scan of the whole queue.

What must hold: no marker is moved or counted by the other scan, none is left; both scans end; the
clean page is in the cache, the referenced one active, the dirty one still inactive, requeued for
a second pass; each is handled once.

C: vm_pageout_scan_inactive (the PG_MARKER tests and the maxscan bound), vm_page_busy_try,
vm_page_and_queue_spin_lock, vm_page_cache, vm_page_activate.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario, fixed
from smpvm.vm.page.struct import PG_REFERENCED


class TwoScanners(VmScenario):
    """See the module."""

    name = "two-scanners"
    title = "two scanners on one queue"

    def setup(self) -> None:
        """A clean, a referenced and a dirty page."""
        obj = self.object(swap=True)
        self.clean = self.page(obj, 0)
        self.used = self.page(obj, 1)
        self.dirty = self.page(obj, 2, dirty=True)
        self.vm.page.flag_set(self.used, PG_REFERENCED)
        self.disks()
        self.thread("scanner 1", self.scan)
        self.thread("scanner 2", self.scan)

    def check(self) -> None:
        """Each page is on the right queue."""
        pq = self.vm.pq
        assert self.clean.queue == pq.CACHE, "the clean page is not in the cache"
        assert self.used.queue in (pq.ACTIVE, pq.INACTIVE, pq.CACHE), "the used page is lost"
        assert self.dirty.queue == pq.INACTIVE, "the dirty page is not inactive"


class TwoKinds(VmScenario):
    """The same on the active queue: the daemon's scan and its statistics scan from another thread.

    Pages: one referenced, two idle ones.  In the kernel one thread runs both scans; this
    represents any second user of markers on an active queue.
    """

    name = "two-scanners-active"
    title = "the active scan and the statistics scan on one queue"
    sysctls = fixed(pageout_stats_max=8, pageout_full_stats_interval=0)

    def setup(self) -> None:
        """Three active pages."""
        obj = self.object()
        for i in range(3):
            m = self.page(obj, i, "active")
            m.act_count = i
            if i == 2:
                self.vm.page.flag_set(m, PG_REFERENCED)
        self.limits(inactive_target=8)
        self.thread("scanner", self.scan_active)
        self.thread("statistics", self.vm.pageout.page_stats, 0)
