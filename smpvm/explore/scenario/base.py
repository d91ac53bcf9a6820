"""The class ``Scenario``, and what the engine requires of a scenario."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from smpvm.check.finding import Failure
from smpvm.explore.scenario import rules
from smpvm.explore.scenario.cells import Array, Local, Table, array_class, cell_class, table_class
from smpvm.explore.scenario.locks import Lockmgr, RwLock, TimedSpinlock, TimedToken
from smpvm.explore.scenario.sync import Barrier, Condvar, Semaphore
from smpvm.host.carrier import Stopped
from smpvm.kern.kernel import Kernel
from smpvm.kern.thread import End, Thread
from smpvm.kern.tsleep import PINTERLOCKED


class Body(Protocol):
    """What the engine requires of a scenario object."""

    def failures(self) -> Sequence[str]:
        """What is wrong when all threads have ended; preferably as ``Failure`` objects."""


def failed_check(why: AssertionError) -> Failure:
    """What an assertion of ``check`` says: its first line, without what tools add below."""
    return Failure.raised(why, str(why).partition("\n")[0] or "check failed")


class ScenarioClass(Protocol):
    """What the engine requires of a scenario class, which makes one ``Body`` per execution."""

    __name__: str
    name: str
    title: str
    repairs: tuple[str, ...]
    spin_pool: int
    sizes: Mapping[str, int]

    def __call__(self, k: Kernel, repairs: Iterable[str] = ...) -> Body:
        """Set up and start the threads."""


class Scenario:
    """The base class of all scenarios: see the package.  Instantiated for each execution."""

    name: ClassVar[str] = ""
    """The scenario's name; by default the name of the class."""
    title: ClassVar[str] = ""
    """One line; by default the first line of the docstring."""
    repairs: ClassVar[tuple[str, ...]] = ()
    """Repairs of real kernel defects without which the scenario has findings."""
    spin_pool: ClassVar[int] = 16
    """The number of spinlocks that pages share."""
    wakeup_order: ClassVar[str] = ""
    """Whom wakeup_one wakes: anybody who sleeps, or ``c``: who has slept longest, as in the C."""
    sizes: ClassVar[Mapping[str, int]] = {}
    """Class attributes that ``?name=value`` sets and shrinking reduces → their smallest values."""
    failure_kind = "assertion"
    """The kind of the findings made of ``failures``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__dict__.get("name") or cls.__name__
        doc = (cls.__doc__ or "").strip() or cls.__name__
        cls.title = cls.__dict__.get("title") or doc.splitlines()[0]

    def __str__(self) -> str:
        return self.name

    def __init__(self, k: Kernel, repairs: Iterable[str] = ()) -> None:
        self.k = k
        self.atomic = k.atomic
        self.prepare(repairs)
        self.setup()
        started = getattr(k.carrier, "threads", None)  # native carriers have none
        if started is not None and all(s.daemon for s in started):
            raise rules.Refused("it starts no thread that must end, so there is nothing to explore")

    # -- what a scenario defines

    def setup(self) -> None:
        """Create the shared objects and start the threads.  Runs alone, before any of them."""
        raise NotImplementedError

    def check(self) -> object:
        """Assert what must hold when all threads have ended.  Returning False is a failure."""

    # -- threads

    def thread(self, name: str, body: Callable[..., object], *args: Any) -> Thread:
        """A thread that runs ``body(*args)`` and must end."""
        td = self._thread(name, body, args)
        self.k.start(td)
        return td

    def daemon(self, name: str, body: Callable[..., object], *args: Any) -> Thread:
        """A thread that need not end; the run is over when it is idle and all others have ended."""
        td = self._thread(name, body, args)
        self.k.start(td)
        self.set_daemon(td)
        return td

    def spawn(self, name: str, body: Callable[..., object], *args: Any) -> Thread:
        """``thread``, called in a thread: the new thread is ordered after its creator's past."""
        return self.thread(name, body, *args)

    def join(self, td: Thread, timo: int = 0) -> bool:
        """Wait until *td* has ended, at most *timo* ticks (0: no limit); did it end?

        No spinlock may be held; tokens are released while waiting.
        """
        if not isinstance(td, Thread):
            raise rules.Refused(f"join: a thread is expected, not {td!r}")
        return self.k.join(td, rules.number("join timo", timo)) == 0

    def _thread(
        self, name: str, body: Callable[..., object], args: tuple[Any, ...], role: str = ""
    ) -> Thread:
        """A thread, not yet started."""
        rules.body(name, body)

        def main() -> None:
            rules.returned(body(*args))

        td = self.k.make_thread(name, main, role=role)
        td.end_of = End(td)
        return td

    def set_daemon(self, td: Thread) -> None:
        """*td* need not end (on a carrier that waits for threads to end)."""
        self.k.carrier.set_daemon(td)

    # -- choices

    def choose(self, n: int) -> int:
        """One of 0 ... *n* - 1: explored like the scheduler's choices (natively by chance)."""
        rules.number("choose", n, 1)
        choose = getattr(self.k.carrier, "choose", random.randrange)
        return int(choose(n))

    def assume(self, condition: object) -> None:
        """Where *condition* is false the execution is not judged, and the thread goes no further.

        It is counted as pruned.  (Natively the run ends.)
        """
        if not condition:
            prune = getattr(self.k.carrier, "prune", None)
            if prune is not None:
                prune()
            self.k.carrier.stop()
            raise Stopped

    def spurious(self, n: int) -> None:
        """For ``setup``: up to *n* sleeps of the execution may end without a wakeup, with 0."""
        choices = getattr(self.k.carrier, "choices", None)
        if choices is not None:
            choices.budget = rules.number("spurious", n)
            self.k.sleep.early = self.k.carrier.ends_early if n else None  # type: ignore[attr-defined]

    # -- memory

    def shared(
        self,
        benign: Mapping[str, str] | None = None,
        lockless: Iterable[str] = (),
        **fields: Any,
    ) -> Any:
        """An object with these shared fields and initial values.

        *benign*: field → why races on it are accepted; *lockless*: fields that are read without a
        lock on purpose, and written under a lock or atomically.
        """
        cls = cell_class(tuple(fields), tuple((benign or {}).items()), tuple(lockless))
        return self.k.new(cls, self.k.next_id("cell"), fields)

    def array(self, n: int, value: Any = 0, benign: str = "") -> Array:
        """*n* shared fields ``a[0]`` ...; *benign*: why races on them are accepted."""
        cls = array_class(rules.number("array", n), benign)
        return self.k.new(cls, self.k.next_id("array"), value)

    def table(self, keys: Iterable[Any], value: Any = 0, benign: str = "") -> Table:
        """A shared field ``t[key]`` for each of *keys*, which are fixed."""
        cls = table_class(tuple(keys), benign)
        return self.k.new(cls, self.k.next_id("table"), value)

    def local(self, **first: Any) -> Local:
        """Thread-local attributes with these initial values."""
        return Local(self.k, first)

    def fence(self) -> None:
        """A full memory barrier: writes before it are visible to all before writes after it."""
        self.atomic.fence()

    # -- locks; *cls* is the class in the lock order (default: the name), *subclass* its level in
    # the class (a directory's lock is 1, a file's 0), *under* the gate lock: a thread that holds it
    # exclusively may take the locks under it in any order

    def spinlock(
        self, name: str, cls: str = "", subclass: int = 0, under: Any = None
    ) -> TimedSpinlock:
        """A spinlock: lock, trylock, unlock, and their ``_shared`` forms."""
        rules.text("spinlock", name)
        return TimedSpinlock(self.k, cls or name, name, **rules.order(subclass, under))

    def token(self, name: str, cls: str = "", subclass: int = 0, under: Any = None) -> TimedToken:
        """An LWKT token: get, get_shared, try_, release (or lock, trylock, unlock)."""
        rules.text("token", name)
        return TimedToken(self.k, cls or name, name, **rules.order(subclass, under))

    def lock(
        self,
        name: str,
        cls: str = "",
        timo: int = 0,
        subclass: int = 0,
        under: Any = None,
        meant: str = "",
    ) -> Lockmgr:
        """A lockmgr lock; *timo* (ticks) is the timeout of LK_TIMELOCK.

        *meant*: why a wait for it with a timeout may be part of a deadlock.
        """
        rules.number("lock timo", timo)
        rules.text("lock", name)
        placed = rules.order(subclass, under)
        return Lockmgr(self.k, cls or name, name, timo, meant=meant, **placed)

    def rwlock(self, name: str, cls: str = "", subclass: int = 0, under: Any = None) -> RwLock:
        """A reader/writer lock: read, write, try_read, try_write, upgrade, downgrade, release."""
        rules.text("rwlock", name)
        return RwLock(self.k, cls or name, name, **rules.order(subclass, under))

    def condvar(self, name: str) -> Condvar:
        """A condition variable: wait(lock, timo), signal, broadcast."""
        return Condvar(self.k, rules.text("condvar", name))

    def semaphore(self, name: str, n: int) -> Semaphore:
        """A counting semaphore with initial count *n*: acquire, try_acquire, release."""
        return Semaphore(self.k, rules.text("semaphore", name), rules.number("semaphore", n))

    def barrier(self, name: str, n: int) -> Barrier:
        """A barrier for *n* threads: wait."""
        return Barrier(self.k, rules.text("barrier", name), rules.number("barrier", n, 1))

    # -- sleeping and spinning

    INTERLOCKED: ClassVar[int] = PINTERLOCKED
    """For *flags*: tsleep_interlock has been called; wakeups since then are not missed."""

    def tsleep(
        self, ident: Any, timo: int = 0, cond: Callable[[], bool] | None = None, flags: int = 0
    ) -> int:
        """Sleep on *ident*, at most *timo* ticks (0: no limit): 0, or EWOULDBLOCK on timeout.

        *cond* is a function that lets the checkers detect a lost wakeup; it has no other effect.
        """
        rules.number("tsleep timo", timo)
        rules.condition("tsleep", cond)
        return self.k.sleep.tsleep(ident, flags, str(ident), timo, cond)

    def tsleep_interlock(self, ident: Any) -> None:
        """From here on ``tsleep(..., flags=INTERLOCKED)`` misses no wakeup of *ident*."""
        self.k.sleep.tsleep_interlock(ident)

    def wakeup(self, ident: Any) -> None:
        """Wake all threads that sleep on *ident*."""
        self.k.sleep.wakeup(ident)

    def wakeup_one(self, ident: Any) -> None:
        """Wake one who sleeps on *ident*: which, the scheduler chooses, or ``wakeup_order``.

        Threads that are only interlocked (no ``tsleep`` yet) are taken as in the C: those that
        came before the first who sleeps, and they do not count as the one.
        """
        self.k.sleep.wakeup_one(ident)

    def relax(self, *watched: Any) -> None:
        """One turn of a spin loop: continue when another thread has written something that was read
        of *watched*, cells or locks."""
        rules.watched(watched)
        self.k.carrier.relax(*watched)

    def yield_(self) -> None:
        """Let other threads run (lwkt_yield).  Does not wait; releases tokens meanwhile."""
        self.k.lwkt_yield()

    # -- called by the engine

    def prepare(self, repairs: Iterable[str]) -> None:
        """Called before ``setup``: for base classes that need a machine of their own."""

    def failures(self) -> list[Failure]:
        """What ``check`` finds wrong, if anything; called when all threads have ended."""
        with self.k.quietly():
            try:
                self.checked()
            except AssertionError as failed:
                return [failed_check(failed)]
        return []

    def checked(self) -> None:
        """Call ``check``; raises AssertionError if it fails."""
        said = self.check()
        rules.returned(said)
        if said is not None and not said:
            raise AssertionError(f"check returned {said!r}")
