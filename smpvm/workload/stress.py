"""A stress run: build a machine, run a profile's processes on it, stop it, check the result."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import smpvm
from smpvm.check.audit import audit
from smpvm.check.audit import line as audit_line
from smpvm.check.contents import Contents, PageHistory
from smpvm.check.finding import Finding, FindingLog, new_first, write_atomic
from smpvm.check.lockevents import LOG_NAME, LockTrace
from smpvm.check.suite import DEFAULT, CheckSuite
from smpvm.config import Config, ConfigError
from smpvm.host.carrier import Stopped
from smpvm.interrupt import StopRequest
from smpvm.kern.probe import Probe
from smpvm.kern.thread import Panic
from smpvm.machine import Machine
from smpvm.repairs.base import Repair
from smpvm.state import StateError
from smpvm.state.snapshot import Snapshot, write
from smpvm.unwritten import Unwritten
from smpvm.vm.pageout.coverage import report as coverage_report
from smpvm.workload.profiles import Profile, Task
from smpvm.workload.resume import ResumedPageout, freeze_and_take, resume, start
from smpvm.workload.runner import Runner
from smpvm.workload.sample import Sample, look
from smpvm.workload.trace import Trace, read

FORMAT: Final = "smpvm-run"
VERSION: Final = 1


@dataclass
class StressPlan:
    """What to run."""

    profile: Profile
    config: Config
    seconds: float = 20.0
    traces: Sequence[Trace] = ()
    """Replayed instead of the profile's own."""
    repairs: Sequence[Repair] = ()
    changes: Sequence[type] = ()
    """Further changes for the VM; repairs override them (for tests that break something)."""
    observers: Sequence[Probe] = ()
    checks: frozenset[str] = DEFAULT
    benign: bool = True
    """Are races and waits that the source declares as intended only counted, not reported?"""
    known: bool = True
    """Are findings that show known defects reported?"""
    baseline: frozenset[str] = frozenset()
    """Fingerprints of findings that a baseline has: they are not reported."""
    history: bool = False
    run_dir: Path | None = None
    """Gets run.json, result.json, findings/ and lockorder.jsonl."""
    log_file: Path | None = None
    """Gets every lock event."""
    start: Snapshot | None = None
    """The memory to start from; its configuration must be the plan's."""
    snapshot: Path | None = None
    """Gets the machine's memory as it was when time ran out."""
    command: str = ""
    """The command line of this run, for findings."""
    stall_after: float = 10.0
    patience: float = 120.0


@dataclass
class StressResult:
    """The result of a run; plain data only."""

    profile: str
    seed: int
    pages: int
    swap_pages: int
    ncpus: int
    seconds: float = 0.0
    interrupted: bool = False
    processes: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    extra: dict[str, int] = field(default_factory=dict)
    locks: dict[str, tuple[int, int]] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    coverage: list[tuple[str, str, int]] = field(default_factory=list)
    words_checked: int = 0
    words_lost: int = 0
    contents_line: str = ""
    audit_line: str = ""
    stall: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Exceptions of smpvm itself, not of the modelled kernel."""
    repairs: list[str] = field(default_factory=list)
    snapshot: str = ""
    unwritten: list[str] = field(default_factory=list)
    """Files of the run directory, and logs, that are missing or not whole: one line for each."""
    checkers: dict[str, Any] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    """What the source declares as intended, and how often it occurred."""
    findings: list[Finding] = field(default_factory=list)
    hidden: dict[str, int] = field(default_factory=dict)
    """Repairs of known defects that were seen and are not reported → how often."""

    def to_json(self) -> dict[str, Any]:
        """A document with its format and version."""
        doc = {"format": FORMAT, "version": VERSION, "smpvm": smpvm.__version__, **asdict(self)}
        doc["findings"] = [finding.to_json() for finding in self.findings]
        return doc


def shipped_trace(name: str) -> Trace:
    """A trace that comes with the package."""
    return read(Path(str(files("smpvm.workload") / "traces" / f"{name}.trace.gz")))


def tasks_of(plan: StressPlan) -> list[Task]:
    """The processes to start, one task for each, its trace loaded."""
    tasks: list[Task] = []
    for row in plan.profile.mix:
        if row.kind == "trace":
            if not plan.traces:
                tasks += [Task("trace", 1, {"trace": shipped_trace(row.args["trace"])})] * row.count
        else:
            tasks += [Task(row.kind, 1, row.args)] * row.count
    tasks += [Task("trace", 1, {"trace": trace}) for trace in plan.traces]
    while len(tasks) < plan.config.ncpus:
        tasks += tasks
    return tasks


def check_plan(plan: StressPlan) -> None:
    """Raises ConfigError if the processes would wire more memory than the machine can spare."""
    pages = plan.config.pages
    wired = sum(task.args["share"] * pages for task in tasks_of(plan) if task.kind == "locker")
    if wired > pages * 0.3:
        raise ConfigError(
            f"the processes would wire {wired:.0f} of {pages} pages; at most 30 per cent may be"
        )


def run(
    plan: StressPlan,
    on_sample: Callable[[Sample], None] | None = None,
    interrupt: StopRequest | None = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> StressResult:
    """Run *plan*; *interrupt* ends it early, with the same checks.  Raises ConfigError."""
    check_plan(plan)
    with quick_switches():
        return _run(plan, on_sample, interrupt or StopRequest(), on_finding)


@contextmanager
def quick_switches() -> Iterator[None]:
    """Switch threads ten times as often under the GIL: kernel threads often wait for each other."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _run(
    plan: StressPlan,
    on_sample: Callable[[Sample], None] | None,
    interrupt: StopRequest,
    on_finding: Callable[[Finding], None] | None,
) -> StressResult:
    unwritten = Unwritten()
    findings = FindingLog(
        plan.run_dir,
        command=plan.command,
        on_new=on_finding,
        unwritten=unwritten,
        repairs=[r.name for r in plan.repairs],
        baseline=plan.baseline,
    )
    history = PageHistory() if plan.history else None
    contents = Contents(findings, history)
    suite = CheckSuite(plan.checks, findings, traces=_traces(plan, unwritten), benign=plan.benign)
    observers = [*suite.observers, *plan.observers, *([history] if history else [])]
    changes = [*(r.change for r in plan.repairs), *plan.changes]
    if plan.start is not None:
        changes.append(ResumedPageout)
    machine = Machine(
        plan.config,
        observers=observers,
        changes=changes,
        stall_after=plan.stall_after,
        on_stall=suite.stalled,
    )
    if plan.run_dir is not None:
        with unwritten.writing(plan.run_dir / "run.json"):
            _write_run(plan, plan.run_dir)
    runner = Runner(machine, contents, tasks_of(plan))
    restored = [] if plan.start is None else resume(machine, plan.start)
    with machine.halted_on_error():
        machine.boot()
        start(machine, restored)
        runner.start()
        interrupted = _let_run(machine, runner, plan.seconds, on_sample, interrupt)
        said = _snapshot(plan, machine)
        machine.stop(patience=plan.patience, at_rest=suite.at_rest)
    if not machine.failed:
        runner.check_files()
    suite.finish()
    result = _judge(plan, machine, runner, contents, findings, interrupted)
    result.checkers = suite.summary()
    result.accepted = suite.accepted.lines()
    result.snapshot = said
    if plan.run_dir is not None:
        document = json.dumps(result.to_json(), indent=1) + "\n"
        with unwritten.writing(plan.run_dir / "result.json"):
            write_atomic(plan.run_dir / "result.json", document)
    result.unwritten = unwritten.lines()
    return result


def _snapshot(plan: StressPlan, machine: Machine) -> str:
    """Write the snapshot if one was asked for; returns a line about it, or ""."""
    if plan.snapshot is None:
        return ""
    if machine.failed:
        return "snapshot: not taken, because the machine failed"
    try:
        size = write(plan.snapshot, freeze_and_take(machine))
    except StateError as why:
        return f"snapshot: not taken: {why}"
    except OSError as why:
        return f"snapshot: not written: {why.strerror or why}"
    return f"snapshot: {plan.snapshot}, {size:,} bytes"


def _let_run(
    machine: Machine,
    runner: Runner,
    seconds: float,
    on_sample: Callable[[Sample], None] | None,
    interrupt: StopRequest,
) -> bool:
    end = machine.started + seconds
    tick = machine.started + 1.0
    while not machine.failed and (now := time.monotonic()) < end:
        if interrupt.wait(max(0.01, min(tick, end, now + 0.2) - now)):
            return True
        try:
            runner.poll()
        except Stopped:
            break
        except Panic as panic:
            machine.k.panicked(machine.k.boot, panic)
            break
        if time.monotonic() >= tick:
            tick += 1.0
            if on_sample is not None:
                on_sample(look(machine))
    return False


def _judge(
    plan: StressPlan,
    machine: Machine,
    runner: Runner,
    contents: Contents,
    findings: FindingLog,
    interrupted: bool,
) -> StressResult:
    k = machine.k
    if machine.stall and not k.panics and not k.errors:
        findings.add(
            Finding(
                "stall",
                f"the machine stopped making progress: {machine.stall[0]}",
                evidence=machine.stall,
                identity=(plan.profile.name,),
            )
        )
    if machine.failed:
        said = "audit: not done, because the machine did not come to rest"
    else:
        broken = audit(machine.vm)
        for finding in broken:
            findings.add(finding)
        said = audit_line(broken)
    findings.finish()
    counters = k.counts()
    config = plan.config
    result = StressResult(
        plan.profile.name,
        config.seed,
        config.pages,
        config.swap_pages,
        config.ncpus,
        seconds=time.monotonic() - machine.started,
        interrupted=interrupted,
        processes=runner.started,
        counters=dict(counters),
        extra=dict(runner.totals),
        locks=machine.locks(),
        queues=machine.queues(),
        coverage=[(row.name, row.lines, n) for row, n in coverage_report(counters)],
        words_checked=contents.checked,
        words_lost=contents.lost,
        contents_line=contents.line(),
        audit_line=said,
        stall=machine.stall,
        errors=[f"{td}: {type(why).__name__}: {why}" for td, why in k.errors],
        repairs=[r.name for r in plan.repairs],
        findings=[f for f in new_first(findings.findings) if plan.known or not f.known],
    )
    for finding in findings.findings if not plan.known else ():
        if finding.known:
            names = ", ".join(finding.known)
            result.hidden[names] = result.hidden.get(names, 0) + finding.count
    return result


def _traces(plan: StressPlan, unwritten: Unwritten) -> list[LockTrace]:
    """The log of all lock events, and the run directory's log of the lock order only."""
    traces = []
    if plan.log_file is not None:
        traces.append(LockTrace(plan.log_file, unwritten=unwritten))
    if plan.run_dir is not None:
        traces.append(LockTrace(plan.run_dir / LOG_NAME, events=False, unwritten=unwritten))
    return traces


def _write_run(plan: StressPlan, run_dir: Path) -> None:
    doc = {
        "format": FORMAT,
        "version": VERSION,
        "smpvm": smpvm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "profile": plan.profile.name,
        "seconds": plan.seconds,
        "seed": plan.config.seed,
        "config": asdict(plan.config),
        "repairs": [r.name for r in plan.repairs],
        "command": plan.command,
    }
    write_atomic(run_dir / "run.json", json.dumps(doc, indent=1) + "\n")
