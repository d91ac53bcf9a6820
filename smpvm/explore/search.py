"""A search: many executions of one scenario, and a report of what they found or proved."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from smpvm.check.accepted import Declared, accepted_lines
from smpvm.check.finding import Finding, hidden_lines, new_first
from smpvm.check.suite import checks_text
from smpvm.explore.engine import Outcome, Settings, collected, execute, schedule_of, tireless
from smpvm.explore.registry import source_hash, spec_of
from smpvm.explore.scenario import ScenarioClass
from smpvm.explore.shrink import Budget, Shrinker
from smpvm.explore.strategy.base import Step, Strategy, steps_of
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.strategy.replay import Replay
from smpvm.explore.trace.schedule import Run, Schedule, runs_of
from smpvm.explore.trace.tracehash import trace_hash
from smpvm.explore.undeclared.swap import watching
from smpvm.explore.undeclared.watch import observers
from smpvm.host.choices import Key
from smpvm.host.serialthread import Ending
from smpvm.text import plural


@dataclass(frozen=True)
class SearchPlan:
    """Which executions to run, and how many."""

    strategy: str = "portfolio"
    schedules: int | None = 1000
    first: int = 0
    """The number of the first execution: a search may be run in pieces."""
    seconds: float | None = None
    seed: int = 0
    depth: int | None = None
    bound: int | None = None
    settings: Settings = field(default_factory=Settings)
    stop_on_first: bool = False
    shrink: bool = True
    traces: bool = True
    """Count the distinct traces (equivalence classes of executions)."""
    known: bool = True
    """Are findings that show defects of the catalogue reported too?"""


MEMORY = {"sc": "sequential consistency", "tso": "x86-TSO"}
"""The memory models by name."""


@dataclass
class SearchReport:
    """The result of a search."""

    scenario: str
    strategy: str
    granularity: str
    memory: str = "sc"
    executions: int = 0
    points: int = 0
    seconds: float = 0.0
    traces: set[int] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    digest: str = ""
    proven: str = ""
    notes: list[str] = field(default_factory=list)
    benign: dict[Declared, int] = field(default_factory=dict)
    """What the source declares as intended, and how often it occurred."""
    not_judged: set[str] = field(default_factory=set)
    """What no checker can judge; a claim lists it."""
    pruned: int = 0
    """Executions in which an assumption did not hold; not counted in ``executions``."""
    spurious: int = 0
    """How many sleeps of each execution could end without a wakeup."""
    cut: int = 0
    """Executions that the strategy abandoned; not counted in ``executions``."""
    limited: int = 0
    """Executions that reached the step limit."""
    hidden: dict[str, int] = field(default_factory=dict)
    """Repairs of known defects that were seen and are not reported → how often."""
    checks: str = "all"
    """The checkers in use, in the form of ``--check``."""
    hung: str = ""
    """Which thread did not return, and where; the search ended there."""
    interrupted: bool = False
    """The search was asked to stop before it was complete."""

    @property
    def verdict(self) -> str:
        """``findings``, ``proven`` or ``inconclusive``."""
        if self.findings:
            return "findings"
        return "proven" if self.proven else "inconclusive"

    def to_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "scenario": self.scenario,
            "strategy": self.strategy,
            "granularity": self.granularity,
            "memory": self.memory,
            "checks": self.checks,
            "executions": self.executions,
            "points": self.points,
            "seconds": round(self.seconds, 3),
            "traces": len(self.traces),
            "digest": self.digest,
            "verdict": self.verdict,
            "proven": self.proven,
            "notes": self.notes,
            "spurious": self.spurious,
            "pruned": self.pruned,
            "given_up": self.limited,
            "interrupted": self.interrupted,
            "hung": self.hung,
            "not_judged": sorted(self.not_judged),
            "accepted": [d._asdict() | {"count": n} for d, n in sorted(self.benign.items())],
            "hidden": dict(sorted(self.hidden.items())),
            "findings": [f.to_json() for f in self.findings],
        }

    def progress(self) -> str:
        """One line: how far the search is, and what it has found."""
        return f"{self.lines()[0]}; {self._kinds() or 'nothing found'}"

    def _kinds(self) -> str:
        """The kinds of the findings, each with its count."""
        return ", ".join(f"{f.kind} ({plural(f.count, 'time')})" for f in self.findings)

    def how(self) -> str:
        """Granularity, and the memory model if it is not the usual one."""
        return self.granularity if self.memory == "sc" else f"{self.granularity}, {self.memory}"

    def lines(self) -> list[str]:
        """The summary as text."""
        rate = self.executions / self.seconds if self.seconds else 0.0
        points = self.points / self.seconds if self.seconds else 0.0
        out = [
            f"{self.scenario}: {self.strategy}, {self.how()}: "
            f"{plural(self.executions, 'execution')}, {plural(self.points, 'point')}, "
            f"{plural(len(self.traces), 'distinct trace')}, "
            f"{self.seconds:.1f} s ({rate:,.0f} executions/s, {points:,.0f} points/s)"
        ]
        out += [f"  {note}" for note in self.notes]
        if self.limited:
            out.append(f"  abandoned at the step limit: {plural(self.limited, 'execution')}")
        if self.pruned:
            out.append(f"  pruned by assume: {plural(self.pruned, 'execution')}")
        if self.hung:
            out.append(f"  abandoned: {self.hung}")
        if self.interrupted:
            out.append("  interrupted")
        out += [f"  {line}" for line in accepted_lines(self.benign)]
        out += [f"  {line}" for line in hidden_lines(self.hidden)]
        if self.findings:
            out.append(f"  findings: {self._kinds()}")
        elif self.proven:
            by = "" if self.checks == "all" else f" by the checks {self.checks}"
            out.append(
                f"  proven at granularity {self.granularity}, under {MEMORY[self.memory]}: "
                f"no finding{by}; {self.proven}"
            )
        else:
            out.append("  nothing found; inconclusive: not every interleaving was tried")
        return out


Progress = Callable[[SearchReport], None]
"""Called with the report so far, about once a second."""


def never() -> bool:
    """The default of callbacks that ask whether to stop."""
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
        """*stop* is called between executions; when it returns true, search and shrinking end.
        *enough* ends only the search.  *on_first* is called with the first finding of each
        fingerprint, with the schedule that showed it, before anything is shrunk.  *part* = (i, n):
        run only every n-th execution, from the i-th."""
        self.scenario = scenario
        self.plan = plan
        self.progress = progress
        self.part = part
        self.stop = stop
        self.enough = enough
        self.on_first = on_first
        self._by_mark: dict[str, tuple[Finding, Outcome]] = {}
        self._as_found: dict[str, Finding] = {}
        """Fingerprint → the finding with the schedule that found it."""
        settings = plan.settings
        self._report = SearchReport(
            spec_of(scenario), plan.strategy, settings.granularity, settings.memory
        )

    def so_far(self) -> SearchReport:
        """The report of an unfinished search, with its findings as they were found."""
        found = [
            replace(finding, count=self._by_mark[mark][0].count)
            for mark, finding in self._as_found.items()
        ]
        found = new_first(found)
        return replace(self._report, findings=found, traces=set(self._report.traces), proven="")

    def run(self) -> SearchReport:
        """Search, then shrink the findings.  Raises ScenarioError."""
        plan, (mine, of) = self.plan, self.part
        strategy = make_strategy(plan.strategy, seed=plan.seed, depth=plan.depth, bound=plan.bound)
        settings = plan.settings
        report = self._report
        report.checks = checks_text(settings.checks)
        hasher = blake2b(digest_size=16)
        began = reported = time.perf_counter()
        n = plan.first + mine
        end = None if plan.schedules is None else plan.first + plan.schedules
        first: Record | None = None
        proving = plan.strategy in PROVING or plan.strategy == "portfolio"
        with collected() as collector, watching(self.scenario if proving else None) as undeclared:
            seen = observers(undeclared, settings.checks)
            while end is None or n < end:
                outcome = execute(self.scenario, strategy, settings, n, seen)
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
                if self.progress is not None and now - reported > 1.0:
                    reported = now
                    self.progress(self.so_far())
                if self.stop():
                    report.interrupted = True
                    break
                if (plan.stop_on_first and self._by_mark) or self.enough():
                    break
                if plan.seconds is not None and report.seconds > plan.seconds:
                    break
        with collected():
            if report.limited:
                report.proven = ""  # abandoned executions prove nothing
            if report.proven and not report.executions:
                report.proven = ""
                report.notes.append("no execution met the assumptions: nothing is proven")
            if report.proven and report.spurious:
                most = plural(report.spurious, "spurious wakeup")
                report.proven += f"; at most {most} in each"
            if report.hidden:
                report.proven = ""  # what comes after such a defect was not seen
            if undeclared.noticed:
                report.proven = ""
                report.notes += undeclared.lines()
            if report.proven and first is not None and not self._repeats(first):
                report.proven = ""
                report.notes.append(
                    "the first execution did not repeat: something besides the schedule decides "
                    "(state left by earlier executions, randomness, time)"
                )
            report.seconds = time.perf_counter() - began
            report.notes[:0] = strategy.notes()
            report.digest = hasher.hexdigest()
            until = None if plan.seconds is None else time.perf_counter() + plan.seconds

            def over() -> bool:
                return self.stop() or (until is not None and time.perf_counter() > until)

            found = [self._finish(f, o, over) for f, o in self._by_mark.values()]
            report.findings = new_first(found)
        report.interrupted |= self.stop()
        return report

    def _claim(self, strategy: Strategy, report: SearchReport) -> str:
        """What an exhausted strategy has proven; "" if nothing.

        DPOR reorders only operations that have schedule points.  At granularity ``sync`` plain
        accesses have none, so executions that differ only in their order count as one.  That is
        sound only if nothing races: the race checker must be on and must have seen no race, not
        even a benign one.
        """
        claim = strategy.claim()
        settings = self.plan.settings
        if not claim or strategy.name != "dpor" or settings.granularity == "access":
            return claim
        if report.benign or "race" not in settings.checks:
            report.notes.append("dpor at granularity sync proves nothing if accesses may race")
            return ""
        return f"{claim}; nothing races, so the order of plain accesses makes no difference"

    def _repeats(self, first: Record) -> bool:
        """Does the first execution repeat exactly each time it is replayed?"""
        for _ in range(REPEATS):
            again = Replay(Schedule(spec_of(self.scenario), runs=first[0], choices=first[3]))
            outcome = execute(self.scenario, again, self.plan.settings)
            if outcome is None or again.diverged or _record(outcome) != first:
                return False
            outcome.forget()
        return True

    def _count(self, report: SearchReport, outcome: Outcome) -> bool:
        """Add an execution to the report; returns whether it is kept because of a new finding."""
        kept = False
        report.points += outcome.steps
        report.spurious = max(report.spurious, outcome.carrier.choices.budget)
        if outcome.stuck is Ending.LIMIT:
            report.limited += 1
            if report.limited == 1:
                report.notes.append(f"abandoned: {tireless(outcome.carrier)}")
        if outcome.stuck is Ending.CUT:
            report.cut += 1
        elif outcome.stuck is Ending.PRUNED:
            report.pruned += 1
        else:
            report.executions += 1
        if self.plan.traces and outcome.stuck not in (Ending.CUT, Ending.PRUNED):
            report.traces.add(trace_hash(outcome.carrier))
        for name, count in outcome.benign.items():
            report.benign[name] = report.benign.get(name, 0) + count
        report.not_judged.update(outcome.not_judged)
        for finding in outcome.findings:
            if finding.known and not self.plan.known:
                names = ", ".join(finding.known)
                report.hidden[names] = report.hidden.get(names, 0) + 1
                continue
            known = self._by_mark.get(finding.fingerprint)
            if known is None:
                finding.count = 1  # counts executions, not occurrences within one
                self._by_mark[finding.fingerprint] = (finding, outcome)
                self._report_first(finding, outcome)
                outcome.carrier.threads.clear()  # frees the machine; the log is kept
                outcome.kernel.forget()
                kept = True
            else:
                known[0].count += 1
        return kept

    def _report_first(self, finding: Finding, outcome: Outcome) -> None:
        schedule = schedule_of(self.scenario, self.plan.settings, outcome)
        first = scheduled(replace(finding), schedule, self.plan.settings)
        self._as_found[finding.fingerprint] = first
        if self.on_first is not None:
            self.on_first(first)

    def _finish(self, finding: Finding, outcome: Outcome, stop: Callable[[], bool]) -> Finding:
        """The finding with its schedule, shrunk if requested, and the command that replays it."""
        settings, scenario = self.plan.settings, self.scenario
        if self.plan.shrink and not stop():
            shrinker = Shrinker(scenario, settings, finding.fingerprint, Budget(stop))
            shrunk = shrinker.shrink(outcome)
            if shrunk is not None:
                shrunk.finding.count = finding.count
                finding, scenario, outcome = shrunk.finding, shrinker.scenario, shrunk.outcome
                finding.evidence.append(shrunk.text())
        return scheduled(finding, schedule_of(scenario, settings, outcome), settings)


Record = tuple[list[Run], list[Step], list[str], dict[Key, int]]
"""Of one execution: its schedule, its steps, the fingerprints of its findings, its choices."""

REPEATS = 8
"""How often the first execution must repeat before anything counts as proven."""


def _record(outcome: Outcome) -> Record:
    log = outcome.carrier.log
    marks = sorted(f.fingerprint for f in outcome.findings)
    return runs_of(log), steps_of(log), marks, outcome.carrier.choices.kept()


def scheduled(finding: Finding, schedule: Schedule, settings: Settings) -> Finding:
    """*finding* with its schedule, and the command that shows it again."""
    finding.schedule = schedule.text()
    finding.source_hash = source_hash(schedule.scenario)
    checks = checks_text(settings.checks)
    finding.command = shlex.join(
        ["smpvm", "replay", "--lanes"]
        + ([] if checks == "all" else ["--check", checks])
        + ([] if settings.benign else ["--no-benign"])
        + ([] if settings.limit == Settings.limit else ["--steps", str(settings.limit)])
        + ["--schedule", finding.schedule]
    )
    return finding


PROVING = ("bounded", "all", "dpor")
"""Strategies that terminate with a proof."""
EXHAUSTIVE = (*PROVING, "roundrobin")
"""Strategies that cannot be split: each execution depends on the one before."""
