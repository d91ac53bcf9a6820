"""Checks of what a scenario passes to the API; misuse is refused with one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from numbers import Number
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from smpvm.kern.order import Ordered


class Refused(TypeError):
    """A scenario misuses the API; the text is one line.

    Raised in set-ups and in threads.  The engine ends the exploration with that line: a mistake in
    the scenario is no finding.
    """


_UNRUN: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_NEVER_RUN: Final = (GeneratorType, CoroutineType, AsyncGeneratorType)
PLAIN: Final = frozenset((int, bool, str, float, bytes, type(None)))
"""The usual types of immutable values; ``value`` handles the others."""
_PLAIN_BASES: Final = (Number, str, bytes)


def value(field: str, new: Any) -> None:
    """Refuse a value of shared field *field* that can change without an access to the field."""
    if not _constant(new):
        raise Refused(
            f"{field}: a value of type {type(new).__name__} can change without the explorer seeing "
            "it; allowed are numbers, strings, bytes, None, tuples and frozensets of those, and "
            "parts of the machine (cells, arrays, tables, locks, threads)"
        )


def _constant(new: Any) -> bool:
    if isinstance(new, tuple | frozenset):
        return all(map(_constant, new))
    if isinstance(new, Enum):
        return _constant(new.value)
    return new is None or isinstance(new, _PLAIN_BASES) or part_of_machine(new)


def part_of_machine(obj: Any) -> bool:
    """Is it an object of one of smpvm's own classes (a cell, a lock, a thread, a page)?"""
    return type(obj).__module__.partition(".")[0] == "smpvm"


def watched(objs: tuple[Any, ...]) -> None:
    """Refuse what ``relax`` cannot watch."""
    if not objs:
        raise Refused("relax() needs something to watch: relax(cell), or relax(cell, lock)")
    for obj in objs:
        if not part_of_machine(obj):
            raise Refused(
                f"relax: {obj!r} is a value, which cannot be watched; pass the cell that it was "
                "read from: relax(cell)"
            )


def body(name: Any, function: Any) -> None:
    """Refuse a thread name that is no string, and a body that would not run."""
    code = getattr(function, "__code__", None)  # a method has the code of its function
    if type(name) is str and name and code is not None and not code.co_flags & _UNRUN:
        return  # the usual case: threads are made thousands of times a second
    text("thread name", name)
    runs(f"thread {name!r}", function)


def runs(what: str, function: Any) -> None:
    """Refuse what is not callable, and functions whose call runs no code."""
    if not callable(function):
        raise Refused(f"{what}: a function is expected, not {function!r}")
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(type(function).__call__, "__code__", None)
    flags = getattr(code, "co_flags", 0)
    if flags & _UNRUN:
        kind = "generator" if flags & inspect.CO_GENERATOR else "coroutine"
        named = getattr(function, "__qualname__", type(function).__qualname__)
        raise Refused(f"{what}: {named} is a {kind} function: calling it runs nothing")


def returned(result: Any) -> None:
    """Refuse a generator or coroutine returned by a thread's body: its code has not run."""
    if isinstance(result, _NEVER_RUN):
        kind = "generator" if isinstance(result, GeneratorType) else "coroutine"
        raise Refused(f"the body returned the {kind} {result.__qualname__}, which never runs")


def text(what: str, given: Any) -> str:
    """Refuse what is not a non-empty string."""
    if not isinstance(given, str) or not given:
        raise Refused(f"{what}: a string is expected, not {given!r}")
    return given


def number(what: str, given: Any, least: int = 0) -> int:
    """Refuse what is not a whole number of at least *least*."""
    if type(given) is not int or given < least:
        raise Refused(f"{what}: a whole number, {least} or more, is expected, not {given!r}")
    return given


def order(subclass: Any, under: Any) -> dict[str, Any]:
    """Check the arguments for a lock's place in the lock order; returns them as keywords."""
    number("subclass", subclass)
    if under is not None and not isinstance(under, Ordered):
        raise Refused(f"under: a lock is expected, not {under!r}")
    return {"subclass": subclass, "under": under}


def condition(what: str, given: Any) -> Callable[[], bool] | None:
    """Refuse a ``cond`` that is not callable (for example its value instead of the function)."""
    if given is not None:
        runs(f"{what} cond", given)
    return given  # type: ignore[no-any-return]


def scenario(cls: Any) -> str:
    """What is wrong with the attributes of scenario class *cls*; "" if nothing."""
    try:
        text("name", cls.name)
        text("title", cls.title)
        number("spin_pool", cls.spin_pool, 1)
        repairs = cls.repairs
        if not isinstance(repairs, tuple | list) or not all(isinstance(r, str) for r in repairs):
            raise Refused(f"repairs: a tuple of names is expected, not {repairs!r}")
        for method in ("setup", "check"):
            runs(method, getattr(cls, method, None))
    except Refused as why:
        return str(why)
    return _sizes(cls)


def _sizes(cls: Any) -> str:
    if not isinstance(cls.sizes, Mapping):
        return f"sizes: {cls.sizes!r}: a mapping is expected"
    for name, least in cls.sizes.items():
        if not isinstance(name, str) or type(least) is not int:
            return f"sizes: {name!r}: {least!r}: a name and its smallest value are expected"
        given = getattr(cls, name, None)
        if type(given) is not int or given < least:
            return f"sizes: {name}={given!r}: a number, {least} or more, is expected"
    return ""
