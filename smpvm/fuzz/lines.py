"""Which lines of the kernel code threads run: for coverage, and for aiming at a line of the C."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

from smpvm.kern.cname import MARKS, SKIP, Mark
from smpvm.kern.probe import Probe

FRAMES: Final = SKIP


class Lines(Probe):
    """Traces every thread of an execution from its start; call ``close`` when it is over.

    Only the code objects *wanted* (by id) are looked at.
    """

    def __init__(self, wanted: set[int] | None = None) -> None:
        self.wanted = wanted
        self.run: set[tuple[int, int]] = set()
        """(id of a code object, line)."""
        self._mine: dict[int, Callable[..., Any] | None] = {}

    def attach(self, kernel: Any) -> None:
        sys.settrace(self._call)

    def thread_start(self, td: Any) -> None:
        sys.settrace(self._call)

    def thread_exit(self, td: Any) -> None:
        sys.settrace(None)

    def close(self) -> None:
        """No tracing any more."""
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = id(frame.f_code)
        if code not in self._mine:
            wanted = MARKS.has(frame.f_code) if self.wanted is None else code in self.wanted
            self._mine[code] = self._line if wanted else None
        return self._mine[code]

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self.run.add((id(frame.f_code), frame.f_lineno))
        return self._line


def kernel_code() -> Iterator[tuple[FunctionType, Mark]]:
    """The functions of the model that are marked."""
    for f, mark in MARKS:
        if f.__module__.startswith(("smpvm.kern.", "smpvm.vm.")):
            yield f, mark


@cache
def lines_of(code: CodeType) -> frozenset[int]:
    """The lines of a function that are statements, its ``def`` apart."""
    return frozenset(
        line for _, line in dis.findlinestarts(code) if line and line != code.co_firstlineno
    )
