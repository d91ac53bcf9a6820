"""Run vectors and summarise the results."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smpvm.config import Config, Sysctl
from smpvm.conform.calls import call
from smpvm.conform.carrier import ScriptCarrier, Stuck
from smpvm.conform.diff import (
    Difference,
    compare_events,
    compare_returns,
    compare_state,
)
from smpvm.conform.env import Console, Env, StopRun
from smpvm.conform.vectors import Vector, read_vectors
from smpvm.conform.world import HeldToken, LoggedLock, kernel_world, vm_world
from smpvm.exits import CLEAN, FOUND
from smpvm.kern.cname import MARKS
from smpvm.kern.kernel import Kernel
from smpvm.kern.thread import Panic
from smpvm.state import dump, load
from smpvm.vm.build import build_vm
from smpvm.vm.vm import Vm

GROUPS = {"vm_page_counts": "vm_page2.h:62-144"}
"""Vectors of several inline functions at once."""


def source_of(function: str) -> str:
    """File and lines of a C function."""
    return GROUPS.get(function) or MARKS.where(function) or function


@dataclass
class VectorResult:
    """The result of one vector."""

    name: str
    function: str
    differences: list[Difference]

    @property
    def agrees(self) -> bool:
        """Do the C and the model agree?"""
        return not self.differences

    def lines(self, limit: int = 12) -> list[str]:
        """The differences as text, at most *limit*."""
        shown = [f"  {d}" for d in self.differences[:limit]]
        if len(self.differences) > limit:
            shown.append(f"  ... and {len(self.differences) - limit} more")
        return [f"{self.name} ({source_of(self.function)})", *shown]


@dataclass
class ConformReport:
    """The results of a run."""

    results: list[VectorResult] = field(default_factory=list)

    @property
    def failed(self) -> list[VectorResult]:
        """The vectors that do not agree."""
        return [r for r in self.results if not r.agrees]

    @property
    def exit_code(self) -> int:
        """0: all agree, 1: differences."""
        return FOUND if self.failed else CLEAN

    def by_function(self) -> dict[str, tuple[int, int]]:
        """Function → (agreeing, all), in the order of the first vectors."""
        found: dict[str, tuple[int, int]] = {}
        for r in self.results:
            good, every = found.get(r.function, (0, 0))
            found[r.function] = (good + r.agrees, every + 1)
        return found

    def summary(self) -> list[str]:
        """A line for each function, and one for all."""
        table = self.by_function()
        table["all"] = (len(self.results) - len(self.failed), len(self.results))
        return [
            f"{name:<42} {good:>5} of {every:>5}  {100 * good / every:6.2f} %"
            for name, (good, every) in table.items()
            if every
        ]

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "format": "smpvm-conform",
            "version": 1,
            "vectors": len(self.results),
            "agree": len(self.results) - len(self.failed),
            "functions": {
                name: {"agree": good, "vectors": every, "source": source_of(name)}
                for name, (good, every) in self.by_function().items()
            },
            "differences": [
                {
                    "vector": r.name,
                    "function": r.function,
                    "source": source_of(r.function),
                    "fields": [d._asdict() for d in r.differences],
                }
                for r in self.failed
            ],
        }


def conform(
    files: Sequence[str | Path],
    changes: Iterable[type] = (),
    *,
    functions: Sequence[str] = (),
    stop_after: int = 0,
) -> ConformReport:
    """Run every vector of *files* on the model with *changes* applied.

    *functions* restricts the run to vectors of these C functions.  *stop_after* ends the run when
    that many vectors disagree (0: never).  Raises VectorError for a file that cannot be used.
    """
    report = ConformReport()
    for path in files:
        for vector in read_vectors(path):
            if functions and vector["function"] not in functions:
                continue
            result = run_vector(vector, changes)
            report.results.append(result)
            if stop_after and len(report.failed) >= stop_after:
                return report
    return report


def build(env: Env, changes: Iterable[type] = ()) -> Vm:
    """A machine for one vector; FORMAT.md's environment replaces parts of the model."""
    c = env.config
    config = Config(
        pages=64,
        swap_pages=0,
        ncpus=c["ncpus"],
        pq_l2_size=c["pq_l2_size"],
        hz=c["hz"],
        spin_pool=64,
        sysctl=Sysctl(),
    )
    k = Kernel(
        ScriptCarrier(),
        (Console(env),),
        hz=config.hz,
        ncpus=config.ncpus,
        spin_pool=64,
        parts=kernel_world(env),
    )
    k.boot.cpu = c["cpuid"]
    vm = build_vm(k, config, [*vm_world(env), *changes])
    env.k, env.vm = k, vm
    return vm


def run_vector(vector: Vector, changes: Iterable[type] = ()) -> VectorResult:
    """Load a vector's state, make the call, and compare.  ``read_vectors`` has validated it."""
    env = Env(vector)
    vm = build(env, changes)
    env.roster = load(vm, vector["before"], settled=None)
    for map_ in env.roster.maps:
        _log_lock(env, map_)
    for obj in env.roster.held_tokens:
        obj.token = HeldToken(env.k, obj.token.cls, obj.token.name)
    env.start()
    returns = _call(env, vector)
    differences = [
        *compare_returns(vector["returns"], returns),
        *compare_events(vector["events"], env.events),
    ]
    if "yields" in vector and vector["yields"] != env.yields:
        differences.append(Difference("yields", vector["yields"], env.yields))
    if vm.k.boot.spins and "panic" not in returns:
        differences.append(Difference("spinlocks held", [], [str(s) for s in vm.k.boot.spins]))
    differences += compare_state(vector["after"], dump(env.roster))
    return VectorResult(vector["name"], vector["function"], differences)


def _log_lock(env: Env, map_: Any) -> None:
    """Replace the map's lock by one that logs its calls, in the same state."""
    old = map_.lock
    new = LoggedLock(env.k, old.cls, old.name, old.timo)
    new.env, new.map_id = env, map_.id
    new.count, new.holder = old.count, old.holder
    map_.lock = new


def _call(env: Env, vector: Vector) -> dict[str, Any]:
    try:
        return call(env, vector["function"], vector["args"])
    except StopRun:
        return {"stopped": True}
    except Panic as panic:
        if panic.kind == "panic":
            env.log("panic", code=panic.code)
        return {"panic": {"kind": panic.kind, "code": panic.code}}
    except Stuck as stuck:
        return {"stuck": str(stuck)}
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return {"crashed": f"{error!r} at {Path(last.filename).name}:{last.lineno}"}
