"""The end of an object against those who allocate, and who wait for its pages.

Situation: a process exits; its object has a page that is being written out, a page that is clean,
and one in the cache.  Nothing else is free, and others need pages at once.

Threads: ``owner`` lets go of the last reference; ``user 1`` and ``user 2`` allocate a page each,
waiting for memory, write to it and look at it again; ``pagedaemon`` scans; the swap disk's thread
completes the write.

What must hold: no page is used again while it is busy, in I/O or in an object; each user's page
keeps what it wrote; nothing of the object is left.

True defects of the seed: ``clean-counted``, ``free-wait``.

C: vm_object_deallocate, vm_object_terminate and its callback, vm_page_free_toq, vm_page_alloc,
vm_page_select_free, vm_page_select_cache, vm_object_pip_wait, vm_pageout_clean,
swp_pager_async_iodone, vm_wait, vm_page_free_wakeup.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario
from smpvm.vm.page.struct import VM_ALLOC_NORMAL


class TerminateAlloc(VmScenario):
    """See the module."""

    name = "terminate-alloc"
    title = "the end of an object against allocation of its pages"
    repairs = ("clean-counted", "free-wait")
    pages = 4

    def setup(self) -> None:
        """The object's pages; none is free."""
        self.obj, self.own = self.object(swap=True), self.object()
        self.objects.remove(self.obj)
        self.page(self.obj, 0, words={0: 1}, dirty=True)
        self.page(self.obj, 1, words={0: 2})
        self.page(self.obj, 2, "cache", words={0: 3})
        self.waste(0)
        self.limits(free_reserved=1, free_severe=1, free_min=1, free_target=1)
        self.disks()
        self.pagedaemon(lambda: self.scan(pass_=1))
        self.thread("owner", self.vm.object.deallocate, self.obj)
        for i in range(2):
            self.thread(f"user {i + 1}", self.user, i)

    def user(self, pindex: int) -> None:
        """A page, with words in it."""
        vm = self.vm
        vm.object.hold(self.own)
        while (m := vm.page.alloc(self.own, pindex, VM_ALLOC_NORMAL)) is None:
            vm.page.vm_wait(0)
        vm.pmap.write_contents(m, {0: 10 + pindex})
        m.valid = 0xFF
        vm.object.drop(self.own)
        words = vm.pmap.read_contents(m)
        assert words == {0: 10 + pindex}, f"{m} is busy and holds {words}"
        vm.page.activate(m)
        vm.page.wakeup(m)

    def check(self) -> None:
        """What the users wrote is there."""
        for i in range(2):
            found = self._stored(self.own, i)
            assert found == (True, {0: 10 + i}), f"page {i}: {found}"
