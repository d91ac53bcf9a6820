"""``smpvm stress``: from options to a run, its display and its summary."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smpvm.check.baseline import Baseline, write_baseline
from smpvm.check.finding import Finding
from smpvm.commands.options import checks_of
from smpvm.commands.rundir import claimed
from smpvm.config import Config, ConfigError, parse_sysctl
from smpvm.exits import BROKEN, CLEAN, FOUND
from smpvm.interrupt import interrupts
from smpvm.repairs.catalogue import choose
from smpvm.report.live import watch
from smpvm.report.output import complain, reader_gone, width
from smpvm.report.summary import run_lines
from smpvm.state.snapshot import Snapshot
from smpvm.text import plural
from smpvm.workload.profiles import Profile, find
from smpvm.workload.resume import read as read_snapshot
from smpvm.workload.stress import StressPlan, StressResult, check_plan, run
from smpvm.workload.trace import Trace, check_writable, read


def plan_of(options: Mapping[str, Any]) -> StressPlan:
    """The plan that the options ask for.  Raises ConfigError or TraceError."""
    profile = find(options["profile"])
    begin = options.get("start")
    snapshot = None if begin is None else read_snapshot(begin)
    config = _config(options, profile) if snapshot is None else _resumed(options, snapshot)
    plan = StressPlan(
        profile,
        config,
        seconds=options["seconds"],
        traces=_traces(options["traces"]),
        repairs=choose(options["repairs"]),
        checks=checks_of(options["checks"]),
        benign=options.get("benign", True),
        known=options.get("known", "show") == "show",
        baseline=Baseline(options.get("baseline")).known,
        history=options["history"],
        run_dir=options["run_dir"],
        log_file=options["log_file"],
        start=snapshot,
        snapshot=options.get("snapshot"),
        command="smpvm " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["stress"] else "",
    )
    check_plan(plan)
    for file in (plan.log_file, plan.snapshot):
        if file is not None:
            check_writable(file)
    return plan


def _config(options: Mapping[str, Any], profile: Profile) -> Config:
    return profile.machine(
        ncpus=options["cpus"],
        pages=options["pages"],
        swap_pages=options["swap_pages"],
        pq_l2_size=options["pq_l2_size"],
        spin_pool=options["spin_pool"],
        seed=options["seed"],
        sysctl=dict(parse_sysctl(text) for text in options["sysctls"]),
    )


def _resumed(options: Mapping[str, Any], snapshot: Snapshot) -> Config:
    """The snapshot's configuration; options may change only what its memory does not depend on."""
    for name in ("pages", "swap_pages", "pq_l2_size"):
        if options[name] is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} cannot be combined with --from: the snapshot sets it")
    changed = {name: options[name] for name in ("spin_pool",) if options[name] is not None}
    if options["cpus"] is not None:
        changed["ncpus"] = options["cpus"]
    config = replace(snapshot.config, seed=options["seed"], **changed)
    return config.with_sysctl(**dict(parse_sysctl(text) for text in options["sysctls"]))


def _traces(texts: Sequence[str]) -> list[Trace]:
    return [read(Path(name)) for text in texts for name in text.split(",") if name]


def command(options: Mapping[str, Any]) -> int:
    """Run, show, and return the exit code.  Raises ConfigError, TraceError or StateError."""
    plan = plan_of(options)
    with claimed(plan.run_dir) as where:
        return _run(replace(plan, run_dir=where), options)


def _run(plan: StressPlan, options: Mapping[str, Any]) -> int:
    quiet = options["as_json"]

    def note(finding: Finding) -> None:
        if plan.known or not finding.known:
            shown.note(f"finding: {finding.kind}: {finding.title}")

    with interrupts(reader_gone) as asked:
        shown = watch(f"smpvm stress: {plan.profile.name}", quiet=quiet)
        with shown:
            result = run(
                plan,
                lambda sample: shown.sample(sample, plan.seconds),
                asked,
                note,
            )
    if (file := options.get("write_baseline")) is not None:
        try:
            write_baseline(options.get("baseline"), file, result.findings)
        except OSError as why:
            complain(f"{file}: {why.strerror}")
    if quiet:
        print(json.dumps(result.to_json(), indent=1))
    else:
        print("\n".join(run_lines(result, coverage=options["coverage"], room=width())))
        if plan.baseline:
            print(f"baseline: {plural(len(plan.baseline), 'known finding')} would not be told")
        if result.snapshot:
            print(result.snapshot)
    for line in result.unwritten:
        complain(line)
    for error in result.errors:
        complain(f"internal error: {error}")
    return exit_code(result)


def exit_code(result: StressResult) -> int:
    """The exit code that *result* stands for."""
    if result.errors:
        return BROKEN
    return FOUND if result.findings else CLEAN
