"""Model stacks: the call chain in the kernel code, cheap to take and resolved only when shown.

A raw stack is a tuple of ``(code, lasti)``, innermost first, with only the frames that matter to a
kernel developer: those of the model and of the program that drives it (a scenario, a test).  Marks
in the code (``kern.cname``) tell which they are, and which C function a frame stands for.
"""

from __future__ import annotations

import dis
import functools
import site as host_site
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import smpvm
from smpvm.kern.cname import FLOOR, KEEP, MARKS, PRIMITIVE, SKIP, CName

RawStack = tuple[tuple[CodeType, int], ...]

HOME = str(Path(smpvm.__file__).parent) + "/"


@functools.cache
def _libraries() -> tuple[str, ...]:
    """The directories of Python itself and of installed packages."""
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    found |= {*host_site.getsitepackages(), host_site.getusersitepackages()}
    return tuple(f"{path}/" for path in sorted(found))


@functools.cache
def _frames(filename: str) -> int:
    """How frames of a file are treated: as its module declares, or its nearest enclosing package.

    Frames of programs outside smpvm are shown; those of Python and installed packages are not.
    """
    if not filename.startswith(HOME):
        return SKIP if filename.startswith(("<", *_libraries())) else KEEP
    parts = filename[len(HOME) :].removesuffix(".py").split("/")
    for n in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(("smpvm", *parts[:n])))
        frames: int | None = getattr(module, "FRAMES", None)
        if frames is not None:
            return frames
    return SKIP


def stranger(filename: str) -> bool:
    """Is it the file of a program that is no part of smpvm, Python or an installed package?"""
    return not filename.startswith(HOME) and _frames(filename) == KEEP


@functools.cache
def _place(filename: str) -> str:
    """The path as shown in findings."""
    if filename.startswith(HOME):
        return filename[len(HOME) :]
    _, found, inside = filename.rpartition("/tests/")  # the last: $HOME may contain it too
    return f"tests/{inside}" if found else Path(filename).name


def _kind(code: CodeType) -> int:
    frames = _frames(code.co_filename)
    if frames in (SKIP, FLOOR):
        return frames
    if code.co_name.startswith(("<lambda", "<genexpr", "<listcomp")):
        return SKIP
    return PRIMITIVE if MARKS.of(code).primitive else frames


def _walkers() -> tuple[Callable[[CodeType], int], Callable[[int], int]]:
    """``kind_of`` and ``site``, over one cache.

    Code objects hash by content, which is far too slow here: the cache is keyed by address, and
    keeps its code objects alive.
    """
    walked: dict[int, tuple[CodeType, int]] = {}

    def kind_of(code: CodeType) -> int:
        """How frames of *code* are treated: SKIP, KEEP, PRIMITIVE, or FLOOR (the stack ends)."""
        known = walked.get(id(code))
        if known is None:
            known = walked[id(code)] = (code, _kind(code))
        return known[1]

    def site(depth: int = 1) -> int:
        """A number for the place in the kernel that called a primitive: its two innermost frames.

        A code object contains its bytecode, so its address plus an instruction offset is unique
        while the object lives.
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
    """The calling thread's model stack, without the caller's own *depth* frames.

    At most *limit* frames, of which at most *kept* are outside the primitives.
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
    """The model stack at which an exception was raised."""
    found: list[tuple[CodeType, int]] = []
    at = error.__traceback__
    while at is not None:
        found.append((at.tb_frame.f_code, at.tb_lasti))
        at = at.tb_next
    return shown(tuple(found[::-1]))


def inner(depth: int = 1) -> RawStack:
    """The innermost part of ``capture``: up to the second frame outside the primitives.

    Stacks for which ``site`` gives the same number have this part in common.
    """
    return capture(depth + 1, kept=2)


def near(frame: FrameType) -> RawStack:
    """The two innermost frames from *frame* outwards, of any kind."""
    found: list[tuple[CodeType, int]] = []
    at: FrameType | None = frame
    while at is not None and len(found) < 2:
        found.append((at.f_code, at.f_lasti))
        at = at.f_back
    return tuple(found)


class Places:
    """The places where shared fields are accessed and locks are taken: the same in every run.

    Places are identified by addresses of code objects, which are kept alive here.
    """

    def __init__(self) -> None:
        self._inner: dict[tuple[Any, ...], RawStack] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._stacks: list[RawStack] = [()]
        self._mutex = threading.Lock()

    def inner(self, key: tuple[Any, ...], depth: int) -> RawStack:
        """``inner``, computed once for each *key*, which contains a place's ``site`` number."""
        known = self._inner.get(key)
        if known is None:
            known = self._inner.setdefault(key, inner(depth + 1))
        return known

    def number(self, at: FrameType) -> int:
        """The number of the place at which *at* and its caller now are; never 0."""
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
    """Only the frames that are shown."""
    return tuple((code, lasti) for code, lasti in raw if kind_of(code) in (KEEP, PRIMITIVE))


def exact(taken: RawStack, later: RawStack) -> RawStack:
    """The full stack at which something was taken, from the part kept for its place (``inner``).

    The outer frames come from *later*, a stack of the same thread taken while it held the thing, as
    far as its callers are still active; otherwise they are left out.
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
    """The C function; empty for code outside the kernel and for the model's own functions."""
    where: str = ""
    """The lines of the C."""

    def __str__(self) -> str:
        place = f"({self.file}:{self.line})"
        if not self.c:
            return f"{self.name} {place}"
        return f"{f'{self.c} {self.where}'.rstrip()} [{self.name}] {place}"


def line_of(code: CodeType, lasti: int) -> int:
    """The source line of the instruction at *lasti*."""
    best = code.co_firstlineno
    for start, end, line in code.co_lines():
        if line is not None and start <= lasti < end:
            best = line
    return best


def resolve(raw: RawStack) -> tuple[Frame, ...]:
    """The stack to show, innermost first, without a primitive's private functions."""
    shown = _outside(raw)
    return tuple(
        Frame(code.co_qualname, _place(code.co_filename), line_of(code, lasti), c.name, c.where)
        for (code, lasti), c in zip(shown, c_names(shown), strict=True)
    )


def _outside(raw: RawStack) -> RawStack:
    start = 0
    while start < len(raw) - 1 and _inside(raw[start][0]):
        start += 1
    return raw[start:]


def _inside(code: CodeType) -> bool:
    return code.co_name.startswith("_") and kind_of(code) == PRIMITIVE


_NONE: Final = (CName("", ""),)


def c_names(raw: RawStack) -> list[CName]:
    """The C function of each frame; an empty name where there is none.

    A helper shared by several C functions counts as part of the one that called it.
    """
    found = []
    around = ""
    for code, _ in reversed(raw):
        names = MARKS.of(code).c or _NONE
        this = names[0]
        if len(names) > 1:
            this = next((n for n in names if n.name == around), this)
        around = this.name or around
        found.append(this)
    return found[::-1]


def identity_of(code: CodeType) -> str:
    """The function's name in fingerprints: its C name, or else its qualified name."""
    return MARKS.of(code).identity or code.co_qualname


def functions(raw: RawStack, count: int = 2) -> tuple[str, ...]:
    """The innermost *count* functions outside the primitives, for use in fingerprints.

    Consecutive helpers of one C function count as one.
    """
    codes = [code for code, _ in raw if kind_of(code) == KEEP] or [
        code for code, _ in _outside(raw)
    ]
    return tuple(name for name, _ in groupby(map(identity_of, codes[:count])))


def place(error: BaseException) -> tuple[str, ...]:
    """Where an exception was raised: the innermost functions, and which raise or call of each.

    It contains neither lines nor the text, but tells two assertions of one function apart.
    """
    out = []
    called = ""
    for code, lasti in raised_at(error)[:2]:
        out.append(f"{identity_of(code)}#{_nth(code, lasti, called)}")
        called = code.co_name
    return tuple(out)


@functools.lru_cache(maxsize=1024)
def _nth(code: CodeType, lasti: int, called: str) -> int:
    """How many raises (or uses of the name *called*) there are up to the instruction at *lasti*."""
    before = [i for i in dis.get_instructions(code) if i.offset <= lasti]
    if called:
        return sum(i.argval == called for i in before)
    return sum(i.opname == "RAISE_VARARGS" for i in before)


def c_functions(raw: RawStack) -> set[str]:
    """The C functions of the frames; for a frame without one, its Python name."""
    return {c.name or code.co_name for (code, _), c in zip(raw, c_names(raw), strict=True)}


def frames_from_json(items: Iterable[Any]) -> tuple[Frame, ...]:
    """Frames as written by ``dataclasses.asdict``.  Raises TypeError for anything else."""
    return tuple(Frame(**item) for item in items)
