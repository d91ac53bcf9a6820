"""Litmus tests as scenarios, with the outcomes of sequential consistency and of x86-TSO.

SB, LB, MP, IRIW, 2+2W: Alglave, Maranget and Tautschnig, Herding cats (2014), tables for x86;
Owens, Sarkar and Sewell, A better x86 memory model: x86-TSO (2009).  A program is a list of
threads, each of them instructions: ``x=1`` stores, ``x`` loads, ``F`` is a fence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from smpvm import Scenario
from smpvm.explore.engine import Settings
from smpvm.explore.search import Search, SearchPlan, SearchReport

Outcome = tuple[int, ...]
"""The values loaded, thread by thread; then, if asked for, the last values of the variables."""


@dataclass
class Litmus:
    program: tuple[str, ...]
    sc: set[Outcome]
    tso: set[Outcome]
    final: str = ""
    """The variables whose last values count."""
    big: bool = False


_TWO = set(product((0, 1), repeat=2))
_FOUR = set(product((0, 1), repeat=4))
LITMUS = {
    # Both loads may find 0 only where stores wait.
    "SB": Litmus(("x=1 y", "y=1 x"), _TWO - {(0, 0)}, _TWO),
    "SB+fences": Litmus(("x=1 F y", "y=1 F x"), _TWO - {(0, 0)}, _TWO - {(0, 0)}),
    "SB+fence": Litmus(("x=1 F y", "y=1 x"), _TWO - {(0, 0)}, _TWO),
    # Loads are not late, stores come in order.
    "LB": Litmus(("x y=1", "y x=1"), _TWO - {(1, 1)}, _TWO - {(1, 1)}),
    "MP": Litmus(("x=1 y=1", "y x"), _TWO - {(1, 0)}, _TWO - {(1, 0)}),
    # All see the stores of others in one order.
    "IRIW": Litmus(
        ("x=1", "y=1", "x y", "y x"), _FOUR - {(1, 0, 1, 0)}, _FOUR - {(1, 0, 1, 0)}, big=True
    ),
    "2+2W": Litmus(
        ("x=1 y=2", "y=1 x=2"), {(1, 2), (2, 1), (2, 2)}, {(1, 2), (2, 1), (2, 2)}, final="xy"
    ),
    # A thread sees its own stores early (n6 and the first example of Intel 8-4 have this shape).
    "SB+rfi": Litmus(
        ("x=1 x y", "y=1 y x"),
        {(1, 0, 1, 1), (1, 1, 1, 0), (1, 1, 1, 1)},
        {(1, 0, 1, 0), (1, 0, 1, 1), (1, 1, 1, 0), (1, 1, 1, 1)},
        big=True,
    ),
    "n6": Litmus(
        ("x=1 x y", "y=1 x=2"),
        {(1, 0, 2), (1, 1, 1), (1, 1, 2), (2, 1, 2)},
        {(1, 0, 1), (1, 0, 2), (1, 1, 1), (1, 1, 2), (2, 1, 2)},
        final="x",
        big=True,
    ),
    "CoRR": Litmus(
        ("x=1 x=2", "x x"),
        {(a, b) for a in range(3) for b in range(a, 3)},
        {(a, b) for a in range(3) for b in range(a, 3)},
    ),
}


def scenario_of(program: tuple[str, ...], final: str = "", seen: set[Outcome] | None = None) -> Any:
    """A scenario that notes its outcomes in *seen*."""

    class Program(Scenario):
        def setup(self) -> None:
            names = sorted({word[0] for text in program for word in text.split()} - {"F"})
            self.m = self.shared(benign=dict.fromkeys(names, "litmus"), **dict.fromkeys(names, 0))
            self.loaded: list[list[int]] = [[] for _ in program]
            for i, text in enumerate(program):
                self.thread(f"t{i}", self.run, text, self.loaded[i])

        def run(self, text: str, loaded: list[int]) -> None:
            for word in text.split():
                name, _, value = word.partition("=")
                if word == "F":
                    self.fence()
                elif value:
                    setattr(self.m, name, int(value))
                else:
                    loaded.append(getattr(self.m, name))

        def check(self) -> None:
            last = [getattr(self.m, name) for name in final]
            if seen is not None:
                seen.add((*(v for mine in self.loaded for v in mine), *last))

    return Program


def outcomes_of(
    litmus: Litmus, memory: str, strategy: str = "dpor", schedules: int | None = None
) -> tuple[set[Outcome], SearchReport]:
    """The outcomes that a search finds."""
    seen: set[Outcome] = set()
    scenario = scenario_of(litmus.program, litmus.final, seen)
    settings = Settings(memory=memory, checks=frozenset(), digest=False)
    plan = SearchPlan(strategy=strategy, schedules=schedules, settings=settings)
    return seen, Search(scenario, plan).run()


def reference(program: tuple[str, ...], final: str, tso: bool) -> set[Outcome]:
    """The outcomes by the abstract machine of the x86-TSO paper: every state, by brute force."""
    threads = [text.split() for text in program]
    outcomes: set[Outcome] = set()
    start = (tuple((0, (), ()) for _ in threads), frozenset[tuple[str, int]]())
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        memory, more = dict(state[1]), list(_next(state, threads, tso))
        if not more:
            last = [memory.get(name, 0) for name in final]
            outcomes.add((*(v for _, _, loaded in state[0] for v in loaded), *last))
        for new in more:
            if new not in seen:
                seen.add(new)
                todo.append(new)
    return outcomes


def _next(state: Any, threads: list[list[str]], tso: bool) -> Iterator[Any]:
    """Each thread: its counter, its buffer (oldest first), what it has loaded."""
    memory = dict(state[1])

    def become(i: int, *thread: Any, **stored: int) -> Any:
        rest = (*state[0][:i], thread, *state[0][i + 1 :])
        return rest, frozenset({**memory, **stored}.items())

    for i, (at, buffer, loaded) in enumerate(state[0]):
        if buffer:
            (name, value), *left = buffer
            yield become(i, at, tuple(left), loaded, **{name: value})
        if at == len(threads[i]):
            continue
        name, _, text = threads[i][at].partition("=")
        if name == "F":
            if not buffer:
                yield become(i, at + 1, buffer, loaded)
        elif text and tso:
            yield become(i, at + 1, (*buffer, (name, int(text))), loaded)
        elif text:
            yield become(i, at + 1, buffer, loaded, **{name: int(text)})
        else:
            own = [v for n, v in buffer if n == name]
            found = own[-1] if own else memory.get(name, 0)
            yield become(i, at + 1, buffer, (*loaded, found))
