"""The hooks of shared fields on a serial carrier: a schedule point, then the observers.

While the boot thread runs alone (``inert``: set-up, audits) no race is possible, and the observers
are not called.
"""

from __future__ import annotations

from typing import Any, Final

from smpvm.host.carrier import READ, WRITE
from smpvm.kern.cname import SKIP
from smpvm.kern.shared import Hook, peek, poke

FRAMES: Final = SKIP


def serial_hook(carrier: Any, seen: Hook | None) -> Hook:
    """The hook for *carrier*; *seen* calls the observers, None if they do not listen."""
    if not carrier.access_points:
        return _no_points(carrier, seen)
    read, write = (None, None) if seen is None else (seen.read, seen.write)
    if getattr(carrier, "drain", None) is not None:
        carrier.memory(peek, poke)
        return Hook(carrier.buffered_load(read), carrier.buffered_store(write), carrier.own)
    points = carrier.access_points_of
    return Hook(points(READ, read, peek), points(WRITE, write, peek))


def _no_points(carrier: Any, seen: Hook | None) -> Hook:
    """Granularity ``sync``: an access is part of the step that contains it."""
    touched = carrier.touched

    def read(obj: Any, field: str) -> None:
        if seen is not None and not carrier.inert:
            seen.read(obj, field)

    def write(obj: Any, field: str, new: Any) -> None:
        if not carrier.inert:
            if seen is not None:
                seen.write(obj, field, new)
            if peek(obj, field) != new:
                touched(obj)

    return Hook(read, write)
