"""Repairs of the page-out daemon's own scans and rounds (vm_pageout.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.proc import P_LOWMEMKILL, P_WEXIT
from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.repairs.base import repair
from smpvm.vm.page.struct import PG_NEED_COMMIT
from smpvm.vm.pageout.daemon import Pageout
from smpvm.vm.pageout.scan_active import ScanActive
from smpvm.vm.param import ACT_MAX, OBJ_DEAD, VM_PAGE_BITS_ALL, i32

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc
    from smpvm.kern.vnode import Vnode
    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.page.struct import Page
    from smpvm.vm.pageout.scan_inactive import InactiveScan
    from smpvm.vm.vm import Vm


@repair(
    "cluster-forward",
    "Add the dirty pages above the first one to its cluster",
    "vm_pageout_clean (vm_pageout.c:341-342)",
)
class ClusterForward(Pageout):
    """Add the pages above the first one too: the busy bit found there is the caller's own."""

    def cluster_forward_special(self, p: Page) -> bool:
        """vm_pageout.c:341-342 without PG_BUSY; the soft busy count is 0 after the busy_try."""
        return self.cluster_special(p)


@repair(
    "active-null-object",
    "Test m->object before following it when ageing an active page",
    "vm_pageout_scan_active (vm_pageout.c:1320)",
)
class ActiveNullObject(Pageout):
    """Age a page without an object like a file's, since the test that follows expects such pages.

    By reading: no path in a default kernel was found that puts such a page on the active queue.
    """

    def active_decline(self, m: Page) -> None:
        """vm_pageout.c:1320 with a test of the pointer first."""
        if m.object is None:
            self.active_age(m, anonymous=False)
        else:
            super().active_decline(m)


@repair(
    "act-count-cap",
    "Cap act_count at ACT_MAX wherever it is raised, so that it cannot wrap",
    "vm_pageout_scan_inactive (vm_pageout.c:588, 889, 906)",
)
class ActCountCap(Pageout):
    """Cap act_count at ACT_MAX wherever it is raised, so that it cannot wrap as a u_char.

    By reading: sums above ACT_MAX are seen in runs; the wrap only where a test sets the count.
    """

    def inactive_activate(self, m: Page, more: int) -> None:
        """vm_pageout.c:889 and 906."""
        self.vm.page.activate(m)
        m.act_count = min(m.act_count + more, ACT_MAX)
        self.vm.page.wakeup(m)

    def deactivate_gain(self, p: Page, actcount: int) -> None:
        """vm_pageout.c:588."""
        p.act_count = min(p.act_count + actcount, ACT_MAX)


@repair(
    "queue-iterator",
    "Start each round behind the last queue scanned",
    "vm_pageout_thread (vm_pageout.c:1949, 2002)",
)
class QueueIterator(Pageout):
    """Start each round at the queue behind the last one scanned."""

    def next_start(self, start: int, q: int) -> int:
        """vm_pageout.c:1949 and 2002 with the start position added."""
        return i32(start + q + 1)


@repair(
    "stats-interval",
    "Add the interval of statistics scans once per pass, not once per queue",
    "vm_pageout_page_stats (vm_pageout.c:1620-1629)",
)
class StatsInterval(Pageout):
    """Add one interval per statistics pass over all queues, not one per queue."""

    def stats_tick(self, q: int) -> None:
        """vm_pageout.c:1621, once per pass: all queues are scanned in full if the first one is."""
        if q == 0:
            if self.fullintervalcount >= self.vm.sysctl.pageout_full_stats_interval:
                self.fullintervalcount = 0
            super().stats_tick(q)

    def stats_length(self, q: int, pcount: int) -> int:
        """All queues in full, or none."""
        self.stats_tick(q)
        if self.fullintervalcount >= self.vm.sysctl.pageout_full_stats_interval:
            self.k.curthread().hit("vm_pageout_page_stats:full")
            return pcount
        return self.stats_share(pcount)


@repair(
    "launder-recheck",
    "Recheck that a page is dirty after waiting for its vnode",
    "vm_pageout_scan_inactive (vm_pageout.c:1075-1096)",
)
class LaunderRecheck(Pageout):
    """Do not write a page that another thread cleaned while the daemon waited for its vnode.

    Shown by fsync-pageout; costs an unnecessary write, nothing else.
    """

    def inactive_vnode_lock(self, s: InactiveScan, m: Page, obj: VmObject) -> Vnode | None:
        """vm_pageout.c:1075-1096 with one more check."""
        vp = super().inactive_vnode_lock(s, m, obj)
        if vp is None:
            return None
        self.vm.page.test_dirty(m)
        if m.dirty or m.flags & PG_NEED_COMMIT:
            return vp
        self.vm.page.wakeup(m)
        self.k.vnode.vput(vp)
        return None


@repair(
    "partial-page",
    "Do not write partly valid pages, against which vm_pageout_flush asserts",
    "vm_pageout_clean, vm_pageout_scan_inactive (vm_pageout.c:319-354, 970)",
)
class PartialPage(Pageout):
    """Skip partly valid pages: vm_pageout_flush asserts that there are none.

    By reading: no path in the default file systems that leaves such a page was found.
    """

    def cluster_dirty(self, p: Page) -> bool:
        """vm_pageout.c:319-327 and 346-354 with a test of valid."""
        return p.valid == VM_PAGE_BITS_ALL and super().cluster_dirty(p)

    def inactive_launder(self, s: InactiveScan, m: Page) -> None:
        """vm_pageout.c:970: such a page cycles once more."""
        if m.valid == VM_PAGE_BITS_ALL:
            super().inactive_launder(s, m)
        else:
            self.inactive_requeue(s, m)


@repair(
    "paper-shortage",
    "Do not count pages that were only deactivated as available",
    "vm_pageout_thread (vm_pageout.c:1365, 2001)",
)
class PaperShortage(Pageout):
    """Count as available only what the active scan has cached, not what it has deactivated."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self._cached = 0

    def active_cache(self, m: Page) -> None:
        """A page that is available from now on."""
        self._cached += 1
        ScanActive.active_cache(self, m)

    def active_gain(self, delta: int) -> int:
        """vm_pageout.c:2001."""
        cached, self._cached = self._cached, 0
        return cached


@repair(
    "short-rest",
    "Delay the next round when memory is still below the minimum",
    "vm_pageout_thread (vm_pageout.c:2049-2061)",
)
class ShortRest(Pageout):
    """Delay for a tenth of a second, as in other back-offs, when memory is still below the minimum
    although the shortage was met.

    In the C the next round starts at once and the daemon spins.
    """

    def still_short(self) -> None:
        """vm_pageout.c:2057: the pages that were counted are still being written."""
        self.pdelay(max(self.k.hz // 10, 1))


@repair(
    "clean-counted",
    "Count a write as paging in progress before its object is dropped",
    "vm_pageout_clean, vm_pageout_flush (vm_pageout.c:359, 412-413)",
)
class CleanCounted(Pageout):
    """Count the write as paging in progress before the object is dropped, unless the object is
    dead.

    vm_pageout_flush raises the count without the object's token (vm_pageout.c:413), so
    vm_object_terminate may read zero, stop waiting, and panic on its assertion.
    """

    def clean_flush(self, obj: VmObject, mc: list[Page]) -> int:
        """vm_pageout.c:359-364 with an extra count around the flush."""
        objects = self.vm.object
        if obj.flags & OBJ_DEAD:
            for m in mc:
                self.vm.page.wakeup(m)
            objects.drop(obj)
            return 0
        objects.pip_add(obj, 1)
        written = super().clean_flush(obj, mc)
        objects.pip_wakeup(obj)
        return written


@repair(
    "kill-once",
    "Skip processes that are already being killed or are exiting",
    "vm_pageout_scan_callback (vm_pageout.c:1555-1558)",
)
class KillOnce(Pageout):
    """Skip processes that are being killed or are exiting: their memory will soon be free.

    By reading: no run has chosen a process again that was already being killed.
    """

    def never_kill(self, p: Proc) -> bool:
        """vm_pageout.c:1555-1558 with two more flags."""
        return bool(p.p_flags & (P_LOWMEMKILL | P_WEXIT)) or super().never_kill(p)


@repair(
    "back-off-wait",
    "Recheck for a request after joining the sleep queue, in a back-off",
    "vm_pageout_thread (vm_pageout.c:2034-2036)",
)
class BackOffWait(Pageout):
    """In a back-off, recheck for a request after joining the sleep queue.

    In the C a request made between the check and tsleep() waits for the timer.
    """

    def delay_for_request(self, timo: int) -> None:
        """vm_pageout.c:2034-2035 with the interlock."""
        ident = self.vm.idents.vm_pages_needed
        self.take_requests()
        self.k.sleep.tsleep_interlock(ident)
        if not self.pages_are_needed():
            self.k.sleep.tsleep(ident, PINTERLOCKED, "pdelay", timo, cond=self.pages_are_needed)


@repair(
    "request-hint",
    "Raise vm_pages_needed atomically, and wake the daemon if it was zero",
    "pagedaemon_wakeup (vm_pageout.c:2095-2099)",
)
class RequestHint(Pageout):
    """Raise the request in one operation, and wake the daemon if it had taken all earlier ones.

    In the C the increment can land after the daemon has taken the request and gone to sleep:
    vm_pages_needed is then non-zero, and nobody wakes the daemon until its timer.
    """

    def pagedaemon_wakeup(self) -> None:
        """vm_pageout.c:2094-2101 with test and increment as one atomic operation."""
        vm, k = self.vm, self.k
        td, glob = k.curthread(), vm.glob
        if not vm.meter.paging_needed() or td is self.pagethread:
            return
        td.hit("pagedaemon_wakeup")
        if glob.vm_pages_needed and not vm.meter.count_min(0):
            return
        if k.atomic.fetchadd_int(glob, "vm_pages_needed", 1) == 0:
            td.hit("pagedaemon_wakeup:wake")
            k.sleep.wakeup(vm.idents.vm_pages_needed)
        else:
            td.hit("pagedaemon_wakeup:hint")

    def take_requests(self) -> None:
        """vm_pageout.c:2034 and 2058, atomic with respect to the increment."""
        self.k.atomic.clear_int(self.vm.glob, "vm_pages_needed", -1)

    def ask_itself(self) -> None:
        """vm_pageout.c:1909 and 2036, atomic against the above."""
        self.k.atomic.swap_int(self.vm.glob, "vm_pages_needed", 1)


@repair(
    "deficit-count",
    "count failed allocations, and take the count, atomically",
    "vm_page_alloc (vm_page.c:1752, 1759), vm_pageout_thread (vm_pageout.c:1933-1934)",
)
class DeficitCount(Pageout):
    """Lose no failed allocation, however many fail at once."""

    def take_deficit(self) -> int:
        """vm_pageout.c:1933-1934 in one operation."""
        return self.k.atomic.swap_int(self.vm.glob, "vm_pageout_deficit", 0)

    def add_deficit(self) -> None:
        """vm_page.c:1752 and 1759 in one operation."""
        self.k.atomic.add_int(self.vm.glob, "vm_pageout_deficit", 1)


@repair(
    "kill-flag",
    "mark a process as killed for want of memory with its token held",
    "vm_pageout_scan_cache (vm_pageout.c:1537)",
)
class KillFlag(Pageout):
    """P_LOWMEMKILL is set under the token that guards the other flags."""

    def mark_killed(self, p: Proc) -> None:
        """vm_pageout.c:1537 with p_token held; may block for it."""
        p.p_token.get()
        super().mark_killed(p)
        p.p_token.release()


@repair(
    "launder-held",
    "hold a page's object while its vnode is looked up and waited for",
    "vm_pageout_scan_inactive (vm_pageout.c:981-1100)",
)
class LaunderHeld(Pageout):
    """The object's token is held from the first look at its type to the write.

    In the C a reclaim may clear the object's handle between the look at its type and that at its
    handle; and a page may leave the object after the checks behind vget, before it is busied.
    """

    def inactive_launder(self, s: InactiveScan, m: Page) -> None:
        """vm_pageout.c:970-1146 with the object held: waiting releases its token, not the hold."""
        obj: VmObject | None = m.object
        if obj is not None:
            self.vm.object.hold(obj)
        super().inactive_launder(s, m)
        if obj is not None:
            self.vm.object.drop(obj)
