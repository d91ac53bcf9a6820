"""Puts rewritten code into a scenario's functions while a search runs, and takes it out again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from smpvm.check.stacks import stranger
from smpvm.explore.undeclared.rewrite import HOOK, rewritten
from smpvm.explore.undeclared.watch import Watch

Key = tuple[str, int, tuple[str, ...]]
"""A function in its file: qualified name, first line, free variables."""


@contextmanager
def watching(scenario: Any) -> Iterator[Watch]:
    """Inside, the functions of *scenario* (None: nobody's) tell the watch of their accesses.

    It is not active for smpvm's own scenarios, and where there is no source.
    """
    watch = Watch()
    functions = [f for f in _functions(scenario) if stranger(f.__code__.co_filename)]
    codes = {name: _codes(name) for name in {f.__code__.co_filename for f in functions}}
    new = [(f, codes[f.__code__.co_filename].get(_key(f.__code__))) for f in functions]
    old = [(f, f.__code__) for f, code in new if code is not None]
    watch.active = bool(old)
    for f, code in new:
        if code is not None:
            f.__globals__[HOOK] = watch
            f.__code__ = code
    try:
        yield watch
    finally:
        for f, was in old:
            f.__code__ = was
        watch.detach()


def _key(code: CodeType) -> Key:
    return code.co_qualname, code.co_firstlineno, code.co_freevars


def _codes(filename: str) -> dict[Key, CodeType]:
    """The rewritten functions of a file; without those that cannot be told apart."""
    try:
        with open(filename, "rb") as source:
            whole = compile(rewritten(source.read().decode(), filename), filename, "exec")
    except (OSError, UnicodeDecodeError, SyntaxError, RecursionError):
        return {}
    found: dict[Key, CodeType] = {}
    twice: set[Key] = set()
    todo = [whole]
    while todo:
        for const in todo.pop().co_consts:
            if isinstance(const, CodeType):
                key = _key(const)
                (twice.add if key in found else lambda _: None)(key)
                found[key] = const
                todo.append(const)
    return {key: code for key, code in found.items() if key not in twice}


def _functions(scenario: Any) -> list[FunctionType]:
    """Every Python function that *scenario* can come to by name, itself made outside smpvm."""
    todo: list[Any] = [scenario]
    seen: dict[int, Any] = {}
    while todo:
        obj = todo.pop()
        if id(obj) in seen:
            continue
        seen[id(obj)] = obj
        todo += _parts(obj)
    return [obj for obj in seen.values() if isinstance(obj, FunctionType)]


def _parts(obj: Any) -> list[Any]:
    """Where more functions may be, one step on."""
    if isinstance(obj, type):
        return [] if _foreign(obj) else [*vars(obj).values(), *obj.__mro__[1:]]
    if isinstance(obj, FunctionType):
        if not stranger(obj.__code__.co_filename):
            return []
        cells = [c.cell_contents for c in obj.__closure__ or () if _filled(c)]
        return [*cells, *(obj.__globals__.get(n) for n in _names(obj.__code__)), *_wrapped(obj)]
    if isinstance(obj, ModuleType):
        return list(vars(obj).values()) if stranger(getattr(obj, "__file__", None) or "<") else []
    if isinstance(obj, staticmethod | classmethod | MethodType):
        return [obj.__func__]
    if isinstance(obj, property):
        return [obj.fget, obj.fset, obj.fdel]
    if isinstance(obj, functools.partial):
        return [obj.func, *obj.args]
    return [] if _foreign(type(obj)) else [type(obj)]


def _foreign(cls: type) -> bool:
    try:
        return not stranger(inspect.getfile(cls))
    except (TypeError, OSError):
        return True


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _wrapped(function: FunctionType) -> list[Any]:
    return [vars(function)["__wrapped__"]] if "__wrapped__" in vars(function) else []


def _names(code: CodeType) -> set[str]:
    """The names in *code* and in the functions inside."""
    found = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            found |= _names(const)
    return found
