"""Shared by the three scans of the page-out daemon: the marker page and its moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.page.queues import PageQueue
    from smpvm.vm.page.struct import Page
    from smpvm.vm.vm import Vm


class Tally:
    """The in-out arguments of one round of the daemon (C ints passed by address)."""

    __slots__ = ("recycle_count", "vnodes_skipped")

    @c("vm_pageout_thread", "vm_pageout.c:1889-1890", part=True)
    def __init__(self, vnodes_skipped: int = 0, recycle_count: int = 0) -> None:
        self.vnodes_skipped = vnodes_skipped
        self.recycle_count = recycle_count


class ScanBase:
    """Markers, and moving a page within the queue that is being scanned."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k: Kernel = vm.k

    @c("vm_pageout_scan_inactive", "vm_pageout.c:794-796", part=True)
    @c("vm_pageout_scan_active", "vm_pageout.c:1221-1223", part=True)
    @c("vm_pageout_page_stats", "vm_pageout.c:1637-1638", part=True)
    @holds("no spinlock", "queue spinlock")
    def scan_open(self, queue: PageQueue, limit: int | None = None) -> tuple[Page, int]:
        """Put a new marker at the head of *queue*; returns it and the maximum number of steps.

        The queue is locked on return.  The number of steps is limited to the length of the queue
        (or to *limit*), so that pages added at the tail during the scan are not visited again.
        """
        marker = self.vm.page.make_marker(queue.number)
        queue.spin.lock()
        queue.insert_head(marker)
        maxscan = queue.lcnt if limit is None else limit
        if (f := self.k.probe.scan_begin) is not None:
            f(self.k.curthread(), queue, marker, maxscan)
        return marker, maxscan

    @c("vm_pageout_scan_inactive", "vm_pageout.c:805-808", part=True)
    @c("vm_pageout_scan_active", "vm_pageout.c:1233-1236", part=True)
    @c("vm_pageout_page_stats", "vm_pageout.c:1649-1651", part=True)
    @holds("queue spinlock")
    def scan_hop(self, queue: PageQueue, marker: Page, m: Page) -> None:
        """Move the marker from before *m* to behind it.

        The queue is locked on entry and return.
        """
        queue.hop(marker, m)
        if (f := self.k.probe.marker_hop) is not None:
            f(self.k.curthread(), queue, marker, m)

    @c("vm_pageout_scan_inactive", "vm_pageout.c:1177-1178", part=True)
    @c("vm_pageout_scan_active", "vm_pageout.c:1389-1390", part=True)
    @c("vm_pageout_page_stats", "vm_pageout.c:1754-1755", part=True)
    @holds("queue spinlock", "nothing")
    def scan_close(self, queue: PageQueue, marker: Page, why: str) -> None:
        """Remove the marker.  The queue is locked on entry and unlocked on return."""
        queue.remove(marker)
        if (f := self.k.probe.scan_end) is not None:
            f(self.k.curthread(), queue, marker, why)
        queue.spin.unlock()

    @c("vm_pageout_scan_inactive", "vm_pageout.c:853-863", part=True)
    @c("vm_pageout_scan_active", "vm_pageout.c:1308-1317", part=True)
    @c("vm_pageout_page_stats", "vm_pageout.c:1701-1710", part=True)
    @holds("m busied; no spinlock")
    def requeue(self, queue: PageQueue, m: Page, *, heuristic: bool = False) -> None:
        """Move *m*, busied by the caller, to the tail of *queue* if it is still on it.

        Other threads may take a busy page off its queue, so this is checked with the page and its
        queue locked.  Neither is locked on entry or return.  With *heuristic* a move also counts in
        vm_swapcache_inactive_heuristic.
        """
        page = self.vm.page
        page.and_queue_spin_lock(m)
        if m.queue == queue.number:
            queue.requeue(m)
            if heuristic:
                page.bump_heuristic()
        page.and_queue_spin_unlock(m)
