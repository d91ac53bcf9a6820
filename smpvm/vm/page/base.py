"""The state and helpers that every layer of the page subsystem shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, own
from smpvm.vm.page.struct import Page
from smpvm.vm.param import i32

if TYPE_CHECKING:
    from smpvm.vm.vm import Vm


class PageBase:
    """Short names for the machine's parts, the queue numbers, and atomic updates of m->flags."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = k = vm.k
        self.atomic = k.atomic
        self.stats = vm.stats
        self.glob = vm.glob
        self.queues = vm.queues
        self.pool = k.spin_pool
        pq = vm.pq
        self.FREE, self.INACTIVE, self.ACTIVE = pq.FREE, pq.INACTIVE, pq.ACTIVE
        self.CACHE, self.HOLD = pq.CACHE, pq.HOLD

    @c("vm_page_flag_set", "vm_page2.h:256-260")
    def flag_set(self, m: Page, bits: int) -> None:
        """vm_page_flag_set, vm_page2.h:256-260 (atomic)."""
        self.atomic.set_int(m, "flags", bits)

    @c("vm_page_flag_clear", "vm_page2.h:262-266")
    def flag_clear(self, m: Page, bits: int) -> None:
        """vm_page_flag_clear, vm_page2.h:262-266 (atomic)."""
        self.atomic.clear_int(m, "flags", bits)

    @own
    def bump_heuristic(self) -> None:
        """++vm_swapcache_inactive_heuristic (a plain C int, not atomic)."""
        glob = self.glob
        glob.vm_swapcache_inactive_heuristic = i32(glob.vm_swapcache_inactive_heuristic + 1)
