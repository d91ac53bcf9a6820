"""Process swapping (vm_glue.c): swap-out and swap-in of processes, vm_fork, vslock.

At this commit, swapping a process out moves no page: its pages only become preferred victims
(``vm_pageout_map_deactivate_pages``), and its threads may not return to user mode until the swapper
(``scheduler``, process 0) swaps it in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smpvm.config import PAGE_SHIFT, PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.kern.proc import (
    P_SWAPPEDOUT,
    P_SWAPWAIT,
    P_SYSTEM,
    P_WEXIT,
    PLOCK_MASK,
    SACTIVE,
    SSTOP,
    Proc,
)
from smpvm.kern.shared import shared
from smpvm.kern.token import Token
from smpvm.kern.tsleep import Ident
from smpvm.vm.map.wire import KM_PAGEABLE
from smpvm.vm.param import VM_SWAP_IDLE, VM_SWAP_NORMAL

if TYPE_CHECKING:
    from smpvm.vm.vm import Vm

INT_MIN: Final = -(1 << 31)


@shared("scheduler_notify")
class GlueState:
    """The static variable of vm_glue.c: the swapper has been asked to run."""

    __slots__ = ("scheduler_notify",)

    def __init__(self) -> None:
        self.scheduler_notify = 0

    def __str__(self) -> str:
        return "vm_glue"


class SchedulerInfo:
    """struct scheduler_info: the best candidate so far, held, and its priority."""

    __slots__ = ("pp", "ppri")

    @c("scheduler", "vm_glue.c:360-361", part=True)
    def __init__(self) -> None:
        self.pp: Proc | None = None
        self.ppri = INT_MIN


class Glue:
    """vm_glue.c."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = k = vm.k
        self.state: GlueState = k.new(GlueState)
        self.swap_idle_threshold1 = 15
        """vm.swap_idle_threshold1: seconds asleep before a process may be swapped out."""
        self.swap_idle_threshold2 = 60
        """vm.swap_idle_threshold2: the same for the swap-out of idle processes (VM_SWAP_IDLE)."""
        self.proc0 = Ident("proc0")
        self.notify_ident = Ident("scheduler_notify")
        self.mplock = k.new(Token, k, "mp_token", "mp_token")

    # -- swap out

    @c("swapout_procs", "vm_glue.c:492-496", blocks=True)
    @holds("no spinlock", "")
    def swapout_procs(self, action: int) -> None:
        """swapout_procs (vm_glue.c:492-496): mark eligible processes as swapped out.

        *action* is a set of VM_SWAP_NORMAL (memory is short) and VM_SWAP_IDLE.  Blocks on tokens.
        """
        k = self.k
        td = k.curthread()
        td.hit("swapout_procs")
        if (f := k.probe.call) is not None:
            f(td, "swapout_procs", action=action)
        k.proc.allproc_scan(self.swapout_procs_callback, action)

    @c("swappable", "vm_glue.c:455-457")
    @holds("p held (PHOLD)")
    def swappable(self, p: Proc) -> bool:
        """swappable (vm_glue.c:455-457): may this process be swapped out?

        Requires p_lock to be zero, which it never is here: allproc_scan holds the process around
        the callback.  So nothing is ever swapped out at this commit.
        """
        return p.p_lock & PLOCK_MASK == 0 and not p.p_flags & (P_SYSTEM | P_SWAPPEDOUT | P_WEXIT)

    @c("swapout_procs_callback", "vm_glue.c:518-549", part=True)
    @holds("p_token")
    def slptime(self, p: Proc) -> int:
        """The shortest lwp_slptime of the process: for how many whole seconds all its threads have
        slept.

        The C increments it once a second (schedcpu); here it is computed from the start of the
        sleep.
        """
        now = self.k.clock.ticks()
        times = []
        for td in p.threads:
            s = td.sleeper
            asleep = s is not None and s.asleep
            times.append((now - s.since) // self.k.hz if s is not None and asleep else 0)
        return min(times, default=0)

    @c("swapout_procs_callback", "vm_glue.c:498-567", blocks=True)
    @holds("p held (PHOLD), its bucket's proc_token")
    def swapout_procs_callback(self, p: Proc, action: int) -> int:
        """swapout_procs_callback (vm_glue.c:498-567).  *p* is held, its bucket's token too.

        Realtime processes, which the C exempts, do not exist here.  Returns 0 to continue the scan.
        """
        if not self.swappable(p):
            return 0
        p.p_token.get()
        if p.p_stat in (SACTIVE, SSTOP):
            minslp = self.slptime(p)
            if minslp >= self.swap_idle_threshold1:
                idle = action & VM_SWAP_IDLE and minslp >= self.swap_idle_threshold2
                if action & VM_SWAP_NORMAL or (idle and minslp > self.swap_idle_threshold2):
                    self.swapout(p)
        p.p_token.release()
        return 0

    @c("swapout", "vm_glue.c:572-587")
    @holds("p_token")
    def swapout(self, p: Proc) -> None:
        """swapout (vm_glue.c:572-587): keep *p* from returning to user mode.  p_token held."""
        self.k.curthread().hit("swapout")
        space = p.p_vmspace
        space.vm_swrss = self.vm.vmspace.resident_count(space)
        p.p_flags |= P_SWAPPEDOUT
        p.p_swtime = self.k.clock.ticks()

    # -- swap in

    @c("faultin", "vm_glue.c:306-323", blocks=True)
    @holds("p held (PHOLD)")
    def faultin(self, p: Proc) -> None:
        """faultin (vm_glue.c:306-323): let *p* return to user mode, whatever its state."""
        if p.p_flags & P_SWAPPEDOUT:
            p.p_token.get()
            p.p_flags &= ~(P_SWAPPEDOUT | P_SWAPWAIT)
            self.k.curthread().hit("faultin")
            self.k.sleep.wakeup(p)
            p.p_token.release()

    @c("swapin_request", "vm_glue.c:444-451")
    @holds("mp_token")
    def swapin_request(self) -> None:
        """swapin_request (vm_glue.c:444-451): wake the swapper.  The caller holds the mp token."""
        if self.state.scheduler_notify == 0:
            self.state.scheduler_notify = 1
            self.k.sleep.wakeup(self.notify_ident)

    @c("scheduler", "vm_glue.c:340-391", blocks=True)
    @holds("", "does not return; mp_token while it runs")
    def scheduler(self) -> None:
        """scheduler (vm_glue.c:340-391).

        Process 0; never returns.  Holds the mp token while it runs.

        Swaps in the best waiting process, one every tenth of a second, unless memory is severely
        short.
        """
        k = self.k
        self.mplock.get()
        while True:
            self.state.scheduler_notify = 0
            if self.vm.meter.count_severe():
                self.vm.page.vm_wait(0)
                continue
            info = SchedulerInfo()
            k.proc.allproc_scan(self.scheduler_callback, info)
            p = info.pp
            if p is None:
                k.sleep.tsleep(self.proc0, 0, "nowork", k.hz // 10, cond=lambda: False)
                if self.state.scheduler_notify == 0:
                    k.sleep.tsleep(
                        self.notify_ident,
                        0,
                        "nowork",
                        0,
                        cond=lambda: bool(self.state.scheduler_notify),
                    )
                continue
            p.p_token.get()
            self.faultin(p)
            p.p_swtime = k.clock.ticks()
            p.p_token.release()
            k.proc.prele(p)
            k.sleep.tsleep(self.proc0, 0, "swapin", k.hz // 10, cond=lambda: False)

    @c("scheduler_callback", "vm_glue.c:393-438", blocks=True)
    @holds(
        "p held (PHOLD), its bucket's proc_token",
        "p held (PHOLD), its bucket's proc_token; the best process held",
    )
    def scheduler_callback(self, p: Proc, info: SchedulerInfo) -> int:
        """scheduler_callback (vm_glue.c:393-438).

        Rate a waiting process; the best one stays held.
        """
        if p.p_flags & P_SWAPWAIT:
            k = self.k
            swtime = (k.clock.ticks() - p.p_swtime) // k.hz
            pri = self.slptime(p) + swtime - p.p_nice * 8
            space = p.p_vmspace
            space.vm_map.token.get()
            pages = self.vm.vmspace.resident_count(space)
            if pages < space.vm_swrss:
                pri -= (space.vm_swrss - pages) // (1024 * 1024 // PAGE_SIZE)
            space.vm_map.token.release()
            if pri > info.ppri:
                if info.pp is not None:
                    k.proc.prele(info.pp)
                k.proc.phold(p)
                info.pp = p
                info.ppri = pri
        return 0

    # -- fork, and wiring for I/O

    @c("vm_fork", "vm_glue.c:233-270", blocks=True)
    @holds("p_token of both; p1 held (PHOLD)")
    def fork(self, p1: Proc, p2: Proc, share: bool) -> None:
        """vm_fork (vm_glue.c:233-270).

        Give *p2* the space of *p1* (*share*, RFMEM) or a copy of it.

        The caller holds both p_tokens and has *p1* held (PHOLD).  Waits while memory is severely
        short.
        """
        vm = self.vm
        if share:
            vm.vmspace.ref(p1.p_vmspace)
            p2.p_vmspace = p1.p_vmspace
        while self.vm.meter.count_severe():
            self.vm.page.vm_wait(0)
        if not share:
            p2.p_vmspace = vm.vmspace.fork(p1.p_vmspace)

    @c("vslock", "vm_glue.c:199-207", blocks=True, uncalled=True)
    @holds("no locks", "")
    def vslock(self, p: Proc, addr: int, size: int) -> int:
        """vslock (vm_glue.c:199-207): wire *size* bytes of *p* for the kernel.  Returns KERN_*.

        The C ignores the result.
        """
        start, end = _page_range(addr, size)
        return self.vm.map.wire(p.p_vmspace.vm_map, start, end, 0) if size else 0

    @c("vsunlock", "vm_glue.c:212-221", blocks=True)
    @holds("no locks", "")
    def vsunlock(self, p: Proc, addr: int, size: int) -> int:
        """vsunlock (vm_glue.c:212-221): undo vslock."""
        start, end = _page_range(addr, size)
        return self.vm.map.wire(p.p_vmspace.vm_map, start, end, KM_PAGEABLE) if size else 0

    @c("vm_init_limits", "vm_glue.c:277-297", uncalled=True)
    def init_limits(self, p: Proc) -> None:
        """vm_init_limits (vm_glue.c:277-297): set the resident limit to the memory free at boot."""
        p.p_rlimit_rss_cur = max(self.vm.stats.v_free_count, 512) << PAGE_SHIFT


@c("trunc_page", "param.h:199")
@c("round_page", "param.h:198")
def _page_range(addr: int, size: int) -> tuple[int, int]:
    """trunc_page(addr), round_page(addr + size)."""
    mask = PAGE_SIZE - 1
    return addr & ~mask, (addr + size + mask) & ~mask
