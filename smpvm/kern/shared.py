"""Shared fields, declared once on the class that owns them.

A field is *shared* if more than one thread reads or writes it without a host-level lock.  The
decorator records the names; ``instrumented`` derives from it the class whose fields are properties
that call a hook before every access.  Kernel code writes ``m.act_count`` for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

from smpvm.kern.cname import SKIP

FRAMES: Final = SKIP

C = TypeVar("C", bound=type)


class Hook:
    """The functions that an instrumented object calls before each access to a shared field.

    What they return counts with store buffers only: for a read the thread's own store that it
    finds (None: memory), for a write whether the buffer has taken it.
    """

    __slots__ = ("own", "read", "write")

    def __init__(
        self,
        read: Callable[..., Any],
        write: Callable[..., Any],
        own: Callable[[Any, str], Any] | None = None,
    ) -> None:
        self.read = read
        self.write = write
        self.own = own or _nobody
        """The running thread's own store to a field that is not in memory yet."""

    def forget(self) -> None:
        """Drop the references to the observers; there will be no further access."""
        self.read = self.write = self.own = _nobody


def _nobody(obj: Any, field: str, new: object = None) -> None:
    """No observer."""


SILENT = Hook(_nobody, _nobody)
"""The hook of an object under construction: no other thread sees it yet."""


class Site(NamedTuple):
    """A place of the source that accesses a shared field without order, and knows it.

    A race on *field* is accepted if one of its ends is an access by the C function *function* (""
    for any function) that is declared here.  *at* is the line of the C, *why* the reason.
    """

    field: str
    function: str
    at: str
    why: str
    deed: str = "read"
    """``read``: reads, against any write; ``write``: writes, against reads only; ``both``: both,
    against anything."""


def shared(
    *fields: str,
    benign: Iterable[Site] | Mapping[str, str] = (),
    atomic: Mapping[str, str] | None = None,
    lockless: Mapping[str, str] | None = None,
) -> Callable[[C], C]:
    """Declare *fields* (slots of the class) as shared, and which unordered accesses are meant.

    The race checker counts these with their reasons instead of reporting them:

    - *benign*: single sites; a mapping of field to reason accepts whatever happens to the field;
    - *atomic*: fields that change by atomic operations and are read plainly without order;
    - *lockless*: fields that are read without lock on purpose, however they are written.
    """
    if isinstance(benign, Mapping):
        benign = [Site(field, "", "", why, "both") for field, why in benign.items()]
    sites = (*benign, *(Site(field, "", "", why) for field, why in (lockless or {}).items()))
    instant = {**(atomic or {}), **(lockless or {})}

    def declare(cls: Any) -> Any:
        cls.__shared__ = (*getattr(cls, "__shared__", ()), *fields)
        cls.__benign__ = (*getattr(cls, "__benign__", ()), *sites)
        cls.__instant__ = {**getattr(cls, "__instant__", {}), **instant}
        return cls

    return declare


def _property(name: str, slot: Any) -> property:
    get0, set0 = slot.__get__, slot.__set__

    def get(self: Any) -> Any:
        self._hook.read(self, name)
        return get0(self)

    def set_(self: Any, value: Any) -> None:
        self._hook.write(self, name, value)
        set0(self, value)

    return property(get, set_)


def _buffered(name: str, slot: Any) -> property:
    """The same where stores may wait in a buffer (host/tso)."""
    get0, set0 = slot.__get__, slot.__set__
    allow = getattr(slot, "allow", None)  # a store that memory would refuse is refused at once

    def get(self: Any) -> Any:
        own = self._hook.read(self, name)
        return get0(self) if own is None else own.value

    def set_(self: Any, value: Any) -> None:
        if allow is not None:
            allow(value)
        if not self._hook.write(self, name, value):
            set0(self, value)

    return property(get, set_)


@cache
def instrumented(cls: type, buffers: bool = False) -> type:
    """The subclass of *cls* whose shared fields call ``self._hook`` before each access.

    *buffers*: plain writes of threads go through store buffers.
    """
    make = _buffered if buffers else _property
    body: dict[str, Any] = {
        name: make(name, getattr(cls, name)) for name in getattr(cls, "__shared__", ())
    }
    body["__slots__"] = ("_hook", "_seen")
    body["__bare__"] = cls
    body["__buffers__"] = buffers
    body["__doc__"] = cls.__doc__
    body["__module__"] = cls.__module__
    return type(cls.__name__, (cls,), body)


def peek(obj: Any, field: str) -> Any:
    """The value of a shared field for the running thread, read without calling the hook (checkers,
    audits, atomics)."""
    cls: Any = type(obj)
    bare = getattr(cls, "__bare__", None)
    if bare is None:
        return getattr(obj, field)
    if cls.__buffers__ and (own := obj._hook.own(obj, field)) is not None:
        return own.value
    return getattr(bare, field).__get__(obj)


def poke(obj: Any, field: str, value: Any) -> None:
    """Set a shared field without calling the hook: for loaders and for kern/atomic only."""
    bare = getattr(type(obj), "__bare__", None)
    if bare is None:
        setattr(obj, field, value)
    else:
        getattr(bare, field).__set__(obj, value)
