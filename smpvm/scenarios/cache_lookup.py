"""Reuse of a cached page in alloc against lookup of the same page.

Situation: no page is free except one in the cache, which still belongs to its object.  One thread
allocates, which takes that page from its object; another looks it up there.

Threads: ``user`` allocates for another object and writes to the page; ``finder`` looks the page up
in its object twice, waiting if it is busy, and reactivates it.

What must hold: a thread that finds the page sees the object's data; the page is reused only if no
thread has found it; no thread gets a page that is mapped, held, dirty or in an object.

C: vm_page_alloc, vm_page_select_cache, vm_page_list_find, vm_page_lookup_busy_wait,
vm_page_activate, vm_object_hold_try, vm_page_free_toq.
"""

from __future__ import annotations

from smpvm.scenarios.base import VmScenario, fixed
from smpvm.vm.page.struct import VM_ALLOC_NORMAL


class CacheLookup(VmScenario):
    """See the module."""

    name = "cache-lookup"
    title = "cache reuse in alloc against lookup of the same page"
    pages = 2
    finds = 2
    sizes = fixed(finds=1)

    def setup(self) -> None:
        """One cached page."""
        self.obj, self.other = self.object(), self.object()
        self.page(self.obj, 0, "cache", words={0: 1})
        self.waste(0)
        self.limits(free_reserved=1)
        self.thread("user", self.user)
        self.thread("finder", self.finder)

    def user(self) -> None:
        """Allocate, if possible."""
        vm = self.vm
        vm.object.hold(self.other)
        m = vm.page.alloc(self.other, 0, VM_ALLOC_NORMAL)
        if m is not None:
            vm.pmap.write_contents(m, {0: 9})
            m.valid = 0xFF
            vm.page.activate(m)
            vm.page.wakeup(m)
        vm.object.drop(self.other)

    def finder(self) -> None:
        """Look the page up."""
        objects, page = self.vm.object, self.vm.page
        for _ in range(self.finds):
            objects.hold(self.obj)
            m = page.lookup_busy_wait(self.obj, 0, True, "finder")
            objects.drop(self.obj)
            if m is None:
                return
            words = self.vm.pmap.read_contents(m)
            assert words == {0: 1}, f"{m} was found and holds {words}"
            page.activate(m)
            page.wakeup(m)
