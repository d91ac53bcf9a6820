"""Atomic memory operations (machine/atomic.h): the only place that does read-modify-write on a
field.

``x.flags |= b`` is two accesses on any Python; everything that the kernel does with an atomic
instruction goes through here.  A few host locks protect the operations, spread over the objects so
that operations on different objects seldom contend; none is held across anything that can wait, and
no operation needs two.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from smpvm.host.carrier import ATOMIC
from smpvm.kern.cname import SKIP, c

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel

FRAMES: Final = SKIP


class Atomics:
    """The plain operations.  *obj*.*field* is an int; values wrap where the caller masks."""

    def __init__(self) -> None:
        self._locks = tuple(threading.Lock() for _ in range(64))

    @c("atomic_set_int", "atomic.h:128")
    def set_int(self, obj: Any, field: str, bits: int) -> None:
        """atomic_set_int: set *bits*."""
        with self._locks[hash(obj) & 63]:
            setattr(obj, field, getattr(obj, field) | bits)

    @c("atomic_clear_int", "atomic.h:129")
    def clear_int(self, obj: Any, field: str, bits: int) -> None:
        """atomic_clear_int: clear *bits*."""
        with self._locks[hash(obj) & 63]:
            setattr(obj, field, getattr(obj, field) & ~bits)

    @c("atomic_add_int", "atomic.h:130")
    def add_int(self, obj: Any, field: str, n: int) -> None:
        """atomic_add_int."""
        with self._locks[hash(obj) & 63]:
            setattr(obj, field, getattr(obj, field) + n)

    @c("atomic_fetchadd_int", "atomic.h:499-507")
    def fetchadd_int(self, obj: Any, field: str, n: int) -> int:
        """atomic_fetchadd_int: returns the value before the addition."""
        with self._locks[hash(obj) & 63]:
            old: int = getattr(obj, field)
            setattr(obj, field, old + n)
            return old

    @c("atomic_cmpset_int", "atomic.h:471-481")
    def cmpset_int(self, obj: Any, field: str, old: int, new: int) -> bool:
        """atomic_cmpset_int: store *new* if the field is *old*; returns whether it did."""
        with self._locks[hash(obj) & 63]:
            if getattr(obj, field) != old:
                return False
            setattr(obj, field, new)
            return True

    @c("atomic_swap_int", "atomic.h:199-205")
    def swap_int(self, obj: Any, field: str, new: int) -> int:
        """atomic_swap_int: store *new* and return the old value."""
        with self._locks[hash(obj) & 63]:
            old: int = getattr(obj, field)
            setattr(obj, field, new)
            return old

    @c("cpu_mfence", "cpufunc.h:174-178")
    def fence(self) -> None:
        """cpu_mfence: every access before it comes before every access after it.

        Where memory is sequentially consistent there is nothing to do, and no schedule point; with
        store buffers it waits until the thread's own is empty.
        """


class ProbedAtomics(Atomics):
    """The same with a schedule point before each operation and an event with it."""

    def __init__(self, kernel: Kernel) -> None:
        self._k = kernel
        self._lock = threading.Lock()
        self._current = kernel.carrier.current
        self._access: dict[tuple[type, str], tuple[Any, Any]] = {}

    def _learn(self, cls: type, field: str) -> tuple[Any, Any]:
        """The getter and setter of the field that bypass the hook, as ``peek`` and ``poke`` do."""
        freed = getattr(cls, "__freed__", None)  # memory given back: its observer is told
        slot: Any = getattr(freed or getattr(cls, "__bare__", cls), field, None)
        if hasattr(slot, "__set__"):
            pair = (slot.__get__, slot.__set__)
        else:
            pair = (lambda obj: getattr(obj, field), lambda obj, v: setattr(obj, field, v))
        self._access[cls, field] = pair
        return pair

    @c("cpu_mfence", "cpufunc.h:174-178")
    def fence(self) -> None:
        if (drain := self._k.drain) is not None:
            drain()

    def _rmw(self, obj: Any, field: str, op: Any) -> Any:
        k = self._k
        pair = self._access.get((type(obj), field)) or self._learn(type(obj), field)
        if (p := k.point) is not None:
            k.carrier.updates(partial(pair[0], obj), op)
            p(ATOMIC, obj, field)
        f = k.probe.atomic
        with self._lock:
            old = pair[0](obj)
            new = op(old)
            # Called under the lock, so that observers see the operations in their real order, and
            # before the store, so that a thread that reads the new value does so after the event.
            if f is not None:
                f(self._current(), obj, field, old, old if new is None else new)
            if new is not None:
                pair[1](obj, new)
        if p is not None:
            k.carrier.updated(obj, old, op)
        return old

    @c("atomic_set_int", "atomic.h:128")
    def set_int(self, obj: Any, field: str, bits: int) -> None:
        self._rmw(obj, field, lambda v: v | bits)

    @c("atomic_clear_int", "atomic.h:129")
    def clear_int(self, obj: Any, field: str, bits: int) -> None:
        self._rmw(obj, field, lambda v: v & ~bits)

    @c("atomic_add_int", "atomic.h:130")
    def add_int(self, obj: Any, field: str, n: int) -> None:
        self._rmw(obj, field, lambda v: v + n)

    @c("atomic_fetchadd_int", "atomic.h:499-507")
    def fetchadd_int(self, obj: Any, field: str, n: int) -> int:
        old: int = self._rmw(obj, field, lambda v: v + n)
        return old

    @c("atomic_cmpset_int", "atomic.h:471-481")
    def cmpset_int(self, obj: Any, field: str, old: int, new: int) -> bool:
        return bool(self._rmw(obj, field, lambda v: new if v == old else None) == old)

    @c("atomic_swap_int", "atomic.h:199-205")
    def swap_int(self, obj: Any, field: str, new: int) -> int:
        old: int = self._rmw(obj, field, lambda v: new)
        return old
