"""The search: all pairs, new programs, changed programs, and more schedules of known ones.

Which of these is done next follows from what each has brought: new interactions for each thousand
steps of executions, the recent ones counting most.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from smpvm.check.finding import Finding
from smpvm.explore.engine import Outcome, Settings, collected, execute, schedule_of
from smpvm.explore.search import never, scheduled
from smpvm.explore.shrink import Budget, Shrinker
from smpvm.explore.strategy.base import Strategy
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.fuzz.corpus import Corpus, Kept
from smpvm.fuzz.generate import Maker
from smpvm.fuzz.interactions import Interactions, Seen
from smpvm.fuzz.known import known
from smpvm.fuzz.pairs import Pairs
from smpvm.fuzz.scenario import of_program
from smpvm.fuzz.shape import Program
from smpvm.fuzz.shrink import shrink
from smpvm.fuzz.target import Target
from smpvm.host.serialthread import Ending
from smpvm.text import plural

SCHEDULES: Final = 4
"""Executions of a new program."""
MORE: Final = 4
"""Executions when a known program is explored further."""
PROOF: Final = 96
"""Executions that DPOR may take to prove a cell."""
SHRINK_STEPS: Final = 400_000
"""Steps that shrinking one program may take; its schedule may take as many."""
SAVE_EVERY: Final = 20.0
"""Seconds between two savings of the corpus."""


SETTINGS: Final = Settings(digest=False, limit=20_000)
"""Of executions: small programs end soon, or do not."""


@dataclass(frozen=True)
class FuzzPlan:
    """What to do, and how much of it."""

    seconds: float | None = None
    programs: int | None = None
    seed: int = 0
    settings: Settings = SETTINGS
    feedback: bool = True
    pairs: bool = True
    prove: bool = False
    stop_on_first: bool = False
    shrink: bool = True
    corpus: Path | None = None
    """A directory: where the corpus is read from and written to."""
    save_to: Path | None = None
    """Where it is written to, if not there."""
    cover: str = ""
    """``file.c:line``: end when a program has run it."""


@dataclass
class Arm:
    """One thing to do, and what it has brought: interactions and thousands of steps, decayed."""

    name: str
    gain: float = 4.0
    cost: float = 1.0
    total: int = 0

    def rate(self) -> float:
        """New interactions for each thousand steps."""
        return self.gain / self.cost

    def learn(self, new: int, steps: int) -> None:
        """It has been done once."""
        self.gain = self.gain * 0.98 + new
        self.cost = self.cost * 0.98 + steps / 1000
        self.total += new


@dataclass
class Found:
    """A finding, the program that showed it, and an execution that did."""

    finding: Finding
    program: Program
    outcome: Outcome


@dataclass
class FuzzReport:
    """What came of it."""

    corpus: Corpus
    findings: list[Finding] = field(default_factory=list)
    arms: dict[str, tuple[int, float]] = field(default_factory=dict)
    """What was done → new interactions, thousands of steps."""
    seconds: float = 0.0
    programs: int = 0
    executions: int = 0
    last_hour: float = 0.0
    """New interactions an hour, by the last fifth of the run."""
    table: int = 0
    given_up: int = 0
    covered: str = ""
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        corpus = self.corpus
        return {
            "programs": self.programs,
            "executions": self.executions,
            "seconds": round(self.seconds, 3),
            "interactions": len(corpus.seen),
            "interactions_an_hour": round(self.last_hour),
            "corpus": {
                "programs": corpus.programs,
                "executions": corpus.executions,
                "kept": len(corpus.kept),
            },
            "pairs": {"cells": self.table, "done": len(corpus.pairs), "proven": corpus.proven},
            "split": {
                n: {"new": new, "steps": round(1000 * k)} for n, (new, k) in self.arms.items()
            },
            "given_up": self.given_up,
            "covered": self.covered,
            "interrupted": self.interrupted,
            "findings": [f.to_json() for f in self.findings],
        }

    def lines(self) -> list[str]:
        """For people."""
        c = self.corpus
        out = [
            f"fuzz: {plural(self.programs, 'program')}, {plural(self.executions, 'execution')}, "
            f"{self.seconds:.1f} s; {plural(len(c.seen), 'interaction')} known, "
            f"{plural(len(c.kept), 'program')} kept",
            f"  pairs: {len(c.pairs):,} of {self.table:,} cells"
            + (f", {c.proven:,} proven" if c.proven else ""),
        ]
        split = ", ".join(f"{n} {new:,}" for n, (new, _) in self.arms.items() if new)
        if split:
            out.append(f"  new interactions by: {split}; {self.last_hour:,.0f} an hour at the end")
        if self.given_up:
            out.append(f"  given up as too long: {plural(self.given_up, 'execution')}")
        if self.covered:
            out.append(f"  {self.covered}")
        if self.interrupted:
            out.append("  interrupted")
        kinds = ", ".join(f"{f.kind} ({plural(f.count, 'time')})" for f in self.findings)
        out.append(f"  findings: {kinds}" if kinds else "  nothing found")
        return out


class Fuzz:
    """Runs a plan in this process.  The same seed and number of programs do the same."""

    def __init__(
        self,
        plan: FuzzPlan,
        *,
        part: tuple[int, int] = (0, 1),
        stop: Callable[[], bool] = never,
        on_first: Callable[[Finding], None] | None = None,
        progress: Callable[[FuzzReport], None] | None = None,
    ) -> None:
        self.plan = plan
        self.stop = stop
        self.on_first = on_first
        self.progress = progress
        self.corpus = Corpus.load(plan.corpus) if plan.corpus is not None else Corpus()
        # A campaign that goes on must not do again what it has done.
        self.rng = random.Random(f"fuzz {plan.seed}/{part[0]}/{self.corpus.programs}")
        self.maker = Maker(self.rng)
        self.pairs = Pairs(plan.seed, self.corpus.pairs, part)
        self.watch = Interactions()
        self.target = Target(plan.cover) if plan.cover else None
        self.found: dict[str, Found] = {}
        names = ["pair", "invent", "mutate", "cross", "explore"]
        self.arms = {n: Arm(n) for n in names if plan.feedback or n in ("pair", "invent")}
        if not plan.pairs:
            del self.arms["pair"]
        self.report = FuzzReport(self.corpus, table=len(self.pairs.table))
        self._curve: list[tuple[float, int]] = []

    def run(self) -> FuzzReport:
        """All of it."""
        plan, report = self.plan, self.report
        began = told = saved = time.perf_counter()
        with collected() as self.collector:
            while not self._over(report):
                arm = self._choose()
                before = self.corpus.points
                new = self._do(arm)
                if arm is not None:
                    arm.learn(new, self.corpus.points - before)
                now = time.perf_counter()
                report.seconds = now - began
                self._curve.append((report.seconds, len(self.corpus.seen)))
                if self.progress is not None and now - told > 1.0:
                    told = now
                    report.findings = [f.finding for f in self.found.values()]
                    self.progress(report)
                if now - saved > SAVE_EVERY:
                    saved = now
                    self._save()
            report.interrupted = self.stop()
            report.last_hour = self._last_hour()
            report.arms = {a.name: (a.total, a.cost) for a in self.arms.values()}
            self._save()
            until = None if plan.seconds is None else began + 2 * plan.seconds
            report.findings = [self._finish(f, until) for f in self.found.values()]
        return report

    def _save(self) -> None:
        where = self.plan.save_to or self.plan.corpus
        if where is not None:
            self.corpus.save(where)

    def _over(self, report: FuzzReport) -> bool:
        plan = self.plan
        if self.stop() or report.covered or (plan.stop_on_first and self.found):
            return True
        if plan.programs is not None and report.programs >= plan.programs:
            return True
        return plan.seconds is not None and report.seconds > plan.seconds

    def _last_hour(self) -> float:
        if len(self._curve) < 10:
            return 0.0
        (t0, n0), (t1, n1) = self._curve[-len(self._curve) // 5], self._curve[-1]
        return 3600 * (n1 - n0) / max(t1 - t0, 1e-9)

    # -- one thing

    def _choose(self) -> Arm | None:
        """An arm, by what each has brought; each gets a share of a twentieth at least.

        When nothing brings anything any more, changes of what is known get most.
        """
        arms = [a for a in self.arms.values() if self.corpus.kept or a.name in ("pair", "invent")]
        least = 0.05 * sum(a.rate() for a in arms) or 1.0
        weights = [max(a.rate(), least) + (0.5 if a.name == "mutate" else 0.0) for a in arms]
        return self.rng.choices(arms, weights)[0]

    def _do(self, arm: Arm | None) -> int:
        name = "invent" if arm is None else arm.name
        if name == "explore":
            return self._explore(self._known())
        if name == "pair":
            program = self.pairs.next()
            if program is None:
                del self.arms["pair"]
                return 0
            return self._new(program, prove=self.plan.prove)
        if name == "mutate":
            kept = self._known()
            kept.children += 1
            return self._new(self.maker.mutate(kept.program))
        if name == "cross":
            return self._new(self.maker.cross(self._known().program, self._known().program))
        return self._new(self.maker.program(self.maker.pick((2, 3, 4, 6, 8))))

    def _known(self) -> Kept:
        kept = self.corpus.kept
        energies = [self.corpus.energy(k) for k in kept]
        if self.target is not None:
            energies = [
                e * self.target.nearness(k.shown) for e, k in zip(energies, kept, strict=True)
            ]
        return self.rng.choices(kept, energies)[0]

    def _new(self, program: Program, *, prove: bool = False) -> int:
        """Run a program that nobody has run."""
        self.report.programs += 1
        self.corpus.programs += 1
        shown: set[str] = set()
        clean = True
        strategy = make_strategy("portfolio", seed=self.plan.seed)
        for n in range(1, SCHEDULES + 1):  # from 1 on: without DPOR
            ran = self._execute(program, strategy, n, self.target if n == 1 else None)
            if ran is None:
                break
            shown |= ran[0].all()
            clean = clean and not ran[1]
        if self.target is not None and self.target.reached:
            self.report.covered = f"{self.plan.cover}: reached by fuzz:{program.text}"
        if prove and clean and self._proves(program):
            self.corpus.proven += 1
        return self.corpus.add(program, shown, SCHEDULES)

    def _explore(self, kept: Kept) -> int:
        """More schedules of a known program."""
        shown: set[str] = set()
        strategy = make_strategy("portfolio", seed=self.plan.seed)
        for n in range(kept.runs + 1, kept.runs + MORE + 1):
            ran = self._execute(kept.program, strategy, n)
            shown |= set() if ran is None else ran[0].all()
        kept.runs += MORE
        return self.corpus.more(kept, shown)

    def _execute(
        self, program: Program, strategy: Strategy, n: int, target: Target | None = None
    ) -> tuple[Seen, bool] | None:
        """Schedule number *n* of *program*: what it showed, and whether something was found.

        None if every interleaving has been tried.
        """
        observers = (self.watch,) if target is None else (self.watch, target)
        try:
            outcome = execute(of_program(program), strategy, self.plan.settings, n, observers)
        finally:
            if target is not None:
                target.close()
        if outcome is None:
            return None
        seen = self.watch.take()
        self.corpus.executions += 1
        self.report.executions += 1
        self.corpus.points += outcome.steps
        self.report.given_up += outcome.stuck is Ending.LIMIT
        found = bool(outcome.findings)
        if not self._keep(program, outcome):
            outcome.forget()
        self.collector.after()
        return seen, found

    def _keep(self, program: Program, outcome: Outcome) -> bool:
        """Note what was found; is the execution the first that shows something?"""
        new = False
        for finding in outcome.findings:
            known = self.found.get(finding.fingerprint)
            if known is not None:
                known.finding.count += 1
                continue
            finding.count = 1
            self.found[finding.fingerprint] = Found(finding, program, outcome)
            new = True
            if self.on_first is not None:
                schedule = schedule_of(of_program(program), self.plan.settings, outcome)
                self.on_first(scheduled(replace(finding), schedule, self.plan.settings))
        if new:
            outcome.carrier.threads.clear()
            outcome.kernel.forget()
        return new

    def _proves(self, program: Program) -> bool:
        """DPOR ends within its budget, and nothing is found."""
        strategy = make_strategy("dpor")
        scenario = of_program(program)
        for n in range(PROOF):
            outcome = execute(scenario, strategy, self.plan.settings, n)
            if outcome is None:
                return bool(strategy.claim())
            self.report.executions += 1
            self.corpus.executions += 1
            self.corpus.points += outcome.steps
            found, stuck = bool(outcome.findings), outcome.stuck is Ending.LIMIT
            if found:
                self._keep(program, outcome)
            else:
                outcome.forget()
            self.collector.after()
            if found or stuck:
                return False
        return False

    # -- findings

    def _finish(self, found: Found, until: float | None) -> Finding:
        """The finding, shrunk: its program, then its schedule."""
        settings, program, outcome = self.plan.settings, found.program, found.outcome
        finding, count = found.finding, found.finding.count

        def over() -> bool:
            return self.stop() or (until is not None and time.perf_counter() > until)

        if self.plan.shrink and not over():
            mark = finding.fingerprint
            program, smaller = shrink(program, mark, settings, Budget(over, SHRINK_STEPS))
            if smaller is not None:
                outcome = smaller
                finding = smaller.find(mark) or finding
            shrinker = Shrinker(of_program(program), settings, mark, Budget(over, SHRINK_STEPS))
            shrunk = shrinker.shrink(outcome)
            if shrunk is not None:
                finding, outcome = shrunk.finding, shrunk.outcome
                finding.evidence.append(shrunk.text())
        finding.count = count
        finding.evidence.insert(0, f"program: {program.text}")
        if not over() and (names := known(program, finding.fingerprint, settings)):
            finding.evidence.insert(1, f"known: does not show with the repair {' or '.join(names)}")
        return scheduled(finding, schedule_of(of_program(program), settings, outcome), settings)
