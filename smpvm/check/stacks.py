"""Model stacks: who called whom in the kernel code, cheap to take and resolved only when shown.

A raw stack is a tuple of ``(code, lasti)``, innermost first, holding only frames that mean
something to a kernel developer: the model's own (``smpvm/vm``, ``smpvm/kern``) and those of the
program that drives it (a scenario, a test).  The machinery in between is left out.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import smpvm

RawStack = tuple[tuple[CodeType, int], ...]

HOME = str(Path(smpvm.__file__).parent) + "/"
_KEPT = ("vm/", "kern/", "repairs/", "scenarios/", "workload/", "museum/")
_PLUMBING = (
    "kern/kernel.py",
    "kern/shared.py",
    "kern/access.py",
    "kern/thread.py",
    "kern/atomic.py",
    "kern/probe.py",
)
_PRIMITIVES = ("kern/", "vm/page/busy.py")
_HELPERS = ("PageLocks.", "MapBase.lock", "MapBase.unlock", "PageObjects.lookup_busy")
"""Methods that only take or give back a lock for their caller, by qualified name."""
_FLOOR = "explore/engine.py"
"""What runs executions: who called it has no part in them."""
_FOREIGN = ("/lib/python", "/site-packages/", "/pluggy/", "/bin/pytest", "<frozen", "<string>")


@functools.cache
def _place(filename: str) -> str:
    """The path as shown; empty for a file whose frames are left out."""
    if filename.startswith(HOME):
        inside = filename[len(HOME) :]
        return inside if inside.startswith(_KEPT) and inside not in _PLUMBING else ""
    if any(part in filename for part in _FOREIGN):
        return ""
    _, found, inside = filename.rpartition("/tests/")  # the last: a home may have the name too
    return f"tests/{inside}" if found else Path(filename).name


SKIP, KEEP, PRIMITIVE, FLOOR = 0, 1, 2, 3


def _kind(code: CodeType) -> int:
    if code.co_filename == HOME + _FLOOR:
        return FLOOR
    place = _place(code.co_filename)
    if not place or code.co_name.startswith(("<lambda", "<genexpr", "<listcomp")):
        return SKIP
    helper = place.startswith(_PRIMITIVES) or code.co_qualname.startswith(_HELPERS)
    return PRIMITIVE if helper else KEEP


def _walkers() -> tuple[Callable[[CodeType], int], Callable[[int], int]]:
    """``kind_of`` and ``site``, over one cache.

    Code objects hash by content, which is far too slow here: the cache goes by address, and keeps
    alive every code object that it knows.
    """
    walked: dict[int, tuple[CodeType, int]] = {}

    def kind_of(code: CodeType) -> int:
        """Whether frames of *code* are left out, kept, kept as a locking primitive, or the end."""
        known = walked.get(id(code))
        if known is None:
            known = walked[id(code)] = (code, _kind(code))
        return known[1]

    def site(depth: int = 1) -> int:
        """A number for the place in the kernel that called a primitive: two innermost frames.

        A code object holds its bytecode, so its address plus the instruction offset is unique
        while it lives.
        """
        frame: FrameType | None = sys._getframe(depth)
        key = 0
        while frame is not None:
            code = frame.f_code
            known = walked.get(id(code))
            if (kind_of(code) if known is None else known[1]) == KEEP:
                here = id(code) + frame.f_lasti
                if key:
                    return key * 31 + here
                key = here
            frame = frame.f_back
        return key

    return kind_of, site


kind_of, site = _walkers()


def capture(depth: int = 1, limit: int = 24, kept: int = 24) -> RawStack:
    """The calling thread's model stack, leaving out *depth* frames of the caller's own.

    At most *limit* frames, and *kept* of them outside the primitives.
    """
    frame: FrameType | None = sys._getframe(depth)
    found: list[tuple[CodeType, int]] = []
    while frame is not None and kept and len(found) < limit:
        code = frame.f_code
        if kind := kind_of(code):
            if kind == FLOOR:
                break
            kept -= kind == KEEP
            found.append((code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def raised_at(error: BaseException) -> RawStack:
    """The model's stack at which an exception was raised."""
    found: list[tuple[CodeType, int]] = []
    at = error.__traceback__
    while at is not None:
        found.append((at.tb_frame.f_code, at.tb_lasti))
        at = at.tb_next
    return shown(tuple(found[::-1]))


def inner(depth: int = 1) -> RawStack:
    """The inside of ``capture``: up to the second frame outside the primitives.

    This much of where something was taken is the same each time that ``site`` says the same.
    """
    return capture(depth + 1, kept=2)


def near(frame: FrameType) -> RawStack:
    """The two innermost frames from *frame* out, of whatever kind."""
    found: list[tuple[CodeType, int]] = []
    at: FrameType | None = frame
    while at is not None and len(found) < 2:
        found.append((at.f_code, at.f_lasti))
        at = at.f_back
    return tuple(found)


class Places:
    """Where shared fields are accessed, and where locks are taken: what is the same in every run.

    Places are known by addresses of code objects, which stay theirs because they are kept here.
    """

    def __init__(self) -> None:
        self._inner: dict[tuple[Any, ...], RawStack] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._stacks: list[RawStack] = [()]
        self._mutex = threading.Lock()

    def inner(self, key: tuple[Any, ...], depth: int) -> RawStack:
        """``inner``, made once for each *key*, which has the number that ``site`` gives a place."""
        known = self._inner.get(key)
        if known is None:
            known = self._inner.setdefault(key, inner(depth + 1))
        return known

    def number(self, at: FrameType) -> int:
        """The number of an access's place and its caller, where *at* is now; never 0."""
        out = at.f_back
        key = (
            id(at.f_code) + at.f_lasti,
            0 if out is None else id(out.f_code) + out.f_lasti,
        )
        return self._numbers.get(key) or self._new(key, at)

    def _new(self, key: tuple[int, int], at: FrameType) -> int:
        with self._mutex:
            if key not in self._numbers:
                self._stacks.append(near(at))
                self._numbers[key] = len(self._stacks) - 1
            return self._numbers[key]

    def stack(self, number: int) -> RawStack:
        """The two innermost frames of a place; empty for 0."""
        return self._stacks[number]


PLACES = Places()
"""The same for every run."""


def shown(raw: RawStack) -> RawStack:
    """Only the frames that are kept."""
    return tuple((code, lasti) for code, lasti in raw if kind_of(code) in (KEEP, PRIMITIVE))


def exact(taken: RawStack, later: RawStack) -> RawStack:
    """The stack at which something was taken, from what is kept of its place (``inner``).

    Further out it is what *later*, a stack of the same thread taken while it held the thing, shows
    of the callers that are still there; where none is, the rest is left out.
    """
    kept = 0
    for i, (code, _) in enumerate(taken):
        if kind_of(code) != KEEP:
            continue
        kept += 1
        for j, (other, _) in enumerate(later):
            if other is code:
                return taken[: i + 1] + later[j + 1 :]
        if kept == 2:
            return taken[: i + 1]
    return taken


@dataclass(frozen=True)
class Frame:
    """One line of a shown stack."""

    name: str
    file: str
    line: int
    c: str = ""
    """The C function that the method's docstring names; empty if it names none."""

    def __str__(self) -> str:
        name = self.c or self.name
        also = f" [{self.name}]" if self.c and self.c != self.name else ""
        return f"{name}{also} ({self.file}:{self.line})"


def line_of(code: CodeType, lasti: int) -> int:
    """The source line of the instruction at *lasti*."""
    best = code.co_firstlineno
    for start, end, line in code.co_lines():
        if line is not None and start <= lasti < end:
            best = line
    return best


def resolve(raw: RawStack) -> tuple[Frame, ...]:
    """The stack to show, innermost first, without the private insides of a primitive."""
    start = 0
    while start < len(raw) - 1 and _inside(raw[start][0]):
        start += 1
    return tuple(_frame(code, lasti) for code, lasti in raw[start:])


def _inside(code: CodeType) -> bool:
    return code.co_name.startswith("_") and kind_of(code) == PRIMITIVE


def _frame(code: CodeType, lasti: int) -> Frame:
    line = line_of(code, lasti)
    c = _c_names(code.co_filename).get(code.co_firstlineno, "")
    return Frame(code.co_qualname, _place(code.co_filename), line, c)


_C_FIRST = re.compile(
    r"``([a-z_]\w*)(?:\(\))?``|([a-z]\w*_\w*)\b(?!\.[ch]\b)|([a-z]\w*)(?=,? \(?[\w/]+\.[ch]:\d)"
)
_C_LATER = re.compile(r"\b([a-z]\w*_\w*)(?:\(\))?[,:]? \(?[\w/]+\.[ch]:\d")


def _one_at_a_time() -> Callable[[str], ast.Module]:
    """``ast.parse``, serialised: CPython 3.11 loses count when two threads parse at once."""
    turn = threading.Lock()

    def parse(text: str) -> ast.Module:
        with turn:
            return ast.parse(text)

    return parse


_parse = _one_at_a_time()


@functools.cache
def _c_names(filename: str) -> dict[int, str]:
    """First line of each function in a source file → the C function its docstring names."""
    if not filename.startswith(HOME):
        return {}
    try:
        tree = _parse(Path(filename).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found[first] = c_name(ast.get_docstring(node) or "")
    return found


def c_name(docstring: str) -> str:
    """The C function that a docstring names: at its start, or before a ``file.c:line``."""
    text = docstring.strip()
    if match := _C_FIRST.match(text):
        return match.group(1) or match.group(2) or match.group(3)
    match = _C_LATER.search(text)
    return match.group(1) if match else ""


def functions(raw: RawStack, count: int = 2) -> tuple[str, ...]:
    """The innermost *count* functions outside the primitives: what a fingerprint may use."""
    names = [code.co_name for code, _ in raw if kind_of(code) == KEEP]
    if not names:
        names = [code.co_name for code, _ in raw]
    return tuple(names[:count])


def c_functions(raw: RawStack) -> set[str]:
    """The C functions that the frames stand for; the names of those that stand for none."""
    return {_frame(code, lasti).c or code.co_name for code, lasti in raw}


def frames_from_json(items: Iterable[Any]) -> tuple[Frame, ...]:
    """Frames as written by ``dataclasses.asdict``.  Raises TypeError for anything else."""
    return tuple(Frame(**item) for item in items)
