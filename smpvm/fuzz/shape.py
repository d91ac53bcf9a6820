"""The parts of a program, as values: regions of memory, the start, operations, threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

KINDS: Final = ("anon", "shared", "file", "private", "stack")
"""Anonymous private or shared memory, a file mapped shared or private, a stack that grows."""
STATES: Final = (
    "unmapped",
    "empty",
    "touched",
    "resident",
    "backed",
    "inactive",
    "laundry",
    "cached",
    "swapped",
    "wired",
    "busy",
)
"""Of the pages of a region at the start.

unmapped  the region is not mapped; mmap maps it
empty     mapped, never accessed
touched   mapped by a read fault
resident  written, on the active queue
backed    like resident, but clean: swap or the file has the same contents
inactive  written, idle, on the inactive queue, still mapped
laundry   the same, not mapped by anybody
cached    clean, on the cache queue
swapped   on swap, or only in the file
wired     mlocked by process a
busy      being written to swap or to the file
"""
SHARING: Final = ("own", "cow", "chain2", "chain3")
"""How other processes see a region of process a.

own     they do not (a file or shared memory: all have it mapped)
cow     b is a forked child; nobody has written since
chain2  b is a forked child; a has written page 0 since: a shadow object in front of the first
chain3  the same once more with c: two shadow objects in a chain
"""
SHARERS: Final = MappingProxyType({"own": "a", "cow": "ab", "chain2": "ab", "chain3": "abc"})
"""Sharing → the processes that have the region."""
FILES: Final = ("file", "private")
EVERYBODY: Final = ("shared", "file")
"""Kinds that every process has mapped."""
PROCESSES: Final = "abcd"
MOST_PAGES: Final = 4
COLOURS: Final = (1, 2, 4)
MEMORY: Final = ("plenty", "low", "severe")
DAEMONS: Final = ("pagedaemon", "vmdaemon", "syncer", "swapper")


@dataclass(frozen=True)
class Region:
    """Memory that the program works on: *name* is one letter from x on, or f, g for files."""

    name: str
    kind: str = "anon"
    pages: int = 1
    state: str = "resident"
    sharing: str = "own"

    def __str__(self) -> str:
        tail = "" if self.sharing == "own" else f" {self.sharing}"
        return f"{self.name} {self.kind} {self.pages} {self.state}{tail}"


@dataclass(frozen=True)
class Start:
    """The machine before any thread runs."""

    regions: tuple[Region, ...] = ()
    colours: int = 1
    locks: int = 4
    """Spinlocks that pages hash to."""
    memory: str = "plenty"
    swap_full: bool = False
    daemons: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, int], ...] = ()

    def items(self) -> list[str]:
        """The text of each thing that is not as usual."""
        out = [str(region) for region in self.regions]
        if self.colours != 1:
            out.append(f"colours {self.colours}")
        if self.locks != 4:
            out.append(f"locks {self.locks}")
        if self.memory != "plenty":
            out.append(f"memory {self.memory}")
        if self.swap_full:
            out.append("swap full")
        out += [f"daemon {name}" for name in self.daemons]
        out += [f"sysctl {name}={value}" for name, value in self.sysctls]
        return out


@dataclass(frozen=True)
class Op:
    """One operation: ``name``, then what it works on, a word, and the first act of a child."""

    name: str
    region: str = ""
    page: int | None = None
    word: str = ""
    child: Op | None = None

    def __str__(self) -> str:
        target = self.region if self.page is None else f"{self.region}+{self.page}"
        tail = "" if self.child is None else str(self.child)
        return " ".join(part for part in (self.name, target, self.word, tail) if part)

    def all(self) -> list[Op]:
        """Itself, and what its child does."""
        return [self, *(self.child.all() if self.child is not None else ())]


@dataclass(frozen=True)
class ThreadOf:
    """A thread and its operations: ``a`` to ``d`` and ``a2`` ... of processes, others the
    kernel's."""

    name: str
    ops: tuple[Op, ...] = ()

    @property
    def process(self) -> str:
        """The process that it is a thread of; "" for a kernel thread."""
        return self.name[0] if is_process(self.name) else ""

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(map(str, self.ops))}"


def is_process(name: str) -> bool:
    """Is *name* that of a process's thread?"""
    return name[:1] in PROCESSES and (len(name) == 1 or name[1:] in ("2", "3"))


@dataclass(frozen=True)
class Program:
    """A start and threads.  Two programs with the same text are the same."""

    start: Start = field(default_factory=Start)
    threads: tuple[ThreadOf, ...] = ()

    @property
    def text(self) -> str:
        """As ``parse`` reads it."""
        items = self.start.items()
        first = [f"start: {'; '.join(items)}"] if items else []
        return " | ".join([*first, *map(str, self.threads)])

    def __str__(self) -> str:
        return self.text

    def ops(self) -> list[Op]:
        """Every operation, those of children included."""
        return [each for td in self.threads for op in td.ops for each in op.all()]

    def region(self, name: str) -> Region | None:
        """The region of that name."""
        return next((r for r in self.start.regions if r.name == name), None)

    def processes(self) -> str:
        """The names of the processes: those with threads, and those that the start makes."""
        found = {td.process for td in self.threads} | {"a"}
        for region in self.start.regions:
            found |= set(SHARERS[region.sharing])
        return "".join(p for p in PROCESSES if p in found)

    def has(self, *names: str, region: str = "") -> bool:
        """Is there one of these operations (on *region*, if given)?"""
        return any(op.name in names and region in ("", op.region) for op in self.ops())

    def size(self) -> int:
        """Operations, threads, regions and pages: what shrinking reduces."""
        pages = sum(r.pages for r in self.start.regions)
        return len(self.ops()) + len(self.threads) + pages + len(self.start.items())
