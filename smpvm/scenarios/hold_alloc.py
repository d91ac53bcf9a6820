"""Hold, free and unhold against allocation.

Situation: no page is free.  One thread holds a page (vm_fault_page) to read it, as a system call
does with a user buffer; another frees that page meanwhile; a third needs a page and waits for it.

Threads: ``holder`` reads the held page three times and unholds it; ``freer`` frees it; ``user``
allocates, waiting with vm_wait, and writes to the page that it gets.

What must hold: the page is not reused while it is held; it is free after the last unhold, and the
thread that waits for memory gets it, and not because its timeout expired.

Defects of the C: vm_page_unhold moves the page to the free queue without a wakeup
(``unhold-wakeup``); vm_wait may miss the wakeup (``free-wait``).

C: vm_page_hold, vm_page_unhold, vm_page_free_toq, vm_page_alloc, vm_page_select_free, vm_wait,
vm_page_free_wakeup.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario
from smpvm.vm.page.struct import VM_ALLOC_NORMAL


class HoldAlloc(VmScenario):
    """See the module."""

    name = "hold-alloc"
    title = "hold/free/unhold against allocation"
    repairs = ("free-wait", "unhold-wakeup")
    pages = 3
    looks = 3

    def setup(self) -> None:
        """One page in use, none free."""
        self.obj, self.other, self.third = self.object(), self.object(), self.object()
        self.m = self.page(self.obj, 0, words={0: 1})
        self.vm.page.hold(self.m)
        self.waste(0)
        self.limits(free_reserved=1, free_min=1, free_severe=1, free_target=1)
        self.thread("holder", self.holder)
        self.thread("freer", self.freer)
        self.thread("user", self.user)

    def holder(self) -> None:
        """What a caller of vm_fault_page does with the held page."""
        for _ in range(self.looks):
            words = self.vm.pmap.read_contents(self.m)
            assert words == {0: 1}, f"{self.m} is held and holds {words}"
            self.vm.object.hold(self.third)
            self.vm.object.drop(self.third)
        self.vm.page.unhold(self.m)

    def freer(self) -> None:
        """Free the page."""
        objects, page = self.vm.object, self.vm.page
        objects.hold(self.obj)
        m = page.lookup_busy_wait(self.obj, 0, True, "freer")
        if m is not None:
            page.protect(m, 0)
            page.free(m)
        objects.drop(self.obj)

    def user(self) -> None:
        """Allocate and write."""
        vm = self.vm
        vm.object.hold(self.other)
        while (m := vm.page.alloc(self.other, 0, VM_ALLOC_NORMAL)) is None:
            vm.page.vm_wait(0)
        vm.pmap.write_contents(m, {0: 9})
        m.valid = 0xFF
        vm.page.activate(m)
        vm.page.wakeup(m)
        vm.object.drop(self.other)

    def check(self) -> None:
        """The page belongs to the other object."""
        assert self.m.object is self.other, "the waiting thread did not get the page"
