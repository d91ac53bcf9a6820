"""All repairs by name.

A repair is a change (``vm/build.py``) declared with ``@repair`` in a module of this package; it
needs no registration.  Repairs are off by default: the default model is the kernel as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from smpvm import repairs
from smpvm.config import ConfigError
from smpvm.repairs.base import MARK, Repair
from smpvm.repairs.known import KNOWN
from smpvm.text import brief


def _declared() -> Iterator[Repair]:
    for info in iter_modules(repairs.__path__):
        module = import_module(f"{repairs.__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and MARK in vars(value):
                yield vars(value)[MARK]


REPAIRS: MappingProxyType[str, Repair] = MappingProxyType({r.name: r for r in _declared()})
"""All repairs by name."""


def shown(fingerprint: str, repaired: Iterable[str] = ()) -> tuple[str, ...]:
    """The repairs whose defects a finding with that fingerprint shows.

    *repaired*: those of the run, whose defects cannot be what was found.
    """
    if "all" in repaired:
        return ()
    return tuple(name for name in KNOWN.get(fingerprint, ()) if name not in repaired)


def choose(names: Iterable[str]) -> list[Repair]:
    """The repairs with these *names*; ``all`` selects every one.  Raises ConfigError."""
    chosen: dict[str, Repair] = {}
    for name in names:
        if name == "all":
            chosen.update(REPAIRS)
        elif name in REPAIRS:
            chosen[name] = REPAIRS[name]
        else:
            near = get_close_matches(name[:60], REPAIRS, 3)
            hint = f"; similar: {', '.join(near)}" if near else ""
            raise ConfigError(
                f"repair {brief(name)}: unknown{hint} (`smpvm repairs` lists them; or all)"
            )
    return list(chosen.values())
