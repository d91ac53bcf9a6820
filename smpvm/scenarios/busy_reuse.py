"""A wait for a busy page against free and reuse of the page.

Situation: the only available page belongs to an object, and its owner is about to free it and to
use it for another object.

Threads: ``owner`` busies the page, drops its object for a while, as around I/O, frees the page,
allocates it for another object and unbusies it; ``fault`` looks the page up as vm_fault_object
does, and if it is busy drops the object and sleeps until it is not.

What must hold: a thread that sleeps for the page is woken when the page is no longer busy.

Defect of the C: while the object is not held, the page may be freed and reallocated between the
look-up and vm_page_sleep_busy, which then marks the page of another object as wanted; vm_page_alloc
clears that mark with the page's other flags, and the sleeper is never woken (``alloc-wanted``).

C: vm_fault_object, vm_page_lookup_busy_try, vm_page_sleep_busy, vm_page_free_toq, vm_page_alloc,
vm_page_select_free, vm_page_wakeup.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario
from smpvm.vm.page.struct import VM_ALLOC_NORMAL


class BusyReuse(VmScenario):
    """See the module."""

    name = "busy-reuse"
    title = "a wait for a busy page against free and reuse of the page"
    repairs = ("alloc-wanted",)
    pages = 3

    def setup(self) -> None:
        """One page in use, none free."""
        self.obj, self.other = self.object(), self.object()
        self.m = self.page(self.obj, 0, words={0: 1})
        self.waste(0)
        self.limits(free_reserved=1, free_min=1, free_severe=1, free_target=1)
        self.thread("owner", self.owner)
        self.thread("fault", self.fault)

    def owner(self) -> None:
        """Free the page, and reuse it."""
        objects, page = self.vm.object, self.vm.page
        objects.hold(self.obj)
        m = page.lookup_busy_wait(self.obj, 0, True, "owner")
        assert m is self.m, f"looked up {m}"
        objects.drop(self.obj)  # as around any I/O
        objects.hold(self.obj)
        page.protect(self.m, 0)
        page.free(self.m)
        objects.drop(self.obj)
        objects.hold(self.other)
        m = page.alloc(self.other, 0, VM_ALLOC_NORMAL)
        assert m is self.m, f"allocated {m}"
        self.vm.pmap.write_contents(self.m, {0: 9})
        self.m.valid = 0xFF
        page.activate(self.m)
        page.wakeup(self.m)
        objects.drop(self.other)

    def fault(self) -> None:
        """Look the page up until it is found unbusied, or gone (vm_fault.c:1359-1374)."""
        objects, page = self.vm.object, self.vm.page
        while True:
            objects.hold_shared(self.obj)
            m, busy = page.lookup_busy_try(self.obj, 0, True)
            objects.drop(self.obj)
            if m is None:
                return
            if not busy:
                page.wakeup(m)
                return
            page.sleep_busy(m, True, "vmpfw")

    def check(self) -> None:
        """The page belongs to the other object."""
        assert self.m.object is self.other, "the page has not been reused"
