"""Schedules as text: short enough for a bug report, with checksums that locate a divergence.

``s1/access/0.1.0/-/1x4~3f.2x2~a0/lost-update``: the format version, granularity, version of
smpvm, repairs (``-`` for none, else joined by ``+``), the runs, and the scenario.  What else
decides follows the granularity, each after a ``+``: ``tso`` (store buffers), ``spurious2`` (the
sleeps that may end early), ``wakeup-c`` (the C's order of wakeups), and the choices that were not 0
(``1.0:2``: the first of thread 1 was 2; commas between them).  A run is a thread (``b1``: the
buffer of thread 1), a number of steps, and a checksum over the operations of those steps.  Where
runs repeat, as in a livelock, the version is ``s2``, and ``(1x6~66.2x4~0a)*1999`` stands for all of
them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import smpvm
from smpvm.host.choices import Key
from smpvm.host.serialthread import AWAIT, CLOCK, Op
from smpvm.host.tso import owner_tid, shadow_tid
from smpvm.text import quoted

PLAIN, FOLDED = "s1", "s2"
"""The format versions: every run listed, or repetitions folded."""
MOST_STEPS = 1_000_000
"""No execution is longer: it ends as a livelock after 40,000 steps."""
MOST_CHARACTERS = 4 << 20
LONGEST = 64
"""The longest repeated part that is searched for, in runs."""
WORTH = 8
"""The fewest runs that folding must save: short schedules are easier to read unfolded."""
_RUN = re.compile(r"(b?)([0-9]{1,6})x([1-9][0-9]{0,6})~([0-9a-f]{2})")
_HOW = re.compile(
    r"(access|sync)(?:\+(?P<memory>tso))?(?:\+spurious(?P<spurious>[1-9][0-9]{0,5}))?"
    r"(?:\+wakeup-(?P<order>c))?(?:\+(?P<choices>[0-9.:,]+))?"
)
_CHOICE = re.compile(r"([0-9]{1,9})\.([0-9]{1,7}):([1-9][0-9]{0,8})")
_PART = re.compile(r"(?:([^.()]+)|\(([^()]+)\)\*([1-9][0-9]{0,6}))(?:\.(?!$)|$)")
"""A run, or several in parentheses with a repetition count."""

_RENAMED = {
    "Compound": "Several",
    "RushJob": "Rush",
    "TimedSpinlock": "Spinlock",
    "TimedToken": "Token",
}
"""Renamed classes keep their old names in schedules, so that old schedules still replay."""

Run = tuple[int, int, str]
"""(tid, steps, checksum)"""


class ScheduleError(ValueError):
    """A text that is not a schedule: one line."""


@dataclass
class Schedule:
    """Which thread takes how many steps, in order."""

    scenario: str
    granularity: str = "access"
    repairs: tuple[str, ...] = ()
    version: str = smpvm.__version__
    memory: str = "sc"
    runs: list[Run] = field(default_factory=list)
    spurious: int = 0
    wakeup_order: str = ""
    choices: dict[Key, int] = field(default_factory=dict)

    def text(self) -> str:
        """The schedule as text."""
        folded = fold([f"{_who(tid)}x{n}~{check}" for tid, n, check in self.runs])
        version = FOLDED if len(folded) < len(self.runs) else PLAIN
        repairs, runs = "+".join(self.repairs) or "-", ".".join(folded)
        return "/".join((version, self._how(), self.version, repairs, runs, self.scenario))

    def _how(self) -> str:
        """What decides besides the scheduler."""
        how = [self.granularity]
        if self.memory != "sc":
            how.append(self.memory)
        if self.spurious:
            how.append(f"spurious{self.spurious}")
        if self.wakeup_order:
            how.append(f"wakeup-{self.wakeup_order}")
        if self.choices:
            how.append(",".join(f"{tid}.{n}:{v}" for (tid, n), v in self.choices.items()))
        return "+".join(how)

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parse the text of a schedule.  Raises ScheduleError."""
        if len(text) > MOST_CHARACTERS:
            raise ScheduleError(f"schedule: longer than {MOST_CHARACTERS:,} characters")
        parts = text.strip().split("/", 5)
        if parts[0] not in (PLAIN, FOLDED):
            raise ScheduleError(f"schedule: not of version {PLAIN} or {FOLDED}: {quoted(parts[0])}")
        how = _HOW.fullmatch(parts[1]) if len(parts) == 6 else None
        if how is None or not parts[5]:
            raise ScheduleError("schedule: damaged: expected six parts between slashes")
        runs = _unfold(parts[4]) if parts[0] == FOLDED else _runs(parts[4])
        repairs = () if parts[3] == "-" else tuple(parts[3].split("+"))
        memory, order = how["memory"] or "sc", how["order"] or ""
        spurious, choices = int(how["spurious"] or 0), _choices(how["choices"] or "")
        return cls(parts[5], how[1], repairs, parts[2], memory, runs, spurious, order, choices)

    def steps(self) -> list[int]:
        """The thread (tid) of each step."""
        return [tid for tid, n, _ in self.runs for _ in range(n)]

    def switches(self) -> int:
        """The number of context switches."""
        return max(len(self.runs) - 1, 0)


def _who(tid: int) -> str:
    """A thread, or the buffer of one."""
    return str(tid) if tid >= 0 else f"b{owner_tid(tid)}"


def _runs(text: str) -> list[Run]:
    """The runs of a text without repetitions.  Raises ScheduleError."""
    runs = []
    for run in text.split(".") if text else ():
        match = _RUN.fullmatch(run)
        if match is None:
            raise ScheduleError(f"schedule: damaged: {quoted(run)} is not a run of steps")
        tid = shadow_tid(int(match[2])) if match[1] else int(match[2])
        runs.append((tid, int(match[3]), match[4]))
    _few(sum(n for _, n, _ in runs))
    return runs


def _unfold(text: str) -> list[Run]:
    """The runs of a text that may have repetitions.  Raises ScheduleError."""
    runs: list[Run] = []
    at = steps = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise ScheduleError(f"schedule: damaged: {quoted(text[at:])} is not a run of steps")
        part, times = _runs(match[1] or match[2]), int(match[3] or 1)
        steps += sum(n for _, n, _ in part) * times
        _few(steps)
        runs += part * times
        at = match.end()
    return runs


def _choices(text: str) -> dict[Key, int]:
    """The choices of a text.  Raises ScheduleError."""
    choices = {}
    for choice in text.split(",") if text else ():
        match = _CHOICE.fullmatch(choice)
        if match is None:
            raise ScheduleError(f"schedule: damaged: {quoted(choice)} is not a choice")
        choices[int(match[1]), int(match[2])] = int(match[3])
    return choices


def _few(steps: int) -> None:
    """Raises ScheduleError for more steps than an execution can have."""
    if steps > MOST_STEPS:
        raise ScheduleError(f"schedule: damaged: more than {MOST_STEPS:,} steps")


def fold(runs: Sequence[str]) -> list[str]:
    """*runs* with ``(...)*n`` for n repetitions in a row."""
    out: list[str] = []
    at = 0
    while at < len(runs):
        times, size = max(
            ((_times(runs, at, size), size) for size in range(1, LONGEST + 1)),
            key=lambda found: ((found[0] - 1) * found[1], -found[1]),
        )
        if (times - 1) * size < WORTH:
            times, size = 1, 1
        part = runs[at : at + size]
        out += part if times == 1 else [f"({'.'.join(part)})*{times}"]
        at += times * size
    return out


def _times(runs: Sequence[str], at: int, size: int) -> int:
    """How many times in a row the *size* runs from *at* on occur."""
    end = at + size
    while end < len(runs) and runs[end] == runs[end - size]:
        end += 1
    return (end - at) // size


def step_text(op: Op) -> str:
    """The operation of a step as text: the same in every run, and cheap (no object names)."""
    _, kind, obj, what = op
    if kind == AWAIT:
        return f"{kind} {' '.join(f'{class_name(o)}.{f}' for o, f in obj)}"
    return f"{kind} {class_name(obj)}.{what}"


def class_name(obj: Any) -> str:
    """The name of an object's class in schedules and digests."""
    name = type(obj).__name__
    return _RENAMED.get(name, name)


def checksum(ops: Iterable[Op]) -> str:
    """Two hex digits for a run of steps."""
    return f"{zlib.crc32(' '.join(map(step_text, ops)).encode()) & 0xFF:02x}"


def runs_of(log: Sequence[Op]) -> list[Run]:
    """The runs of an execution.  Timers belong to no thread and are left out."""
    out = []
    steps = (op for op in log if op[0] != CLOCK)
    for tid, group in groupby(steps, key=lambda op: op[0]):
        ops = list(group)
        out.append((tid, len(ops), checksum(ops)))
    return out


class Namer:
    """Names of objects in the digest: class and order of first use, the same on every host."""

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
                cls = class_name(obj)
                n = self._counts[cls] = self._counts.get(cls, -1) + 1
                name = f"{cls}{n}"
            self._objects[obj] = name
        return name
