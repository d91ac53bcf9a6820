"""Two and four page colors: pages are taken from another color's queue, scans go over all queues.

Situation: each color has free, cache, inactive and active queues of its own.  Of the colors that
two processes fault for, not all have a free page; the page-out daemon, which is short, scans queue
by queue, beginning each round at another one, and the statistics scan goes over the active ones.

Threads: ``user 1`` and ``user 2`` store to two new pages each and read them back; ``pagedaemon``
runs its rounds; the swap disk completes writes.  With four colors, there is one page of each kind.

What must hold: a page stays on a queue of its own color; counts are true; everybody gets a page,
and no store is lost.

True defects of the seed: the waits of low-memory.

C: vm_page_alloc, vm_page_get_pg_color, vm_page_list_find, _vm_page_list_find_wide,
vm_page_select_free, vm_page_select_cache, vm_pageout_thread, PQAVERAGE, vm_pageout_scan_inactive,
vm_pageout_scan_active, vm_pageout_scan_cache, vm_pageout_page_stats.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario
from smpvm.scenarios.severe_memory import WAITS


class ColorsTwo(VmScenario):
    """See the module."""

    name = "colors-two"
    title = "two page colors: faults and page-out over several queues"
    repairs = WAITS
    pages = 8
    colors = 2

    def setup(self) -> None:
        """Pages of every kind, in both colors; few free."""
        self.obj = self.object(swap=True)
        self.page(self.obj, 0, words={0: 1}, dirty=True)
        self.page(self.obj, 1, words={0: 2})
        self.page(self.obj, 2, "active", words={0: 3}, dirty=True)
        self.page(self.obj, 3, "cache", words={0: 4})
        for i in (1, 3):
            self.swapped(self.obj, i, {0: i + 1})
        self.waste(2)
        self.limits(free_reserved=1, free_severe=1, free_min=2, free_target=3, inactive_target=3)
        self.limits(pageout_free_min=1, interrupt_free_min=0)
        self.disks()
        self.pagedaemon()
        self.users = [self.process(), self.process()]
        for i, p in enumerate(self.users):
            self.map(p, pages=2)
            self.thread(f"user {i + 1}", self.user, i, process=p)

    def user(self, i: int) -> None:
        """Two new pages."""
        p = self.users[i]
        for n in range(2):
            self.write(p, VA + n * PAGE_SIZE, 10 * i + n + 1)
        got = [self.read(p, VA + n * PAGE_SIZE) for n in range(2)]
        assert got == [10 * i + 1, 10 * i + 2], f"user {i + 1} reads {got}"

    def check(self) -> None:
        """What was there before is there."""
        got = [self._stored(self.obj, i)[1].get(0) for i in range(4)]
        assert got == [1, 2, 3, 4], f"the pages hold {got}"


class ColorsFour(ColorsTwo):
    """Four."""

    name = "colors-four"
    title = "four page colors: faults and page-out over several queues"
    colors = 4
