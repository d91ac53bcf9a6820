"""vm_pageout_scan_cache: free cache pages, and request help when that is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds
from smpvm.kern.guard import Guard, guarded
from smpvm.kern.proc import P_LOWMEMKILL, P_SYSTEM, PRIO_MIN, SACTIVE, SCORE, SSTOP
from smpvm.vm.console import kprintf
from smpvm.vm.page.struct import PG_MAPPED, PG_NEED_COMMIT, PG_UNMANAGED
from smpvm.vm.pageout.clean import Clean
from smpvm.vm.param import PQ_PRIME2, VM_SWAP_IDLE, VM_SWAP_NORMAL, i32, u32

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.proc import Proc
    from smpvm.vm.page.struct import Page
    from smpvm.vm.vm import Vm


class BigProc:
    """struct vm_pageout_scan_info: the biggest process so far, held, and its size in pages."""

    __slots__ = ("bigproc", "bigsize")

    @c("vm_pageout_scan_cache", "vm_pageout.c:1530-1531", part=True)
    def __init__(self, bigproc: Proc | None = None, bigsize: int = 0) -> None:
        self.bigproc = bigproc
        self.bigsize = bigsize


def _daemon(k: Kernel, scan: ScanCache, new: object) -> object:
    """The page-out daemon: nobody else scans the cache queues."""
    return scan.vm.pageout.pagethread


@guarded(Guard("cache_rover", _daemon, "vm_pageout.c:1437"))
class ScanCache(Clean):
    """Draining the cache queue, requests to other daemons, and the kill."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.lastkillticks = 0
        """static: the tick at which a process was last killed."""
        self.cache_rover = 0
        """static: the colour at which the drain continues; wraps."""
        self.lsec = 0
        """static: the second of the last idle swap request."""

    @c("vm_pageout_scan_cache", "vm_pageout.c:1424-1543", blocks=True)
    @holds("nothing", "")
    def scan_cache(
        self, avail_shortage: int, pass_: int, vnodes_skipped: int, recycle_count: int
    ) -> None:
        """vm_pageout_scan_cache, vm_pageout.c:1424-1543: the last part of a round.

        Nothing is held on entry or return.  May block: it yields the CPU, and the process scan of
        the kill takes tokens.  *avail_shortage* is in pages, *pass_* the number of consecutive
        rounds that did not reach their target.
        """
        self.k.curthread().hit("vm_pageout_scan_cache")
        self.cache_drain()
        self.cache_idle_swap()
        self.cache_call_for_help(vnodes_skipped)
        self.cache_warn(avail_shortage, pass_, recycle_count)
        if self.cache_out_of_swap(avail_shortage, pass_):
            self.kill_biggest()

    @c("vm_pageout_scan_cache", "vm_pageout.c:1432-1469", part=True, blocks=True)
    @holds("nothing", "")
    def cache_drain(self) -> None:
        """Free cache pages until v_free_count is halfway between v_free_min and v_free_target."""
        vm, k, td = self.vm, self.k, self.k.curthread()
        page, stats = vm.page, vm.stats
        while stats.v_free_count < u32(stats.v_free_min + stats.v_free_target) // 2:
            m = page.list_find(vm.pq.CACHE, self.cache_rover & vm.pq.L2_MASK, False)
            if m is None:
                break
            # m is spinlocked and on no queue
            if page.busy_try(m, True):
                td.hit("vm_pageout_scan_cache:busy")
                page.deactivate_locked(m)
                page.spin_unlock(m)
                continue
            page.spin_unlock(m)
            vm.pageout.pagedaemon_wakeup()
            k.lwkt_yield()
            self.cache_page(m)

    @c("vm_pageout_scan_cache", "vm_pageout.c:1457-1468", part=True, blocks=True)
    @holds("m busied, on no queue; no spinlock", "m unbusied")
    def cache_page(self, m: Page) -> None:
        """Free one cache page, busied and on no queue; if it is still needed, deactivate it."""
        page, td = self.vm.page, self.k.curthread()
        if m.flags & (PG_UNMANAGED | PG_NEED_COMMIT) or m.hold_count or m.wire_count:
            td.hit("vm_pageout_scan_cache:unfreeable")
            page.deactivate(m)
            page.wakeup(m)
            return
        self.k.kassert(not m.flags & PG_MAPPED, "cache-mapped", f"{m}")
        self.k.kassert(m.dirty == 0, "cache-dirty", f"{m}")
        self.cache_rover = i32(self.cache_rover + PQ_PRIME2)
        self.page_free(m)
        td.hit("vm_pageout_scan_cache:freed")
        td.hit("v_dfree")

    @c("vm_pageout_scan_cache", "vm_pageout.c:1475-1482", part=True)
    @holds("nothing", "")
    def cache_idle_swap(self) -> None:
        """Request the swap-out of idle processes, once a second (vm_pageout.c:1475-1482)."""
        vm, now = self.vm, self.k.clock.time_uptime()
        if vm.sysctl.swap_idle_enabled and now != self.lsec:
            self.k.curthread().hit("vm_pageout_scan_cache:idle-swap")
            vm.glob.vm_pageout_req_swapout |= VM_SWAP_IDLE
            vm.vmdaemon.req_vmdaemon()
            self.lsec = self.k.clock.time_uptime()

    @c("vm_pageout_scan_cache", "vm_pageout.c:1490-1499", part=True)
    @holds("nothing", "")
    def cache_call_for_help(self, vnodes_skipped: int) -> None:
        """Still short: wake the syncer for skipped files, the swap daemon for processes."""
        vm, td = self.vm, self.k.curthread()
        if vm.meter.paging_target() <= 0:
            return
        if vnodes_skipped and vm.meter.count_min(0):
            td.hit("vm_pageout_scan_cache:speedup-syncer")
            vm.syncer.speedup_syncer()
        if vm.sysctl.swap_enabled and vm.meter.count_target():
            td.hit("vm_pageout_scan_cache:swapout")
            self.cache_request_swapout()

    @c("vm_pageout_scan_cache", "vm_pageout.c:1495-1496", part=True)
    @holds("nothing", "")
    def cache_request_swapout(self) -> None:
        """Wake the swap daemon, then store the request, in the order of the C
        (vm_pageout.c:1495-1496).
        """
        self.vm.vmdaemon.req_vmdaemon()
        self.vm.glob.vm_pageout_req_swapout |= VM_SWAP_NORMAL

    @c("vm_pageout_scan_cache", "vm_pageout.c:1513-1519", part=True)
    @holds("nothing", "")
    def cache_warn(self, avail_shortage: int, pass_: int, recycle_count: int) -> None:
        """A console message if both memory and swap are running out."""
        vm, k = self.vm, self.k
        if (
            vm.glob.swap_pager_almost_full
            and pass_ > 0
            and (vm.meter.count_min(recycle_count) or avail_shortage > 0)
        ):
            k.curthread().hit("vm_pageout_scan_cache:low-memory-swap")
            since = i32(k.clock.ticks() - vm.glob.swap_fail_ticks)
            kprintf(k, "low-memory-swap", shortage=avail_shortage, ticks=since)

    @c("vm_pageout_scan_cache", "vm_pageout.c:1520-1524", part=True)
    @holds("nothing", "")
    def cache_out_of_swap(self, avail_shortage: int, pass_: int) -> bool:
        """Is it time to kill?  At most once a second, so that the last victim can exit."""
        vm, k = self.vm, self.k
        return (
            bool(vm.glob.swap_pager_full)
            and pass_ > 1
            and avail_shortage > 0
            and vm.meter.paging_target() > 0
            and u32(k.clock.ticks() - self.lastkillticks) >= k.hz
        )

    @c("vm_pageout_scan_cache", "vm_pageout.c:1529-1541", part=True, blocks=True)
    @holds("nothing", "")
    def kill_biggest(self) -> None:
        """Kill the process with the most anonymous memory (vm_pageout.c:1529-1541)."""
        vm, k = self.vm, self.k
        self.lastkillticks = k.clock.ticks()
        info = BigProc()
        k.proc.allproc_scan(self.scan_callback, info)
        p = info.bigproc
        if p is None:
            return
        k.curthread().hit("vm_pageout_scan_cache:kill")
        p.p_nice = PRIO_MIN
        k.proc.resetpriority(p)
        self.mark_killed(p)
        k.proc.killproc(p, "out of swap space")
        # The victim may be waiting for memory itself: wake it so that it can exit.
        k.sleep.wakeup(vm.idents.v_free_count)
        k.proc.prele(p)

    @c("vm_pageout_scan_cache", "vm_pageout.c:1537", part=True)
    @holds("p held (PHOLD)")
    def mark_killed(self, p: Proc) -> None:
        """Set P_LOWMEMKILL: atomically, but without p_token.

        Others change the flags plainly, with the token.
        """
        self.k.atomic.set_int(p, "p_flags", P_LOWMEMKILL)

    @c("vm_pageout_scan_callback", "vm_pageout.c:1545-1595", blocks=True)
    @holds(
        "p held (PHOLD), its bucket's proc_token",
        "p held (PHOLD), its bucket's proc_token; the biggest process held",
    )
    def scan_callback(self, p: Proc, info: BigProc) -> int:
        """vm_pageout_scan_callback, vm_pageout.c:1545-1595.

        Keep the biggest process in *info*, held.

        *p* is held by the process scan.  Takes its token; may block on it, and yields the CPU.
        Returns 0 to continue the scan.
        """
        td, k = self.k.curthread(), self.k
        td.hit("vm_pageout_scan_callback")
        if self.never_kill(p):
            return 0
        p.p_token.get()
        if p.p_stat not in (SACTIVE, SSTOP, SCORE):
            p.p_token.release()
            return 0
        size = self.process_size(p)
        if info.bigsize < size:
            if info.bigproc is not None:
                k.proc.prele(info.bigproc)
            k.proc.phold(p)
            info.bigproc = p
            info.bigsize = size
        p.p_token.release()
        k.lwkt_yield()
        return 0

    @c("vm_pageout_scan_callback", "vm_pageout.c:1555-1556", part=True)
    @holds("p held (PHOLD)")
    def never_kill(self, p: Proc) -> bool:
        """vm_pageout_scan_callback, vm_pageout.c:1555-1556: system processes and init, and, while
        there is swap, daemons started at boot."""
        return bool(
            p.p_flags & P_SYSTEM or p.p_pid == 1 or (p.p_pid < 48 and self.vm.glob.vm_swap_size)
        )

    @c("vm_pageout_scan_callback", "vm_pageout.c:1577-1578", part=True, blocks=True)
    @holds("p_token")
    def process_size(self, p: Proc) -> int:
        """The pages that killing *p* may free; a page both in memory and on swap counts twice."""
        vm, space = self.vm, p.p_vmspace
        size = vm.vmspace.anonymous_count(space) + vm.vmspace.swap_count(space)
        return size & 0xFFFF_FFFF_FFFF_FFFF
