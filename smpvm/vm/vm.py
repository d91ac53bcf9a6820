"""The VM of one machine: builds its subsystems and gives them access to each other.

Every subsystem is a class whose only argument is the ``Vm``; ``build.py`` names the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smpvm.config import Config
from smpvm.vm.param import QueueNumbers
from smpvm.vm.vmstats import Idents, VmGlobals, VmStats

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.fault.fault import Fault
    from smpvm.vm.map.maps import Maps
    from smpvm.vm.map.vmspace import VmSpaces
    from smpvm.vm.meter import Meter
    from smpvm.vm.object.objects import Objects, VmObject
    from smpvm.vm.page.pages import Page, Pages
    from smpvm.vm.page.queues import PageQueue
    from smpvm.vm.pageout.daemon import Pageout
    from smpvm.vm.pageout.vmdaemon import VmDaemon
    from smpvm.vm.pager.pagers import Pagers
    from smpvm.vm.pager.swap import SwapPager
    from smpvm.vm.pager.syncer import Syncer
    from smpvm.vm.pager.vnode import VnodePager
    from smpvm.vm.pmap.pmaps import Pmaps
    from smpvm.vm.proc.glue import Glue
    from smpvm.vm.proc.process import Processes


class Vm:
    """One machine's VM; attributes are its subsystems."""

    meter: Meter
    page: Pages
    pmap: Pmaps
    object: Objects
    swap: SwapPager
    vnode_pager: VnodePager
    pager: Pagers
    map: Maps
    vmspace: VmSpaces
    fault: Fault
    process: Processes
    glue: Glue
    syncer: Syncer
    vmdaemon: VmDaemon
    pageout: Pageout

    queues: list[PageQueue]
    """Indexed by queue number; filled by Pages."""
    page_array: list[Page]
    """Every physical page by index; filled by Pages (vm_page_startup)."""
    kernel_object: VmObject
    """Made by Objects."""

    def __init__(self, kernel: Kernel, config: Config, subsystems: Mapping[str, type]) -> None:
        """*subsystems*: attribute → class, in the order of construction."""
        self.k = kernel
        self.config = config
        self.sysctl = config.sysctl
        self.pq = QueueNumbers(config.pq_l2_size, config.pq_set_assoc)
        self.stats: VmStats = kernel.new(VmStats)
        self.glob: VmGlobals = kernel.new(VmGlobals)
        self.idents = Idents()
        self.queues = []
        self.page_array = []
        for name, cls in subsystems.items():
            made: Any = kernel.new(cls, self) if hasattr(cls, "__guards__") else cls(self)
            setattr(self, name, made)
        for observer in kernel.probe.observers:
            observer.attach_vm(self)
