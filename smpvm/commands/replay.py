"""The command ``smpvm replay``, and running one schedule again for those who show it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import smpvm
from smpvm.check.finding import Finding, load
from smpvm.commands.debugger import breaking
from smpvm.commands.options import check_carrier, check_memory, checks_of
from smpvm.commands.source import scenario_of_finding, scenario_of_user
from smpvm.exits import FOUND, INCONCLUSIVE
from smpvm.explore.child import Hung, Worker, alone
from smpvm.explore.engine import Outcome, Settings, execute
from smpvm.explore.registry import file_of, find, sized
from smpvm.explore.scenario import ScenarioClass
from smpvm.explore.strategy.base import SerialCarrier
from smpvm.explore.strategy.replay import Replay
from smpvm.explore.trace.schedule import Schedule, ScheduleError
from smpvm.explore.watchdog import Watch, unwatched
from smpvm.host.serialthread import CLOCK
from smpvm.repairs.catalogue import choose
from smpvm.report.lanes import Recorder, excerpt, lanes
from smpvm.report.output import complain
from smpvm.text import printable

PACKAGE: Final = "smpvm.scenarios"


class Shown:
    """A replayed execution and what was recorded in it."""

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
    watch: Watch = unwatched,
    checks: frozenset[str] = Settings.checks,
    benign: bool = True,
    limit: int = Settings.limit,
) -> Shown:
    """Run a schedule again.

    *scenario*: the class, where the caller has it; only its sizes are taken from the schedule.
    Raises ScenarioError if the scenario cannot be found, ConfigError for unknown repairs.
    """
    choose(schedule.repairs)
    if scenario is None:
        watch("import")
        scenario = find(schedule.scenario, importlib.import_module(PACKAGE))
        watch("")
    else:
        scenario = sized(scenario, schedule.scenario)
    settings = Settings(
        granularity=schedule.granularity,
        memory=schedule.memory,
        spurious=schedule.spurious,
        wakeup_order=schedule.wakeup_order,
        carrier=carrier,
        repairs=schedule.repairs,
        checks=checks,
        benign=benign,
        limit=limit,
        watch=watch,
    )
    strategy, recorder = Replay(schedule), Recorder()
    outcome = execute(scenario, strategy, settings, 0, (recorder,), carrier_class)
    assert outcome is not None
    return Shown(strategy, outcome, recorder)


@dataclass
class Replayed:
    """What a replay has to say: plain data, as it comes from another process."""

    steps: int
    diverged: str
    digest: str
    findings: list[Finding]
    lanes: list[str]
    at_clock: bool
    """Does the step of ``--break`` belong to no thread?"""


def replay(options: Mapping[str, Any], echo: Callable[[str], None]) -> int:
    """Run one schedule again; returns 1 if the finding is reproduced, 3 if it is not.

    Raises FindingError, ScheduleError, ScenarioError or ConfigError.
    """
    check_carrier(options["carrier"])
    expected = None if options["file"] is None else load(options["file"])
    text = options["schedule"]
    if text is None and expected is not None:
        text = expected.schedule
    if text is None:
        raise ScheduleError("replay: the finding has no schedule; give one with --schedule")
    schedule = Schedule.parse(text)
    schedule.memory = options["memory"] or schedule.memory
    schedule.wakeup_order = options["wakeup_order"] or schedule.wakeup_order
    if options["spurious"] is not None:
        schedule.spurious = options["spurious"]
    check_memory(schedule.memory, schedule.granularity)
    _choose_scenario(schedule, expected, options)
    checks = checks_of(options["checks"])
    try:
        if options["break_at"] is None:
            got = alone(partial(_replayed, schedule, checks, options), options["hang"])
        else:
            got = _replayed(
                schedule, checks, options
            )  # pdb has the terminal, for as long as it takes
    except Hung as why:
        if options["as_json"]:
            doc = {"schedule": text, "again": False, "hung": str(why), "findings": []}
            echo(json.dumps(doc, indent=1))
        else:
            echo(f"{schedule.scenario}: abandoned: {why}")
        return INCONCLUSIVE
    diverged = _why_diverged(schedule, got.diverged)

    def wanted(finding: Finding) -> bool:
        return expected is None or expected.shows_again(finding)

    found = sorted(got.findings, key=lambda f: not wanted(f))
    again = any(map(wanted, found))
    if options["as_json"]:
        doc = {
            "schedule": text,
            "steps": got.steps,
            "diverged": diverged,
            "digest": got.digest,
            "again": again,
            "hung": "",
            "findings": [f.to_json() for f in found],
        }
        echo(json.dumps(doc, indent=1))
        return FOUND if again else INCONCLUSIVE
    for line in [*got.lanes, ""] if options["lanes"] else []:
        echo(line)
    echo(f"{schedule.scenario}: {got.steps} steps; {diverged or 'as recorded'}")
    step = options["break_at"]
    if step is not None and step >= got.steps:
        echo(f"step {step} was not reached")
    elif got.at_clock:
        echo(f"step {step} belongs to no thread: the clock advances")
    for finding in found:
        for line in ["", *finding.lines()]:
            echo(line)
    if not again:
        echo("")
        echo("not reproduced" + ("" if diverged else _SILENT))
    return FOUND if again else INCONCLUSIVE


def _replayed(
    schedule: Schedule,
    checks: frozenset[str],
    options: Mapping[str, Any],
    worker: Worker | None = None,
) -> Replayed:
    step = options["break_at"]
    shown = run_schedule(
        schedule,
        carrier=options["carrier"],
        carrier_class=SerialCarrier if step is None else breaking(step),
        watch=unwatched if worker is None else worker,
        checks=checks,
        benign=options["benign"],
        limit=options["limit"],
    )
    log = shown.outcome.carrier.log
    return Replayed(
        shown.outcome.steps,
        shown.replay.diverged,
        shown.outcome.digest.hex(),
        shown.outcome.findings,
        shown.lanes() if options["lanes"] else [],
        at_clock=step is not None and step < len(log) and log[step][0] == CLOCK,
    )


def explained(finding: Finding, settings: Settings, hang: float) -> list[str]:
    """The steps that explain a finding, in lanes: its schedule is run again, in a child."""
    if finding.schedule is None:
        return []
    try:
        return alone(partial(_lanes, finding, settings), hang)
    except Hung as why:
        return [f"(not replayed: {why})"]


def _lanes(finding: Finding, settings: Settings, worker: Worker) -> list[str]:
    assert finding.schedule is not None
    shown = run_schedule(
        Schedule.parse(finding.schedule),
        checks=settings.checks,
        benign=settings.benign,
        limit=settings.limit,
        watch=worker,
    )
    return shown.lanes(about=finding)


_SILENT: Final = (
    ": every step is as recorded, but values differ; the scenario or the code has changed since"
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
        path = Path(options["file"])
        schedule.scenario = scenario_of_finding(schedule.scenario, path, finding.source_hash)
    if file_of(schedule.scenario) is not None:
        complain(f"runs {printable(schedule.scenario)}")


def _why_diverged(schedule: Schedule, where: str) -> str:
    """Where the execution left the recorded schedule, and the likely reason."""
    if not where:
        return ""
    if schedule.version != smpvm.__version__:
        why = f"recorded by smpvm {schedule.version}, this is {smpvm.__version__}"
    else:
        why = "the scenario or the code has changed since"
    return f"diverges at {where} ({why})"
