"""Fork and copy-on-write against page-out.

Situation: a process has one dirty page on the inactive queue.  It forks, and parent and child both
write to it, so that the page is copied, while the page-out daemon launders it.

Threads: ``parent`` forks, stores, reads back, waits for the child; the child reads what was there
before the fork, stores, reads back, exits; ``pagedaemon`` scans twice.

What must hold: each sees its own store and not the other's; nothing of the child is left.

Defect of the C: the parent's fault waits for a page that the child has just allocated, and is never
woken (``alloc-wanted``; one schedule in 70,000 shows it here, DPOR's 24th in busy-reuse).

C: vmspace_fork, vm_map_copy_entry, pmap_protect, vm_fault_object (the copy), vm_object_shadow,
vm_object_collapse, vm_pageout_clean, vm_pageout_flush, exit1, kern_wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.scenarios.base import VA, VmScenario, fixed

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc


class ForkPageout(VmScenario):
    """See the module."""

    name = "fork-pageout"
    title = "fork and copy-on-write against page-out"
    repairs = ("alloc-wanted",)
    pages = 8
    scans = 2
    sizes = fixed(scans=1)

    def setup(self) -> None:
        """One dirty inactive page, mapped."""
        self.p = self.process()
        self.map(self.p)
        self.write(self.p, VA, 1)
        self.to_inactive(self.page_at(self.p, VA))
        self.disks()
        self.pagedaemon(lambda: self.launder(self.scans))
        self.thread("parent", self.parent, process=self.p)

    def parent(self) -> None:
        """Fork, write, wait."""
        process = self.vm.process
        process.fork1(self.p, self.child, name="child")
        self.write(self.p, VA, 2)
        got = self.read(self.p, VA)
        assert got == 2, f"the parent stored 2 and reads {got}"
        process.wait(self.p)

    def child(self, q: Proc) -> None:
        """Read, write, read back."""
        got = self.read(q, VA)
        assert got == 1, f"the child reads {got}, before the fork it was 1"
        self.write(q, VA, 3)
        got = self.read(q, VA)
        assert got == 3, f"the child stored 3 and reads {got}"

    def check(self) -> None:
        """The page has the parent's store."""
        got = self.see(self.p, VA)
        assert got == 2, f"the page reads {got} at the end"
