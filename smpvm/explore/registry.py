"""Scenarios by name: a built-in one, or ``path/file.py:Name``; ``?size=value`` sets a size."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from smpvm.explore.scenario import Scenario, ScenarioClass


class ScenarioError(ValueError):
    """No such scenario: one line."""


def classes_of(module: ModuleType) -> Iterator[Any]:
    """The scenario classes that *module* defines."""
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if (
            cls.__module__ == module.__name__
            and cls.__dict__.get("name")
            and hasattr(cls, "failures")
        ):
            yield cls


def builtin(package: ModuleType) -> dict[str, Any]:
    """Every scenario of *package*, by name."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for cls in classes_of(module):
            found[cls.name] = cls
    return dict(sorted(found.items()))


def find(spec: str, package: ModuleType | None = None) -> ScenarioClass:
    """The scenario that *spec* names.  Raises ScenarioError."""
    where, _, sizes = spec.partition("?")
    if ".py" in where:
        cls = _from_file(where)
    else:
        known = {} if package is None else builtin(package)
        if where not in known:
            raise ScenarioError(f"scenario {where!r}: unknown; known are {', '.join(known)}")
        cls = known[where]
    found = resized(cls, spec, _sizes(cls, spec, sizes))
    check_sizes(found, spec)
    return found


def sized(cls: Any, spec: str) -> ScenarioClass:
    """*cls*, which *spec* names in some way, with the sizes that *spec* asks for.  Raises
    ScenarioError."""
    sizes = _sizes(cls, spec, spec.partition("?")[2])
    found: ScenarioClass = resized(cls, spec, sizes) if sizes else cls
    check_sizes(found, spec)
    return found


def spec_of(scenario: ScenarioClass) -> str:
    """How *scenario* was asked for, or its name."""
    return getattr(scenario, "spec", "") or scenario.name


def check_sizes(cls: Any, spec: str) -> None:
    """Raises ScenarioError where *cls* has sizes that are none, or are less than it says."""
    if not isinstance(cls.sizes, Mapping):
        raise ScenarioError(f"scenario {spec!r}: sizes: {cls.sizes!r}: a mapping is wanted")
    for name, least in cls.sizes.items():
        value = getattr(cls, name, None)
        if type(value) is not int or value < least:
            raise ScenarioError(
                f"scenario {spec!r}: sizes: {name}={value!r}: a number, {least} or more, is wanted"
            )


def resized(cls: Any, spec: str, sizes: dict[str, int]) -> ScenarioClass:
    """*cls* with other sizes, remembering how it was asked for."""
    return type(cls.__name__, (cls,), {**sizes, "spec": spec, "name": cls.name, "title": cls.title})  # type: ignore[return-value]


def _sizes(cls: Any, spec: str, text: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part in text.split("&") if text else ():
        name, _, value = part.partition("=")
        if name not in cls.sizes or not value.isdecimal():
            raise ScenarioError(f"scenario {spec!r}: {part!r} is not a size of it")
        sizes[name] = int(value)
    return sizes


def _from_file(where: str) -> Any:
    path, _, name = where.partition(":")
    file = Path(path)
    if not file.is_file():
        raise ScenarioError(f"scenario {where!r}: no file {path}")
    module_name = f"smpvm_scenario_{file.stem}"
    loaded = importlib.util.spec_from_file_location(module_name, file)
    assert loaded is not None
    assert loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    sys.modules[module_name] = module
    beside = str(file.resolve().parent)
    if beside not in sys.path:  # as for a program, but behind all else
        sys.path.append(beside)
    try:
        loaded.loader.exec_module(module)
    except (Exception, SystemExit) as why:
        raise ScenarioError(f"scenario {where!r}: {type(why).__name__}: {why}") from None
    known = {cls.name: cls for cls in classes_of(module) if cls is not Scenario}
    known |= {cls.__name__: cls for cls in known.values()}
    if not name and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        raise ScenarioError(
            f"scenario {where!r}: the file has {', '.join(sorted(known)) or 'none'}"
        )
    return known[name]
