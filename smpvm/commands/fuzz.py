"""The command ``smpvm fuzz``."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import smpvm
from smpvm.check.finding import Finding, FindingLog, write_atomic
from smpvm.commands.options import checks_of
from smpvm.commands.replay import explained
from smpvm.commands.rundir import claimed
from smpvm.config import ConfigError
from smpvm.exits import FOUND, INCONCLUSIVE
from smpvm.explore.workers import WorkerDir
from smpvm.fuzz.corpus import Corpus
from smpvm.fuzz.program import parse
from smpvm.fuzz.scenario import saved
from smpvm.fuzz.search import SETTINGS, Fuzz, FuzzPlan, FuzzReport
from smpvm.fuzz.target import Target
from smpvm.interrupt import interrupts
from smpvm.repairs.catalogue import REPAIRS, choose
from smpvm.report.output import complain, reader_gone
from smpvm.unwritten import Unwritten

PROGRAM: Final = "program: "


def fuzz(options: Mapping[str, Any], echo: Callable[[str], None]) -> int:
    """Search; returns the exit code.  Raises ConfigError, CorpusError, TargetError."""
    plan = _plan(options)
    if plan.cover:
        Target(plan.cover)  # a wrong one is refused before anything runs
    corpus = Corpus.load(plan.corpus) if plan.corpus is not None else Corpus()
    unwritten = Unwritten()
    with claimed(options["run_dir"]) as where, interrupts(reader_gone) as asked:
        log = FindingLog(where, unwritten=unwritten)
        asked_for = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
        _write(where, "run.json", {"version": 1, "smpvm": smpvm.__version__, "fuzz": asked_for})
        if options["jobs"] > 1:
            report = _jobs(plan, options["jobs"], corpus, asked.is_set)
        else:
            report = Fuzz(
                plan, stop=asked.is_set, on_first=log.replace, progress=_progress(options)
            ).run()
        for finding in report.findings:
            log.replace(finding)
        log.finish()
        result = {"version": 1, **report.to_json()}
        _write(where, "result.json", result)
    if options["save"] is not None:
        _save(options["save"], report.findings)
    if options["as_json"]:
        echo(json.dumps(result, indent=1))
    else:
        _show(report, plan, options, echo)
    for line in unwritten.lines():
        complain(line)
    return FOUND if report.findings else INCONCLUSIVE


def _plan(options: Mapping[str, Any]) -> FuzzPlan:
    choose(options["repairs"])
    repairs = tuple(REPAIRS) if "all" in options["repairs"] else tuple(options["repairs"])
    seconds, programs = options["seconds"], options["programs"]
    if seconds is None and programs is None:
        seconds = 60.0
    return FuzzPlan(
        seconds=seconds,
        programs=programs,
        seed=options["seed"],
        settings=replace(SETTINGS, checks=checks_of(options["checks"]), repairs=repairs),
        feedback=options["feedback"],
        pairs=options["pairs"],
        prove=options["prove"],
        stop_on_first=options["stop_on_first"],
        shrink=options["shrink"],
        corpus=options["corpus"],
        cover=options["cover"] or "",
    )


def _progress(options: Mapping[str, Any]) -> Callable[[FuzzReport], None] | None:
    if options["as_json"] or not sys.stderr.isatty():
        return None

    def tell(report: FuzzReport) -> None:
        complain(f"{report.lines()[0]}; findings: {len(report.findings)}")

    return tell


def _write(where: Path | None, name: str, document: Mapping[str, Any]) -> None:
    if where is not None:
        write_atomic(where / name, json.dumps(document, indent=1) + "\n")


def _show(
    report: FuzzReport, plan: FuzzPlan, options: Mapping[str, Any], echo: Callable[[str], None]
) -> None:
    for line in report.lines():
        echo(line)
    for finding in report.findings:
        about = explained(finding, plan.settings, options["hang"]) if options["lanes"] else []
        for line in ["", *about, *([""] if about else []), *finding.lines()]:
            echo("  " + line if line else "")


def program_text(finding: Finding) -> str:
    """The program that shows a finding of fuzz; "" if it says none."""
    found = [line for line in finding.evidence if line.startswith(PROGRAM)]
    return found[0].removeprefix(PROGRAM) if found else ""


def _save(path: Path, findings: list[Finding]) -> None:
    """Write the programs of the findings as a scenario file.  Raises ConfigError."""
    programs = [(f.title, parse(text)) for f in findings if (text := program_text(f))]
    try:
        path.write_text(saved(programs), encoding="utf-8")
    except OSError as why:
        raise ConfigError(f"{path}: {why.strerror or why}") from None


# -- several processes


def _jobs(plan: FuzzPlan, jobs: int, base: Corpus, stop: Callable[[], bool]) -> FuzzReport:
    """A share for each of *jobs* processes; what they found and saw together."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="smpvm-") as place:
        shared = WorkerDir(Path(place))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            shares = [replace(plan, save_to=_own(plan, i)) for i in range(jobs)]
            if plan.programs is not None:
                shares = [replace(s, programs=-(-plan.programs // jobs)) for s in shares]
            parts = [pool.submit(_part, share, (i, jobs), shared) for i, share in enumerate(shares)]
            while wait(parts, timeout=0.2).not_done:
                if stop():
                    shared.signal("stop")
            report = _merged(base, [p.result() for p in parts])
    if plan.corpus is not None:
        report.corpus.save(plan.corpus)
        for i in range(jobs):
            shutil.rmtree(plan.corpus / f"worker-{i}", ignore_errors=True)
    return report


def _own(plan: FuzzPlan, i: int) -> Path | None:
    return None if plan.corpus is None else plan.corpus / f"worker-{i}"


def _part(plan: FuzzPlan, part: tuple[int, int], shared: WorkerDir) -> FuzzReport:
    """One worker's share."""

    def on_first(finding: Finding) -> None:
        if plan.stop_on_first:
            shared.signal("stop")

    return Fuzz(plan, part=part, stop=lambda: shared.signalled("stop"), on_first=on_first).run()


def _merged(base: Corpus, parts: list[FuzzReport]) -> FuzzReport:
    whole = parts[0]
    whole_corpus = replace(base, kept=list(base.kept), seen=base.seen.copy(), pairs=set(base.pairs))
    found: dict[str, Finding] = {}
    for part in parts:
        whole_corpus.merge(base, part.corpus)
        for finding in part.findings:
            if finding.fingerprint in found:
                found[finding.fingerprint].count += finding.count
            else:
                found[finding.fingerprint] = finding
    arms = {
        name: (
            sum(p.arms.get(name, (0, 0.0))[0] for p in parts),
            sum(p.arms.get(name, (0, 0.0))[1] for p in parts),
        )
        for part in parts
        for name in part.arms
    }
    return FuzzReport(
        whole_corpus,
        list(found.values()),
        arms,
        seconds=max(p.seconds for p in parts),
        programs=sum(p.programs for p in parts),
        executions=sum(p.executions for p in parts),
        last_hour=sum(p.last_hour for p in parts),
        table=whole.table,
        given_up=sum(p.given_up for p in parts),
        covered=next((p.covered for p in parts if p.covered), ""),
        interrupted=any(p.interrupted for p in parts),
    )
