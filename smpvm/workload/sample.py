"""Statistics of a running machine, sampled once a second."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smpvm.kern.proc import P_SWAPPEDOUT

if TYPE_CHECKING:
    from smpvm.machine import Machine


@dataclass
class Sample:
    """Statistics of one moment.  *counters* count since boot; the others are current values."""

    seconds: float = 0.0
    """Host seconds since the run began."""
    runnable: int = 0
    blocked: int = 0
    """Processes waiting for pages or a disk."""
    swapped: int = 0
    active_virtual: int = 0
    """Resident pages of all processes."""
    free: int = 0
    """Free and cached pages."""
    host_cpu: tuple[float, float] = (0.0, 0.0)
    """Host seconds of CPU used by this program so far: user, system."""
    counters: Mapping[str, int] = field(default_factory=dict)


def look(machine: Machine) -> Sample:
    """Sample *machine*.

    Takes no lock of the model and does not block, so the numbers may be from slightly different
    moments.  Any host thread may call it.
    """
    with machine.k.quietly():
        return _look(machine)


def _look(machine: Machine) -> Sample:
    runnable = blocked = swapped = resident = 0
    for td in machine.k.live_threads():
        if td.proc is None:
            continue
        sleeper = td.sleeper
        if sleeper is None or not sleeper.asleep:
            runnable += 1
        elif not sleeper.wmesg.startswith("user"):
            blocked += 1
        if td.proc.p_flags & P_SWAPPEDOUT:
            swapped += 1
        space = td.proc.p_vmspace
        if space is not None:
            resident += space.vm_pmap.resident_count
    stats = machine.vm.stats
    times = os.times()
    return Sample(
        time.monotonic() - machine.started,
        runnable,
        blocked,
        swapped,
        resident,
        stats.v_free_count + stats.v_cache_count,
        (times.user, times.system),
        machine.k.counts(),
    )
