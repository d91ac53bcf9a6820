"""Scenarios by name: a built-in one, or ``path/file.py:Name``; ``?size=value`` sets a size."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

import smpvm
from smpvm.config import ConfigError
from smpvm.explore.scenario import Scenario, ScenarioClass, rules
from smpvm.files import MIB, read
from smpvm.repairs.catalogue import choose
from smpvm.text import brief, quoted, whole

MOST_SIZE: Final = 64
"""The largest size that can be asked for, unless the scenario's own is larger."""


class ScenarioError(ValueError):
    """There is no such scenario, or it is not usable: one line."""


def classes_of(module: ModuleType) -> Iterator[Any]:
    """The scenario classes defined in *module*, each once, without bases that lack a ``setup``."""
    found = {cls: None for _, cls in inspect.getmembers(module, inspect.isclass)}
    for cls in found:
        if (
            cls.__module__ == module.__name__
            and issubclass(cls, Scenario)
            and cls.setup is not Scenario.setup
        ):
            yield cls


def builtin(package: ModuleType) -> dict[str, Any]:
    """Every scenario of *package*, by name."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for cls in classes_of(module):
            if cls.name in found:
                raise ScenarioError(f"two scenarios are called {cls.name!r}")
            found[cls.name] = cls
    return dict(sorted(found.items()))


MAKERS: Final[Mapping[str, str]] = MappingProxyType({"fuzz": "smpvm.fuzz.scenario"})
"""Prefix of a spec → the module whose ``scenario_of`` makes a class from the text behind it: data
that is checked, never a program.  By name, as those modules stand above this one."""


def find(spec: str, package: ModuleType | None = None) -> ScenarioClass:
    """The scenario that *spec* names.  Raises ScenarioError."""
    if (maker := MAKERS.get(spec.partition(":")[0])) is not None:
        made: ScenarioClass = importlib.import_module(maker).scenario_of(spec)
        return made
    where, _, sizes = spec.partition("?")
    if file_of(spec) is not None:
        cls = _from_file(where)
    else:
        known = {} if package is None else builtin(package)
        if where not in known:
            near = get_close_matches(where[:60], known, 3)
            hint = f"; similar: {', '.join(near)}" if near else ""
            raise ScenarioError(
                f"scenario {quoted(where)}: unknown{hint} (`smpvm scenarios` lists all)"
            )
        cls = known[where]
    found = resized(cls, spec, _sizes(cls, spec, sizes))
    check_class(found, spec)
    return found


def sized(cls: Any, spec: str) -> ScenarioClass:
    """*cls*, which *spec* names in some way, with the sizes that *spec* asks for.  Raises
    ScenarioError."""
    sizes = _sizes(cls, spec, spec.partition("?")[2])
    found: ScenarioClass = resized(cls, spec, sizes) if sizes else cls
    check_class(found, spec)
    return found


def spec_of(scenario: ScenarioClass) -> str:
    """The spec by which *scenario* was requested, or its name."""
    return getattr(scenario, "spec", "") or scenario.name


def file_of(spec: str) -> Path | None:
    """The file of a scenario that is the user's own; None for a built-in or generated one."""
    if spec.partition(":")[0] in MAKERS:
        return None
    where = spec.partition("?")[0]
    return Path(where.partition(":")[0]) if ".py" in where else None


def source_hash(spec: str) -> str:
    """The SHA-256 of the scenario's file in hexadecimal; "" if built in or if there is no file."""
    path = file_of(spec)
    if path is None or not os.path.isfile(path):
        return ""
    return hashlib.sha256(read(path, 16 * MIB, ScenarioError)).hexdigest()


def _said(spec: str) -> str:
    """A scenario's name in an error line; it may be a path, so it may be long."""
    return brief(repr(spec), 250)


def check_class(cls: Any, spec: str) -> None:
    """Raises ScenarioError if an attribute of *cls* is invalid: see ``rules.scenario``."""
    why = rules.scenario(cls)
    try:
        if not why and cls.repairs:
            choose(cls.repairs)
    except ConfigError as unknown:
        why = str(unknown)
    if why:
        raise ScenarioError(f"scenario {_said(spec)}: {why}")


def resized(cls: Any, spec: str, sizes: dict[str, int]) -> ScenarioClass:
    """*cls* with other sizes; it remembers the spec by which it was requested."""
    body = {"spec": spec, "name": cls.name, "title": cls.title, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), {**sizes, **body})  # type: ignore[return-value]


def _sizes(cls: Any, spec: str, text: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part in text.split("&") if text else ():
        name, _, value = part.partition("=")
        if not isinstance(cls.sizes, Mapping) or name not in cls.sizes:
            known = ", ".join(cls.sizes if isinstance(cls.sizes, Mapping) else ()) or "none"
            raise ScenarioError(f"scenario {_said(spec)}: no size {quoted(name)}; sizes: {known}")
        try:
            sizes[name] = whole(value)
        except ValueError as why:
            raise ScenarioError(f"scenario {_said(spec)}: {brief(name)}: {why}") from None
        own = getattr(cls, name, None)
        most = max(MOST_SIZE, own if type(own) is int else 0)
        if sizes[name] > most:
            raise ScenarioError(
                f"scenario {_said(spec)}: {name} is out of range, "
                f"allowed {cls.sizes[name]} to {most}"
            )
    return sizes


def _from_file(where: str) -> Any:
    path, _, name = where.partition(":")
    file = Path(path)
    if not os.path.isfile(file):
        raise ScenarioError(f"scenario {_said(where)}: no file {brief(path, 250)}")
    module_name = f"smpvm_scenario_{file.stem}"
    loaded = importlib.util.spec_from_file_location(module_name, file)
    if loaded is None or loaded.loader is None:  # a suffix that Python does not know
        raise ScenarioError(f"scenario {_said(where)}: {brief(path, 250)} is no Python file")
    module = importlib.util.module_from_spec(loaded)
    sys.modules[module_name] = module
    beside = str(file.resolve().parent)
    if beside not in sys.path:  # as for a script, but last
        sys.path.append(beside)
    try:
        loaded.loader.exec_module(module)
    except (Exception, SystemExit) as why:
        raise ScenarioError(
            f"scenario {_said(where)}: {type(why).__name__}: {why}{_hint(why)}"
        ) from None
    return _chosen(list(classes_of(module)), where, path, name)


def _chosen(classes: list[Any], where: str, path: str, name: str) -> Any:
    """The class of a file with that class name or scenario name; without a name, the only class.
    Raises ScenarioError."""
    known = {str(cls.name): cls for cls in classes} | {cls.__name__: cls for cls in classes}
    if name in known:
        return known[name]
    if not name and len(classes) == 1:
        return classes[0]
    names = ", ".join(cls.__name__ for cls in classes)
    if not classes:
        why = "the file defines no scenario (a class with a setup, based on smpvm.Scenario)"
    elif name:
        why = f"the file defines no {name}; it defines {names}"
    else:
        why = f"the file defines several scenarios; use {path}:Class with one of {names}"
    raise ScenarioError(f"scenario {_said(where)}: {why}")


def _hint(why: BaseException) -> str:
    """What to do about a failed import, if anything."""
    if isinstance(why, ModuleNotFoundError):
        return f"; install it: python -m pip install {(why.name or '').partition('.')[0]}"
    if isinstance(why, ImportError) and why.name == "smpvm":
        return f"; this version of smpvm, {smpvm.__version__}, does not have it"
    return ""
