"""The declaration of a repair: name, title, and where in the C the defect is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Repair:
    """One repair.  *where*: the C function and its lines, ``vm_clean (vm_pageout.c:1-2)``."""

    name: str
    title: str
    where: str
    change: type


MARK: Final = "__repair__"
"""The attribute of a change that declares it a repair; looked up in the class itself."""


def repair(name: str, title: str, where: str) -> Callable[[T], T]:
    """Declare that the decorated change is the repair *name*."""

    def declare(change: T) -> T:
        setattr(change, MARK, Repair(name, title, where, change))
        return change

    return declare
