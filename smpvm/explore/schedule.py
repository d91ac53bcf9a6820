"""A schedule as text: compact enough for a bug report, and able to say where it stopped fitting.

``s1/access/0.1.0/-/1x4~3f.2x2~a0/lost-update``: the version of the form, granularity, version of
smpvm, repairs (``-`` for none, else joined by ``+``), the runs, and the scenario.  A run is the
thread, the number of its steps, and a checksum over what those steps were.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import smpvm
from smpvm.host.strand import AWAIT, CLOCK, Op

VERSION = "s1"
MOST_STEPS = 10_000_000
"""No execution is longer, by far."""
_RUN = re.compile(r"(\d+)x([1-9]\d*)~([0-9a-f]{2})")


class ScheduleError(ValueError):
    """A schedule text that cannot be read: one line."""


@dataclass
class Schedule:
    """Which thread takes how many steps, in order."""

    scenario: str
    granularity: str = "access"
    repairs: tuple[str, ...] = ()
    version: str = smpvm.__version__
    runs: list[tuple[int, int, str]] = field(default_factory=list)
    """(tid, steps, checksum)"""

    def text(self) -> str:
        """The versioned text."""
        runs = ".".join(f"{tid}x{n}~{check}" for tid, n, check in self.runs)
        repairs = "+".join(self.repairs) or "-"
        return "/".join((VERSION, self.granularity, self.version, repairs, runs, self.scenario))

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Raises ScheduleError."""
        parts = text.strip().split("/", 5)
        if parts[0] != VERSION:
            raise ScheduleError(f"schedule: not of version {VERSION}: {text[:20]!r}")
        if len(parts) != 6 or parts[1] not in ("access", "sync") or not parts[5]:
            raise ScheduleError("schedule: damaged: expected six parts between slashes")
        runs = []
        for run in parts[4].split(".") if parts[4] else ():
            match = _RUN.fullmatch(run)
            if match is None:
                raise ScheduleError(f"schedule: damaged: {run!r} is not a run of steps")
            runs.append((int(match[1]), int(match[2]), match[3]))
        if sum(n for _, n, _ in runs) > MOST_STEPS:
            raise ScheduleError(f"schedule: damaged: more than {MOST_STEPS:,} steps")
        repairs = () if parts[3] == "-" else tuple(parts[3].split("+"))
        return cls(parts[5], parts[1], repairs, parts[2], runs)

    def steps(self) -> list[int]:
        """The thread of each step."""
        return [tid for tid, n, _ in self.runs for _ in range(n)]

    def switches(self) -> int:
        """How often one thread follows another."""
        return max(len(self.runs) - 1, 0)


def step_text(op: Op) -> str:
    """What a step was, without names that are costly to ask for: stable, and short."""
    _, kind, obj, what = op
    if kind == AWAIT:
        return f"{kind} {' '.join(f'{type(o).__name__}.{f}' for o, f in obj)}"
    return f"{kind} {type(obj).__name__}.{what}"


def checksum(ops: Iterable[Op]) -> str:
    """Two hex digits over a run of steps."""
    return f"{zlib.crc32(' '.join(map(step_text, ops)).encode()) & 0xFF:02x}"


def runs_of(log: Sequence[Op]) -> list[tuple[int, int, str]]:
    """The runs of an execution; timers are no thread's step and are left out."""
    out = []
    steps = (op for op in log if op[0] != CLOCK)
    for tid, group in groupby(steps, key=lambda op: op[0]):
        ops = list(group)
        out.append((tid, len(ops), checksum(ops)))
    return out


class Namer:
    """Names for the digest: class and order of first appearance, the same on every host."""

    def __init__(self) -> None:
        self._steps: dict[Any, bytes] = {}
        self._objects: dict[Any, str] = {}
        self._counts: dict[str, int] = {}

    def step(self, op: Op) -> bytes:
        """One step as bytes."""
        known = self._steps.get(op)
        if known is None:
            tid, kind, obj, what = op
            known = self._steps[op] = f"{tid} {kind} {self._name(obj)} {what}\n".encode()
        return known

    def _name(self, obj: Any) -> str:
        name = self._objects.get(obj)
        if name is None:
            if isinstance(obj, tuple) and type(obj) is tuple:
                name = "(" + " ".join(map(self._name, obj)) + ")"
            elif obj is None or isinstance(obj, (str, int)):
                name = repr(obj)
            else:
                cls = type(obj).__name__
                n = self._counts[cls] = self._counts.get(cls, -1) + 1
                name = f"{cls}{n}"
            self._objects[obj] = name
        return name
