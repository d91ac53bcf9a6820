"""The C index: which method of the model is which C function, from the marks on the code."""

from __future__ import annotations

import gzip
import importlib
import inspect
import json
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from itertools import groupby
from pathlib import Path
from types import FunctionType
from typing import Final

import smpvm
import smpvm.kern
import smpvm.vm
from smpvm.kern.cname import MARKS, CName, Mark
from smpvm.kern.kernel import default_parts
from smpvm.vm.build import SUBSYSTEMS

HOME: Final = Path(smpvm.__file__).parent
VECTORS: Final = HOME.parent / "tests" / "data" / "vectors.jsonl.gz"
"""The vectors of the repository; what is installed has none."""
COMMIT: Final = "c34b35620acd656ab5b68422bf26c8dca591f1b4"
NOTHING: Final = "-"


@dataclass(frozen=True)
class Method:
    """A method of the model that is a C function, or a step of it."""

    name: str
    file: str
    line: int
    where: str
    part: bool
    held: str
    left: str
    blocks: bool
    uncalled: bool

    @classmethod
    def of(cls, f: FunctionType, mark: Mark, c: CName) -> Method:
        """The method *f* as the C function *c*."""
        facts = (mark.held, mark.left, mark.blocks, mark.uncalled)
        return cls(f.__qualname__, _file(f), f.__code__.co_firstlineno, c.where, c.part, *facts)


@dataclass(frozen=True)
class Entry:
    """One C function; *methods* holds whole functions first, then steps in the order of the C."""

    name: str
    file: str
    methods: list[Method] = field(default_factory=list)
    vectors: int | None = None
    """How many conformance vectors call it; None where there are no vectors."""

    @property
    def where(self) -> str:
        """The lines of the whole function, or of its first step if the model has only steps."""
        return self.methods[0].where

    @property
    def first(self) -> int:
        """The first line of them."""
        return CName(self.name, self.where).first


def _file(f: FunctionType) -> str:
    return Path(f.__code__.co_filename).relative_to(HOME.parent).as_posix()


def marked() -> Iterator[tuple[FunctionType, Mark]]:
    """Every marked function of the model, and no change of it."""
    for package in (smpvm.kern, smpvm.vm):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for f, mark in MARKS:
        if f.__module__.startswith((f"{smpvm.kern.__name__}.", f"{smpvm.vm.__name__}.")):
            yield f, mark


def vector_counts(path: Path = VECTORS) -> Mapping[str, int] | None:
    """C function → how many of the vectors in *path* call it; None if there is no such file."""
    if not path.exists():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return Counter(json.loads(line)["function"] for line in lines)


@cache
def index() -> tuple[Entry, ...]:
    """All C functions, by file and line."""
    counts = vector_counts()
    found: dict[tuple[str, str], Entry] = {}
    for f, mark in marked():
        for c in mark.c:
            n = None if counts is None else counts.get(c.name, 0)
            entry = found.setdefault((c.file, c.name), Entry(c.name, c.file, vectors=n))
            entry.methods.append(Method.of(f, mark, c))
    for entry in found.values():
        entry.methods.sort(key=lambda m: (m.part, CName("", m.where).ranges, m.file, m.line))
    return tuple(sorted(found.values(), key=lambda e: (e.file, e.first, e.name)))


@cache
def own() -> tuple[tuple[str, str], ...]:
    """The model's own public methods that are marked as such: file and name."""
    return tuple(
        sorted(
            (_file(f), f.__qualname__)
            for f, mark in marked()
            if not mark.c and not f.__name__.startswith("_")
        )
    )


class UnknownName(ValueError):
    """Neither a C function of the model nor a method of it: one line, with names like it."""


def find(name: str) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The C functions of that name, and the model's own methods.

    Of a function that is found by its method only that method is told.  It may be named
    ``busy_try``, ``PageBusy.busy_try`` or ``Pages.busy_try``.  Raises UnknownName.
    """
    if found := [e for e in index() if e.name == name]:
        return found, []
    wanted = _inherited(name) or name
    found = [
        replace(e, methods=those)
        for e in index()
        if (those := [m for m in e.methods if _is(m.name, wanted)])
    ]
    mine = [(file, method) for file, method in own() if _is(method, wanted)]
    if not found and not mine:
        raise UnknownName(_unknown(name))
    return found, mine


def _is(method: str, wanted: str) -> bool:
    return wanted in (method, method.rpartition(".")[2])


def _inherited(name: str) -> str:
    """``PageBusy.busy_try`` for ``Pages.busy_try``; empty if *name* is no method of a subsystem."""
    cls, _, method = name.rpartition(".")
    for known in (*SUBSYSTEMS.values(), *default_parts().values()):
        if known.__name__ == cls and inspect.isfunction(f := getattr(known, method, None)):
            return f.__qualname__
    return ""


def _unknown(name: str) -> str:
    methods = {m.name for e in index() for m in e.methods} | {method for _, method in own()}
    names = {e.name for e in index()} | methods | {n.rpartition(".")[2] for n in methods}
    like = get_close_matches(name, sorted(names), n=4)
    said = f"; like it are {', '.join(like)}" if like else ""
    return f"c: no C function and no method of the model is called {name!r}{said}"


def as_json(entry: Entry) -> dict[str, object]:
    """An entry as JSON."""
    return {**asdict(entry), "where": entry.where}


def text(entry: Entry) -> list[str]:
    """An entry as people read it; steps in short where there is the whole."""
    whole = [m for m in entry.methods if not m.part]
    out = [f"{entry.name} {entry.where if whole else entry.file}"]
    for m in whole or entry.methods:
        out += _facts(m)
    if whole and len(whole) < len(entry.methods):
        out.append("  steps:")
        steps = entry.methods[len(whole) :]
        out += [f"    {_lines(m):<12} {m.name}  {m.file}:{m.line}" for m in steps]
    if entry.vectors is not None:
        out.append(f"  conformance vectors: {entry.vectors}")
    return out


def _facts(m: Method) -> list[str]:
    step = f", a step: lines {_lines(m)}" if m.part else ""
    return [
        f"  {m.name}  {m.file}:{m.line}{step}" + (", not called yet" if m.uncalled else ""),
        f"    held on entry:  {m.held or NOTHING}",
        f"    held on return: {m.left or NOTHING}",
        f"    may block:      {'yes' if m.blocks else 'no'}",
    ]


def _lines(m: Method) -> str:
    return m.where.partition(":")[2].replace(",", ", ")


HEAD: Final = f"""\
# C index

Which method of the model is which C function of DragonFly BSD (commit {COMMIT[:12]}).
Made from the marks on the code by `smpvm c > docs/c-index.md`; `smpvm c NAME` shows one entry.

- *Lines* are those of the C; an indented row is a method that is only a step of the function above.
- *Entry* and *return*: what must be held, and what is held afterwards ({NOTHING}: nothing that
  matters). *Blocks*: it may sleep, or wait for a lock that can sleep.
- *Vectors*: how many recorded calls of the kernel's own C the model is compared with (`smpvm
  conform`).
- *Not called yet*: ported, and kept, though nothing in the model calls it.
"""


def markdown() -> str:
    """The whole index as a page."""
    out = [HEAD]
    for file, entries in groupby(index(), lambda e: e.file):
        out += [
            f"## {file}\n",
            "| C function | Lines | Method | Entry | Return | Blocks | Vectors |",
            "|---|---|---|---|---|---|---|",
            *(_row(e, m, first=m is e.methods[0]) for e in entries for m in e.methods),
            "",
        ]
    out += ["## The model's own\n", "Public methods that the C does not have.\n"]
    out += [f"- `{method}` {_module(file)}" for file, method in own()]
    return "\n".join(out) + "\n"


def _row(entry: Entry, m: Method, *, first: bool) -> str:
    vectors = str(entry.vectors) if first and entry.vectors else ""
    name = f"`{entry.name}`" if first else ""
    called = f"{'&nbsp;&nbsp;' if m.part else ''}`{m.name}` {_module(m.file)}"
    if m.uncalled:
        called += ", *not called yet*"
    cells = (name, _lines(m), called, m.held or NOTHING, m.left or NOTHING)
    return f"| {' | '.join((*cells, 'yes' if m.blocks else 'no', vectors))} |"


def _module(file: str) -> str:
    return file.removeprefix("smpvm/")
