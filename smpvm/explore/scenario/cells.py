"""Declared shared data of a scenario: cells, arrays, tables.  And thread-local data.

The fields of all three are shared fields like the kernel's own: every access is a schedule point,
and the race checker sees it.  A write of a value that can change on its own is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from smpvm.explore.scenario import rules
from smpvm.kern.shared import shared

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel


class _Field:
    """A slot that checks the values written to it."""

    def __init__(self, name: str, slot: Any) -> None:
        self._name = name
        self._get = slot.__get__
        self._set = slot.__set__
        # Instrumented classes read the slot directly, so that reads cost nothing extra.
        vars(self)["__get__"] = slot.__get__

    def __get__(self, obj: Any, cls: type | None = None) -> Any:
        return self if obj is None else self._get(obj)

    def __set__(self, obj: Any, new: Any) -> None:
        if type(new) not in rules.PLAIN:
            self.allow(new)
        self._set(obj, new)

    def allow(self, new: Any) -> None:
        """Raises Refused for what the field may not hold."""
        rules.value(self._name, new)


class _Item:
    """The same for one item of a list."""

    def __init__(self, name: str, at: int) -> None:
        self._name = name
        self._at = at

    def __get__(self, obj: Any, cls: type | None = None) -> Any:
        return self if obj is None else obj._values[self._at]

    def __set__(self, obj: Any, new: Any) -> None:
        if type(new) not in rules.PLAIN:
            self.allow(new)
        obj._values[self._at] = new

    def allow(self, new: Any) -> None:
        """As ``_Field.allow``."""
        rules.value(self._name, new)


class Cell:
    """The result of ``Scenario.shared``: its fields are slots of a class made for it."""

    __slots__ = ("id",)

    def __init__(self, number: int, values: Mapping[str, Any]) -> None:
        self.id = number
        for name, value in values.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"cell {self.id}"


@cache
def cell_class(
    fields: tuple[str, ...], benign: tuple[tuple[str, str], ...], lockless: tuple[str, ...]
) -> type[Cell]:
    """The class of cells with these fields.  Raises ``Refused``."""
    for name in fields:
        if not name.isidentifier() or name.startswith("_") or hasattr(Cell, name):
            raise rules.Refused(f"shared: {name!r} cannot be the name of a field")
    for name, why in benign:
        if name not in fields:
            raise rules.Refused(f"shared: benign: there is no field {name!r}")
        if not isinstance(why, str):
            raise rules.Refused(f"shared: benign {name}: a string is expected, not {why!r}")
    for name in lockless:
        if name not in fields:
            raise rules.Refused(f"shared: lockless: there is no field {name!r}")
    cls = type("Cell", (Cell,), {"__slots__": fields, "__module__": __name__})
    for name in fields:
        setattr(cls, name, _Field(f"shared field {name}", getattr(cls, name)))
    reads = dict.fromkeys(lockless, "read without lock on purpose")
    return shared(*fields, benign=dict(benign), lockless=reads)(cls)


class Array:
    """A fixed number of shared fields ``a[i]``; ``at(i)`` names one for atomics."""

    __slots__ = ("_values", "id")
    _names: tuple[str, ...] = ()

    def __init__(self, number: int, value: Any) -> None:
        self.id = number
        self._values: list[Any] = [None] * len(self._names)
        for name in self._names:
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"array {self.id}"

    def __len__(self) -> int:
        return len(self._names)

    def at(self, index: int) -> str:
        """The name of the field: ``self.atomic.add_int(a, a.at(3), 1)``.  Raises IndexError."""
        return self._names[index]

    def __getitem__(self, index: int) -> Any:
        return getattr(self, self._names[index])

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._names[index], value)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._names)


class Table:
    """A shared field for each of a fixed set of keys: ``t[key]``."""

    __slots__ = ("_values", "id")
    _places: Mapping[Any, str] = {}  # each subclass has its own

    def __init__(self, number: int, value: Any) -> None:
        self.id = number
        self._values: list[Any] = [None] * len(self._places)
        for name in self._places.values():
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"table {self.id}"

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Any) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[Any]:
        return iter(self._places)

    def at(self, key: Any) -> str:
        """The name of the field, for atomics.  Raises KeyError: the keys are fixed."""
        return self._places[key]

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, self._places[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        setattr(self, self._places[key], value)


def _with_items(base: type, names: tuple[str, ...], benign: str, more: Mapping[str, Any]) -> type:
    body = {name: _Item(f"{base.__name__.lower()}{name}", at) for at, name in enumerate(names)}
    cls = type(base.__name__, (base,), {**body, **more, "__slots__": (), "__module__": __name__})
    return shared(*names, benign=dict.fromkeys(names, benign) if benign else ())(cls)


@cache
def array_class(n: int, benign: str) -> type[Array]:
    """The class of arrays of *n* fields; *benign*: why races on them are accepted."""
    names = tuple(f"[{i}]" for i in range(n))
    return _with_items(Array, names, benign, {"_names": names})


def table_class(keys: tuple[Any, ...], benign: str) -> type[Table]:
    """The class of tables with these keys.  Raises ``Refused``."""
    for key in keys:
        rules.value("a key of table", key)
    if len(set(keys)) != len(keys):
        raise rules.Refused(f"table: a key occurs twice in {keys!r}")
    return _table_class(keys, tuple(f"[{key!r}]" for key in keys), benign)


@cache
def _table_class(keys: tuple[Any, ...], names: tuple[str, ...], benign: str) -> type[Table]:
    """*names* tell apart keys that are equal but written differently (1 and True)."""
    places = dict(zip(keys, names, strict=True))
    return _with_items(Table, names, benign, {"_places": places})


class Local:
    """Thread-local attributes; accesses are no schedule points."""

    __slots__ = ("_first", "_k", "_of")

    def __init__(self, k: Kernel, first: Mapping[str, Any]) -> None:
        for name, value in first.items():
            rules.value(f"local {name}", value)  # every thread starts with the same object
        object.__setattr__(self, "_k", k)
        object.__setattr__(self, "_first", first)
        object.__setattr__(self, "_of", {})

    def _mine(self) -> dict[str, Any]:
        tid = self._k.curthread().tid
        mine: dict[str, Any] | None = self._of.get(tid)
        if mine is None:
            mine = self._of[tid] = dict(self._first)
        return mine

    def __getattr__(self, name: str) -> Any:
        try:
            return self._mine()[name]
        except KeyError:
            raise AttributeError(f"this thread's local data has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._mine()[name] = value
