"""The hooks of shared fields on a serial carrier: a schedule point, then the observers' look.

Taken at every access of every shared field, so each case has its own, with nothing in it that the
case does not need.  While the boot thread runs alone (``inert``: set-up, audits) nothing can race
with it, and nobody looks.
"""

from __future__ import annotations

from typing import Any

from smpvm.host.carrier import READ, WRITE
from smpvm.kern.shared import Hook


def serial_hook(carrier: Any, seen: Hook | None) -> Hook:
    """The hook for *carrier*; *seen* is what the observers ask, None if they do not."""
    if carrier.access_points:
        return _bare_points(carrier) if seen is None else _seen_points(carrier, seen)
    return _no_points(carrier, seen)


def _bare_points(carrier: Any) -> Hook:
    point, awaiting, wrote = carrier.access_points_of(WRITE), carrier.awaiting, carrier.wrote

    def write(obj: Any, field: str, new: Any) -> None:
        point(obj, field)
        if awaiting:
            wrote(obj)

    return Hook(carrier.access_points_of(READ), write)


def _seen_points(carrier: Any, seen: Hook) -> Hook:
    point_read, point_write = carrier.access_points_of(READ), carrier.access_points_of(WRITE)
    seen_read, seen_write = seen.read, seen.write
    awaiting, wrote = carrier.awaiting, carrier.wrote

    def read(obj: Any, field: str) -> None:
        if carrier.inert:
            if carrier.stopping:
                point_read(obj, field)
            return
        point_read(obj, field)
        seen_read(obj, field)

    def write(obj: Any, field: str, new: Any) -> None:
        if carrier.inert:
            if carrier.stopping:
                point_write(obj, field)
            return
        point_write(obj, field)
        seen_write(obj, field, new)
        if awaiting:
            wrote(obj)

    return Hook(read, write)


def _no_points(carrier: Any, seen: Hook | None) -> Hook:
    """Granularity ``sync``: an access is part of the step that it is in."""
    touched = carrier.touched

    def read(obj: Any, field: str) -> None:
        if seen is not None and not carrier.inert:
            seen.read(obj, field)

    def write(obj: Any, field: str, new: Any) -> None:
        if not carrier.inert:
            if seen is not None:
                seen.write(obj, field, new)
            touched(obj)

    return Hook(read, write)
