"""The swap daemon: vm_daemon, its process callback, and the call that wakes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SHIFT
from smpvm.kern.cname import c, holds, own
from smpvm.kern.proc import P_SWAPPEDOUT, P_SYSTEM, P_WEXIT, SACTIVE, SCORE, SSTOP
from smpvm.vm.param import i32

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.proc import Proc
    from smpvm.kern.thread import Thread
    from smpvm.vm.vm import Vm

U64 = (1 << 64) - 1


class VmDaemon:
    """The swap daemon, the last part of vm_pageout.c."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k: Kernel = vm.k
        self.vmthread: Thread | None = None
        """The daemon's thread; set by whoever starts it."""
        self.lastrun = 0
        """static: the tick at which the daemon was last woken."""

    @c("vm_req_vmdaemon", "vm_pageout.c:2110-2119")
    def req_vmdaemon(self) -> None:
        """vm_req_vmdaemon, vm_pageout.c:2110-2119: wake the swap daemon, at most once a second.

        No lock is needed; does not block.
        """
        k = self.k
        k.curthread().hit("vm_req_vmdaemon")
        ticks = k.clock.ticks()
        if ticks > i32(self.lastrun + k.hz) or ticks < self.lastrun:
            k.sleep.wakeup(self.vm.idents.vm_daemon_needed)
            self.lastrun = k.clock.ticks()
        else:
            k.curthread().hit("vm_req_vmdaemon:too-soon")

    @c("vm_daemon", "vm_pageout.c:2126-2144", blocks=True)
    @holds("nothing", "does not return")
    def daemon(self) -> None:
        """vm_daemon, vm_pageout.c:2126-2144: the body of the daemon's thread; never returns."""
        k = self.k
        k.curthread().hit("vm_daemon")
        while True:
            self.daemon_sleep()
            self.daemon_swapout()
            k.proc.allproc_scan(self.daemon_callback, None)

    @c("vm_daemon", "vm_pageout.c:2133", part=True, blocks=True)
    @holds("nothing", "")
    def daemon_sleep(self) -> None:
        """Wait for a wakeup, without first checking whether a request is already pending."""
        self.k.sleep.tsleep(
            self.vm.idents.vm_daemon_needed, 0, "psleep", 0, cond=self.swapout_requested
        )

    @own
    def swapout_requested(self) -> bool:
        """The condition that the daemon sleeps on (used only by checkers)."""
        return bool(self.vm.glob.vm_pageout_req_swapout)

    @c("vm_daemon", "vm_pageout.c:2134-2137", part=True, blocks=True)
    @holds("nothing", "")
    def daemon_swapout(self) -> None:
        """Swap processes out as requested, then clear the request (vm_pageout.c:2134-2137)."""
        glob = self.vm.glob
        if glob.vm_pageout_req_swapout:
            self.k.curthread().hit("vm_daemon:swapout")
            self.vm.glue.swapout_procs(glob.vm_pageout_req_swapout)
            glob.vm_pageout_req_swapout = 0

    @c("vm_daemon_callback", "vm_pageout.c:2146-2197", blocks=True)
    @holds("p held (PHOLD), its bucket's proc_token")
    def daemon_callback(self, p: Proc, data: object = None) -> int:
        """vm_daemon_callback, vm_pageout.c:2146-2197: enforce the resident limit of one process.

        *p* is held by the process scan.  Takes its token, then its vmspace; may block.  Returns 0
        to continue the scan.
        """
        vm, td = self.vm, self.k.curthread()
        td.hit("vm_daemon_callback")
        p.p_token.get()
        if p.p_flags & (P_SYSTEM | P_WEXIT) or p.p_stat not in (SACTIVE, SSTOP, SCORE):
            td.hit("vm_daemon_callback:skip")
            p.p_token.release()
            return 0
        limit = self.rss_limit(p)
        space = p.p_vmspace
        vm.vmspace.hold(space)
        size = vm.vmspace.resident_count(space) & U64
        if size >= limit:
            td.hit("vm_daemon_callback:over-limit")
            vm.pageout.map_deactivate_pages(space.vm_map, limit)
        vm.vmspace.drop(space)
        p.p_token.release()
        return 0

    @c("vm_daemon_callback", "vm_pageout.c:2175-2184", part=True)
    @holds("p_token")
    def rss_limit(self, p: Proc) -> int:
        """The resident limit of *p* in pages, unsigned; 0 if it is swapped out."""
        if p.p_flags & P_SWAPPEDOUT:
            return 0
        return (min(p.p_rlimit_rss_cur, p.p_rlimit_rss_max) >> PAGE_SHIFT) & U64
