"""Many small programs with known verdicts, and what each strategy says of them.

    python stress/verdicts.py [--only PATTERN] [--strategy NAMES] [--jobs N] [--json]

The programs are the scenarios in stress/programs.  Their attributes say what is right:

- ``expect``: the kinds of finding that must come ("/" between alternatives), "" for a clean one;
  ``refused``: it must not be run; ``unproven``: nothing may be claimed of it;
- ``also``: kinds that may come besides; ``tso``: ``expect`` under x86-TSO;
- ``classes``: how many classes of executions there are, 0 if that is not known;
- ``preemptions``: how many a finding needs; ``source``: where program and verdict are from;
- ``schedules``, ``skip``: another budget, strategies that it is too large for.

Exit code 1 if anything was proven that is not so, or found that is not there.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from smpvm.check.finding import Finding
from smpvm.explore.engine import Settings
from smpvm.explore.registry import ScenarioError, find
from smpvm.explore.search import Search, SearchPlan

PROGRAMS = Path(__file__).parent / "programs"
STRATEGIES = ("random", "pct", "pos", "bounded", "dpor", "portfolio")
SCHEDULES = {"bounded": 20_000, "all": 20_000, "dpor": 20_000, "portfolio": 1000}
"""Executions, at most; 300 of the others."""
SECONDS = 10.0
BOUND = 2
WRONG = ("WRONG PROOF", "FALSE ALARM")


@dataclass
class Said:
    """What one strategy said of one program."""

    program: str
    strategy: str
    expect: str
    classes: int
    verdict: str
    """``ok``, one of WRONG, ``missed``, ``not proven``, ``excess`` or ``too few``."""
    executions: int
    claim: str
    found: list[str]
    seconds: float

    def cell(self) -> str:
        """For the table: what, what was found, executions, and classes where they are counted."""
        count = f"{self.executions:,}"
        if self.strategy == "dpor" and self.classes:
            count += f"/{self.classes:,}"
        what = self.verdict
        if what == "ok":
            what = "" if self.found else "proven" if self.claim else "nothing found"
        return " ".join(filter(None, (what, *self.found, count)))


def programs(only: str = "*") -> list[str]:
    """The names, ``file:Class``, of the programs that match."""
    found = []
    for path in sorted(PROGRAMS.glob("*.py")):
        for cls in _classes(path):
            name = f"{path.stem}:{cls}"
            if fnmatchcase(name, only) or fnmatchcase(cls, only):
                found.append(name)
    return found


def _classes(path: Path) -> Iterator[str]:
    """The scenarios of a file that say where they are from, in the file's order."""
    for name, value in runpy.run_path(str(path), run_name=path.stem).items():
        own = isinstance(value, type) and value.__module__ == path.stem
        if own and getattr(value, "source", ""):
            yield name


def load(name: str) -> Any:
    """The scenario class of a name."""
    stem, _, cls = name.partition(":")
    return find(f"{PROGRAMS / stem}.py:{cls}")


def judge(name: str, strategy: str, memory: str = "sc", seconds: float = SECONDS) -> Said:
    """Run one program under one strategy."""
    program = load(name)
    expect = getattr(program, "expect", "")
    if memory == "tso":
        expect = getattr(program, "tso", expect)
    classes = getattr(program, "classes", 0) if memory == "sc" else 0
    began = time.perf_counter()
    kinds: dict[str, None] = {}
    counting = strategy == "dpor" and classes > 0

    def enough() -> bool:
        return not counting and bool(expect) and _all_found(expect, kinds)

    def found(finding: Finding) -> None:
        kinds[finding.kind] = None

    plan = SearchPlan(
        strategy,
        schedules=getattr(program, "schedules", SCHEDULES.get(strategy, 300)),
        seconds=seconds,
        bound=BOUND if strategy == "bounded" else None,
        settings=Settings(digest=False, **({} if memory == "sc" else {"memory": memory})),
        shrink=False,
        traces=False,
    )
    said = Said(name, strategy, expect, classes, "ok", 0, "", [], 0.0)
    try:
        report = Search(program, plan, enough=enough, on_first=found).run()
        said.executions, said.claim = report.executions, report.proven
    except ScenarioError as refused:
        kinds["refused"] = None
        said.claim = str(refused)
    said.found = sorted(kinds)
    also = getattr(program, "also", "")
    preemptions = getattr(program, "preemptions", 0)
    beyond = strategy == "bounded" and preemptions > BOUND
    said.verdict = verdict(said, also, beyond)
    said.seconds = round(time.perf_counter() - began, 2)
    return said


def _all_found(expect: str, kinds: Iterable[str]) -> bool:
    return all(not set(part.split("/")).isdisjoint(kinds) for part in expect.split())


def verdict(said: Said, also: str, beyond: bool) -> str:
    """What to think of it; *beyond*: what is to be found needs more preemptions than were tried."""
    found, expect = said.found, said.expect
    allowed = {k for part in (*expect.split(), *also.split()) for k in part.split("/")}
    if set(found) - allowed:
        return "FALSE ALARM"
    proves = bool(said.claim) and not found
    if expect == "unproven":
        return "WRONG PROOF" if proves else "ok"
    if not _all_found(expect, found):
        # A proof of few preemptions is none of all.
        limited = said.strategy == "bounded"
        return "ok" if beyond else "WRONG PROOF" if proves and not limited else "missed"
    if said.strategy == "dpor" and said.classes:
        if said.executions > said.classes:
            return "excess"
        if said.claim and said.executions < said.classes:
            return "too few"
        if not said.claim and not found:
            return "not proven"
    return "ok"


def _run(args: tuple[str, list[str], str, float]) -> list[Said]:
    name, strategies, memory, seconds = args
    skip = getattr(load(name), "skip", "").split()
    return [judge(name, s, memory, seconds) for s in strategies if s not in skip]


def line(cells: Iterable[str]) -> str:
    """One of the table: program, expected, and what each strategy said."""
    widths = chain((31, 21), repeat(20))
    return "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=False)).rstrip()


def row_line(row: list[Said], strategies: list[str]) -> str:
    """The table's line for a program."""
    cells = {said.strategy: said.cell() for said in row}
    return line(
        (row[0].program, row[0].expect or "clean", *(cells.get(s, "-") for s in strategies))
    )


def summary(rows: list[list[Said]]) -> list[str]:
    """How many of what, and which."""
    flat = [said for row in rows for said in row]
    lines = [f"{len(rows)} programs, {len(flat)} runs, {sum(s.seconds for s in flat):.0f} s"]
    for what in (*WRONG, "too few", "missed", "not proven", "excess"):
        some = [f"{s.program} ({s.strategy})" for s in flat if s.verdict == what]
        lines.append(f"{what.lower()}: {len(some)}" + (f": {', '.join(some)}" if some else ""))
    return lines


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description="programs with known verdicts")
    parser.add_argument("--only", default="*", help="a pattern of names: litmus:*, SB*")
    parser.add_argument("--strategy", default=",".join(STRATEGIES), help="names, by commas")
    parser.add_argument("--memory", default="sc", choices=("sc", "tso"))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each run, at most")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    strategies = args.strategy.split(",")
    names = programs(args.only)
    if unknown := set(strategies) - {*STRATEGIES, "surw", "all"}:
        parser.error(f"strategy {', '.join(sorted(unknown))}: unknown")
    if not names:
        parser.error(f"--only {args.only}: no program has such a name")
    if args.memory != "sc" and "memory" not in {f.name for f in fields(Settings)}:
        parser.error(f"--memory {args.memory}: this smpvm knows sequential consistency only")
    if not args.json:
        print(line(("program", "expected", *strategies)), flush=True)
    rows = []
    with ProcessPoolExecutor(args.jobs) as pool:
        work = [(name, strategies, args.memory, args.seconds) for name in names]
        for row in filter(None, pool.map(_run, work)):
            rows.append(row)
            if not args.json:
                print(row_line(row, strategies), flush=True)
    if args.json:
        print(json.dumps([asdict(said) for row in rows for said in row], indent=1))
    else:
        print("\n".join(("", *summary(rows))))
    return 1 if any(said.verdict in WRONG for row in rows for said in row) else 0


if __name__ == "__main__":
    sys.exit(main())
