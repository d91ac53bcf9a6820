"""Repairs of the waits for memory, and of that for a page.

None of the seed's waits for memory looks and sleeps in one step: between the look and the tsleep
another CPU can free what is waited for and find nobody asleep; the sleeper's timer then hides that
the wakeup was lost (vm_page.c:1992-2001, 2023-2036, vm_pageout.c:1897-1901).
"""

from __future__ import annotations

from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.repairs.base import repair
from smpvm.vm.page.pages import Pages
from smpvm.vm.page.struct import PG_WANTED, Page
from smpvm.vm.pageout.daemon import Pageout


@repair(
    "free-wait",
    "look for free memory again once on the sleep queue",
    "vm_wait, vm_wait_pfault (vm_page.c:1964-2046)",
)
class FreeWait(Pages):
    """Join the sleep queue first, then say so, then look again."""

    def _wait_for_free(self, wmesg: str, timo: int) -> None:
        """The sleep of vm_wait and vm_wait_pfault, interlocked."""
        k, glob, idents = self.k, self.glob, self.vm.idents
        if k.atomic.cmpset_int(glob, "vm_pages_needed", 0, 1):
            k.sleep.wakeup(idents.vm_pages_needed)
        k.sleep.tsleep_interlock(idents.v_free_count)
        k.atomic.add_int(glob, "vm_pages_waiting", 1)
        if not self._waiters_served():
            k.sleep.tsleep(
                idents.v_free_count, PINTERLOCKED, wmesg, timo, cond=self._waiters_served
            )

    def _wait_as_daemon(self, timo: int) -> None:
        """The sleep of the page-out daemon in vm_wait, interlocked."""
        ident = self.vm.idents.vm_pageout_pages_needed
        self.k.sleep.tsleep_interlock(ident)
        self.glob.vm_pageout_pages_needed = 1
        if not self._daemon_served():
            self.k.sleep.tsleep(ident, PINTERLOCKED, "VMWait", timo, cond=self._daemon_served)


@repair(
    "unhold-wakeup",
    "tell who waits for memory of a page that its last unhold frees",
    "vm_page_unhold (vm_page.c:957-972)",
)
class UnholdWakeup(Pages):
    """Tell who waits for memory of a page that its last unhold frees."""

    def unhold(self, m: Page) -> None:
        """vm_page_unhold (vm_page.c:957-972) moves a page to the free queue and tells nobody."""
        super().unhold(m)
        self.free_wakeup()


@repair(
    "alloc-wanted",
    "keep the mark of who waits for a page that is allocated again meanwhile",
    "vm_page_alloc (vm_page.c:1786)",
)
class AllocWanted(Pages):
    """A fresh page is still wanted by who waits for it."""

    alloc_keeps = Pages.alloc_keeps | PG_WANTED


@repair(
    "pagedaemon-wait",
    "look for a request again once on the sleep queue",
    "vm_pageout_thread (vm_pageout.c:1897-1901)",
)
class DaemonWait(Pageout):
    """The page-out daemon looks again once it is on the sleep queue."""

    def daemon_sleep(self, timo: int) -> int:
        """The tsleep of vm_pageout_thread (vm_pageout.c:1899), interlocked."""
        k, ident = self.k, self.vm.idents.vm_pages_needed
        k.sleep.tsleep_interlock(ident)
        if self.pages_are_needed():
            return 0
        return k.sleep.tsleep(ident, PINTERLOCKED, "psleep", timo, cond=self.pages_are_needed)
