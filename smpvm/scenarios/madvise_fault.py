"""madvise and removal of pages, against faults and page-out.

Situation: a process has two dirty inactive pages.  One of its threads says that it does not need
what they hold (MADV_FREE, MADV_DONTNEED, MADV_WILLNEED; in the last scenario it unmaps one of
them), then stores to the first; another one reads meanwhile.

Threads: ``adviser`` calls madvise for both pages, stores to the first, reads it back; ``reader``
reads both; ``pagedaemon`` scans twice; the swap disk completes writes.

What must hold: what was stored behind the call is kept; what was there before reads as it was, or
(MADV_FREE only) as zeros; counts of pages and of swap are true.

C: sys_madvise, vm_map_madvise, vm_object_madvise, vm_page_dontneed, pmap_object_init_pt,
swap_pager_freespace, sys_munmap, vm_map_delete, vm_object_page_remove and its callback, vm_fault,
vm_pageout_scan_inactive.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario, fixed
from smpvm.vm.param import MADV_DONTNEED, MADV_FREE, MADV_WILLNEED


class MadviseFree(VmScenario):
    """See the module."""

    name = "madvise-free"
    title = "MADV_FREE against faults and page-out"
    advice = MADV_FREE
    before: tuple[int, ...] = (0, 1)
    """What an old page may read."""
    scans = 2
    sizes = fixed(scans=1)

    def setup(self) -> None:
        """Two dirty inactive pages, mapped."""
        self.p = self.process()
        self.map(self.p, pages=3)
        for i in range(3):
            self.write(self.p, VA + i * PAGE_SIZE, 1)
        for i in range(2):
            self.to_inactive(self.page_at(self.p, VA + i * PAGE_SIZE))
        self.disks()
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("adviser", self.adviser, process=self.p)
        self.thread("reader", self.reader, process=self.p)

    def adviser(self) -> None:
        """Advise, store, read back."""
        self.advise()
        self.write(self.p, VA, 5)
        assert self.read(self.p, VA) == 5, "a store behind the advice is lost"

    def advise(self) -> None:
        """The call."""
        sys = self.vm.process.sys
        assert sys.madvise(self.p, VA, 2 * PAGE_SIZE, self.advice) == 0, "madvise failed"

    def reader(self) -> None:
        """Both pages."""
        got = [self.read(self.p, VA + i * PAGE_SIZE) for i in (1, 0)]
        assert got[0] in self.before, f"page 1 reads {got[0]}"
        assert got[1] in (*self.before, 5), f"page 0 reads {got[1]}"

    def check(self) -> None:
        """The store, and the page that nobody spoke of."""
        got = [self.see(self.p, VA + i * PAGE_SIZE) for i in range(3)]
        assert got in ([5, old, 1] for old in self.before), f"the pages read {got}"


class MadviseDontneed(MadviseFree):
    """The data are kept."""

    name = "madvise-dontneed"
    title = "MADV_DONTNEED against faults and page-out"
    advice = MADV_DONTNEED
    before = (1,)


class MadviseWillneed(MadviseDontneed):
    """Pages are mapped ahead."""

    name = "madvise-willneed"
    title = "MADV_WILLNEED against faults and page-out"
    advice = MADV_WILLNEED


class MunmapPart(MadviseDontneed):
    """Part of a mapping goes, and with it those pages of the object and their swap."""

    name = "munmap-part"
    title = "munmap of part of an object against faults and page-out"

    def advise(self) -> None:
        """The third page."""
        sys = self.vm.process.sys
        assert sys.munmap(self.p, VA + 2 * PAGE_SIZE, PAGE_SIZE) == 0, "munmap failed"

    def setup(self) -> None:
        """It is dirty and inactive, too."""
        super().setup()
        self.to_inactive(self.page_at(self.p, VA + 2 * PAGE_SIZE))

    def check(self) -> None:
        """The two that are left."""
        got = [self.see(self.p, VA + i * PAGE_SIZE) for i in range(2)]
        assert got == [5, 1], f"the pages read {got}"
        obj = self.object_at(self.p, VA)
        assert not self._stored(obj, 2)[0], "the unmapped page is left"
