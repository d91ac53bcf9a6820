"""Marks that say which C function a piece of the model is: for reports, never for the kernel.

A mark is a decorator next to ``def``, below any other one.  It returns the function unchanged::

    @c("vm_page_busy_wait", "vm_page.c:816-849", blocks=True)
    @holds("no spinlock", "m busied")
    def busy_wait(self, m, also_m_busy, msg): ...

The constant ``FRAMES`` of a module (or of its package) says how frames of its code are treated in
the stacks of findings; without it they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any, Final, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

SKIP: Final = 0
"""``FRAMES``: machinery, left out."""
KEEP: Final = 1
"""``FRAMES``: shown."""
PRIMITIVE: Final = 2
"""``FRAMES``: shown, but a finding is attributed to the caller."""
FLOOR: Final = 3
"""``FRAMES``: runs executions; its callers are not shown."""


@dataclass(frozen=True)
class CName:
    """A C function, or part of its lines."""

    name: str
    where: str
    """``file.c:first-last``; several ranges are separated by commas."""
    part: bool = False
    """The lines are only a step of the function."""

    @property
    def file(self) -> str:
        """The C file."""
        return self.where.partition(":")[0]

    @property
    def first(self) -> int:
        """The first line."""
        return self.ranges[0][0]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last line of each range."""
        out = []
        for part in self.where.partition(":")[2].split(","):
            first, _, last = part.partition("-")
            out.append((int(first), int(last or first)))
        return out


@dataclass(frozen=True)
class Mark:
    """What is known about one function of the model."""

    c: tuple[CName, ...] = ()
    """The C functions that it implements, wholly or in part; empty for the model's own."""
    held: str = ""
    """What must be held on entry."""
    left: str = ""
    """What is held on return."""
    blocks: bool = False
    uncalled: bool = False
    """Ported, but nothing in the model calls it yet."""
    primitive: bool = False

    @cached_property
    def identity(self) -> str:
        """Its name in fingerprints; empty for the model's own.

        A step of several C functions has all their names, so the name does not depend on the
        caller.
        """
        whole = [n.name for n in self.c if not n.part][:1]
        return "/".join(whole or dict.fromkeys(n.name for n in self.c))


UNMARKED: Final = Mark()


class Marks:
    """All marks, by the address of the code object, which is kept alive through its function.

    Code objects hash by content, which is slow.  Changed only at import and by ``adopt``.
    """

    def __init__(self) -> None:
        self._marks: dict[int, Mark] = {}
        self._functions: dict[int, FunctionType] = {}

    def of(self, code: CodeType) -> Mark:
        """The mark of a function's code; ``UNMARKED`` if it has none."""
        return self._marks.get(id(code), UNMARKED)

    def has(self, code: CodeType) -> bool:
        """Does the function have a mark, including ``own``?"""
        return id(code) in self._marks

    def where(self, name: str) -> str:
        """The lines of the C function *name*; empty if the model does not have it."""
        found = (n.where for _, mark in self for n in mark.c if n.name == name and not n.part)
        return next(found, "")

    def learn(self, function: Callable[..., Any], **facts: Any) -> None:
        """Add *facts* about *function*."""
        f = cast(FunctionType, function)
        self._put(f, replace(self.of(f.__code__), **facts))

    def _put(self, f: FunctionType, mark: Mark) -> None:
        """Functions nested in *f* are steps of the same C function."""
        self._functions[id(f.__code__)] = f
        for code in (f.__code__, *f.__code__.co_consts):
            if isinstance(code, CodeType):
                self._marks[id(code)] = mark

    def adopt(self, change: type) -> None:
        """The methods of a change get the marks of the methods that they override."""
        for name, f in vars(change).items():
            if not isinstance(f, FunctionType) or self.has(f.__code__):
                continue
            for base in change.__mro__[1:]:
                behind = vars(base).get(name)
                if isinstance(behind, FunctionType) and self.has(behind.__code__):
                    self._put(f, self.of(behind.__code__))
                    break

    def __iter__(self) -> Iterator[tuple[FunctionType, Mark]]:
        return iter([(f, self._marks[at]) for at, f in list(self._functions.items())])


MARKS: Final = Marks()
"""The same for every machine: facts about code."""


def c(
    name: str, where: str, *, part: bool = False, blocks: bool = False, uncalled: bool = False
) -> Callable[[F], F]:
    """The function is the C function *name*, or with *part* a step of it: the lines *where*.

    If applied several times it is all of them, the first one being the main one.  *blocks*: it may
    sleep, or wait for a lock that can sleep.  *uncalled*: nothing calls it yet.
    """
    this = CName(name, where, part)

    def mark(function: F) -> F:
        known = MARKS.of(function.__code__)
        MARKS.learn(
            function,
            c=(this, *known.c),
            blocks=blocks or known.blocks,
            uncalled=uncalled or known.uncalled,
        )
        return function

    return mark


def holds(entry: str, left: str | None = None) -> Callable[[F], F]:
    """What must be held on *entry* and what is held on return (the same if not given)."""

    def mark(function: F) -> F:
        MARKS.learn(function, held=entry, left=entry if left is None else left)
        return function

    return mark


def primitive(function: F) -> F:
    """It locks or sleeps, or only takes or releases a lock for its caller."""
    MARKS.learn(function, primitive=True)
    return function


def own(function: F) -> F:
    """The model's own function: the C has none like it."""
    MARKS.learn(function)
    return function
