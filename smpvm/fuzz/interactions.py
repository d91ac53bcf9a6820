"""What an execution exercised: interactions of threads, lock order, wakeups, C functions, branches.

An *interaction* is a pair of places in the kernel: one that wrote a field, and one of another
thread that reads or writes it next; or one that read it, and one of another thread that writes it.
Places are kept as numbers while threads run and named only when somebody asks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FrameType
from typing import Any, Final

from smpvm.check.stacks import HOME, kind_of
from smpvm.kern.cname import KEEP, MARKS, SKIP
from smpvm.kern.probe import WAIT, Probe

FRAMES: Final = SKIP
STEPS: Final = 8
"""Frames that are looked at for the place of an access."""


class Places:
    """Places in the kernel code, numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._codes: list[tuple[CodeType, int]] = []

    def here(self, frame: FrameType | None) -> int:
        """The number of the innermost kernel frame from *frame* on; -1 if there is none."""
        for _ in range(STEPS):
            if frame is None:
                break
            code = frame.f_code
            if kind_of(code) == KEEP:
                key = (id(code), frame.f_lasti)
                number = self._numbers.get(key)
                if number is None:
                    number = self._numbers[key] = len(self._codes)
                    self._codes.append((code, frame.f_lasti))
                return number
            frame = frame.f_back
        return -1

    def function(self, number: int) -> str:
        """The C function of a place, or the model's own."""
        return function_of(self._codes[number][0]) if number >= 0 else "?"

    def text(self, number: int) -> str:
        """``vm_page_free (vm/page/reclaim.py:32)``."""
        if number < 0:
            return "?"
        code, at = self._codes[number]
        return f"{function_of(code)} ({place_of(code)}:{line_of(code, at)})"


@cache
def function_of(code: CodeType) -> str:
    """The C function's name, or the Python one's."""
    return MARKS.of(code).identity or code.co_qualname


@cache
def place_of(code: CodeType) -> str:
    """The file below smpvm."""
    return code.co_filename.removeprefix(HOME)


@cache
def line_of(code: CodeType, at: int) -> int:
    """The line of an instruction."""
    for start, end, line in code.co_lines():
        if start <= at < end and line is not None:
            return line
    return code.co_firstlineno


@dataclass
class Seen:
    """Everything exercised, as text: the same in every process and run."""

    pairs: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    wakeups: set[str] = field(default_factory=set)
    branches: set[str] = field(default_factory=set)

    def all(self) -> set[str]:
        """All of it, each kind marked."""
        return self.pairs | self.orders | self.wakeups | self.branches

    def __len__(self) -> int:
        return len(self.pairs) + len(self.orders) + len(self.wakeups) + len(self.branches)


class Interactions(Probe):
    """Observes one execution after the other; ``take`` tells what the last one showed."""

    def __init__(self, places: Places | None = None) -> None:
        self.places = places or Places()
        self._names: dict[tuple[int, int, str], str] = {}
        self._reset()

    def _reset(self) -> None:
        self._k: Any = None
        self._last: dict[tuple[int, str], list[Any]] = {}
        self._alive: list[Any] = []
        self._pairs: set[tuple[int, int, str]] = set()
        self._orders: set[str] = set()
        self._wakeups: set[str] = set()
        self._held: dict[int, list[str]] = {}

    def attach(self, kernel: Any) -> None:
        self._reset()
        self._k = kernel

    # -- memory

    def read(self, td: Any, obj: Any, field: str) -> None:
        key = (id(obj), field)
        last = self._last.get(key)
        if last is None:
            self._alive.append(obj)
            self._last[key] = [None, -1, td, self.places.here(sys._getframe(1))]
            return
        here = self.places.here(sys._getframe(1))
        if last[0] is not td and last[0] is not None:
            self._pairs.add((last[1], here, field))
        last[2], last[3] = td, here

    def write(self, td: Any, obj: Any, field: str, new: Any) -> None:
        self._written(td, obj, field)

    def atomic(self, td: Any, obj: Any, field: str, old: Any, new: Any) -> None:
        self._written(td, obj, field)

    def _written(self, td: Any, obj: Any, field: str) -> None:
        key = (id(obj), field)
        here = self.places.here(sys._getframe(2))
        last = self._last.get(key)
        if last is None:
            self._alive.append(obj)
            self._last[key] = [td, here, None, -1]
            return
        if last[0] is not td and last[0] is not None:
            self._pairs.add((last[1], here, field))
        if last[2] is not td and last[2] is not None:
            self._pairs.add((last[3], here, field))
        last[0], last[1], last[2], last[3] = td, here, None, -1

    # -- locks and sleeps

    def lock_acquired(self, td: Any, lock: Any, mode: str, how: int) -> None:
        held = self._held.setdefault(td.tid, [])
        if held and how == WAIT:
            self._orders.add(f"{held[-1]} > {lock.cls}")
        held.append(lock.cls)

    def lock_release(self, td: Any, lock: Any, mode: str) -> None:
        held = self._held.get(td.tid, [])
        if lock.cls in held:
            held.reverse()
            held.remove(lock.cls)
            held.reverse()

    def wakeup(self, td: Any, ident: Any, sleepers: Any) -> None:
        if sleepers:
            here = self.places.function(self.places.here(sys._getframe(1)))
            for sleeper in sleepers:
                self._wakeups.add(f"{here} wakes {sleeper.role} at {sleeper.wmesg}")

    # -- afterwards

    def take(self) -> Seen:
        """What the execution that has just ended showed."""
        counts: Iterable[str] = self._k.counts() if vars(self._k) else ()
        seen = Seen(
            {self._text(pair) for pair in self._pairs},
            {f"order {o}" for o in self._orders},
            {f"wakeup {w}" for w in self._wakeups},
            {f"branch {name}" for name in counts},
        )
        self._reset()
        return seen

    def _text(self, pair: tuple[int, int, str]) -> str:
        known = self._names.get(pair)
        if known is None:
            one, two, name = pair
            known = f"{name}: {self.places.text(one)} > {self.places.text(two)}"
            self._names[pair] = known
        return known
