"""Shapes of JSON documents: written down as a table, checked before anything of a document is used.

A shape is a function that takes a value and raises ``Misfit`` when the value does not have it.
``record({"pid": integer(0, 99999), "name": text()})`` makes one from others.  The line of a Misfit
says where in the document, what is there, and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from math import isfinite
from typing import Any

from smpvm.text import brief, quoted
from smpvm.text import whole as number

Shape = Callable[[Any], None]


class Misfit(ValueError):
    """A value that does not have its shape."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.places: list[str] = []
        self.named = False
        """The last place names the list that it is in: the list's key need not be said."""

    def within(self, place: str, *, named: bool = False) -> Misfit:
        """The same, seen from one level further out."""
        if not self.named:
            self.places.insert(0, place)
        self.named = named
        return self

    def __str__(self) -> str:
        where = " ".join(self.places)
        return f"{where}: {self.args[0]}" if where else str(self.args[0])


def integer(low: int, high: int) -> Shape:
    """A whole number from *low* to *high*."""

    def check(value: Any) -> None:
        if type(value) is not int:
            raise Misfit(f"{quoted(value)} is not a number, allowed {low} to {high}")
        if value < 0 <= low:
            raise Misfit(f"negative ({quoted(value)}), allowed {low} to {high}")
        if not low <= value <= high:
            raise Misfit(f"{quoted(value)} is out of range, allowed {low} to {high}")

    return check


def real(value: Any) -> None:
    """A finite number."""
    if type(value) is not int and not (type(value) is float and isfinite(value)):
        raise Misfit(f"{quoted(value)} is not a number")


def anything(value: Any) -> None:
    """What is not looked at here."""


def flag(value: Any) -> None:
    """true or false."""
    if type(value) is not bool:
        raise Misfit(f"{quoted(value)} is neither true nor false")


def text(most: int = 100_000) -> Shape:
    """A string of at most *most* characters."""

    def check(value: Any) -> None:
        if type(value) is not str:
            raise Misfit(f"{quoted(value)} is not a text")
        if len(value) > most:
            raise Misfit(f"a text of {len(value):,} characters, allowed are {most:,}")

    return check


def one_of(names: Collection[Any]) -> Shape:
    """One of these texts or numbers."""

    def check(value: Any) -> None:
        # 1 == True: the type counts too.
        if type(value) not in (str, int) or value not in names:
            known = brief(", ".join(map(str, names)))
            raise Misfit(f"unknown {quoted(value)}; known are {known}")

    return check


def nullable(shape: Shape) -> Shape:
    """null, or *shape*."""

    def check(value: Any) -> None:
        if value is not None:
            shape(value)

    return check


def list_of(shape: Shape, name: str = "", *, least: int = 0, most: int = 1 << 26) -> Shape:
    """A list of values of one shape; *name* is what an error line calls each."""

    def check(value: Any) -> None:
        if type(value) is not list:
            raise Misfit(f"{quoted(value)} is not a list")
        if not least <= len(value) <= most:
            raise Misfit(f"a list of {len(value):,}, allowed are {least:,} to {most:,}")
        for n, each in enumerate(value):
            try:
                shape(each)
            except Misfit as why:
                raise why.within(f"{name} {n}".lstrip(), named=bool(name)) from None

    return check


def row(*shapes: Shape) -> Shape:
    """A list of one value for each shape."""

    def check(value: Any) -> None:
        if type(value) is not list or len(value) != len(shapes):
            raise Misfit(f"{quoted(value)} is not a list of {len(shapes)}")
        for n, (shape, each) in enumerate(zip(shapes, value, strict=True)):
            try:
                shape(each)
            except Misfit as why:
                raise why.within(str(n)) from None

    return check


def set_of(names: Collection[str], what: str) -> Shape:
    """A list of some of *names*, each at most once; *what* is what an error line calls one."""

    def check(value: Any) -> None:
        if type(value) is not list:
            raise Misfit(f"{quoted(value)} is not a list of {what}s")
        for name in value:
            if type(name) is not str or name not in names:
                known = brief(", ".join(names))
                raise Misfit(f"unknown {what} {quoted(name)}; known are {known}")
        if len(set(value)) != len(value):
            raise Misfit(f"a {what} is named twice")

    return check


def table(key: Shape, shape: Shape, name: str = "", *, most: int = 1 << 26) -> Shape:
    """An object whose keys are not known before; *name* is what an error line calls each."""

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Misfit(f"{quoted(value)} is not an object")
        if len(value) > most:
            raise Misfit(f"an object of {len(value):,}, allowed are {most:,}")
        for k, each in value.items():
            try:
                key(k)
                shape(each)
            except Misfit as why:
                raise why.within(f"{name} {brief(k)}".lstrip(), named=bool(name)) from None

    return check


def digits(low: int, high: int) -> Shape:
    """A text that is a number from *low* to *high*: a key that stands for one."""
    in_range = integer(low, high)

    def check(value: Any) -> None:
        try:
            n = number(value)
        except ValueError:
            raise Misfit(f"the key is not a number, allowed {low} to {high}") from None
        in_range(n)
        if str(n) != value:  # "07" beside "7" would be the same twice
            raise Misfit(f"the key is not written as {n}")

    return check


def record(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """An object with these keys and no others."""
    shapes = {**required, **(optional or {})}

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Misfit(f"{quoted(value)} is not an object")
        for key, each in value.items():
            shape = shapes.get(key)
            if shape is None:
                known = brief(", ".join(shapes))
                raise Misfit(f"unknown key {quoted(key)}; known are {known}")
            try:
                shape(each)
            except Misfit as why:
                raise why.within(key) from None
        if len(value) < len(shapes):
            for key in required:
                if key not in value:
                    raise Misfit(f"{key} is missing")

    return check


def plain(depth: int = 8) -> Shape:
    """Any value, lists and objects at most *depth* deep."""

    def check(value: Any, left: int = depth) -> None:
        inside = value if type(value) is list else value.values() if type(value) is dict else ()
        if inside and not left:
            raise Misfit(f"more than {depth} lists and objects inside each other")
        for each in inside:
            check(each, left - 1)

    return check


def matching(pattern: str, what: str) -> Shape:
    """A text that *pattern* matches from end to end; *what* says that in words."""
    match = re.compile(pattern, re.ASCII).fullmatch

    def check(value: Any) -> None:
        if type(value) is not str or match(value) is None:
            raise Misfit(f"{quoted(value)} is not {what}")

    return check
