#!/usr/bin/env python3
"""Runs every built-in scenario under very many schedules of the portfolio, in pieces.

    python stress/portfolio.py --schedules 100000 --jobs 2
    python stress/portfolio.py --only vnode --repaired --minutes 5
    python stress/portfolio.py --from 50000             continue after another machine
    python stress/portfolio.py --table

Schedules are numbered, so a campaign can be stopped and continued: each piece is one line of JSON
under --dir and is not run again.  The scenario with the fewest schedules is next, so that an
interrupted run has treated all alike.  Ends with a table: executions, points, distinct classes of
traces, findings.  Exit code 1 if a repaired scenario, or one without repairs, has a finding.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import smpvm.scenarios
from smpvm.explore.engine import Settings
from smpvm.explore.registry import builtin
from smpvm.explore.search import Search, SearchPlan, SearchReport

SCENARIOS = builtin(smpvm.scenarios)


def run_piece(
    name: str, repaired: bool, first: int, schedules: int, granularity: str, traces: bool
) -> SearchReport:
    """In a worker: schedules *first* to *first* + *schedules* of one scenario; *traces*: count
    the distinct ones."""
    scenario = SCENARIOS[name]
    repairs = tuple(scenario.repairs) if repaired else ()
    settings = Settings(granularity, repairs=repairs, digest=False)
    plan = SearchPlan(
        first=first, schedules=schedules, shrink=False, settings=settings, traces=traces
    )
    return Search(scenario, plan).run()


@dataclass
class Row:
    """The results of one scenario, with or without its repairs."""

    name: str
    repaired: bool
    store: Path
    begin: int = 0
    """The first schedule; earlier ones have been run elsewhere."""
    executions: int = 0
    points: int = 0
    seconds: float = 0.0
    limited: int = 0
    taken: dict[int, int] = field(default_factory=dict)
    """The first schedule of each piece that has been run or given to a worker → how many."""
    traces: set[int] = field(default_factory=set)
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For the table."""
        return self.name + (" (repaired)" if self.repaired else "")

    @property
    def expected(self) -> bool:
        """May it have findings: are there repairs, and are they left out?"""
        return bool(SCENARIOS[self.name].repairs) and not self.repaired

    @property
    def asked(self) -> int:
        """How many schedules have been run or given to a worker."""
        return sum(self.taken.values())

    def next_piece(self, schedules: int, piece: int) -> tuple[int, int]:
        """The first free schedule, and how many of a piece are free (0 or less: none is left)."""
        first = self.begin
        while first in self.taken:
            first += self.taken[first]
        end = min([schedules, first + piece, *(f for f in self.taken if f > first)])
        return first, end - first

    def load(self) -> None:
        """Load the results of earlier runs."""
        if self.store.exists():
            for n, line in enumerate(self.store.read_text().splitlines(), 1):
                try:
                    self._add(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    sys.exit(f"{self.store}:{n}: damaged: not a piece of a campaign")
        seen = self.store.with_suffix(".traces")
        if seen.exists():
            numbers = array("Q")
            numbers.frombytes(seen.read_bytes())
            self.traces.update(numbers)

    def take(self, first: int, report: SearchReport) -> None:
        """Record a finished piece."""
        doc = {
            "first": first,
            "executions": report.executions,
            "points": report.points,
            "seconds": round(report.seconds, 2),
            "limited": report.limited,
            "findings": [
                {k: v for k, v in f.to_json().items() if k in ("kind", "title", "fingerprint")}
                | {"count": f.count, "schedule": f.schedule}
                for f in report.findings
            ],
        }
        fresh = array("Q", sorted(report.traces - self.traces))
        self.traces.update(fresh)
        with self.store.with_suffix(".traces").open("ab") as out:
            fresh.tofile(out)
        with self.store.open("a") as lines:
            lines.write(json.dumps(doc) + "\n")
        self._add(doc)

    def _add(self, doc: dict[str, Any]) -> None:
        self.executions += doc["executions"]
        self.points += doc["points"]
        self.seconds += doc["seconds"]
        self.limited += doc["limited"]
        self.taken[doc["first"]] = doc["executions"]
        for found in doc["findings"]:
            known = self.findings.setdefault(found["fingerprint"], {**found, "count": 0})
            known["count"] += found["count"]

    def text(self) -> str:
        """One line of the table."""
        kinds = ", ".join(f"{f['kind']} x{f['count']}" for f in self.findings.values())
        return (
            f"{self.title:<32} {self.executions:>9,} {self.points:>13,} {len(self.traces):>9,} "
            f"{self.executions / max(self.seconds, 0.01):>7,.0f}  {kinds or 'none'}"
            + (f"; {self.limited} abandoned at the step limit" if self.limited else "")
        )


def table(rows: list[Row]) -> Iterator[str]:
    """Everything so far."""
    heads = ("executions", "points", "traces", "exec/s")
    yield f"{'scenario':<31} {heads[0]:>10} {heads[1]:>13} {heads[2]:>9} {heads[3]:>7}  findings"
    yield from (row.text() for row in rows if row.executions)
    for row in rows:
        for found in row.findings.values():
            mark = "" if row.expected else "UNEXPECTED "
            yield f"{mark}{row.title}: {found['kind']}: {found['title']} ({found['fingerprint']})"
    yield f"{sum(r.executions for r in rows):,} executions, {sum(r.points for r in rows):,} points"


def left(rows: list[Row], args: argparse.Namespace) -> list[Row]:
    """The rows that have free schedules."""
    return [r for r in rows if r.next_piece(args.schedules, 1)[1] > 0]


def work(rows: list[Row], args: argparse.Namespace) -> None:
    """Run pieces until all are done, or the time limit is reached."""
    end = time.monotonic() + args.minutes * 60
    running: dict[Future[SearchReport], tuple[Row, int]] = {}
    # Only the parent handles Ctrl-C: a worker finishes its piece, whose result is dropped.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(args.jobs, initializer=signal.signal, initargs=quiet) as pool:
        while True:
            short = left(rows, args)
            while short and len(running) < args.jobs and time.monotonic() < end:
                row = min(short, key=lambda r: r.asked)
                first, n = row.next_piece(args.schedules, args.piece)
                row.taken[first] = n
                job = pool.submit(
                    *(run_piece, row.name, row.repaired, first, n, args.granularity),
                    first < args.traces,
                )
                running[job] = (row, first)
                short = left(rows, args)
            if not running:
                return
            for job in wait(running, return_when=FIRST_COMPLETED).done:
                row, first = running.pop(job)
                row.take(first, job.result())
                print(row.text(), flush=True)


def main() -> int:
    """Run, print the table, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=int, default=100_000, help="for each scenario")
    parser.add_argument(
        "--from", dest="begin", type=int, default=0, help="schedules below have been run elsewhere"
    )
    parser.add_argument("--piece", type=int, default=1000, help="schedules in one piece")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--only", default="", help="scenarios whose names contain this")
    parser.add_argument("--repaired", action="store_true", help="with each scenario's own repairs")
    parser.add_argument(
        "--traces", type=int, default=1 << 60, help="count distinct traces up to this schedule only"
    )
    parser.add_argument("--granularity", default="access", choices=("access", "sync"))
    parser.add_argument("--dir", type=Path, default=Path("runs/portfolio"))
    parser.add_argument("--table", action="store_true", help="only print what is known")
    args = parser.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, scenario in SCENARIOS.items():
        if args.only in name and (scenario.repairs or not args.repaired):
            kind = f"{args.granularity}-{'repaired' if args.repaired else 'plain'}"
            row = Row(name, args.repaired, args.dir / f"{name}.{kind}.jsonl", args.begin)
            row.load()
            rows.append(row)
    try:
        if not args.table:
            work(rows, args)
    except KeyboardInterrupt:
        print("stopped; what is done is kept", flush=True)
    print("\n".join(table(rows)))
    return 1 if any(r.findings and not r.expected for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
