"""Which lock a field belongs to: declared next to the field, and checked at each access.

``@guarded(Guard("rb_memq", "token", "vm_page.c:1023"))`` says that ``rb_memq`` is read only with
the object's own token, and changed only with it held exclusively.  Where an observer wants to know
(``Probe.unguarded``), the kernel's objects are of a subclass whose guarded fields look for the lock
before each access; a container in such a field tells what reads it from what changes it
(``Kernel.container``).  Such an access is no schedule point: who has the lock is alone with the
field, and who has it not is told of in every schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from smpvm.kern.cname import SKIP
from smpvm.kern.shared import Site

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel

FRAMES: Final = SKIP

C = TypeVar("C", bound=type)

EXCL: Final = "excl"
SHARED: Final = "shared"
FREE: Final = ""
"""The mode in which a lock must be held for a kind of access; FREE: it need not be."""

Find = Callable[["Kernel", Any, Any], Any]


class Guard(NamedTuple):
    """Field *field* only with its lock.

    *lock* is the name of the object's attribute that is the lock, or finds it from the kernel, the
    object and the new value (None: there is nothing to guard yet).  A thread in the place of a lock
    is the only one that may.  *at* is the line of the C that says so, or that takes the lock.
    """

    field: str
    lock: str | Find
    at: str
    write: str = EXCL
    read: str = SHARED
    sites: tuple[Site, ...] = ()
    """Places of the source that do without, and know it (those of ``shared`` count as well)."""
    container: bool = False
    """Is it a container, made by ``Kernel.container``, that looks at each use by itself?"""


def guarded(*guards: Guard) -> Callable[[C], C]:
    """Declare which lock fields of the class belong to; a field may belong to several."""

    def declare(cls: Any) -> Any:
        known = {name: list(found) for name, found in getattr(cls, "__guards__", {}).items()}
        for guard in guards:
            known.setdefault(guard.field, []).append(guard)
        cls.__guards__ = {name: tuple(found) for name, found in known.items()}
        return cls

    return declare


Look = Callable[[Any, tuple[Guard, ...], bool, Any], None]
"""Called before each access: object, guards of the field, does it write, the new value."""


def nobody(obj: Any, guards: tuple[Guard, ...], writes: bool, new: Any = None) -> None:
    """The look at an object under construction: no other thread sees it yet."""


def page_spin(k: Kernel, m: Any, new: Any) -> Any:
    """A page's spinlock, from the pool."""
    return k.spin_pool.lock_of(m.idx)


class _Missing:
    """Stands for a lock that cannot be named, because it is not held."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


_QUEUE: Final = _Missing("the spinlock of its queue")


def queue_spin(k: Kernel, m: Any, new: Any) -> Any:
    """The spinlock of the queue that *m* is linked into: whichever is held."""
    spins = k.curthread().spins
    if spins and spins[-1].cls == "queue":
        return spins[-1]
    return next((spin for spin in spins if spin.cls == "queue"), _QUEUE)


def holds(td: Any, lock: Any, mode: str) -> bool:
    """Does *td* hold *lock* (a lock of any kind, or a thread: is it that one) in *mode*?"""
    if lock is td or getattr(lock, "owner", None) is td:
        return True
    if (holder := getattr(lock, "holder", None)) is not None:
        return holder is td
    return mode == SHARED and hasattr(lock, "held_by") and bool(lock.held_by(td))


def look(k: Kernel) -> Look:
    """The look of one machine: tells ``Probe.unguarded`` of an access without the lock."""
    curthread, tell = k.curthread, k.probe.unguarded
    assert tell is not None

    def access(obj: Any, guards: tuple[Guard, ...], writes: bool, new: Any = None) -> None:
        # There are very many accesses: the usual case, the lock held exclusively, comes first.
        td = curthread()
        for guard in guards:
            mode = guard.write if writes else guard.read
            if not mode:
                continue
            where = guard.lock
            lock = getattr(obj, where) if where.__class__ is str else where(k, obj, new)  # type: ignore[operator]
            if getattr(lock, "owner", None) is td or lock is None or holds(td, lock, mode):
                continue
            if not (td is k.boot or td.quiet or k.carrier.stopping):
                tell(td, obj, guard, lock, writes)

    return access


# -- containers

READS: Final = frozenset(
    [
        "__getitem__",
        "__contains__",
        "__iter__",
        "__reversed__",
        "__len__",
        "get",
        "keys",
        "values",
        "items",
        "index",
        "count",
        "copy",
        "lookup",
        "first",
        "next",
        "last",
        "is_free",
    ]
)
WRITES: Final = frozenset(
    [
        "__setitem__",
        "__delitem__",
        "pop",
        "popitem",
        "clear",
        "update",
        "setdefault",
        "append",
        "extend",
        "insert",
        "remove",
        "sort",
        "alloc",
        "free",
    ]
)
"""Methods of the kernel's containers that look at them, and those that change them."""


@cache
def container_of(cls: type) -> type:
    """The subclass of the container class *cls* that looks before each use.

    What a *scan* finds is looked for again after each callback, which may have lost the lock.
    """
    body: dict[str, Any] = {"__slots__": ("_access",), "__doc__": cls.__doc__}
    for name in READS | WRITES:
        method = getattr(cls, name, None)
        if method is not None:
            body[name] = _watched(method, name in WRITES)
    if hasattr(cls, "scan"):
        body["scan"] = _watched_scan(cls.scan)
    body["__module__"] = cls.__module__
    return type(cls.__name__, (cls,), body)


def _watched(method: Any, writes: bool) -> Any:
    def use(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._access(writes)
        return method(self, *args, **kwargs)

    return use


def _watched_scan(method: Any) -> Any:
    def scan(self: Any, callback: Callable[[Any], int], *args: Any, **kwargs: Any) -> int:
        def one(found: Any) -> int:
            self._access(False)
            return callback(found)

        self._access(False)
        return int(method(self, one, *args, **kwargs))

    return scan
