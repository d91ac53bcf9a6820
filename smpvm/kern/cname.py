"""Which C function a piece of the model is: marks on the code, for reports, never for the kernel.

A mark is a decorator next to ``def``, below every other one.  It changes nothing and returns the
function as it is::

    @c("vm_page_busy_wait", "vm_page.c:816-849", blocks=True)
    @holds("no spinlock", "m busied")
    def busy_wait(self, m, also_m_busy, msg): ...

A module (or the package around it) says with a constant ``FRAMES`` what is to be done with frames
of its code in the stacks that findings show; one that says nothing is left out.
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
"""``FRAMES``: shown, but not the place that a finding is about: that is the caller's."""
FLOOR: Final = 3
"""``FRAMES``: runs executions; whoever called it has no part in them."""


@dataclass(frozen=True)
class CName:
    """A C function, or some lines of it."""

    name: str
    where: str
    """``file.c:first-last``; several ranges are separated by commas."""
    part: bool = False
    """The lines are a step of the function only."""

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
    """What is known of one function of the model."""

    c: tuple[CName, ...] = ()
    """The C functions that it is, or is a step of; empty for the model's own."""
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
        """What fingerprints call it; empty for the model's own.

        A step of several C functions has all their names: it must have the same one whoever called
        it.
        """
        whole = [n.name for n in self.c if not n.part][:1]
        return "/".join(whole or dict.fromkeys(n.name for n in self.c))


UNMARKED: Final = Mark()


class Marks:
    """All marks, by the address of the code object, which the function here keeps alive.

    Code objects hash by content, which is slow.  Changed at import, and by ``adopt``.
    """

    def __init__(self) -> None:
        self._marks: dict[int, Mark] = {}
        self._functions: dict[int, FunctionType] = {}

    def of(self, code: CodeType) -> Mark:
        """The mark of a function's code; ``UNMARKED`` if it has none."""
        return self._marks.get(id(code), UNMARKED)

    def has(self, code: CodeType) -> bool:
        """Has the function any mark, be it that it is the model's own?"""
        return id(code) in self._marks

    def where(self, name: str) -> str:
        """The lines of the C function *name*; empty if no function is it."""
        found = (n.where for _, mark in self for n in mark.c if n.name == name and not n.part)
        return next(found, "")

    def learn(self, function: Callable[..., Any], **facts: Any) -> None:
        """Facts that are known of *function* from now on."""
        f = cast(FunctionType, function)
        self._put(f, replace(self.of(f.__code__), **facts))

    def _put(self, f: FunctionType, mark: Mark) -> None:
        """Functions inside of *f* are steps of the same C function."""
        self._functions[id(f.__code__)] = f
        for code in (f.__code__, *f.__code__.co_consts):
            if isinstance(code, CodeType):
                self._marks[id(code)] = mark

    def adopt(self, change: type) -> None:
        """The methods of a change are the C functions that the methods behind them are."""
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

    Given several times it is all of them, the first one in the first place.  *blocks*: it may
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
    """What must be held on *entry*, and what is on return (not given: the same)."""

    def mark(function: F) -> F:
        MARKS.learn(function, held=entry, left=entry if left is None else left)
        return function

    return mark


def primitive(function: F) -> F:
    """It locks or sleeps, or only takes or gives back a lock for its caller."""
    MARKS.learn(function, primitive=True)
    return function


def own(function: F) -> F:
    """The model's own: the C has no such function."""
    MARKS.learn(function)
    return function
