"""Finds undeclared shared fields: those that threads share without schedule points.

    python stress/undeclared.py [--executions N] [SCENARIO ...]

An explorer permutes only operations that it sees: a field that two threads use and one writes must
be declared shared, be ordered by locks, or be announced by the code that uses it.  Here every
access to every attribute of the model's objects goes to the race checker.  Prints each unordered
pair with its places; exit code 1 if there is one whose class and field are not in KNOWN.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import sys
from types import FrameType
from typing import Any

import smpvm.kern
import smpvm.scenarios
import smpvm.vm
from smpvm.check.race import Races
from smpvm.explore.engine import Execution, Settings
from smpvm.explore.registry import builtin
from smpvm.explore.strategy.portfolio import make_strategy

KNOWN = {
    "PvEntry.m": "the hardware's access names entry and page, and looks again when its turn comes",
    "Page.contents": "the hardware's access, copies and devices name the page's words",
    "Procs.nprocs": "changed by atomic operations; the scan names its look",
    "ProcGlob.first": "under the bucket's token; the scan names its look at empty ones",
}
PRIMITIVES = {
    "Ordered",
    "Thread",
    "Token",
    "Tokens",
    "TokRef",
    "Spinlock",
    "Lock",
    "Kernel",
    "Sleep",
    "Sleeper",
}
"""The events that establish order."""
MACHINERY = ("__", "_hook", "_seen")


class Shadow:
    """Represents an object in the checker, under the name of its class."""

    __benign__ = ()
    __instant__: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self._seen: dict[str, Any] = {}

    def __str__(self) -> str:
        return str(self.obj)

    def __getattr__(self, name: str) -> str:
        return ""  # values do not matter


class Watch:
    """Passes the accesses of one execution at a time to the checker."""

    def __init__(self) -> None:
        self.execution: Execution | None = None
        self._shadows: dict[int, Shadow] = {}
        self._kinds: dict[type, type[Shadow]] = {}
        self._inside = False

    def begin(self, execution: Execution | None) -> None:
        """Accesses from here on belong to *execution*."""
        self.execution = execution
        self._shadows.clear()

    def access(self, obj: Any, name: str, write: bool, frame: FrameType) -> None:
        """The code in *frame* reads or writes an attribute."""
        if self.execution is None or self._inside:
            return
        carrier = self.execution.carrier
        race = self.execution.suite.find(Races)
        if carrier.inert or race is None or name in getattr(type(obj), "__shared__", ()):
            return
        td: Any = carrier.current()
        if td.quiet or (frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is obj):
            return
        self._inside = True
        try:
            shadow = self._shadow(obj)
            if write:
                race.write(td, shadow, name, None, frame)
            else:
                race.read(td, shadow, name, frame)
        finally:
            self._inside = False

    def _shadow(self, obj: Any) -> Shadow:
        found = self._shadows.get(id(obj))
        if found is None:
            cls = type(obj)
            kind = self._kinds.get(cls)
            if kind is None:
                kind = self._kinds[cls] = type(cls.__name__, (Shadow,), {})
            found = self._shadows[id(obj)] = kind(obj)
        return found

    def patch(self, cls: Any) -> None:
        """Report every read and write of an attribute of instances of *cls*."""
        get, put = cls.__getattribute__, cls.__setattr__

        def getattribute(obj: Any, name: str) -> Any:
            value = get(obj, name)
            if not name.startswith(MACHINERY) and not callable(value):
                self.access(obj, name, False, sys._getframe(1))
            return value

        def setattr_(obj: Any, name: str, value: Any) -> None:
            if not name.startswith(MACHINERY):
                self.access(obj, name, True, sys._getframe(1))
            put(obj, name, value)

        cls.__getattribute__, cls.__setattr__ = getattribute, setattr_


def model_classes() -> list[type]:
    """The classes of vm/ and kern/ whose objects threads can share."""
    found: dict[type, None] = {}
    for package in (smpvm.vm, smpvm.kern):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            for cls in vars(importlib.import_module(module.name)).values():
                if (
                    inspect.isclass(cls)
                    and cls.__module__.startswith(("smpvm.vm", "smpvm.kern"))
                    and not issubclass(cls, (tuple, BaseException))
                    and "repairs" not in cls.__module__
                    and cls.__name__ not in PRIMITIVES
                    and not getattr(cls, "_is_protocol", False)
                ):
                    found[cls] = None
    # A class whose base is already patched reports through it.
    return [cls for cls in found if found.keys().isdisjoint(cls.__mro__[1:])]


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--executions", type=int, default=10)
    args = parser.parse_args()
    scenarios = builtin(smpvm.scenarios)
    watch = Watch()
    for cls in model_classes():
        watch.patch(cls)
    seen: set[str] = set()
    new = accesses = 0
    for name in args.scenarios or list(scenarios):
        scenario = scenarios[name]
        settings = Settings(checks=frozenset({"race"}), digest=False, repairs=scenario.repairs)
        strategy = make_strategy("portfolio", seed=1)
        for n in range(args.executions):
            scheduler = strategy.start(n)
            execution = Execution(scenario, strategy, scheduler, settings)
            watch.begin(execution)
            outcome = execution.run()
            watch.begin(None)
            strategy.done(outcome.carrier)
            accesses += outcome.steps
            for finding in outcome.findings:
                field = finding.title.removeprefix("race: ").partition(" of ")[0]
                if finding.kind != "race" or finding.fingerprint in seen:
                    continue
                seen.add(finding.fingerprint)
                known = KNOWN.get(field)
                new += known is None
                print(f"{name}: {finding.title}\n    {known or 'NOT KNOWN'}")
                for line in [] if known else finding.lines():
                    print("    " + line)
            outcome.forget()
    print(f"{len(seen)} unordered pairs, {new} of fields not known, in {accesses:,} steps")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
