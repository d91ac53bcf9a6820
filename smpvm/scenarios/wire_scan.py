"""Wire and unwire against scan.

Situation: a clean page and a dirty one are inactive; both are wired and unwired, as for I/O and by
mlock, while the page-out daemon scans the inactive and the active queue.

Threads: ``wirer`` busies, wires, unbusies each page, later unwires it (once to the active, once to
the inactive queue); ``pagedaemon`` scans both queues.

What must hold: a wired page is on no queue and stays in its object; the counts of queues and of
wired pages are exact; no page is lost between the queues.

In a third scenario a wired page outlives its object and goes to the active queue when it is
unwired, until its owner frees it.  Defect of the C: the active scan dereferences the object of such
a page without checking for NULL (``active-null-object``).

C: vm_page_wire, vm_page_unwire, vm_page_unqueue, vm_pageout_scan_inactive, vm_pageout_scan_active,
vm_page_busy_try, vm_page_cache.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.kern.shared import peek
from smpvm.scenarios.base import VA, VmScenario, fixed


class WireScan(VmScenario):
    """See the module."""

    name = "wire-scan"
    title = "wire/unwire against scan"

    def setup(self) -> None:
        """A clean and a dirty page."""
        self.obj = self.object(swap=True)
        self.page(self.obj, 0)
        self.page(self.obj, 1, dirty=True)
        self.disks()
        self.pagedaemon(self.scans)
        self.thread("wirer", self.wirer)

    def scans(self) -> None:
        """Both queues."""
        self.scan(pass_=1)
        self.scan_active()

    def wirer(self) -> None:
        """Wire, check, unwire."""
        page = self.vm.page
        for pindex, activate in ((0, False), (1, True)):
            self.vm.object.hold(self.obj)
            m = page.lookup_busy_wait(self.obj, pindex, True, "wirer")
            self.vm.object.drop(self.obj)
            if m is None:
                continue
            page.wire(m)
            page.wakeup(m)
            queue = m.queue, m.queue  # read twice, to fit existing schedules
            assert queue[0] == 0, f"{m} is wired and on queue {queue[1]}"
            page.busy_wait(m, False, "wirer")
            assert m.object is self.obj, f"{m} is wired, but not in its object"
            page.unwire(m, activate)
            page.wakeup(m)


class MlockScan(VmScenario):
    """The same with mlock and munlock of a process, and a concurrent writer."""

    name = "mlock-scan"
    title = "mlock/munlock against scan and fault"
    sysctls = fixed(page_max_wired=8)

    def setup(self) -> None:
        """One dirty inactive page, mapped."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.to_inactive(self.page_at(self.p, VA), unmap=True)
        self.disks()
        self.pagedaemon(self.launder)
        self.thread("locker", self.locker, process=self.p)
        self.thread("writer", self.write, self.p, VA, 2, process=self.p)

    def locker(self) -> None:
        """mlock, read, munlock."""
        sys = self.vm.process.sys
        assert sys.mlock(self.p, VA, PAGE_SIZE) == 0, "mlock failed"
        assert self.read(self.p, VA) in (1, 2), "the locked page reads wrong"
        assert sys.munlock(self.p, VA, PAGE_SIZE) == 0, "munlock failed"

    def check(self) -> None:
        """The store is kept."""
        assert self.see(self.p, VA) == 2, "the store is lost"


class WireTerminate(VmScenario):
    """A page that is wired when its object ends, as during I/O: it stays, without an object."""

    name = "wire-terminate"
    title = "unwiring a page without object against the active scan"
    repairs = ("active-null-object",)

    def setup(self) -> None:
        """One wired page of an object that is about to be released."""
        self.obj = self.object()
        self.objects.remove(self.obj)
        self.m = self.page(self.obj, 0, "active")
        assert not self.vm.page.busy_try(self.m, True)
        self.vm.page.wire(self.m)
        self.vm.page.wakeup(self.m)
        self.pagedaemon(lambda: [self.scan_active(), self.scan()])
        self.thread("owner", self.owner)

    def owner(self) -> None:
        """Release the object, then end the I/O: unwire the page, and free it."""
        vm, m = self.vm, self.m
        vm.object.deallocate(self.obj)
        vm.page.busy_wait(m, False, "owner")
        vm.page.unwire(m, True)
        vm.page.wakeup(m)
        while peek(m, "queue") != vm.pq.FREE and not vm.page.try_to_free(m):
            vm.page.sleep_busy(m, True, "owner")

    def check(self) -> None:
        """The page is free."""
        assert self.m.queue == self.vm.pq.FREE, f"{self.m} is not free"
