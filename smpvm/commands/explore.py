"""The commands ``smpvm explore`` and ``smpvm replay``."""

from __future__ import annotations

import importlib
import json
import pdb
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

import smpvm
from smpvm.check.finding import Finding, FindingLog, load, write_atomic
from smpvm.check.stacks import kind_of
from smpvm.commands.options import checks_of, make_dir
from smpvm.commands.source import scenario_of_finding, scenario_of_user
from smpvm.exits import CLEAN, FOUND, INCONCLUSIVE
from smpvm.explore.engine import Outcome, Settings, execute
from smpvm.explore.registry import ScenarioError, builtin, file_of, find, sized
from smpvm.explore.scenario import ScenarioClass
from smpvm.explore.search import EXHAUSTIVE, Search, SearchPlan, SearchReport
from smpvm.explore.strategy.base import SerialCarrier, SerialThread
from smpvm.explore.strategy.replay import Replay
from smpvm.explore.trace.schedule import Schedule, ScheduleError
from smpvm.explore.workers import run_jobs
from smpvm.host.carrier import Access
from smpvm.host.serialthread import CLOCK
from smpvm.host.switcher import have_greenlet
from smpvm.interrupt import interrupts
from smpvm.kern.cname import KEEP
from smpvm.repairs.catalogue import choose
from smpvm.report.lanes import Recorder, excerpt, lanes
from smpvm.text import printable

PACKAGE: Final = "smpvm.scenarios"


def explore(options: Mapping[str, Any], echo: Callable[[str], None]) -> int:
    """Run the campaigns; returns the exit code."""
    package = importlib.import_module(PACKAGE)
    specs = list(builtin(package)) if options["scenario"] == "all" else [options["scenario"]]
    if options["carrier"] == "auto" and not have_greenlet():
        print("smpvm: greenlet is not installed: real threads, which are slower", file=sys.stderr)
    where: Path | None = options["run_dir"]
    if where is not None:
        make_dir(where)
        asked_for = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
        doc = {"version": 1, "smpvm": smpvm.__version__, "explore": asked_for}
        write_atomic(where / "run.json", json.dumps(doc, indent=1) + "\n")
    log = FindingLog(where)
    reports = []
    with interrupts() as asked:
        for spec in specs:
            report = _campaign(find(spec, package), spec, options, log, asked.is_set)
            reports.append(report)
            for finding in report.findings:
                log.replace(finding)
            if not options["as_json"]:
                _tell(report, options, echo)
            if asked.is_set() or (report.findings and options["stop_on_first"]):
                break
    log.finish()
    result = json.dumps({"version": 1, "scenarios": [r.to_json() for r in reports]}, indent=1)
    if where is not None:
        write_atomic(where / "result.json", result + "\n")
    if options["as_json"]:
        echo(result)
    if any(r.findings for r in reports):
        return FOUND
    return CLEAN if all(r.proven for r in reports) else INCONCLUSIVE


def _tell(report: SearchReport, options: Mapping[str, Any], echo: Callable[[str], None]) -> None:
    for line in report.lines():
        echo(line)
    for finding in report.findings:
        echo("")
        _show(finding, options, echo)
        echo("")


def _campaign(
    scenario: ScenarioClass,
    spec: str,
    options: Mapping[str, Any],
    log: FindingLog,
    stop: Callable[[], bool],
) -> SearchReport:
    repairs = options["repairs"]
    choose(repairs)  # raises for an unknown one
    if "all" in repairs:
        repairs = scenario.repairs
    strategy = options["strategy"]
    schedules = options["schedules"]
    if schedules is None and options["seconds"] is None and strategy not in EXHAUSTIVE:
        schedules = 1000
    plan = SearchPlan(
        strategy=strategy,
        schedules=schedules,
        seconds=options["seconds"],
        seed=options["seed"],
        depth=options["depth"],
        bound=options["bound"],
        settings=Settings(
            granularity=options["granularity"],
            carrier=options["carrier"],
            checks=checks_of(options["checks"]),
            benign=options["benign"],
            repairs=tuple(repairs),
        ),
        stop_on_first=options["stop_on_first"],
        shrink=options["shrink"],
    )
    jobs = options["jobs"]
    if jobs > 1 and strategy in EXHAUSTIVE:
        print(
            f"smpvm: {strategy} takes one process: each execution follows from the one before",
            file=sys.stderr,
        )

    def progress(report: SearchReport) -> None:
        if not options["as_json"] and sys.stderr.isatty():
            print(report.progress(), file=sys.stderr)

    if jobs > 1 and strategy not in EXHAUSTIVE:
        where = options["run_dir"]
        return run_jobs(spec, PACKAGE, plan, jobs, stop=stop, progress=progress, where=where)
    return Search(scenario, plan, progress=progress, stop=stop, on_first=log.replace).run()


def _show(finding: Finding, options: Mapping[str, Any], echo: Callable[[str], None]) -> None:
    """The last conflicting steps in lanes, then the finding."""
    if finding.schedule is not None:
        shown = run_schedule(
            Schedule.parse(finding.schedule),
            checks=checks_of(options["checks"]),
            benign=options["benign"],
        )
        for line in shown.lanes(about=finding):
            echo("  " + line)
        echo("")
    for line in finding.lines():
        echo("  " + line)


class Shown:
    """A replayed execution and what was seen in it."""

    def __init__(self, replay: Replay, outcome: Outcome, recorder: Recorder) -> None:
        self.replay = replay
        self.outcome = outcome
        self.recorder = recorder

    def lanes(self, *, about: Finding | None = None) -> list[str]:
        """The interleaving; with *about* only the steps that explain that finding."""
        log, rows = self.outcome.carrier.log, self.recorder.rows
        names = {s.tid: s.td.name for s in self.outcome.carrier.threads}
        with self.recorder.k.quietly():
            only = None
            if about is not None:
                end = self.outcome.found_at.get(about.fingerprint, len(log) - 1)
                only = excerpt(log, rows, about.objects, end, 24)
            return lanes(log, names, rows, self.replay.reasons, width=110, only=only)


def run_schedule(
    schedule: Schedule,
    *,
    carrier: str = "auto",
    carrier_class: type[SerialCarrier] = SerialCarrier,
    scenario: ScenarioClass | None = None,
    checks: frozenset[str] = Settings.checks,
    benign: bool = True,
    limit: int = Settings.limit,
) -> Shown:
    """Run a schedule again; *scenario*, but for its sizes, where it need not be looked for.

    Raises ScenarioError if its scenario is not there, ConfigError for unknown repairs.
    """
    choose(schedule.repairs)
    if scenario is None:
        scenario = find(schedule.scenario, importlib.import_module(PACKAGE))
    else:
        scenario = sized(scenario, schedule.scenario)
    settings = Settings(
        granularity=schedule.granularity,
        carrier=carrier,
        repairs=schedule.repairs,
        checks=checks,
        benign=benign,
        limit=limit,
    )
    strategy, recorder = Replay(schedule), Recorder()
    outcome = execute(scenario, strategy, settings, 0, (recorder,), carrier_class)
    assert outcome is not None
    return Shown(strategy, outcome, recorder)


class Debugger(pdb.Pdb):
    """pdb in a thread of the model, which must not be ended from outside: q goes on to the end.

    While it asks, what is looked at is no step of the thread.
    """

    def __init__(self, carrier: SerialCarrier) -> None:
        super().__init__(
            skip=["smpvm.host.*", "smpvm.check.*", "smpvm.explore.*", "smpvm.report.*"]
        )
        self._carrier = carrier

    def interaction(self, frame: Any, traceback: Any) -> None:
        """Ask."""
        inert, self._carrier.inert = self._carrier.inert, True
        try:
            super().interaction(frame, traceback)
        finally:
            self._carrier.inert = inert

    def do_quit(self, arg: str) -> bool | None:
        """Stop asking, and let the replay end."""
        return self.do_continue(arg)

    do_q = do_exit = do_EOF = do_quit

    def stop_in(self, frame: FrameType) -> None:
        """Ask at once, in *frame*: ``set_trace`` would wait for the next event, further in."""
        self.reset()
        at: FrameType | None = frame
        while at is not None:
            at.f_trace = self.trace_dispatch
            self.botframe = at
            at = at.f_back
        self.interaction(frame, None)
        if self.stoplineno != -1 or self.breaks:  # it is to go on step by step, or to stop again
            sys.settrace(self.trace_dispatch)


def breaking(step: int) -> type[SerialCarrier]:
    """A carrier that drops into pdb, inside the model's thread, at that step."""

    class Breaking(SerialCarrier):
        def point(
            self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
        ) -> None:
            super().point(kind, obj, field, ready)
            self._maybe_break()

        def access_points_of(self, kind: str, seen: Access | None = None) -> Access:
            self._slow += 1  # each of them by way of ``point``
            return super().access_points_of(kind, seen)

        def _step(self, me: SerialThread) -> None:
            # A thread starts, wakes up, or looks again.
            super()._step(me)
            self._maybe_break()

        def _maybe_break(self) -> None:
            if not self.inert and len(self.log) - 1 == step:
                here: FrameType | None = sys._getframe(2)
                while here is not None and kind_of(here.f_code) != KEEP:
                    here = here.f_back
                Debugger(self).stop_in(here or sys._getframe(2))

    return Breaking


def replay(options: Mapping[str, Any], echo: Callable[[str], None]) -> int:
    """Run one schedule again; 1 if the finding is there again, 3 if it is not."""
    expected: Finding | None = None
    if options["file"] is not None:
        expected = load(Path(options["file"]))
    text = options["schedule"]
    if text is None and expected is not None:
        text = expected.schedule
    if text is None:
        raise ScheduleError("replay: the finding has no schedule; give one with --schedule")
    schedule = Schedule.parse(text)
    _choose_scenario(schedule, expected, options)
    step = options["break_at"]
    shown = run_schedule(
        schedule,
        carrier=options["carrier"],
        carrier_class=SerialCarrier if step is None else breaking(step),
        checks=checks_of(options["checks"]),
        benign=options["benign"],
    )
    diverged = _why_diverged(schedule, shown.replay.diverged)
    found = sorted(
        shown.outcome.findings,
        key=lambda f: expected is not None and f.fingerprint != expected.fingerprint,
    )
    again = bool(found) if expected is None else bool(shown.outcome.find(expected.fingerprint))
    if options["as_json"]:
        doc = {
            "schedule": text,
            "steps": shown.outcome.steps,
            "diverged": diverged,
            "digest": shown.outcome.digest.hex(),
            "again": again,
            "findings": [f.to_json() for f in found],
        }
        echo(json.dumps(doc, indent=1))
    else:
        if options["lanes"]:
            for line in shown.lanes():
                echo(line)
            echo("")
        echo(f"{schedule.scenario}: {shown.outcome.steps} steps; {diverged or 'as recorded'}")
        if step is not None and step >= shown.outcome.steps:
            echo(f"step {step} was not reached")
        elif step is not None and shown.outcome.carrier.log[step][0] == CLOCK:
            echo(f"step {step} is no thread's: time moves on")
        for finding in found:
            echo("")
            for line in finding.lines():
                echo(line)
        if not again:
            echo("")
            echo("the finding does not show again" + ("" if diverged else _SILENT))
    return FOUND if again else INCONCLUSIVE


_SILENT: Final = (
    ": every step is as recorded, but values are not; the scenario or the code has changed since"
)


def _choose_scenario(
    schedule: Schedule, finding: Finding | None, options: Mapping[str, Any]
) -> None:
    """Say which scenario is run, and from which file.  Raises ScenarioError.

    The user names a file with --scenario, or in the text of --schedule; one that only a finding
    names must be the user's own.
    """
    if options["scenario"] is not None:
        schedule.scenario = scenario_of_user(schedule.scenario, options["scenario"])
    elif finding is not None and options["schedule"] is None:
        schedule.scenario = scenario_of_finding(
            schedule.scenario, Path(options["file"]), finding.source_hash
        )
    if file_of(schedule.scenario) is not None:
        print(f"smpvm: runs {printable(schedule.scenario)}", file=sys.stderr)


def _why_diverged(schedule: Schedule, where: str) -> str:
    """Where the execution left the record, and the likely reason."""
    if not where:
        return ""
    if schedule.version != smpvm.__version__:
        why = f"recorded by smpvm {schedule.version}, this is {smpvm.__version__}"
    else:
        why = "the scenario or the code has changed since"
    return f"diverges at {where} ({why})"


__all__ = ["ScenarioError", "explore", "replay", "run_schedule"]
