"""A line of the C that the search is aimed at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from smpvm.fuzz.lines import Lines, kernel_code
from smpvm.kern.cname import SKIP, CName
from smpvm.text import brief

FRAMES: Final = SKIP
_WHERE: Final = re.compile(r"([a-z0-9_]+\.[ch]):([0-9]{1,6})")


class TargetError(ValueError):
    """No such line: one line."""


class Target(Lines):
    """``vm_pageout.c:1075``: the steps of the model that are the narrowest around that line."""

    def __init__(self, where: str) -> None:
        found = _WHERE.fullmatch(where)
        if found is None:
            raise TargetError(f"--cover {brief(where)}: write it as vm_pageout.c:1075")
        file, line = found[1], int(found[2])
        around: list[tuple[int, int, CName]] = []
        for f, mark in kernel_code():
            for c in mark.c:
                for first, last in c.ranges if c.file == file else ():
                    if first <= line <= last:
                        around.append((last - first, id(f.__code__), c))
        if not around:
            raise TargetError(f"--cover {brief(where)}: no function of the model has that line")
        least = min(width for width, _, _ in around)
        self.function = around[0][2].name
        self.file = file
        super().__init__({code for width, code, _ in around if width == least})

    @property
    def reached(self) -> bool:
        """Has an execution run it?"""
        return bool(self.run)

    def nearness(self, shown: Iterable[str]) -> float:
        """How near a program that showed these things comes: 8 in the same function, else 1."""
        return 8.0 if any(self.function in text for text in shown) else 1.0
