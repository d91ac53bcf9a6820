"""Repairs of the waits for memory, and of the wait for a page.

None of the C's waits for memory checks and sleeps in one step: between the check and tsleep()
another CPU can free memory and find no sleeper to wake; the sleeper's timeout recovers from the
lost wakeup and hides it (vm_page.c:1992-1998, 2024-2033, vm_pageout.c:1898-1900).
"""

from __future__ import annotations

from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.repairs.base import repair
from smpvm.vm.page.pages import Pages
from smpvm.vm.page.struct import PG_WANTED, Page
from smpvm.vm.pageout.daemon import Pageout


@repair(
    "free-wait",
    "Recheck free memory after joining the sleep queue",
    "vm_wait, vm_wait_pfault (vm_page.c:1978-1998, 2024-2033)",
)
class FreeWait(Pages):
    """Join the sleep queue first, then count as waiting, then check again."""

    def _wait_for_free(self, wmesg: str, timo: int) -> None:
        """The sleep of vm_wait and vm_wait_pfault with the interlock."""
        k, glob, idents = self.k, self.glob, self.vm.idents
        if k.atomic.cmpset_int(glob, "vm_pages_needed", 0, 1):
            k.sleep.wakeup(idents.vm_pages_needed)
        k.sleep.tsleep_interlock(idents.v_free_count)
        k.atomic.add_int(glob, "vm_pages_waiting", 1)
        over = self._over(wmesg)
        if not over():
            k.sleep.tsleep(idents.v_free_count, PINTERLOCKED, wmesg, timo, cond=over)

    def _wait_as_daemon(self, timo: int) -> None:
        """The sleep of the page-out daemon in vm_wait with the interlock."""
        ident = self.vm.idents.vm_pageout_pages_needed
        self.k.sleep.tsleep_interlock(ident)
        self.glob.vm_pageout_pages_needed = 1
        if not self._daemon_served():
            self.k.sleep.tsleep(ident, PINTERLOCKED, "VMWait", timo, cond=self._daemon_served)


@repair(
    "unhold-wakeup",
    "Wake threads waiting for memory when the last unhold frees a page",
    "vm_page_unhold (vm_page.c:965-970)",
)
class UnholdWakeup(Pages):
    """Wake threads waiting for memory when the last unhold frees a page."""

    def unhold(self, m: Page) -> None:
        """vm_page_unhold (vm_page.c:957-972) moves the page to the free queue without a wakeup."""
        super().unhold(m)
        self.free_wakeup()


@repair(
    "alloc-wanted",
    "Keep PG_WANTED on allocation for threads that still wait for the page",
    "vm_page_alloc (vm_page.c:1786)",
)
class AllocWanted(Pages):
    """Keep PG_WANTED of a newly allocated page, because a thread may still sleep on it.

    In the C a fault that finds a page of a backing object busy drops that object before it sleeps;
    the page may be freed and allocated again by then, and vm_page_alloc clears PG_WANTED: no
    wakeup, no timer.
    """

    alloc_keeps = Pages.alloc_keeps | PG_WANTED


@repair(
    "pagedaemon-wait",
    "Recheck for a request after joining the sleep queue",
    "vm_pageout_thread (vm_pageout.c:1898-1900)",
)
class DaemonWait(Pageout):
    """The page-out daemon rechecks for a request after joining the sleep queue."""

    def daemon_sleep(self, timo: int) -> int:
        """The tsleep of vm_pageout_thread (vm_pageout.c:1899) with the interlock."""
        k, ident = self.k, self.vm.idents.vm_pages_needed
        k.sleep.tsleep_interlock(ident)
        if self.pages_are_needed():
            return 0
        return k.sleep.tsleep(ident, PINTERLOCKED, "psleep", timo, cond=self.pages_are_needed)
