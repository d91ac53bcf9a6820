"""Scenarios: the public way to say what is explored.

A scenario is a class; an object of it is made for every execution.  Ten lines are enough::

    from smpvm import Scenario

    class LostUpdate(Scenario):
        "Two threads count without a lock."

        def setup(self):
            self.c = self.shared(n=0)
            for name in "ab":
                self.thread(name, self.count)

        def count(self):
            self.c.n = self.c.n + 1

        def check(self):
            assert self.c.n == 2, "an update is lost"

``smpvm explore file.py:LostUpdate`` finds the schedule in which it is.  At hand are spinlocks,
tokens, lockmgr locks, tsleep and wakeup, atomics and declared shared fields, and ``k``, the kernel
itself.  Plain Python data of the scenario may be used too, but accesses to it are no schedule
points: what threads race for must be declared with ``shared``.

The same schedule must do the same in every execution: nothing may be left to chance, to time, or to
what an earlier execution has left on the class.  A thread is ended by an exception that is no
``Exception``: it must not catch that and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, ClassVar, Protocol

from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel
from smpvm.kern.lockmgr import LK_EXCLUSIVE, LK_NOWAIT, LK_RELEASE, LK_SHARED, Lock
from smpvm.kern.shared import shared
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.thread import Thread
from smpvm.kern.token import Token
from smpvm.kern.tsleep import PINTERLOCKED


class Body(Protocol):
    """What the engine asks of one execution's scenario object."""

    def failures(self) -> list[str]:
        """What is not as it must be, when all threads have ended."""


class ScenarioClass(Protocol):
    """What the engine asks of a scenario: a class that makes one ``Body`` for each execution.

    The built-in suite's situations are such classes too.
    """

    __name__: str
    name: str
    title: str
    repairs: tuple[str, ...]
    spin_pool: int
    sizes: Mapping[str, int]

    def __call__(self, k: Kernel, repairs: Iterable[str] = ...) -> Body:
        """Set up, and start the threads."""


class Lockmgr(Lock):
    """A lockmgr lock with the three calls that scenarios need most."""

    __slots__ = ()

    def lock(self) -> None:
        """Exclusively."""
        self.lockmgr(LK_EXCLUSIVE)

    def lock_shared(self) -> None:
        """Shared."""
        self.lockmgr(LK_SHARED)

    def trylock(self) -> bool:
        """Exclusively, if that needs no wait."""
        return self.lockmgr(LK_EXCLUSIVE | LK_NOWAIT) == 0

    def unlock(self) -> None:
        """Give it back."""
        self.lockmgr(LK_RELEASE)


class Scenario:
    """The base of user scenarios: see the module."""

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    repairs: ClassVar[tuple[str, ...]] = ()
    spin_pool: ClassVar[int] = 16
    sizes: ClassVar[Mapping[str, int]] = {}
    """Class attributes that shrinking may reduce → their smallest values."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__dict__.get("name") or cls.__name__
        cls.title = cls.__dict__.get("title") or (cls.__doc__ or cls.__name__).splitlines()[0]

    def __init__(self, k: Kernel, repairs: Iterable[str] = ()) -> None:
        self.k = k
        self.atomic = k.atomic
        self.setup()

    # -- what a scenario says

    def setup(self) -> None:
        """Make what is shared, and the threads.  Runs alone, before any of them."""
        raise NotImplementedError

    def check(self) -> None:
        """What must hold when all threads have ended: ``assert``."""

    # -- what it says it with

    def thread(self, name: str, body: Callable[..., object], *args: Any) -> Thread:
        """A thread that runs ``body(*args)`` and must come to its end."""
        return self.k.spawn(name, lambda: (body(*args), None)[1])

    def daemon(self, name: str, body: Callable[..., object], *args: Any) -> Thread:
        """A thread that need not end."""
        td = self.thread(name, body, *args)
        mark = getattr(self.k.carrier, "set_daemon", None)
        if mark is not None:
            mark(td)
        return td

    def shared(
        self,
        benign: Mapping[str, str] | None = None,
        lockless: Iterable[str] = (),
        **fields: Any,
    ) -> Any:
        """An object with these shared fields and first values.

        *benign*: field → why races on it are accepted; *lockless*: fields that are read without
        lock on purpose, and written under one or atomically.
        """
        cls = _cell(tuple(fields), tuple(sorted((benign or {}).items())), tuple(lockless))
        return self.k.new(cls, self.k.next_id("cell"), fields)

    def spinlock(self, name: str, cls: str = "") -> Spinlock:
        """A spinlock; *cls* is its class in the lock order (default: its name)."""
        return Spinlock(self.k, cls or name, name)

    def token(self, name: str, cls: str = "") -> Token:
        """An LWKT token."""
        return Token(self.k, cls or name, name)

    def lock(self, name: str, cls: str = "", timo: int = 0) -> Lockmgr:
        """A lockmgr lock."""
        return Lockmgr(self.k, cls or name, name, timo)

    def tsleep(
        self, ident: Any, timo: int = 0, cond: Callable[[], bool] | None = None, flags: int = 0
    ) -> int:
        """tsleep on *ident*; *cond* lets the checkers tell a lost wakeup."""
        return self.k.sleep.tsleep(ident, flags, str(ident), timo, cond)

    def tsleep_interlock(self, ident: Any) -> None:
        """From here on a wakeup of *ident* is not missed by ``tsleep(..., flags=PINTERLOCKED)``."""
        self.k.sleep.tsleep_interlock(ident)

    INTERLOCKED: ClassVar[int] = PINTERLOCKED

    def wakeup(self, ident: Any) -> None:
        """Wake everybody who sleeps on *ident*."""
        self.k.sleep.wakeup(ident)

    def relax(self, *watched: Any) -> None:
        """One turn of a spin loop: go on when somebody has written what was read of *watched*."""
        self.k.carrier.relax(*watched)

    # -- what the engine asks

    def failures(self) -> list[str]:
        """The failed assertion of ``check``, if any."""
        with self.k.quietly():
            try:
                self.check()
            except AssertionError as failed:
                return [str(failed).partition("\n")[0] or "check failed"]
        return []


def run_native(scenario: Any, times: int = 100, patience: float = 10.0) -> list[str]:
    """The stress way: *scenario* on real threads, *times* over; what went wrong, in words."""
    wrong: list[str] = []
    for n in range(times):
        carrier = NativeCarrier()
        k = Kernel(carrier, spin_pool=scenario.spin_pool)
        body = scenario(k)
        left = carrier.join(patience)
        if left:
            wrong.append(f"run {n}: still there: {', '.join(td.name for td in left)}")
            carrier.stop()
            carrier.join(patience)
        failed = [*k.errors, *k.panics]
        wrong += [f"run {n}: {td}: {type(why).__name__}: {why}" for td, why in failed]
        if not left and not failed:
            wrong += [f"run {n}: {text}" for text in body.failures()]
        carrier.stop()
    return wrong


class _Cell:
    """What ``Scenario.shared`` makes: the fields are slots of a class of their own."""

    __slots__ = ("id",)

    def __init__(self, number: int, values: Mapping[str, Any]) -> None:
        self.id = number
        for name, value in values.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"cell {self.id}"


@cache
def _cell(
    fields: tuple[str, ...], benign: tuple[tuple[str, str], ...], lockless: tuple[str, ...]
) -> type:
    cls = type("Cell", (_Cell,), {"__slots__": fields, "__module__": __name__})
    reads = dict.fromkeys(lockless, "read without lock on purpose")
    return shared(*fields, benign=dict(benign), lockless=reads)(cls)
