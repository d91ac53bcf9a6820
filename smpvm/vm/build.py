"""The class of each subsystem of the VM, and how changes are put in front of them.

A *change* is a subclass of exactly one subsystem class: a repair, a museum entry, a user's own
change, a conformance script.  The kernel code itself contains no switches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from smpvm.config import Config
from smpvm.kern.cname import MARKS
from smpvm.kern.kernel import Kernel
from smpvm.vm.fault.fault import Fault
from smpvm.vm.map.maps import Maps
from smpvm.vm.map.vmspace import VmSpaces
from smpvm.vm.meter import Meter
from smpvm.vm.object.objects import Objects
from smpvm.vm.page.pages import Pages
from smpvm.vm.pageout.daemon import Pageout
from smpvm.vm.pageout.vmdaemon import VmDaemon
from smpvm.vm.pager.pagers import Pagers
from smpvm.vm.pager.swap import SwapPager
from smpvm.vm.pager.syncer import Syncer
from smpvm.vm.pager.vnode import VnodePager
from smpvm.vm.pmap.pmaps import Pmaps
from smpvm.vm.proc.glue import Glue
from smpvm.vm.proc.process import Processes
from smpvm.vm.vm import Vm

SUBSYSTEMS: Mapping[str, type] = {
    "meter": Meter,
    "page": Pages,
    "pmap": Pmaps,
    "object": Objects,
    "swap": SwapPager,
    "vnode_pager": VnodePager,
    "pager": Pagers,
    "map": Maps,
    "vmspace": VmSpaces,
    "fault": Fault,
    "process": Processes,
    "glue": Glue,
    "syncer": Syncer,
    "vmdaemon": VmDaemon,
    "pageout": Pageout,
}
"""Attribute of ``Vm`` → the model's class for it, in the order of construction."""


class Change:
    """The mark of a change that a user writes: kernel code of one's own in front of the model's.

    ::

        from smpvm import Change
        from smpvm.vm.page.pages import Pages

        class NoHold(Change, Pages):
            "vm_page_unhold forgets the page."

            def unhold(self, m):
                ...

    ``Change`` comes first, then the one subsystem that is changed; ``super()`` is the model's code.
    What is no change of exactly one subsystem is refused where the class is written (TypeError).
    It goes into ``VmScenario.changes``, ``Machine(config, changes=...)`` or ``build_vm``, which
    take unmarked subclasses of a subsystem as well.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        changed(cls)


def changed(change: type) -> str:
    """The attribute of ``Vm`` whose class *change* is a subclass of.

    Raises TypeError for what is a subclass of no subsystem, or of several.
    """
    homes = [name for name, base in SUBSYSTEMS.items() if issubclass(change, base)]
    if len(homes) != 1:
        which = " and ".join(SUBSYSTEMS[name].__name__ for name in homes) or "none"
        known = ", ".join(cls.__name__ for cls in SUBSYSTEMS.values())
        raise TypeError(
            f"{change.__name__}: a change is a subclass of exactly one subsystem of the VM, not of "
            f"{which}; there are {known}"
        )
    return homes[0]


def compose(changes: Iterable[type]) -> dict[str, type]:
    """The class for each subsystem, with *changes* in front (the first is outermost).

    Raises TypeError for a change that is a subclass of no subsystem, or of more than one.
    """
    ahead: dict[str, list[type]] = {name: [] for name in SUBSYSTEMS}
    for change in changes:
        if not isinstance(change, type):
            raise TypeError(f"{change!r}: a change is a class")
        ahead[changed(change)].append(change)
        MARKS.adopt(change)
    subsystems = dict(SUBSYSTEMS)
    for name, found in ahead.items():
        if len(found) == 1:
            subsystems[name] = found[0]
        elif found:
            subsystems[name] = type(subsystems[name].__name__, tuple(found), {})
    return subsystems


def build_vm(k: Kernel, config: Config, changes: Iterable[type] = ()) -> Vm:
    """Build the VM of one machine, with *changes* in front of its subsystems."""
    return Vm(k, config, compose(changes))
