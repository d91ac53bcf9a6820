"""Model stacks: who called whom in the kernel code, cheap to take and resolved only when shown.

A raw stack is a tuple of ``(code, lasti)``, innermost first, holding only frames that mean
something to a kernel developer: those of the model and of the program that drives it (a scenario, a
test).  Which they are, and which C function a frame is, the code itself says (``kern.cname``).
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
    """Where Python and what is installed for it live."""
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    found |= {*host_site.getsitepackages(), host_site.getusersitepackages()}
    return tuple(f"{path}/" for path in sorted(found))


@functools.cache
def _frames(filename: str) -> int:
    """What is done with frames of a file: as its module says, or the nearest package around it.

    A program that is no part of smpvm is shown; Python itself and installed packages are not.
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
    """The path as shown."""
    if filename.startswith(HOME):
        return filename[len(HOME) :]
    _, found, inside = filename.rpartition("/tests/")  # the last: a home may have the name too
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
    """The C function; empty for what is no part of the kernel, and for the model's own."""
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
    """The stack to show, innermost first, without the private insides of a primitive."""
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
    """The C function of each frame; nameless where there is none.

    What is a step of several is a step of the one that called it.
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
    """What the function is called in fingerprints: as in the C, or by its qualified name."""
    return MARKS.of(code).identity or code.co_qualname


def functions(raw: RawStack, count: int = 2) -> tuple[str, ...]:
    """The innermost *count* functions outside the primitives: what a fingerprint may use.

    Steps of one C function are one.
    """
    codes = [code for code, _ in raw if kind_of(code) == KEEP] or [
        code for code, _ in _outside(raw)
    ]
    return tuple(name for name, _ in groupby(map(identity_of, codes[:count])))


def place(error: BaseException) -> tuple[str, ...]:
    """Where an exception was raised: the innermost functions, and the how-manyeth raise or call.

    No line, and no word of what it says: two assertions of one function are two places.
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
    """The C functions that the frames stand for; the names of those that stand for none."""
    return {c.name or code.co_name for (code, _), c in zip(raw, c_names(raw), strict=True)}


def frames_from_json(items: Iterable[Any]) -> tuple[Frame, ...]:
    """Frames as written by ``dataclasses.asdict``.  Raises TypeError for anything else."""
    return tuple(Frame(**item) for item in items)
