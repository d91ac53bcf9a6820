"""Programs from a seed; mutation and crossing of programs.  All of them are legal."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from smpvm.fuzz.operations import OPERATIONS, Operation
from smpvm.fuzz.program import has, op_problems, problems
from smpvm.fuzz.shape import (
    COLOURS,
    FILES,
    KINDS,
    SHARERS,
    SHARING,
    STATES,
    Op,
    Program,
    Region,
    Start,
    ThreadOf,
    is_process,
)

T = TypeVar("T")

USER: Final = tuple(o for o in OPERATIONS.values() if not o.kernel)
KERNEL: Final = tuple(o for o in OPERATIONS.values() if o.kernel)
OFTEN: Final = ("read", "write", "inactive", "active", "fork")
"""Operations without which little happens."""
TRIES: Final = 40
"""Attempts at a legal program, before a simpler one is taken."""
THREADS: Final = ("a", "a2", "b", "c", "d", "pageout", "pageout", "vmdaemon", "syncer", "kernel")
"""Those that matter most come twice."""


def generate(seed: int, size: int) -> Program:
    """The program of a seed: *size* is about the number of operations."""
    return Maker(random.Random(f"program {seed}/{size}")).program(size)


class Maker:
    """Makes and changes programs, by the numbers of *rng*."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def pick(self, what: Sequence[T]) -> T:
        """One of them."""
        return what[int(self.rng.random() * len(what))]

    def chance(self, p: float) -> bool:
        """True with probability *p*."""
        return self.rng.random() < p

    # -- whole programs

    def program(self, size: int) -> Program:
        """A program of about *size* operations."""
        for _ in range(TRIES):
            start = self.start()
            made = self.threads(Program(start), max(size, 1))
            if legal(made):
                return made
        return Program(Start((Region("x"),)), (ThreadOf("a", (Op("read", "x", 0),)),))

    def start(self) -> Start:
        """One or two regions; now and then something unusual about the machine."""
        regions = [self.region("x", False)]
        if self.chance(0.4):
            regions.append(self.region("f", True))
            if self.chance(0.4):
                regions.pop(0)
        elif self.chance(0.2):
            regions.append(self.region("y", False))
        start = Start(tuple(regions))
        if self.chance(0.15):
            start = replace(start, colours=self.pick(COLOURS))
        if self.chance(0.15):
            start = replace(start, locks=self.pick((1, 2, 3)))
        rare = self.rng.random()
        if rare < 0.08:
            start = replace(start, swap_full=True)
        elif rare < 0.2:
            word = self.pick(("low", "severe"))
            start = replace(start, memory=word, daemons=("pagedaemon",))
        if self.chance(0.1):
            start = replace(start, daemons=(*start.daemons, self.pick(("vmdaemon", "syncer"))))
        return start

    def region(self, name: str, is_file: bool) -> Region:
        """A region in some state."""
        while True:
            kind = self.pick([k for k in KINDS if (k in FILES) == is_file])
            sharing = self.pick(SHARING) if self.chance(0.6) else "own"
            pages = self.pick((1, 1, 2, 2, 3))
            region = Region(name, kind, pages, self.pick(STATES), sharing)
            if legal_region(region):
                return region

    def threads(self, base: Program, size: int) -> Program:
        """Two to four threads that share about *size* operations."""
        names = ["a"]
        others = [n for n in THREADS[1:] if base.start.memory == "plenty" or n != "pageout"]
        sharers = {p for r in base.start.regions for p in SHARERS[r.sharing]}
        others = [n for n in others if n[0] in sharers or not is_process(n) or self.chance(0.2)]
        for _ in range(self.pick((1, 1, 2, 2, 3))):
            name = self.pick(others)
            if name not in names:
                names.append(name)
        if len(names) == 1:
            names.append("kernel")
        whole = replace(base, threads=tuple(ThreadOf(n, (NOTHING,)) for n in sorted(names)))
        each = max(1, round(size / len(names)))
        return replace(
            whole,
            threads=tuple(
                replace(td, ops=tuple(self.op(whole, td) for _ in range(self.about(each))))
                for td in whole.threads
            ),
        )

    def about(self, n: int) -> int:
        """A number near *n*, at least 1."""
        return max(1, n + self.pick((-1, 0, 0, 1)))

    # -- operations

    def op(self, program: Program, td: ThreadOf) -> Op:
        """An operation that *td* may do."""
        table = USER if is_process(td.name) else KERNEL
        while True:
            o = OPERATIONS[self.pick(OFTEN)] if self.chance(0.4) else self.pick(table)
            if o not in table:
                continue
            op = self.made(program, td, o)
            if op is not None and not any(op_problems(program, td, op)):
                return op

    def made(self, program: Program, td: ThreadOf, o: Operation) -> Op | None:
        """An operation of kind *o*, if there is something for it."""
        op = Op(o.name)
        if o.words and (o.word_needed or self.chance(0.6)):
            op = replace(op, word=self.pick(o.words))
        if o.target != "none":
            fit = [r for r in program.start.regions if not o.files or r.kind in FILES]
            if not (o.files or o.kernel):
                fit = [r for r in fit if has(td.process, r)]
            if not fit:
                return None
            region = self.pick(fit)
            op = replace(op, region=region.name)
            if o.target == "page" or (o.target == "either" and self.chance(0.5)):
                op = replace(op, page=self.rng.randrange(region.pages + o.beyond))
        if o.child and self.chance(0.7):
            inner = self.pick([u for u in USER if not u.child and u.name not in ("exit", "wait")])
            child = self.made(program, td, inner)
            op = replace(op, child=child)
        return op

    # -- changes

    def mutate(self, program: Program) -> Program:
        """A program like *program*, with one to three changes."""
        ways = (self.remove, self.replace, self.swap, self.restart, self.add_thread)
        for _ in range(TRIES):
            made = program
            for _ in range(self.pick((1, 1, 1, 2, 3))):
                # What is longer can show what the shorter one showed, and more.
                made = self.insert(made) if self.chance(0.5) else self.pick(ways)(made)
            if made != program and legal(made):
                return made
        return self.program(len(program.ops()))

    def cross(self, one: Program, other: Program) -> Program:
        """Threads of *other* beside one of *one*, on the start of *one*."""
        for _ in range(TRIES):
            mine, theirs = self.pick(one.threads), self.pick(other.threads)
            name = theirs.name if theirs.name != mine.name else self.pick(THREADS)
            if is_process(name) != is_process(theirs.name) or name == mine.name:
                continue
            names = [r.name for r in one.start.regions]
            ops = tuple(
                replace(op, region=self.pick(names)) if op.region not in ("", *names) else op
                for op in theirs.ops
            )
            made = Program(one.start, tuple(sorted((mine, ThreadOf(name, ops)), key=_name)))
            if legal(made):
                return made
        return self.mutate(one)

    def _with(self, program: Program, td: ThreadOf, ops: tuple[Op, ...]) -> Program:
        threads = (replace(t, ops=ops) if t is td else t for t in program.threads)
        return replace(program, threads=tuple(t for t in threads if t.ops))

    def insert(self, program: Program) -> Program:
        """One operation more, at the end more often than elsewhere."""
        td = self.pick(program.threads)
        at = len(td.ops) if self.chance(0.5) else self.rng.randrange(len(td.ops) + 1)
        return self._with(program, td, (*td.ops[:at], self.op(program, td), *td.ops[at:]))

    def remove(self, program: Program) -> Program:
        """One operation less."""
        td = self.pick(program.threads)
        at = self.rng.randrange(len(td.ops))
        return self._with(program, td, (*td.ops[:at], *td.ops[at + 1 :]))

    def replace(self, program: Program) -> Program:
        """Another operation in the place of one."""
        td = self.pick(program.threads)
        at = self.rng.randrange(len(td.ops))
        return self._with(program, td, (*td.ops[:at], self.op(program, td), *td.ops[at + 1 :]))

    def swap(self, program: Program) -> Program:
        """Two neighbours change places."""
        td = self.pick(program.threads)
        if len(td.ops) < 2:
            return program
        at = self.rng.randrange(len(td.ops) - 1)
        return self._with(
            program, td, (*td.ops[:at], td.ops[at + 1], td.ops[at], *td.ops[at + 2 :])
        )

    def restart(self, program: Program) -> Program:
        """Another state of a region, or another machine."""
        start = program.start
        if self.chance(0.7) and start.regions:
            old = self.pick(start.regions)
            new = self.region(old.name, old.kind in FILES)
            new = replace(new, pages=max(new.pages, old.pages))
            regions = tuple(new if r is old else r for r in start.regions)
            return replace(program, start=replace(start, regions=regions))
        return replace(program, start=replace(self.start(), regions=start.regions))

    def add_thread(self, program: Program) -> Program:
        """One thread more."""
        name = self.pick(THREADS)
        if any(td.name == name for td in program.threads):
            return program
        td = ThreadOf(name, (NOTHING,))
        with_it = replace(program, threads=tuple(sorted((*program.threads, td), key=_name)))
        return self._with(with_it, td, (self.op(with_it, td),))


NOTHING: Final = Op("wait")
"""Stands in until a thread has operations."""


def _name(td: ThreadOf) -> str:
    return td.name


def legal(program: Program) -> bool:
    """May it run?"""
    return next(problems(program), None) is None


def legal_region(region: Region) -> bool:
    """The same for a region alone."""
    return legal(Program(Start((region,)), (ThreadOf("kernel", (Op("ask", word="syncer"),)),)))


Change = Callable[[Program], Program]
