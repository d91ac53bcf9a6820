"""Named repairs of the kernel's own defects, off by default: the default model is the kernel.

A repair is a subclass of exactly one subsystem of the VM that overrides the few methods where the
defect is; ``vm.compose`` mixes it in front of the model's own.  Each lives in a module here and is
listed in ``REPAIRS``: name, one-line title, where the defect is, the class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from smpvm.config import ConfigError
from smpvm.vm.repairs.msync import MsyncRange
from smpvm.vm.repairs.swap import BufferWakeup, SwapErrorHold
from smpvm.vm.repairs.vmdaemon import SwapoutAsk, SwapoutTake


@dataclass(frozen=True)
class Repair:
    """One repair.  *where*: the C function and its lines, ``vm_clean (vm_pageout.c:1-2)``."""

    name: str
    title: str
    where: str
    override: type


_ALL = (
    Repair(
        "swap-error-hold",
        "hold the object when a failed asynchronous swap write forgets its blocks",
        "swp_pager_async_iodone (swap_pager.c:1831)",
        SwapErrorHold,
    ),
    Repair(
        "buffer-wakeup",
        "wake who sleeps for an I/O buffer at the first free one, not at the second",
        "relpbuf (vm_pager.c:659)",
        BufferWakeup,
    ),
    Repair(
        "msync-range",
        "let msync of a part of a file write it",
        "vm_object_page_clean (vm_object.c:1350-1370)",
        MsyncRange,
    ),
    Repair(
        "swapout-ask",
        "ask for a swap-out before waking the swap daemon, and atomically",
        "vm_pageout_scan_cache (vm_pageout.c:1495-1496)",
        SwapoutAsk,
    ),
    Repair(
        "swapout-take",
        "lose no request for a swap-out: look before sleeping, take it in one step",
        "vm_daemon, vm_req_vmdaemon (vm_pageout.c:2110-2144)",
        SwapoutTake,
    ),
)

REPAIRS: MappingProxyType[str, Repair] = MappingProxyType({r.name: r for r in _ALL})
"""Every repair by name."""


def choose(names: Iterable[str]) -> list[Repair]:
    """The repairs called *names*; ``all`` is every one.  Raises ConfigError."""
    chosen: dict[str, Repair] = {}
    for name in names:
        if name == "all":
            chosen.update(REPAIRS)
        elif name in REPAIRS:
            chosen[name] = REPAIRS[name]
        else:
            known = ", ".join(["all", *REPAIRS])
            raise ConfigError(f"repair {name}: unknown; known are {known}")
    return list(chosen.values())
