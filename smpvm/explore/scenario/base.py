"""The class ``Scenario``, and what the engine asks of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from smpvm.check.finding import Failure
from smpvm.explore.scenario import rules
from smpvm.explore.scenario.cells import Array, Local, Table, array_class, cell_class, table_class
from smpvm.explore.scenario.locks import Lockmgr, RwLock, TimedSpinlock, TimedToken
from smpvm.explore.scenario.sync import Barrier, Condvar, Semaphore
from smpvm.kern.kernel import Kernel
from smpvm.kern.thread import End, Thread
from smpvm.kern.tsleep import PINTERLOCKED


class Body(Protocol):
    """What the engine asks of one execution's scenario object."""

    def failures(self) -> Sequence[str]:
        """What is wrong when all threads have ended; each best a ``Failure``."""


class ScenarioClass(Protocol):
    """What the engine asks of a scenario: a class that makes one ``Body`` for each execution."""

    __name__: str
    name: str
    title: str
    repairs: tuple[str, ...]
    spin_pool: int
    sizes: Mapping[str, int]

    def __call__(self, k: Kernel, repairs: Iterable[str] = ...) -> Body:
        """Set up, and start the threads."""


class Scenario:
    """The base of all scenarios: see the package.  Made anew for each execution."""

    name: ClassVar[str] = ""
    """How it is called; the name of the class unless it says otherwise."""
    title: ClassVar[str] = ""
    """One line; the first of the docstring unless it says otherwise."""
    repairs: ClassVar[tuple[str, ...]] = ()
    """Repairs of true defects of the kernel without which it is not clean."""
    spin_pool: ClassVar[int] = 16
    """Spinlocks that pages share."""
    sizes: ClassVar[Mapping[str, int]] = {}
    """Class attributes that ``?name=value`` sets and shrinking reduces → their smallest values."""
    failure_kind = "assertion"
    """The kind of finding that ``failures`` tells of."""

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
        started = getattr(k.carrier, "threads", None)  # of a serial carrier; natively they run
        if started is not None and all(s.daemon for s in started):
            raise rules.Refused("it starts no thread that must end, so there is nothing to explore")

    # -- what a scenario says

    def setup(self) -> None:
        """Make what is shared, and start the threads.  Runs alone, before any of them."""
        raise NotImplementedError

    def check(self) -> object:
        """What must hold when all threads have ended: ``assert``.  False means that it does not."""

    # -- threads

    def thread(self, name: str, body: Callable[..., object], *args: Any) -> Thread:
        """A thread that runs ``body(*args)`` and must come to its end."""
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
        """``thread``, from inside a thread: it has seen all that its maker has done."""
        return self.thread(name, body, *args)

    def join(self, td: Thread, timo: int = 0) -> bool:
        """Wait until *td* has ended, *timo* ticks at most (0: no end); did it end?

        No spinlock may be held; tokens are given up meanwhile.
        """
        if not isinstance(td, Thread):
            raise rules.Refused(f"join: a thread is wanted, not {td!r}")
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
        """*td* need not end (on a carrier that waits for ends)."""
        mark = getattr(self.k.carrier, "set_daemon", None)
        if mark is not None:
            mark(td)

    # -- memory

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
        cls = cell_class(tuple(fields), tuple((benign or {}).items()), tuple(lockless))
        return self.k.new(cls, self.k.next_id("cell"), fields)

    def array(self, n: int, value: Any = 0, benign: str = "") -> Array:
        """*n* shared fields ``a[0]`` ...; *benign*: why races on them are accepted."""
        cls = array_class(rules.number("array", n), benign)
        return self.k.new(cls, self.k.next_id("array"), value)

    def table(self, keys: Iterable[Any], value: Any = 0, benign: str = "") -> Table:
        """A shared field for each of *keys*, which stay as they are: ``t[key]``."""
        cls = table_class(tuple(keys), benign)
        return self.k.new(cls, self.k.next_id("table"), value)

    def local(self, **first: Any) -> Local:
        """Attributes that each thread has for itself, with these first values."""
        return Local(self.k, first)

    def fence(self) -> None:
        """A full memory barrier: what was written before it is seen by all before what is after."""
        self.atomic.fence()

    # -- locks; *cls* is the class in the lock order (default: the name), *subclass* its level in
    # the class (a directory's lock is 1, a file's 0), *under* the gate lock: who holds it
    # exclusively may take the locks that have it in any order

    def spinlock(
        self, name: str, cls: str = "", subclass: int = 0, under: Any = None
    ) -> TimedSpinlock:
        """A spinlock: lock, trylock, unlock, and the same ``_shared``."""
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
        """A lockmgr lock; *timo* (ticks) is what LK_TIMELOCK waits.

        *meant*: why a wait for it with a time limit may be part of a deadlock.
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
        """A semaphore that counts down from *n*: acquire, try_acquire, release."""
        return Semaphore(self.k, rules.text("semaphore", name), rules.number("semaphore", n))

    def barrier(self, name: str, n: int) -> Barrier:
        """A barrier for *n* threads: wait."""
        return Barrier(self.k, rules.text("barrier", name), rules.number("barrier", n, 1))

    # -- sleeping and spinning

    INTERLOCKED: ClassVar[int] = PINTERLOCKED
    """For *flags*: tsleep_interlock has been called, and a wakeup since then is not missed."""

    def tsleep(
        self, ident: Any, timo: int = 0, cond: Callable[[], bool] | None = None, flags: int = 0
    ) -> int:
        """Sleep on *ident*, *timo* ticks at most (0: no end): 0, or EWOULDBLOCK for the timer.

        *cond* lets the checkers tell a lost wakeup; it is a function, and decides nothing.
        """
        rules.number("tsleep timo", timo)
        rules.condition("tsleep", cond)
        return self.k.sleep.tsleep(ident, flags, str(ident), timo, cond)

    def tsleep_interlock(self, ident: Any) -> None:
        """From here on a wakeup of *ident* is not missed by ``tsleep(..., flags=INTERLOCKED)``."""
        self.k.sleep.tsleep_interlock(ident)

    def wakeup(self, ident: Any) -> None:
        """Wake everybody who sleeps on *ident*."""
        self.k.sleep.wakeup(ident)

    def wakeup_one(self, ident: Any) -> None:
        """Wake the one who has slept longest on *ident*, and who is only interlocked before it."""
        self.k.sleep.wakeup_one(ident)

    def relax(self, *watched: Any) -> None:
        """One turn of a spin loop: go on when somebody has written what was read of *watched*,
        cells or locks."""
        rules.watched(watched)
        self.k.carrier.relax(*watched)

    def yield_(self) -> None:
        """Let others run (lwkt_yield).  Waits for nothing; gives tokens up meanwhile."""
        self.k.lwkt_yield()

    # -- what the engine asks

    def prepare(self, repairs: Iterable[str]) -> None:
        """Before ``setup``: for bases of scenarios that need a machine of their own."""

    def failures(self) -> list[Failure]:
        """What ``check`` finds, if anything; called when all threads have ended."""
        with self.k.quietly():
            try:
                self.checked()
            except AssertionError as failed:
                words = str(failed).partition("\n")[0] or "check failed"
                return [Failure.raised(failed, words)]
        return []

    def checked(self) -> None:
        """``check``; raises AssertionError if it says that something is wrong."""
        said = self.check()
        rules.returned(said)
        if said is not None and not said:
            raise AssertionError(f"check returned {said!r}")
