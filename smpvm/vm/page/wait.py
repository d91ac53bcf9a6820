"""Waiting for memory, and waking the threads that wait for it."""

from __future__ import annotations

from collections.abc import Callable

from smpvm.kern.cname import c, holds, own
from smpvm.kern.proc import P_LOWMEMKILL
from smpvm.kern.token import Token
from smpvm.vm.page.lookup import PageObjects
from smpvm.vm.param import U32, i32
from smpvm.vm.vm import Vm


class PageWait(PageObjects):
    """vm_wait and its variants.  The caller must not hold a spinlock."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.vm_token: Token = self.k.new(Token, self.k, "vm", "vm_token")

    @c("vm_wait_nominal", "vm_page.c:1939-1944", blocks=True, uncalled=True)
    @holds("no spinlock", "")
    def vm_wait_nominal(self) -> None:
        """vm_wait_nominal, vm_page.c:1939-1944: block until free memory is above the minimum."""
        while self.vm.meter.count_min(0):
            self.vm_wait(0)

    @c("vm_test_nominal", "vm_page.c:1949-1955", uncalled=True)
    def vm_test_nominal(self) -> bool:
        """vm_test_nominal, vm_page.c:1949-1955: would vm_wait_nominal block?"""
        return self.vm.meter.count_min(0)

    @c("vm_wait", "vm_page.c:1964-2002", blocks=True)
    @holds("no spinlock", "")
    def vm_wait(self, timo: int) -> None:
        """vm_wait, vm_page.c:1964-2002: sleep once, for at most *timo* ticks (0: one second).

        The page-out daemon waits for the pages it needs itself; any other thread wakes the daemon
        and waits for the target.  Takes vm_token; blocks.
        """
        k, vm = self.k, self.vm
        if timo == 0:
            timo = k.hz
        self.vm_token.get()
        if k.curthread() is vm.pageout.pagethread:
            if vm.meter.count_min(0):
                self._wait_as_daemon(timo)
        elif vm.meter.count_target():
            self._wait_for_free("vmwait", timo)
        self.vm_token.release()

    @c("vm_wait_pfault", "vm_page.c:2010-2046", blocks=True)
    @holds("no spinlock", "")
    def vm_wait_pfault(self) -> None:
        """vm_wait_pfault, vm_page.c:2010-2046: wait for memory in a page fault.

        Loops while memory is severely short, until the process is to be killed for lack of memory.
        Takes vm_token; blocks.
        """
        k, meter = self.k, self.vm.meter
        if not meter.count_min(0):
            return
        self.vm_token.get()
        td = k.curthread()
        while meter.count_severe():
            if meter.count_target():
                self._wait_for_free("pfault", k.hz)
                if td.proc is not None and td.proc.p_flags & P_LOWMEMKILL:
                    td.hit("vm_wait_pfault:lowmemkill")
                    break
        self.vm_token.release()

    @c("vm_wait", "vm_page.c:1979-1980", part=True, blocks=True)
    @holds("vm_token (released while asleep)")
    def _wait_as_daemon(self, timo: int) -> None:
        """The page-out daemon's own wait for pages."""
        ident = self.vm.idents.vm_pageout_pages_needed
        self.glob.vm_pageout_pages_needed = 1
        self.k.sleep.tsleep(ident, 0, "VMWait", timo, cond=self._daemon_served)

    @c("vm_wait", "vm_page.c:1993-1998", part=True, blocks=True)
    @c("vm_wait_pfault", "vm_page.c:2028-2033", part=True)
    @holds("vm_token (released while asleep)")
    def _wait_for_free(self, wmesg: str, timo: int) -> None:
        """Wake the daemon if no request is pending, count the caller as waiting, and sleep."""
        k, glob, idents = self.k, self.glob, self.vm.idents
        if glob.vm_pages_needed == 0:
            glob.vm_pages_needed = 1
            k.sleep.wakeup(idents.vm_pages_needed)
        # Freeing threads do not take vm_token: memory freed between the caller's check and this
        # tsleep wakes nobody, and the timeout recovers (as in the C).
        glob.vm_pages_waiting = i32(glob.vm_pages_waiting + 1)
        k.sleep.tsleep(idents.v_free_count, 0, wmesg, timo, cond=self._over(wmesg))

    @c("vm_page_free_wakeup", "vm_page.c:2116-2117", part=True)
    def _waiters_served(self) -> bool:
        """The condition on which vm_page_free_wakeup wakes the waiting threads."""
        meter = self.vm.meter
        return not meter.count_min(self.vm.sysctl.page_free_hysteresis) or not meter.count_target()

    @own
    def _over(self, wmesg: str) -> Callable[[], bool]:
        """What the caller waits for: memory, and in a fault (``pfault``) also to be killed for it,
        which vm_pageout_scan_cache tells it (vm_page.c:2034-2040, vm_pageout.c:1537-1539).
        """
        p = self.k.curthread().proc
        if wmesg != "pfault" or p is None:
            return self._waiters_served
        return lambda: bool(p.p_flags & P_LOWMEMKILL) or self._waiters_served()

    @c("vm_page_free_wakeup", "vm_page.c:2098-2099", part=True)
    def _daemon_served(self) -> bool:
        """The condition on which vm_page_free_wakeup wakes the page-out daemon."""
        s = self.stats
        return (s.v_cache_count + s.v_free_count) & U32 >= s.v_pageout_free_min

    @c("vm_page_free_wakeup", "vm_page.c:2090-2143")
    @holds("no spinlock", "")
    def free_wakeup(self) -> None:
        """vm_page_free_wakeup, vm_page.c:2090-2143: a page was added to the free or cache queue.

        No lock is held; never blocks.
        """
        glob = self.glob
        if glob.vm_pageout_pages_needed and self._daemon_served():
            glob.vm_pageout_pages_needed = 0
            self.k.sleep.wakeup(self.vm.idents.vm_pageout_pages_needed)
        if glob.vm_pages_waiting and self._waiters_served():
            glob.vm_pages_waiting = 0
            self.k.sleep.wakeup(self.vm.idents.v_free_count)
            self.k.curthread().cnt["v_ppwakeups"] += 1
