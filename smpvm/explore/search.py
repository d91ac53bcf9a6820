"""Many executions of one scenario: what was found, how much was seen, what is proven."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from smpvm.check.accepted import Declared, accepted_lines
from smpvm.check.finding import Finding
from smpvm.check.suite import checks_text
from smpvm.explore.engine import Outcome, Settings, collected, execute, schedule_of
from smpvm.explore.registry import source_hash, spec_of
from smpvm.explore.scenario import ScenarioClass
from smpvm.explore.shrink import Budget, Shrinker
from smpvm.explore.strategy.base import Step, Strategy, steps_of
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.strategy.replay import Replay
from smpvm.explore.trace.happens_before import trace_hash
from smpvm.explore.trace.schedule import Run, Schedule, runs_of
from smpvm.text import plural


@dataclass(frozen=True)
class SearchPlan:
    """What to run, and how much of it."""

    strategy: str = "portfolio"
    schedules: int | None = 1000
    first: int = 0
    """The number of the first schedule: a campaign may be run in pieces."""
    seconds: float | None = None
    seed: int = 0
    depth: int | None = None
    bound: int | None = None
    settings: Settings = field(default_factory=Settings)
    stop_on_first: bool = False
    shrink: bool = True
    traces: bool = True
    """Count the classes of traces seen."""


@dataclass
class SearchReport:
    """What came of a campaign."""

    scenario: str
    strategy: str
    granularity: str
    executions: int = 0
    points: int = 0
    seconds: float = 0.0
    traces: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    digest: str = ""
    proven: str = ""
    notes: list[str] = field(default_factory=list)
    benign: dict[Declared, int] = field(default_factory=dict)
    """What the source declares as meant, and how often it was seen."""
    not_judged: set[str] = field(default_factory=set)
    """What no checker can say anything about; a claim names it."""
    cut: int = 0
    """Executions that the strategy ended early."""
    limited: int = 0
    """Executions that were given up as too long."""
    checks: str = "all"
    """What was looked for."""
    interrupted: bool = False
    """Somebody asked it to end before it had done all."""

    @property
    def verdict(self) -> str:
        """``findings``, ``proven`` or ``inconclusive``."""
        if self.findings:
            return "findings"
        return "proven" if self.proven else "inconclusive"

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "scenario": self.scenario,
            "strategy": self.strategy,
            "granularity": self.granularity,
            "checks": self.checks,
            "executions": self.executions,
            "points": self.points,
            "seconds": round(self.seconds, 3),
            "traces": len(self.traces),
            "digest": self.digest,
            "verdict": self.verdict,
            "proven": self.proven,
            "notes": self.notes,
            "given_up": self.limited,
            "interrupted": self.interrupted,
            "not_judged": sorted(self.not_judged),
            "accepted": [d._asdict() | {"count": n} for d, n in sorted(self.benign.items())],
            "findings": [f.to_json() for f in self.findings],
        }

    def progress(self) -> str:
        """How far it is, and what was found, in a line."""
        return f"{self.lines()[0]}; {self._kinds() or 'nothing found'}"

    def _kinds(self) -> str:
        """What was found, and how often."""
        return ", ".join(f"{f.kind} ({plural(f.count, 'time')})" for f in self.findings)

    def lines(self) -> list[str]:
        """A few lines for people."""
        rate = self.executions / self.seconds if self.seconds else 0.0
        points = self.points / self.seconds if self.seconds else 0.0
        out = [
            f"{self.scenario}: {self.strategy}, {self.granularity}: "
            f"{plural(self.executions, 'execution')}, {plural(self.points, 'point')}, "
            f"{plural(len(self.traces), 'distinct trace')}, "
            f"{self.seconds:.1f} s ({rate:,.0f} executions/s, {points:,.0f} points/s)"
        ]
        out += [f"  {note}" for note in self.notes]
        if self.limited:
            out.append(f"  given up as too long: {plural(self.limited, 'execution')}")
        if self.interrupted:
            out.append("  interrupted")
        out += [f"  {line}" for line in accepted_lines(self.benign)]
        if self.findings:
            out.append(f"  findings: {self._kinds()}")
        elif self.proven:
            by = "" if self.checks == "all" else f" of the checks {self.checks}"
            out.append(f"  proven at granularity {self.granularity}: no finding{by}; {self.proven}")
        else:
            out.append("  nothing found; inconclusive: the space was not exhausted")
        return out


Progress = Callable[[SearchReport], None]
"""Told of how far a campaign has come, about once a second."""


def never() -> bool:
    """Nobody asks for an end."""
    return False


class Search:
    """Runs a plan on one scenario, in this process."""

    def __init__(
        self,
        scenario: ScenarioClass,
        plan: SearchPlan,
        *,
        progress: Progress | None = None,
        part: tuple[int, int] = (0, 1),
        stop: Callable[[], bool] = never,
        enough: Callable[[], bool] = never,
        on_first: Callable[[Finding], None] | None = None,
    ) -> None:
        """*stop* is asked between executions, and ends everything; *enough* ends the search only.
        *on_first* is told of the first finding with each fingerprint, with the schedule that it
        was found by, before anything is shrunk."""
        self.scenario = scenario
        self.plan = plan
        self.progress = progress
        self.part = part
        self.stop = stop
        self.enough = enough
        self.on_first = on_first
        self._by_mark: dict[str, tuple[Finding, Outcome]] = {}

    def run(self) -> SearchReport:
        """All of it."""
        plan, (mine, of) = self.plan, self.part
        strategy = make_strategy(plan.strategy, seed=plan.seed, depth=plan.depth, bound=plan.bound)
        settings = plan.settings
        report = SearchReport(
            spec_of(self.scenario),
            plan.strategy,
            settings.granularity,
            checks=checks_text(settings.checks),
        )
        hasher = blake2b(digest_size=16)
        began = told = time.perf_counter()
        n = plan.first + mine
        end = None if plan.schedules is None else plan.first + plan.schedules
        first: Record | None = None
        with collected() as collector:
            while end is None or n < end:
                outcome = execute(self.scenario, strategy, settings, n)
                if outcome is None:
                    report.proven = self._claim(strategy, report)
                    if report.proven and report.not_judged:
                        report.proven += f"; not judged: {', '.join(sorted(report.not_judged))}"
                    break
                first = first or _record(outcome)
                n += of
                hasher.update(outcome.digest)
                if not self._count(report, outcome):
                    outcome.forget()
                del outcome
                collector.after()
                now = time.perf_counter()
                report.seconds = now - began
                if self.progress is not None and now - told > 1.0:
                    told = now
                    report.findings = [f for f, _ in self._by_mark.values()]
                    self.progress(report)
                if self.stop():
                    report.interrupted = True
                    break
                if (plan.stop_on_first and self._by_mark) or self.enough():
                    break
                if plan.seconds is not None and report.seconds > plan.seconds:
                    break
            if report.proven and first is not None and not self._repeats(first):
                report.proven = ""
                report.notes.append(
                    "the first execution, run again, is another: something else decides, too "
                    "(what earlier executions left behind, chance, time)"
                )
            report.seconds = time.perf_counter() - began
            report.notes[:0] = strategy.notes()
            if report.limited:
                report.proven = ""
            report.digest = hasher.hexdigest()
            until = None if plan.seconds is None else time.perf_counter() + plan.seconds

            def over() -> bool:
                return self.stop() or (until is not None and time.perf_counter() > until)

            report.findings = [self._finish(f, o, over) for f, o in self._by_mark.values()]
        report.interrupted |= self.stop()
        return report

    def _claim(self, strategy: Strategy, report: SearchReport) -> str:
        """What is proven by an exhausted strategy.

        DPOR permutes what it sees: at granularity ``sync`` plain accesses have no points, and
        executions that differ in their order only are one to it.  That is all there is where
        nothing races; so races must be looked for, and there must be none, benign ones included.
        """
        claim = strategy.claim()
        settings = self.plan.settings
        if not claim or strategy.name != "dpor" or settings.granularity == "access":
            return claim
        if report.benign or "race" not in settings.checks:
            report.notes.append("dpor at granularity sync proves nothing where accesses may race")
            return ""
        return f"{claim}; nothing races, so the order of plain accesses makes no difference"

    def _repeats(self, first: Record) -> bool:
        """Does the first execution come out as it did, each time that it is run again?"""
        for _ in range(REPEATS):
            again = Replay(Schedule(spec_of(self.scenario), runs=first[0]))
            outcome = execute(self.scenario, again, self.plan.settings)
            if outcome is None or again.diverged or _record(outcome) != first:
                return False
            outcome.forget()
        return True

    def _count(self, report: SearchReport, outcome: Outcome) -> bool:
        """Take the figures of an execution; returns whether it is kept, for a finding."""
        kept = False
        report.points += outcome.steps
        if outcome.stuck == "limit":
            report.limited += 1
        if outcome.stuck == "cut":
            report.cut += 1
        else:
            report.executions += 1
        if self.plan.traces and outcome.stuck != "cut":
            report.traces.add(trace_hash(outcome.carrier))
        for name, count in outcome.benign.items():
            report.benign[name] = report.benign.get(name, 0) + count
        report.not_judged.update(outcome.not_judged)
        for finding in outcome.findings:
            known = self._by_mark.get(finding.fingerprint)
            if known is None:
                finding.count = 1  # of executions, however often in each
                self._by_mark[finding.fingerprint] = (finding, outcome)
                self._tell(finding, outcome)
                outcome.carrier.threads.clear()  # the machine may go; the log stays
                outcome.kernel.forget()
                kept = True
            else:
                known[0].count += 1
        return kept

    def _tell(self, finding: Finding, outcome: Outcome) -> None:
        if self.on_first is not None:
            schedule = schedule_of(self.scenario, self.plan.settings, outcome)
            self.on_first(_scheduled(replace(finding), schedule, self.plan.settings))

    def _finish(self, finding: Finding, outcome: Outcome, stop: Callable[[], bool]) -> Finding:
        """The finding with its schedule, shrunk, and the command that shows it again."""
        settings, scenario = self.plan.settings, self.scenario
        if self.plan.shrink and not stop():
            shrinker = Shrinker(scenario, settings, finding.fingerprint, Budget(stop))
            shrunk = shrinker.shrink(outcome)
            if shrunk is not None:
                shrunk.finding.count = finding.count
                finding, scenario, outcome = shrunk.finding, shrinker.scenario, shrunk.outcome
                finding.evidence.append(shrunk.text())
        return _scheduled(finding, schedule_of(scenario, settings, outcome), settings)


Record = tuple[list[Run], list[Step], list[str]]
"""The schedule of an execution, what it did, and the fingerprints of what was found in it."""

REPEATS = 8
"""How often the first execution is run again before anything is proven."""


def _record(outcome: Outcome) -> Record:
    log = outcome.carrier.log
    return runs_of(log), steps_of(log), sorted(f.fingerprint for f in outcome.findings)


def _scheduled(finding: Finding, schedule: Schedule, settings: Settings) -> Finding:
    finding.schedule = schedule.text()
    finding.source_hash = source_hash(schedule.scenario)
    checks = checks_text(settings.checks)
    finding.command = shlex.join(
        ["smpvm", "replay", "--lanes"]
        + ([] if checks == "all" else ["--check", checks])
        + ([] if settings.benign else ["--no-benign"])
        + ["--schedule", finding.schedule]
    )
    return finding


PROVING = ("bounded", "all", "dpor")
"""Strategies that come to an end with something proven."""
EXHAUSTIVE = (*PROVING, "roundrobin")
"""Strategies that one worker must run alone: each execution follows from the one before."""
