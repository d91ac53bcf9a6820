"""The VM of one machine: builds its subsystems and lets each find the others.

Every subsystem is a class that takes the ``Vm`` and nothing else.  ``compose`` builds the class for
each of them from overrides (repairs, museum entries, a conformance script): a subclass that is
mixed in front of the model's own, so that the kernel code itself holds no switches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from smpvm.config import Config
from smpvm.vm.param import QueueNumbers
from smpvm.vm.vmstats import Idents, VmGlobals, VmStats

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.fault import Fault
    from smpvm.vm.glue import Glue
    from smpvm.vm.map import Maps
    from smpvm.vm.meter import Meter
    from smpvm.vm.object import Objects, VmObject
    from smpvm.vm.page import Page, Pages
    from smpvm.vm.pageout import Pageout
    from smpvm.vm.pageq import PageQueue
    from smpvm.vm.pager import Pagers
    from smpvm.vm.pmap import Pmaps
    from smpvm.vm.process import Processes
    from smpvm.vm.swap_pager import SwapPager
    from smpvm.vm.syncer import Syncer
    from smpvm.vm.vmdaemon import VmDaemon
    from smpvm.vm.vnode_pager import VnodePager


def default_classes() -> dict[str, type]:
    """Attribute of ``Vm`` → the model's class for it, in the order of construction."""
    from smpvm.vm.fault import Fault
    from smpvm.vm.glue import Glue
    from smpvm.vm.map import Maps
    from smpvm.vm.meter import Meter
    from smpvm.vm.object import Objects
    from smpvm.vm.page import Pages
    from smpvm.vm.pageout import Pageout
    from smpvm.vm.pager import Pagers
    from smpvm.vm.pmap import Pmaps
    from smpvm.vm.process import Processes
    from smpvm.vm.swap_pager import SwapPager
    from smpvm.vm.syncer import Syncer
    from smpvm.vm.vmdaemon import VmDaemon
    from smpvm.vm.vnode_pager import VnodePager

    return {
        "meter": Meter,
        "page": Pages,
        "pmap": Pmaps,
        "object": Objects,
        "swap": SwapPager,
        "vnode_pager": VnodePager,
        "pager": Pagers,
        "map": Maps,
        "fault": Fault,
        "process": Processes,
        "glue": Glue,
        "syncer": Syncer,
        "vmdaemon": VmDaemon,
        "pageout": Pageout,
    }


def compose(overrides: Iterable[type]) -> dict[str, type]:
    """The class for each subsystem, with *overrides* mixed in front (the first is outermost).

    An override is a subclass of exactly one subsystem class.  Raises TypeError otherwise.
    """
    classes = default_classes()
    mixins: dict[str, list[type]] = {name: [] for name in classes}
    for override in overrides:
        homes = [name for name, base in classes.items() if issubclass(override, base)]
        if len(homes) != 1:
            raise TypeError(f"{override.__name__} overrides no subsystem of the VM")
        mixins[homes[0]].append(override)
    for name, found in mixins.items():
        if len(found) == 1:
            classes[name] = found[0]
        elif found:
            classes[name] = type(classes[name].__name__, tuple(found), {})
    return classes


class Vm:
    """One machine's VM; attributes are the subsystems named in ``default_classes``."""

    meter: Meter
    page: Pages
    pmap: Pmaps
    object: Objects
    swap: SwapPager
    vnode_pager: VnodePager
    pager: Pagers
    map: Maps
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

    def __init__(
        self, kernel: Kernel, config: Config, classes: Mapping[str, type] | None = None
    ) -> None:
        self.k = kernel
        self.config = config
        self.sysctl = config.sysctl
        self.pq = QueueNumbers(config.pq_l2_size, config.pq_set_assoc)
        self.stats: VmStats = kernel.new(VmStats)
        self.glob: VmGlobals = kernel.new(VmGlobals)
        self.idents = Idents()
        self.queues = []
        self.page_array = []
        for name, cls in (classes or default_classes()).items():
            made: Any = cls(self)
            setattr(self, name, made)
