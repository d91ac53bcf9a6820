"""The programs that showed something new, and how often each thing was shown; kept on disk."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from smpvm.check.finding import write_atomic
from smpvm.files import MIB, read
from smpvm.fuzz.program import ProgramError, parse
from smpvm.fuzz.shape import Program
from smpvm.text import brief

VERSION: Final = 1
FILE: Final = "corpus.json"
_HEX: Final = re.compile(r"[0-9a-f]{1,100000}")
MOST: Final = 64 * MIB
WORTH: Final = MappingProxyType({"branch": 30.0, "order": 5.0, "wakeup": 5.0})
COUNTS: Final = ("programs", "executions", "points", "proven")


class CorpusError(ValueError):
    """A corpus that cannot be read: one line."""


@dataclass
class Kept:
    """A program of the corpus."""

    program: Program
    shown: frozenset[str] = frozenset()
    """What it showed that nobody had shown before."""
    runs: int = 0
    """Schedules of it that have been run."""
    children: int = field(default=0, compare=False)
    """Programs that were made of it; not kept on disk."""


@dataclass
class Corpus:
    """Programs, and everything seen: interaction → in how many programs."""

    kept: list[Kept] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    programs: int = 0
    """Programs that were run, kept or not."""
    executions: int = 0
    points: int = 0
    pairs: set[int] = field(default_factory=set)
    """The numbers of the cells of the table that are done."""
    proven: int = 0
    """Cells that are proven."""

    def add(self, program: Program, shown: set[str], runs: int) -> int:
        """A program showed these things.  Returns how many are new; then it is kept."""
        new = frozenset(s for s in shown if s not in self.seen)
        self.seen.update(shown)
        if new:
            self.kept.append(Kept(program, new, runs))
        return len(new)

    def more(self, kept: Kept, shown: set[str]) -> int:
        """Another schedule of a program showed these things."""
        new = frozenset(s for s in shown if s not in self.seen)
        self.seen.update(new)
        kept.shown |= new
        return len(new)

    def energy(self, kept: Kept) -> float:
        """How much a program is worth: what it shows is rare, and it has not been run for long.

        A branch of the C says more than an order of locks or a wakeup, that more than a pair of
        places, of which there are very many.
        """
        rare = sum(WORTH.get(s.partition(" ")[0], 1.0) / self.seen[s] for s in kept.shown)
        return rare / (1 + kept.runs / 16 + kept.children / 4)

    def merge(self, base: Corpus, other: Corpus) -> None:
        """Take what a worker, who began with *base*, has more than that."""
        for kept in other.kept[len(base.kept) :]:
            new = frozenset(s for s in kept.shown if s not in self.seen)
            if new:
                self.kept.append(Kept(kept.program, new, kept.runs))
        self.seen |= other.seen
        self.pairs |= other.pairs
        for name in COUNTS:
            more = getattr(other, name) - getattr(base, name)
            setattr(self, name, getattr(self, name) + more)

    # -- on disk

    def save(self, where: Path) -> None:
        """Write it to a directory."""
        doc = {
            "version": VERSION,
            **{name: getattr(self, name) for name in COUNTS},
            "pairs": f"{sum(1 << n for n in self.pairs):x}",
            "kept": [
                {"program": k.program.text, "shown": sorted(k.shown), "runs": k.runs}
                for k in self.kept
            ],
            "seen": dict(sorted(self.seen.items())),
        }
        where.mkdir(parents=True, exist_ok=True)
        write_atomic(where / FILE, json.dumps(doc, indent=1) + "\n")

    @classmethod
    def load(cls, where: Path) -> Corpus:
        """Read it; an empty one where there is none.  Raises CorpusError."""
        path = where / FILE
        if not path.exists():
            return cls()
        try:
            doc = json.loads(read(path, MOST, CorpusError))
        except ValueError as why:
            raise CorpusError(f"{path}: {brief(str(why))}") from None
        try:
            if doc["version"] != VERSION:
                raise CorpusError(f"{path}: version {brief(str(doc['version']))}, known is 1")
            return cls(
                [_kept(k) for k in doc["kept"]],
                Counter({str(s): _count(n) for s, n in doc["seen"].items()}),
                pairs=_cells(doc["pairs"]),
                **{name: _count(doc[name]) for name in COUNTS},
            )
        except ProgramError as why:
            raise CorpusError(f"{path}: {why}") from None
        except (KeyError, TypeError, AttributeError) as why:
            raise CorpusError(f"{path}: damaged: {type(why).__name__} {brief(str(why))}") from None


def _kept(doc: Any) -> Kept:
    return Kept(parse(doc["program"]), frozenset(map(str, doc["shown"])), _count(doc["runs"]))


def _cells(text: Any) -> set[int]:
    """The numbers of the bits that are set in a hexadecimal number."""
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise TypeError("pairs is not a hexadecimal number")
    return {n for n, bit in enumerate(f"{int(text, 16):b}"[::-1]) if bit == "1"}


def _count(n: Any) -> int:
    if type(n) is not int or n < 0:
        raise TypeError(f"{n!r} is not a count")
    return n
