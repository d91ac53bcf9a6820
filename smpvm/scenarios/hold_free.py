"""A page that is held for the kernel's own use, against its owner that gives it up.

Situation: the kernel looks at a page of a process, as for ptrace or a raw device: vm_fault_page
finds it and holds it.  The process unmaps the page, or exits, and somebody needs a page.

Threads: ``holder`` faults the page in, reads it twice, unholds it; ``owner`` munmaps (in the second
scenario: stores, so that the page is copied after a fork); ``user`` allocates a page and writes to
it; in the third scenario the page-out daemon scans instead.

What must hold: while it is held the page keeps what it held, whoever has it in the meantime; it is
free when the last hold goes; no page is lost between the queues.

C: vm_fault_page, vm_fault_object, pmap_fault_page_quick, vm_page_hold, vm_page_unhold,
vm_page_free_toq, vm_page_alloc, vm_pageout_scan_inactive, vm_page_cache.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario
from smpvm.vm.fault.state import VM_FAULT_NORMAL
from smpvm.vm.page.struct import VM_ALLOC_NORMAL
from smpvm.vm.param import VM_PROT_READ


class HoldMunmap(VmScenario):
    """See the module."""

    name = "hold-munmap"
    title = "vm_fault_page and its hold against munmap and allocation"
    pages = 3
    free = 0
    """Pages that are free."""

    def setup(self) -> None:
        """A process with one page."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.other = self.object()
        self.waste(self.free)
        self.limits(free_reserved=1)
        self.disks()
        self.thread("holder", self.holder)
        self.thread("owner", self.owner, process=self.p)
        self.start()

    def start(self) -> None:
        """Somebody who needs a page."""
        self.thread("user", self.user)

    def holder(self) -> None:
        """What procfs and vmapbuf do."""
        vm = self.vm
        m, _ = vm.fault.page(self.p.p_vmspace.vm_map, VA, VM_PROT_READ, VM_FAULT_NORMAL)
        if m is None:
            return
        for _ in range(2):
            words = vm.pmap.read_contents(m)
            assert words in self.allowed(), f"{m} is held and holds {words}"
        vm.page.unhold(m)

    def allowed(self) -> list[dict[int, int]]:
        """What the page may hold."""
        return [{0: 1}]

    def owner(self) -> None:
        """Unmap it."""
        assert self.vm.process.sys.munmap(self.p, VA, PAGE_SIZE) == 0, "munmap failed"

    def user(self) -> None:
        """A page, if there is one."""
        vm = self.vm
        for i in range(2):
            vm.object.hold(self.other)
            m = vm.page.alloc(self.other, i, VM_ALLOC_NORMAL)
            if m is not None:
                vm.pmap.write_contents(m, {0: 9})
                m.valid = 0xFF
                vm.page.activate(m)
                vm.page.wakeup(m)
            vm.object.drop(self.other)


class HoldPageout(HoldMunmap):
    """The page-out daemon scans, and the owner stores."""

    name = "hold-pageout"
    title = "vm_fault_page and its hold against page-out and stores"
    pages = 4
    free = 2

    def start(self) -> None:
        """The page is dirty, inactive, and not mapped."""
        self.to_inactive(self.page_at(self.p, VA), unmap=True)
        self.pagedaemon(lambda: self.launder(2))

    def allowed(self) -> list[dict[int, int]]:
        """Before the store and behind it."""
        return [{0: 1}, {0: 2}]

    def owner(self) -> None:
        """Store."""
        self.write(self.p, VA, 2)

    def check(self) -> None:
        """The store."""
        assert self.see(self.p, VA) == 2, "the store is lost"
