"""The command ``smpvm explore``."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import smpvm
from smpvm.check.baseline import Baseline, write_baseline
from smpvm.check.finding import FindingLog, write_atomic
from smpvm.commands.flags import missing
from smpvm.commands.options import check_carrier, check_memory, checks_of
from smpvm.commands.replay import PACKAGE, explained
from smpvm.commands.rundir import claimed
from smpvm.exits import CLEAN, FOUND, INCONCLUSIVE
from smpvm.explore.engine import Settings
from smpvm.explore.registry import builtin
from smpvm.explore.search import EXHAUSTIVE, SearchPlan, SearchReport
from smpvm.explore.workers import run_jobs
from smpvm.host.switcher import have_greenlet
from smpvm.interrupt import interrupts
from smpvm.repairs.catalogue import choose
from smpvm.report.output import complain, reader_gone
from smpvm.text import plural
from smpvm.unwritten import Unwritten


def explore(options: Mapping[str, Any], echo: Callable[[str], None]) -> int:
    """Search every scenario that was asked for; returns the exit code.

    Raises ConfigError or ScenarioError.
    """
    asked = options["scenario"]
    specs = list(builtin(importlib.import_module(PACKAGE))) if asked == "all" else [asked]
    plan = _plan(options)
    jobs = options["jobs"]
    if jobs > 1 and plan.strategy in EXHAUSTIVE:
        complain(f"{plan.strategy} runs in one process: each execution depends on the one before")
        jobs = 1
    check_carrier(options["carrier"])
    if options["carrier"] == "auto" and not have_greenlet():
        complain(
            f"threads of the model run on host threads, which are slower: {missing('greenlet')}"
        )
    with claimed(options["run_dir"]) as where:
        return _Run(options, plan, jobs, where, echo).all(specs)


class _Run:
    """One run of the command: its scenarios in turn, its report, its files."""

    def __init__(
        self,
        options: Mapping[str, Any],
        plan: SearchPlan,
        jobs: int,
        where: Path | None,
        echo: Callable[[str], None],
    ) -> None:
        self._options = options
        self._plan = plan
        self._jobs = jobs
        self._where = where
        self._echo = echo
        self._unwritten = Unwritten()
        self._log = FindingLog(where, unwritten=self._unwritten)

    def all(self, specs: list[str]) -> int:
        """Search each of them; returns the exit code."""
        options = self._options
        asked_for = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
        self._write("run.json", {"version": 1, "smpvm": smpvm.__version__, "explore": asked_for})
        budget = Budget(options["seconds"])
        reports: list[SearchReport] = []
        with interrupts(reader_gone) as asked:
            for i, spec in enumerate(specs):
                report = self._one(spec, budget.share(len(specs) - i), asked.is_set)
                reports.append(report)
                if asked.is_set() or (report.findings and options["stop_on_first"]):
                    break
        self._log.finish()
        if (file := options["write_baseline"]) is not None:
            with self._unwritten.writing(file):
                write_baseline(options["baseline"], file, self._log.findings)
        if (known := self._plan.settings.baseline) and not options["as_json"]:
            self._echo(f"baseline: {plural(len(known), 'known finding')} would not be told")
        result = {"version": 1, "scenarios": [r.to_json() for r in reports]}
        self._write("result.json", result)
        if options["as_json"]:
            self._echo(json.dumps(result, indent=1))
        for line in self._unwritten.lines():
            complain(line)
        if any(r.findings for r in reports):
            return FOUND
        return CLEAN if all(r.proven for r in reports) else INCONCLUSIVE

    def _one(self, spec: str, seconds: float | None, stop: Callable[[], bool]) -> SearchReport:
        report = run_jobs(
            spec,
            PACKAGE,
            replace(self._plan, seconds=seconds),
            self._jobs,
            stop=stop,
            progress=None if self._options["as_json"] or not sys.stderr.isatty() else _progress,
            where=self._where,
            hang=self._options["hang"],
        )
        for finding in report.findings:
            self._log.replace(finding)
        if not self._options["as_json"]:
            for line in report.lines():
                self._echo(line)
            for finding in report.findings:
                about = explained(finding, self._plan.settings, self._options["hang"])
                for line in ["", *about, *([""] if about else []), *finding.lines()]:
                    self._echo("  " + line if line else "")
                self._echo("")
        return report

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        if self._where is not None:
            with self._unwritten.writing(self._where / name):
                write_atomic(self._where / name, json.dumps(document, indent=1) + "\n")


def _progress(report: SearchReport) -> None:
    """A line for people at a terminal."""
    complain(report.progress())


class Budget:
    """``--seconds``, shared out evenly among the scenarios that are still to be searched."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def share(self, left: int) -> float | None:
        """Host seconds for the next of *left* scenarios; None: no limit."""
        if self._end is None:
            return None
        return max(self._end - time.monotonic(), 0.01) / left


def _plan(options: Mapping[str, Any]) -> SearchPlan:
    """The search that the options ask for.  Raises ConfigError."""
    choose(options["repairs"])
    check_memory(options["memory"], options["granularity"])
    schedules, strategy = options["schedules"], options["strategy"]
    if schedules is None and options["seconds"] is None and strategy not in EXHAUSTIVE:
        schedules = 1000
    return SearchPlan(
        strategy=strategy,
        schedules=schedules,
        seconds=options["seconds"],
        seed=options["seed"],
        depth=options["depth"],
        bound=options["bound"],
        settings=Settings(
            granularity=options["granularity"],
            memory=options["memory"],
            spurious=options["spurious"],
            wakeup_order=options["wakeup_order"] or "",
            limit=options["limit"],
            carrier=options["carrier"],
            checks=checks_of(options["checks"]),
            benign=options["benign"],
            repairs=tuple(options["repairs"]),
            baseline=Baseline(options["baseline"]).known,
        ),
        stop_on_first=options["stop_on_first"],
        shrink=options["shrink"],
        known=options["known"] == "show",
    )
