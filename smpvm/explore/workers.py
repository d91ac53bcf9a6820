"""A campaign spread over workers: local processes, or any Executor."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from smpvm.check.finding import Finding, FindingLog
from smpvm.explore.registry import find
from smpvm.explore.search import Progress, Search, SearchPlan, SearchReport, never


@dataclass(frozen=True)
class WorkerDir:
    """A folder through which the workers of one machine and who gave them work talk.

    A worker on another machine finds nothing there, and goes on to the end.
    """

    folder: Path

    def signal(self, what: str) -> None:
        """To everybody: ``stop``, or that the thing sought is ``found``."""
        with contextlib.suppress(OSError):
            (self.folder / what).touch()

    def signalled(self, what: str) -> bool:
        """Has somebody said it?"""
        return (self.folder / what).exists()

    def report(self, worker: int, report: SearchReport) -> None:
        """How far *worker* is."""
        with contextlib.suppress(OSError):
            new = self.folder / f"new {worker}"
            new.write_bytes(pickle.dumps(report))
            os.replace(new, self.folder / f"report {worker}")

    def reports(self) -> list[SearchReport]:
        """What each worker has told last, of those who have."""
        return [pickle.loads(path.read_bytes()) for path in sorted(self.folder.glob("report *"))]


def run_part(
    spec: str,
    package: str,
    plan: SearchPlan,
    part: tuple[int, int],
    shared: WorkerDir | None = None,
    where: Path | None = None,
) -> SearchReport:
    """One worker's share; *package* is the module that has the built-in scenarios.

    What it finds goes to the run directory *where* at once, and ends the search of the others if
    it is the first finding that is wanted.
    """
    scenario = find(spec, importlib.import_module(package) if package else None)
    log = None if where is None else FindingLog(where)

    def on_first(finding: Finding) -> None:
        if log is not None:
            log.replace(finding)
        if shared is not None and plan.stop_on_first:
            shared.signal("found")

    parent = os.getppid()

    def heard(what: str) -> Callable[[], bool]:
        if shared is None:
            return never

        def hear() -> bool:
            if os.getppid() != parent and multiprocessing.parent_process() is not None:
                os._exit(1)  # whoever gave it the work is gone
            return shared.signalled(what)

        return hear

    return Search(
        scenario,
        plan,
        part=part,
        stop=heard("stop"),
        enough=heard("found"),
        progress=None if shared is None else lambda report: shared.report(part[0], report),
        on_first=on_first,
    ).run()


def _begin() -> None:
    """In a local worker: Ctrl-C reaches the whole terminal's group, but workers wait to be told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run_jobs(
    spec: str,
    package: str,
    plan: SearchPlan,
    jobs: int,
    executor: Executor | None = None,
    *,
    stop: Callable[[], bool] = never,
    progress: Progress | None = None,
    where: Path | None = None,
) -> SearchReport:
    """A campaign spread over *jobs* workers of *executor* (default: local processes).

    *stop* is asked now and then and passed on to workers on this machine, which also tell
    *progress*, and write what they find to the run directory *where* at once.
    """
    pool: Executor = executor or ProcessPoolExecutor(jobs, initializer=_begin)
    began = told = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="smpvm-") as place:
            shared = WorkerDir(Path(place))
            parts = [
                pool.submit(run_part, spec, package, plan, (i, jobs), shared, where)
                for i in range(jobs)
            ]
            while wait(parts, timeout=0.2).not_done:
                if stop():
                    shared.signal("stop")
                now = time.perf_counter()
                if progress is not None and now - told > 1.0 and (reports := shared.reports()):
                    told = now
                    progress(replace(merge(reports), seconds=now - began))
            report = merge([p.result() for p in parts])
    finally:
        if executor is None:
            pool.shutdown()
    return replace(report, seconds=time.perf_counter() - began)


def merge(parts: Sequence[SearchReport]) -> SearchReport:
    """Several workers' reports as one."""
    whole = replace(parts[0], findings=[], traces=set(), benign={}, not_judged=set())
    whole.executions = sum(p.executions for p in parts)
    whole.points = sum(p.points for p in parts)
    whole.cut = sum(p.cut for p in parts)
    whole.limited = sum(p.limited for p in parts)
    whole.interrupted = any(p.interrupted for p in parts)
    # Each worker has measured for itself; what several say is said once.
    whole.notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    whole.digest = blake2b("".join(p.digest for p in parts).encode(), digest_size=16).hexdigest()
    found: dict[str, Finding] = {}
    for part in parts:
        whole.traces |= part.traces
        whole.not_judged |= part.not_judged
        for name, count in part.benign.items():
            whole.benign[name] = whole.benign.get(name, 0) + count
        for finding in part.findings:
            if finding.fingerprint in found:
                found[finding.fingerprint].count += finding.count
            else:
                found[finding.fingerprint] = finding
    whole.findings = list(found.values())
    return whole
