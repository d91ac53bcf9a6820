"""Two mlocks, and a munmap or mprotect, of one range; wiring that fails.

Situation: a process has a mapping of three pages, the last of which may not be accessed in the
second scenario.  Its threads wire overlapping parts of it, which lets go of the map while pages are
faulted in; what is in transition meanwhile may not be changed by others, who wait.

Threads: ``locker 1`` locks all, then unlocks it; ``locker 2`` locks and unlocks the middle;
``mapper`` unmaps the last page (makes it read-only).

What must hold: nobody waits for ever; wired counts of entries, mappings and pages agree, and
nothing stays wired that is not mapped; who failed has wired nothing.

True defect of the seed: see ``map-token``.

C: sys_mlock, sys_munlock, vm_map_unwire, vm_map_clip_range, vm_map_unclip_range,
vm_map_transition_wait, vm_fault_wire, vm_fault_unwire, vm_map_delete, sys_munmap, vm_map_protect.
"""

from __future__ import annotations

from smpvm.config import PAGE_SIZE
from smpvm.scenarios.base import VA, VmScenario, fixed
from smpvm.vm.param import VM_PROT_NONE


class MlockTwo(VmScenario):
    """See the module."""

    name = "mlock-two"
    title = "two mlocks and a munmap of one range"
    sysctls = fixed(page_max_wired=64)
    pages = 8

    def setup(self) -> None:
        """Three pages, one of them touched."""
        self.p = self.process()
        self.map(self.p, pages=3)
        self.write(self.p, VA, 1)
        self.start()
        self.thread("locker 1", self.locker, 0, 3, process=self.p)
        self.thread("locker 2", self.locker, 1, 1, process=self.p)

    def start(self) -> None:
        """The third thread."""
        self.thread("mapper", self.mapper, process=self.p)

    def locker(self, first: int, n: int) -> None:
        """mlock, munlock; either may fail if the range is not all there, or not all locked."""
        sys, va = self.vm.process.sys, VA + first * PAGE_SIZE
        if sys.mlock(self.p, va, n * PAGE_SIZE) == 0:
            sys.munlock(self.p, va, n * PAGE_SIZE)

    def mapper(self) -> None:
        """munmap."""
        sys = self.vm.process.sys
        assert sys.munmap(self.p, VA + 2 * PAGE_SIZE, PAGE_SIZE) == 0, "munmap failed"

    def check(self) -> None:
        """The first page is as it was."""
        assert self.see(self.p, VA) == 1, "the first page is lost"


class MlockFails(MlockTwo):
    """The last page may not be accessed: wiring it fails, and is undone."""

    name = "mlock-fails"
    title = "two mlocks of one range, the wiring of which fails"

    def start(self) -> None:
        """Made so before."""
        sys, va = self.vm.process.sys, VA + 2 * PAGE_SIZE
        assert sys.mprotect(self.p, va, PAGE_SIZE, VM_PROT_NONE) == 0
