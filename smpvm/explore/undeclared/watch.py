"""Looks for undeclared sharing while a search runs: two accesses that nothing orders.

Order is what the race checker says it is: locks, atomic operations, wakeups, spawn and join.  What
these order is explored in every order already, and so no alarm; neither are results that each
thread writes for itself and only ``check`` reads.  The set-up and ``check`` run alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence, MutableSet
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from smpvm.check.accepted import Accepted
from smpvm.check.checker import Context
from smpvm.check.finding import FindingLog
from smpvm.check.held import HeldTracker
from smpvm.check.race import Races
from smpvm.explore.scenario import rules
from smpvm.explore.undeclared.rewrite import BY_KEY, HOOK
from smpvm.kern.probe import Probe
from smpvm.text import brief

CONTAINERS: Final = (MutableMapping, MutableSequence, MutableSet)
STATEFUL: Final = (*CONTAINERS, Iterator, random.Random)
"""What library code can change: to give it away may be a write."""
CONSTANT: Final = (int, str, float, bytes, tuple, frozenset, type(None))
READERS: Final = frozenset(
    (
        *("copy", "count", "index", "items", "keys", "values", "most_common", "elements", "total"),
        *("isdisjoint", "issubset", "issuperset", "union", "difference", "intersection"),
        *("symmetric_difference", "hex", "decode"),
    )
)
"""Methods of containers that change nothing."""
WHOLE: Final = object()
"""In place of a key: all elements."""
LOOKERS: Final = frozenset(
    (len, sum, min, max, any, all, sorted, repr, print, format, hash, id, isinstance, callable)
)
"""Builtin functions that change nothing that they are given."""


class Place:
    """What is known of one attribute, element or variable: the last write, and reads since."""

    __slots__ = ("reads", "write", "writer")

    def __init__(self) -> None:
        self.write = 0
        self.writer = ""
        self.reads: dict[str, int] = {}


class Watch(Probe):
    """An observer of all executions of a search; also the object that rewritten code calls."""

    def __init__(self) -> None:
        self.active = False
        """Is there any code that tells of its accesses?"""
        self.noticed: dict[str, str] = {}
        """What is shared → who did what."""
        self._k: Any = None
        self._races: Races | None = None
        self._places: dict[tuple[int, Any], Place] = {}
        self._elements: dict[int, dict[Any, None]] = {}
        self._kept: list[Any] = []
        """Objects whose ids are keys: nothing else may take their addresses."""
        self._bases: dict[int, list[tuple[Any, str, str]]] = {}

    def attach(self, kernel: Any) -> None:
        """An execution begins."""
        self._k = kernel
        seen = kernel.probe.observers
        self._races = next((o for o in seen if isinstance(o, Races)), None)
        for kept in (self._places, self._elements, self._kept, self._bases):
            kept.clear()

    def detach(self) -> None:
        """The search is over: code that is still rewritten tells nobody."""
        self._k = self._races = None

    def _thread(self) -> Any:
        """The thread that runs; None in the set-up, in ``check``, and for checkers."""
        k = self._k
        if k is None or k.carrier.inert:
            return None
        td = k.carrier.current()
        return None if td is k.boot or td.quiet else td

    # -- what rewritten code calls

    def attribute(self, obj: Any, name: str, how: str, text: str = "") -> Any:
        """``obj.name`` is about to be read, written, or both."""
        if isinstance(obj, CONSTANT) or rules.part_of_machine(obj):
            return obj
        if isinstance(obj, ModuleType):
            self._touch((id(vars(obj)), name), f"global {name}", how)
        elif isinstance(obj, STATEFUL) and hasattr(type(obj), name):
            self.container(obj, "r" if name in READERS or name.startswith("__") else "rw", text)
        elif not isinstance(obj, FunctionType | MethodType):
            self._attribute(obj, name, how)
        return obj

    def _attribute(self, obj: Any, name: str, how: str) -> None:
        owner = obj if isinstance(obj, type) else None
        if "r" in how and name not in getattr(obj, "__dict__", ()):
            mro = obj.__mro__ if isinstance(obj, type) else type(obj).__mro__
            owner = next((c for c in mro if name in vars(c)), owner)
            if owner is not None and callable(vars(owner).get(name)):
                return
            if owner is not None:
                self._touch((id(owner), name), f"{owner.__name__}.{name}", "r")
        if owner is None or "w" in how:
            what = obj.__name__ if isinstance(obj, type) else type(obj).__name__
            self._keep(obj)
            self._touch((id(obj), name), f"{what}.{name}", how)

    def named(self, function: str, obj: Any, name: Any, *more: Any) -> tuple[Any, ...]:
        """``getattr(obj, name)`` and its like: returns the arguments."""
        write = function in ("setattr", "delattr")
        self.attribute(obj, str(name), "w" if write else "r")
        return (obj, name, *more)

    def base(self, obj: Any, how: str, text: str) -> Any:
        """An element of *obj* comes next: its key follows.  *how*: r, w, rw, or a method."""
        td = self._thread()
        if td is not None:
            self._bases.setdefault(td.tid, []).append((obj, how, text))
        return obj

    def key(self, key: Any) -> Any:
        """The key to the last ``base``."""
        td = self._thread()
        bases = None if td is None else self._bases.get(td.tid)
        if bases:
            obj, how, text = bases.pop()
            if how in BY_KEY:
                self._by_key(obj, how, key, text)
            elif isinstance(obj, CONTAINERS) and not rules.part_of_machine(obj):
                self._element(obj, key, how, text)
        return key

    def _by_key(self, obj: Any, method: str, key: Any, text: str) -> None:
        how = "r" if method == "get" else "rw"
        if isinstance(obj, MutableMapping | MutableSet) and hasattr(type(obj), method):
            self._element(obj, key, "w" if method in ("add", "discard") else how, text)
        else:
            self.attribute(obj, method, "r", text)

    def container(self, obj: Any, how: str, text: str) -> Any:
        """All elements of *obj*."""
        if isinstance(obj, STATEFUL) and not rules.part_of_machine(obj):
            self._element(obj, WHOLE, how, text)
        return obj

    def whole(self, obj: Any, text: str) -> Any:
        """Somebody looks into *obj*."""
        return obj if isinstance(obj, CONSTANT) else self.container(obj, "r", text)

    def each(self, obj: Any, text: str) -> Any:
        """*obj* is iterated over: it is looked into before each step."""
        if isinstance(obj, CONTAINERS) and not rules.part_of_machine(obj):
            return self._each(obj, text)
        return self.container(obj, "rw", text) if isinstance(obj, Iterator) else obj

    def _each(self, obj: Any, text: str) -> Iterator[Any]:
        it = iter(obj)
        while True:
            self.container(obj, "r", text)
            try:
                item = next(it)
            except StopIteration:
                return
            yield item

    def argument(self, obj: Any, to: Any, text: str) -> Any:
        """*obj* is given to a function: library code may read all of it, or write."""
        if isinstance(obj, CONSTANT) or not isinstance(obj, STATEFUL):
            return obj
        if isinstance(to, tuple):
            module, name = to
            to = getattr(module, name, None) if isinstance(module, ModuleType) else WHOLE
        if to is None or to is WHOLE or _own(to):
            return obj  # a method's or a rewritten function's own accesses are seen
        look = isinstance(to, type) or (isinstance(to, type(len)) and to in LOOKERS)
        return self.container(obj, "r" if look and not isinstance(obj, Iterator) else "rw", text)

    def cell(self, reader: Callable[[], Any], name: str, write: bool) -> None:
        """A closure's variable; *reader* is a function that has it too."""
        cell: CellType = (reader.__closure__ or ())[0]
        self._keep(cell)
        self._touch((id(cell), name), f"variable {name}", "w" if write else "r")

    def variable(self, namespace: dict[str, Any], name: str, write: bool) -> None:
        """A global."""
        self._touch((id(namespace), name), f"global {name}", "w" if write else "r")

    # -- judging

    def _keep(self, obj: Any) -> None:
        self._kept.append(obj)

    def _element(self, obj: Any, key: Any, how: str, text: str) -> None:
        try:
            if isinstance(key, int) and key < 0 and isinstance(obj, MutableSequence):
                key += len(obj)
            hash(key)
        except TypeError:
            key = WHOLE
        self._keep(obj)
        text = text or f"a {type(obj).__name__}"
        known = self._elements.setdefault(id(obj), {})
        if key is WHOLE:
            for other in known:
                self._touch((id(obj), other), text, how, note=False)
        else:
            known[key] = None
            self._touch((id(obj), WHOLE), text, how, note=False)
            text = f"{text}[{brief(repr(key))}]"
        self._touch((id(obj), key), text, how)

    def _touch(self, place: tuple[int, Any], what: str, how: str, note: bool = True) -> None:
        """An access, which is compared with those before it, and noted for those to come."""
        td = self._thread()
        if td is None or self._races is None:
            return
        known = self._places.get(place)
        if known is None:
            if not note:
                return
            known = self._places[place] = Place()
        clock = self._races.clock(td)
        if known.write and not clock.after(known.write):
            self._notice(what, known.writer, td.name, "writes" if "w" in how else "reads")
        if "w" in how:
            for reader, epoch in known.reads.items():
                if not clock.after(epoch):
                    self._notice(what, td.name, reader, "reads")
        if note and "w" in how:
            known.write, known.writer = clock.epoch, td.name
            known.reads = {}
        if note and "r" in how:
            known.reads[td.name] = clock.epoch

    def _notice(self, what: str, writer: str, other: str, deed: str) -> None:
        self.noticed.setdefault(what, f"{writer} writes it, {other} {deed} it")

    def lines(self) -> list[str]:
        """What was noticed: why nothing is proven."""
        return [
            f"no proof: {what} is shared and not declared: {who}, with no order between them; "
            "use shared(), array() or table()"
            for what, who in self.noticed.items()
        ]


def _own(function: Any) -> bool:
    """Is *function* the scenario's own, or smpvm's?"""
    function = getattr(function, "__func__", function)
    module = getattr(function, "__module__", None) or ""
    if isinstance(function, FunctionType):
        return HOOK in function.__globals__ or module.partition(".")[0] == "smpvm"
    return isinstance(function, type) and module not in ("builtins", "collections")


def observers(watch: Watch, checks: frozenset[str]) -> tuple[Probe, ...]:
    """*watch*, and somebody who knows the order, if no checker does."""
    if not watch.active:
        return ()
    if "race" in checks:
        return (watch,)
    return (watch, Races(Context(HeldTracker(), FindingLog(), Accepted())))
