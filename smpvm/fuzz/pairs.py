"""All pairs: every operation against every other on every start, a table that can be finished."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from smpvm.fuzz.generate import legal
from smpvm.fuzz.operations import OPERATIONS, Operation
from smpvm.fuzz.shape import FILES, KINDS, SHARING, STATES, Op, Program, Region, Start, ThreadOf


@dataclass(frozen=True)
class Cell:
    """One place of the table."""

    one: Op
    other: Op
    region: Region

    def program(self) -> Program | None:
        """The two operations side by side; None where there is no such thing."""
        start = Start((self.region,))
        for first, second in _threads(self.one, self.other):
            threads = sorted(
                (ThreadOf(first, (self.one,)), ThreadOf(second, (self.other,))),
                key=lambda td: td.name,
            )
            made = Program(start, tuple(threads))
            if legal(made):
                return made
        return None


def _threads(one: Op, other: Op) -> Iterator[tuple[str, str]]:
    """The threads that may do the two: of two processes, of one, or of the kernel."""
    mine, theirs = OPERATIONS[one.name], OPERATIONS[other.name]
    firsts = [mine.only or "kernel"] if mine.kernel else ["a"]
    seconds = [theirs.only or "kernel2"] if theirs.kernel else ["b", "a2"]
    for first in firsts:
        for second in seconds:
            if first != second:
                yield first, second


def starts() -> list[Region]:
    """Every start of one region, of two pages."""
    found = []
    for kind in KINDS:
        for state in STATES:
            for sharing in SHARING:
                name = "f" if kind in FILES else "x"
                region = Region(name, kind, 2, state, sharing)
                if legal(Program(Start((region,)), (ThreadOf("a", (Op("wait"),)),))):
                    found.append(region)
    return found


def operations(region: Region) -> list[Op]:
    """Every operation, in one form (the first word where one is needed), for *region*."""
    return [_form(o, region) for o in OPERATIONS.values() if not o.files or region.kind in FILES]


def _form(o: Operation, region: Region) -> Op:
    op = Op(o.name, word=o.words[0] if o.word_needed else "")
    if o.name == "inactive":
        op = replace(op, word="1")  # the pass that writes
    if o.target != "none":
        op = replace(op, region=region.name)
    if o.target == "page":
        op = replace(op, page=0)
    if o.child:
        op = replace(op, child=Op("write", region.name, 0))
    return op


def cells() -> list[Cell]:
    """The table, in order; a pair is in it once."""
    out = []
    for region in starts():
        ops = operations(region)
        out += [Cell(one, other, region) for n, one in enumerate(ops) for other in ops[n:]]
    return out


class Pairs:
    """The programs of the table, in an order that a seed gives.

    *done*: the numbers of cells that need not be done again; *part* = (i, n): only every n-th cell.
    """

    def __init__(self, seed: int, done: set[int], part: tuple[int, int] = (0, 1)) -> None:
        self.table = cells()
        self.done = done
        order = list(range(len(self.table)))
        random.Random(f"pairs {seed}").shuffle(order)
        self._left = iter(order[part[0] :: part[1]])

    def next(self) -> Program | None:
        """The next program; None when the table is finished."""
        for number in self._left:
            if number not in self.done:
                self.done.add(number)
                program = self.table[number].program()
                if program is not None:
                    return program
        return None
