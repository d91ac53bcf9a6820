"""Differences between what the C and the model did in one call, one short line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from smpvm.text import brief

PAGE_DEFAULTS: dict[str, Any] = {
    "object": None,
    "pindex": 0,
    "act_count": 0,
    "flags": [],
    "busy": 0,
    "hold_count": 0,
    "wire_count": 0,
    "valid": 0,
    "dirty": 0,
    "pmap": [],
}


class Difference(NamedTuple):
    """One field on which the C and the model disagree."""

    field: str
    kernel: Any
    ours: Any

    def __str__(self) -> str:
        kernel, ours = brief(repr(self.kernel), 120), brief(repr(self.ours), 120)
        return f"{self.field}: kernel {kernel}, ours {ours}"


def compare_state(kernel: dict[str, Any], ours: dict[str, Any]) -> Iterator[Difference]:
    """Every field in which the states differ."""
    for n, (a, b) in enumerate(_pairs(kernel["pages"], ours["pages"])):
        yield from compare_record(f"page {n}", _page(a), _page(b))
    yield from _compare_queues(kernel["queues"], ours["queues"])
    for part, name in (("objects", "object"), ("vnodes", "vnode"), ("maps", "map")):
        for n, (a, b) in enumerate(_pairs(kernel[part], ours[part])):
            yield from compare_record(f"{name} {n}", _record(a), _record(b))
    for a, b in _pairs(kernel["procs"], ours["procs"]):
        yield from compare_record(f"proc {(a or b)['pid']}", _record(a), _record(b))
    for part in ("vmstats", "phantom", "globals", "counters"):
        yield from compare_record(part, kernel[part], ours[part])


def _pairs(a: list[Any], b: list[Any]) -> Iterator[tuple[Any, Any]]:
    length = max(len(a), len(b))
    for n in range(length):
        yield (a[n] if n < len(a) else {}, b[n] if n < len(b) else {})


def _record(record: dict[str, Any]) -> dict[str, Any]:
    """Normalise: flags are sets, and a missing boolean is false."""
    found = {key: value for key, value in record.items() if value is not False}
    if isinstance(found.get("flags"), list):
        found["flags"] = sorted(found["flags"])
    return found


def _page(page: dict[str, Any]) -> dict[str, Any]:
    full = {**PAGE_DEFAULTS, **page}
    full["flags"] = sorted(full["flags"])
    full["pmap"] = [{k: v for k, v in pv.items() if v is not False} for pv in full["pmap"]]
    return full


def _compare_queues(kernel: dict[str, Any], ours: dict[str, Any]) -> Iterator[Difference]:
    for queue in dict.fromkeys([*kernel, *ours]):
        a, b = kernel.get(queue, {}), ours.get(queue, {})
        for colour in dict.fromkeys([*a, *b]):
            if a.get(colour, []) != b.get(colour, []):
                yield Difference(f"queue {queue}+{colour}", a.get(colour, []), b.get(colour, []))


def compare_record(
    where: str, kernel: dict[str, Any], ours: dict[str, Any]
) -> Iterator[Difference]:
    """Every key whose values differ."""
    for key in dict.fromkeys([*kernel, *ours]):
        if kernel.get(key) != ours.get(key):
            yield Difference(f"{where} {key}", kernel.get(key), ours.get(key))


def compare_events(
    kernel: list[dict[str, Any]], ours: list[dict[str, Any]]
) -> Iterator[Difference]:
    """The first event that differs; those after it differ as a consequence."""
    for n, (a, b) in enumerate(_pairs(kernel, ours)):
        if a != b:
            yield Difference(f"event {n} of {len(kernel)}", a or None, b or None)
            return


def compare_returns(kernel: dict[str, Any], ours: dict[str, Any]) -> Iterator[Difference]:
    """Every part of the result that differs."""
    yield from compare_record("returns", kernel, ours)
