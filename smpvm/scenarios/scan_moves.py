"""Queue scan against activation, free and requeue.

Situation: three clean pages of one object on the inactive queue.  The page-out daemon scans the
queue, with only a marker to keep its place, while others remove pages on both sides of the marker.

Threads: ``scanner`` scans for two pages; ``user`` activates page 0, as a fault does, and page 2,
and moves page 2 back to the tail; ``freer`` frees page 1.

What must hold: the scan visits only pages of its queue (the KKASSERT of the C), does not lose its
place, leaves no marker; each page is on the queue that it names; the counts are exact.

C: vm_pageout_scan_inactive, vm_page_busy_try, vm_page_activate, vm_page_deactivate,
vm_page_free_toq, vm_page_cache, _vm_page_rem_queue_spinlocked.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario


class ScanMoves(VmScenario):
    """See the module."""

    name = "scan-moves"
    title = "queue scan against activation, free and requeue"

    def setup(self) -> None:
        """Three inactive pages."""
        self.obj = self.object()
        for i in range(3):
            self.page(self.obj, i)
        self.thread("scanner", lambda: self.scan(want=2))
        self.thread("user", self.user)
        self.thread("freer", self.freer)

    def user(self) -> None:
        """Activate pages 0 and 2; deactivate page 2 again."""
        for pindex, back in ((0, False), (2, True)):
            objects, page = self.vm.object, self.vm.page
            objects.hold(self.obj)
            m = page.lookup_busy_wait(self.obj, pindex, True, "user")
            objects.drop(self.obj)
            if m is not None:
                page.activate(m)
                if back:
                    page.deactivate(m)
                page.wakeup(m)

    def freer(self) -> None:
        """Free page 1 if it can be busied without waiting."""
        objects, page = self.vm.object, self.vm.page
        objects.hold(self.obj)
        m, error = page.lookup_busy_try(self.obj, 1, True)
        if m is not None and not error:
            page.protect(m, 0)
            page.free(m)
        objects.drop(self.obj)
