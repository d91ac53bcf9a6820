"""A search distributed over workers: local processes, or any Executor."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

from smpvm.check.finding import Finding, FindingLog, new_first
from smpvm.check.suite import checks_text
from smpvm.explore.child import Child, Hung, Worker, wait_any
from smpvm.explore.registry import find
from smpvm.explore.search import Progress, Search, SearchPlan, SearchReport, never
from smpvm.explore.watchdog import HANG, Watch, unwatched

PATIENCE: Final = 10.0
"""Host seconds within which a worker must obey a request to stop."""


@dataclass(frozen=True)
class WorkerDir:
    """A directory through which the workers of one machine and their parent communicate.

    A worker on another machine finds nothing there and runs to the end.
    """

    folder: Path

    def signal(self, what: str) -> None:
        """Tell all workers: ``stop``, or ``found`` if only one finding is wanted."""
        with contextlib.suppress(OSError):
            (self.folder / what).touch()

    def signalled(self, what: str) -> bool:
        """Has *what* been signalled?"""
        return (self.folder / what).exists()

    def report(self, worker: int, report: SearchReport) -> None:
        """Publish the current report of *worker*."""
        with contextlib.suppress(OSError):
            new = self.folder / f"new {worker}"
            new.write_bytes(pickle.dumps(report))
            os.replace(new, self.folder / f"report {worker}")

    def reports(self) -> list[SearchReport]:
        """The latest report of each worker that has published one."""
        return [pickle.loads(path.read_bytes()) for path in sorted(self.folder.glob("report *"))]


def run_part(
    spec: str,
    package: str,
    plan: SearchPlan,
    part: tuple[int, int] = (0, 1),
    shared: WorkerDir | None = None,
    where: Path | None = None,
    tell: bool = True,
    worker: Worker | None = None,
) -> SearchReport:
    """The share of one worker; *package* is the module with the built-in scenarios.

    Findings are written to the run directory *where* at once; if only one is wanted, the first ends
    the search of the other workers.  *tell*: publish progress.  *worker*: the process that this
    runs in, if started by ``run_jobs``.
    Raises ScenarioError.
    """
    watch: Watch = unwatched if worker is None else worker
    watch("import")
    scenario = find(spec, importlib.import_module(package) if package else None)
    watch("")
    settings = plan.settings
    if "all" in settings.repairs:
        settings = replace(settings, repairs=tuple(scenario.repairs))
    plan = replace(plan, settings=replace(settings, watch=watch))
    log = None if where is None else FindingLog(where)

    def on_first(finding: Finding) -> None:
        if log is not None:
            log.replace(finding)
        if shared is not None and plan.stop_on_first:
            shared.signal("found")

    def signalled(what: str) -> Callable[[], bool]:
        return never if shared is None else lambda: shared.signalled(what)

    def publish(report: SearchReport) -> None:
        if shared is not None:
            shared.report(part[0], report)

    search = Search(
        scenario,
        plan,
        part=part,
        stop=signalled("stop"),
        enough=signalled("found"),
        progress=publish if tell else None,
        on_first=on_first,
    )
    if worker is not None:
        worker.unfinished = search.so_far
        late = worker.hurry
        worker.hurry = lambda: late() or search.stop()
    return search.run()


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
    hang: float = HANG,
) -> SearchReport:
    """A search distributed over *jobs* workers of *executor* (default: local processes).

    *stop* is polled and passed on to workers on this machine, which also report *progress* and
    write findings to the run directory *where* at once.  A local worker whose scenario does not
    return (*hang*: see ``watchdog``) is ended; its report is what it had found so far.
    """
    began = reported = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="smpvm-") as place:
        shared = WorkerDir(Path(place))
        tell = progress is not None
        shares = [
            partial(run_part, spec, package, plan, (i, jobs), shared, where, tell)
            for i in range(jobs)
        ]
        workers: _Futures | _Children
        if executor is None:
            workers = _Children(shares, hang, plan.seconds, lambda: _nothing(spec, plan))
        else:
            workers = _Futures([executor.submit(share) for share in shares])
        with closing(workers):
            while not workers.wait(0.2):
                if stop():
                    shared.signal("stop")
                    workers.stopped()
                now = time.perf_counter()
                if progress is not None and now - reported > 1.0 and (reports := shared.reports()):
                    reported = now
                    progress(replace(merge(reports), seconds=now - began))
            report = merge(workers.results())
    report.interrupted |= stop()
    return replace(report, seconds=time.perf_counter() - began)


class _Futures:
    """Workers of an executor."""

    def __init__(self, futures: Sequence[Future[SearchReport]]) -> None:
        self._futures = futures

    def wait(self, seconds: float) -> bool:
        """Wait for all, *seconds* at most; have all ended?"""
        return not wait(self._futures, timeout=seconds).not_done

    def stopped(self) -> None:
        """Do nothing: a running future cannot be ended."""

    def results(self) -> list[SearchReport]:
        """Their reports.  Raises what one of them raised."""
        return [future.result() for future in self._futures]

    def close(self) -> None:
        """The executor is the caller's."""


class _Children:
    """Workers that are local child processes."""

    def __init__(
        self,
        shares: Sequence[Callable[..., SearchReport]],
        hang: float,
        seconds: float | None,
        nothing: Callable[[], SearchReport],
    ) -> None:
        """*seconds*: of the search; shrinking may take as long again.  *nothing* makes the report
        of a worker that has sent none."""
        until = None if seconds is None else time.monotonic() + seconds
        self._nothing = nothing
        self._stop_sent: float | None = None
        self._children = [
            Child(partial(_share, share), hang, until, seconds or 0.0) for share in shares
        ]

    def wait(self, seconds: float) -> bool:
        """As ``_Futures``."""
        wait_any(self._children, seconds)
        for child in self._children:
            child.poll()
            overdue = self._stop_sent is not None and time.monotonic() > self._stop_sent + PATIENCE
            if overdue and not child.done:
                child.kill("interrupted")
        return all(child.done for child in self._children)

    def stopped(self) -> None:
        """A stop has been signalled: workers that do not obey are ended after PATIENCE."""
        if self._stop_sent is None:
            self._stop_sent = time.monotonic()

    def results(self) -> list[SearchReport]:
        """As ``_Futures``; for a worker that did not return, its unfinished report."""
        return [self._result(child) for child in self._children]

    def _result(self, child: Child[SearchReport]) -> SearchReport:
        try:
            return child.result()
        except Hung as why:
            report: SearchReport = why.partial or self._nothing()
            report.proven = ""
            report.hung = str(why)
            return report

    def close(self) -> None:
        """Leave no process behind."""
        for child in self._children:
            child.end()


def _share(share: Callable[..., SearchReport], worker: Worker) -> SearchReport:
    return share(worker=worker)


def _nothing(spec: str, plan: SearchPlan) -> SearchReport:
    settings = plan.settings
    return SearchReport(
        spec,
        plan.strategy,
        settings.granularity,
        settings.memory,
        checks=checks_text(settings.checks),
    )


def merge(parts: Sequence[SearchReport]) -> SearchReport:
    """The reports of several workers as one."""
    if len(parts) == 1:
        return parts[0]
    whole = replace(parts[0], findings=[], traces=set(), benign={}, not_judged=set(), hidden={})
    whole.executions = sum(p.executions for p in parts)
    whole.points = sum(p.points for p in parts)
    whole.pruned = sum(p.pruned for p in parts)
    whole.cut = sum(p.cut for p in parts)
    whole.limited = sum(p.limited for p in parts)
    whole.interrupted = any(p.interrupted for p in parts)
    whole.hung = next((p.hung for p in parts if p.hung), "")
    # Each worker has its own notes; those of several workers are listed once.
    whole.notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    whole.digest = blake2b("".join(p.digest for p in parts).encode(), digest_size=16).hexdigest()
    found: dict[str, Finding] = {}
    for part in parts:
        whole.traces |= part.traces
        whole.not_judged |= part.not_judged
        for name, count in part.benign.items():
            whole.benign[name] = whole.benign.get(name, 0) + count
        for names, count in part.hidden.items():
            whole.hidden[names] = whole.hidden.get(names, 0) + count
        for finding in part.findings:
            if finding.fingerprint in found:
                found[finding.fingerprint].count += finding.count
            else:
                found[finding.fingerprint] = finding
    whole.findings = new_first(found.values())
    return whole
