"""The smallest program that still shows a finding: threads, operations, pages, then the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from smpvm.explore.engine import Outcome, Settings, execute
from smpvm.explore.shrink import Budget
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.fuzz.generate import legal
from smpvm.fuzz.scenario import of_program
from smpvm.fuzz.shape import SHARING, Program, Start, ThreadOf

TRIES = 60
"""Schedules in which a smaller program must show the finding."""


def smaller(program: Program) -> Iterator[Program]:
    """Programs with one thing less, the largest steps first."""
    start = program.start
    for n in range(len(program.threads)):
        yield replace(program, threads=program.threads[:n] + program.threads[n + 1 :])
    for n, td in enumerate(program.threads):
        for fewer in _fewer(td):
            yield replace(
                program, threads=program.threads[:n] + (fewer,) + program.threads[n + 1 :]
            )
    for less in _less(start):
        yield replace(program, start=less)


def _fewer(td: ThreadOf) -> Iterator[ThreadOf]:
    for n, op in enumerate(td.ops):
        yield replace(td, ops=td.ops[:n] + td.ops[n + 1 :])
        if op.child is not None:
            yield replace(td, ops=(*td.ops[:n], replace(op, child=None), *td.ops[n + 1 :]))
        if op.page:
            yield replace(td, ops=(*td.ops[:n], replace(op, page=0), *td.ops[n + 1 :]))


def _less(start: Start) -> Iterator[Start]:
    for n, region in enumerate(start.regions):
        rest = start.regions[:n], start.regions[n + 1 :]
        yield replace(start, regions=rest[0] + rest[1])
        if region.pages > 1:
            yield replace(
                start, regions=(*rest[0], replace(region, pages=region.pages - 1), *rest[1])
            )
        for simpler in ("own", "cow", "chain2")[: SHARING.index(region.sharing)]:
            yield replace(start, regions=(*rest[0], replace(region, sharing=simpler), *rest[1]))
        if region.state not in ("empty", "resident"):
            yield replace(start, regions=(*rest[0], replace(region, state="resident"), *rest[1]))
    usual = Start(start.regions)
    for name in ("colours", "locks", "memory", "swap_full", "daemons", "sysctls"):
        if getattr(start, name) != getattr(usual, name):
            yield replace(start, **{name: getattr(usual, name)})


def shrink(
    program: Program, mark: str, settings: Settings, budget: Budget
) -> tuple[Program, Outcome | None]:
    """The smallest program in which a short search finds the finding *mark*, and an execution that
    shows it; None if no smaller one was found."""
    settings = replace(settings, digest=False)
    best: Outcome | None = None
    tried: set[str] = set()
    again = True
    while again and not budget.over():
        again = False
        for less in smaller(program):
            if less.text in tried or not legal(less) or less.size() > program.size():
                continue
            tried.add(less.text)
            found = shows(less, mark, settings, budget)
            if found is not None:
                program, best, again = less, found, True
                break
            if budget.over():
                break
    return program, best


def shows(
    program: Program, mark: str, settings: Settings, budget: Budget, tries: int = TRIES
) -> Outcome | None:
    """An execution of *program* with the finding *mark*, if a short search has one."""
    scenario, strategy = of_program(program), make_strategy("portfolio", seed=1)
    for n in range(tries):
        if budget.over():
            return None
        outcome = execute(scenario, strategy, settings, n)
        if outcome is None:  # every interleaving has been tried
            return None
        budget.spend(outcome)
        if outcome.find(mark) is not None:
            return outcome
        outcome.forget()
    return None
