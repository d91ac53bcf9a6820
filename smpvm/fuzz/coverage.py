"""What of the kernel code a number of executions reach: C functions, lines of the model, branches,
interactions.  And what nothing reaches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.scenario import ScenarioClass
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.fuzz.interactions import Interactions
from smpvm.fuzz.lines import Lines, kernel_code, lines_of
from smpvm.kern.cname import SKIP, CName
from smpvm.text import plural
from smpvm.vm.pageout.coverage import BRANCHES

FRAMES: Final = SKIP


@dataclass
class Method:
    """One method of the model, and how much of it has run."""

    name: str
    c: tuple[CName, ...]
    lines: frozenset[int]
    uncalled: bool
    run: set[int] = field(default_factory=set)


class Coverage:
    """Collects from executions; then says what was reached."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.watch = Interactions()
        self.seen: set[str] = set()
        self.executions = 0

    def scenario(
        self, scenario: ScenarioClass, schedules: int, settings: Settings, seed: int = 0
    ) -> None:
        """Run some schedules of a scenario."""
        strategy = make_strategy("portfolio", seed=seed)
        with collected() as collector:
            for n in range(schedules):
                try:
                    outcome = execute(scenario, strategy, settings, n, (self.watch, self.lines))
                finally:
                    self.lines.close()
                if outcome is None:
                    break
                self.executions += 1
                self.seen |= self.watch.take().all()
                outcome.forget()
                collector.after()

    # -- what came of it

    def methods(self) -> list[Method]:
        """Every marked method that is a C function or a step of one, by file and line."""
        run: dict[int, set[int]] = {}
        for code, line in self.lines.run:
            run.setdefault(code, set()).add(line)
        found = [
            Method(
                f.__qualname__,
                mark.c,
                lines_of(f.__code__),
                mark.uncalled,
                run.get(id(f.__code__), set()),
            )
            for f, mark in kernel_code()
            if mark.c
        ]
        return sorted(found, key=lambda m: (m.c[0].file, m.c[0].first, m.name))

    def functions(self) -> dict[str, bool]:
        """``file.c function`` → whether any of its methods has run; the order of the C."""
        found: dict[str, bool] = {}
        for m in self.methods():
            for c in m.c:
                name = f"{c.file} {c.name}"
                found[name] = found.get(name, False) or bool(m.run)
        return dict(sorted(found.items()))

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        methods, functions = self.methods(), self.functions()
        branches = {row.name: f"branch {row.name}" in self.seen for row in BRANCHES}
        return {
            "version": 1,
            "executions": self.executions,
            "functions": {
                "reached": sum(functions.values()),
                "all": len(functions),
                "never": [name for name, hit in functions.items() if not hit],
            },
            "lines": {
                "reached": sum(len(m.run & m.lines) for m in methods),
                "all": sum(len(m.lines) for m in methods),
            },
            "branches": {
                "reached": sum(branches.values()),
                "all": len(branches),
                "never": [
                    {"name": row.name, "why": row.unreachable}
                    for row in BRANCHES
                    if not branches[row.name]
                ],
            },
            "interactions": len(self.seen),
            "methods": [
                {
                    "name": m.name,
                    "c": [f"{c.name} ({c.where})" for c in m.c],
                    "lines": len(m.lines),
                    "reached": len(m.run & m.lines),
                }
                for m in methods
            ],
        }


def text(doc: dict[str, Any], uncalled: Iterable[str] = ()) -> list[str]:
    """The document for people."""
    f, li, b = doc["functions"], doc["lines"], doc["branches"]
    out = [
        f"coverage: {plural(doc['executions'], 'execution')}, "
        f"{plural(doc['interactions'], 'interaction')}",
        f"  C functions: {_share(f)}",
        f"  lines of the model: {_share(li)}",
        f"  branches of vm_pageout.c: {_share(b)}",
    ]
    known = set(uncalled)
    if f["never"]:
        out.append("  functions that nothing reaches:")
        out += [
            f"    {name}" + (" (nothing in the model calls it)" if name in known else "")
            for name in f["never"]
        ]
    if b["never"]:
        out.append("  branches that nothing reaches:")
        out += [
            f"    {row['name']}" + (f": {row['why']}" if row["why"] else "") for row in b["never"]
        ]
    return out


def _share(part: dict[str, Any]) -> str:
    percent = 100 * part["reached"] / max(part["all"], 1)
    return f"{part['reached']:,} of {part['all']:,} ({percent:.0f} %)"


def uncalled() -> set[str]:
    """``file.c function`` of what is ported but has no caller in the model."""
    found: dict[str, bool] = {}
    for _, mark in kernel_code():
        for c in mark.c:
            name = f"{c.file} {c.name}"
            found[name] = found.get(name, True) and mark.uncalled
    return {name for name, nobody in found.items() if nobody}
