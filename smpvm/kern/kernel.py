"""The state that all parts of one machine's kernel share: carrier, probes, threads.

There are no module-level globals: everything belongs to one ``Kernel``, which one ``Machine`` owns.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Final, NoReturn, TypeVar, cast

from smpvm.host.carrier import ACQUIRE_SHARED, Carrier, Stopped
from smpvm.kern import guard
from smpvm.kern.access import serial_hook
from smpvm.kern.atomic import Atomics, ProbedAtomics
from smpvm.kern.clock import Clock
from smpvm.kern.cname import SKIP, c, holds, own
from smpvm.kern.lwkt import Sched
from smpvm.kern.probe import Probe, Probes
from smpvm.kern.proc import Procs
from smpvm.kern.refcount import Refcounts
from smpvm.kern.shared import SILENT, Hook, instrumented
from smpvm.kern.spinlock import SpinPool
from smpvm.kern.thread import Misuse, Panic, Thread
from smpvm.kern.token import Tokens
from smpvm.kern.tsleep import PINTERLOCKED, SleepQueue
from smpvm.kern.vnode import Vnodes

FRAMES: Final = SKIP

T = TypeVar("T")


def default_parts() -> dict[str, type]:
    """Attribute of ``Kernel`` → the model's class for it, in the order of construction."""
    return {
        "clock": Clock,
        "sched": Sched,
        "sleep": SleepQueue,
        "token": Tokens,
        "refcount": Refcounts,
        "proc": Procs,
        "vnode": Vnodes,
    }


class Kernel:
    """One machine's kernel context.

    ``point`` is the carrier's schedule point, or None if there is none (native): sites write ``if
    (p := k.point) is not None: p(ACQUIRE, self, ready=...)``.  *parts* replaces classes named in
    ``default_parts`` (a conformance script, a test).
    """

    clock: Clock
    sched: Sched
    sleep: SleepQueue
    token: Tokens
    refcount: Refcounts
    proc: Procs
    vnode: Vnodes

    def __init__(
        self,
        carrier: Carrier,
        observers: Sequence[Probe] = (),
        *,
        hz: int = 100,
        ncpus: int = 1,
        spin_pool: int = 8192,
        parts: Mapping[str, type] | None = None,
    ) -> None:
        self.carrier = carrier
        self.hz = hz
        self.ncpus = ncpus
        self.curthread = cast(Callable[[], Thread], carrier.current)
        """curthread: the thread that the calling host thread carries."""
        self.probe = Probes(observers)
        self.point = carrier.point if carrier.serial else None
        self.drain: Callable[[], None] | None = getattr(carrier, "drain", None)
        """Waits until the thread's stores are in memory; None where memory has no store buffers."""
        self._hook = self._access_hook()
        self._look = None if self.probe.unguarded is None else guard.look(self)
        self._guard = threading.Lock()  # protects _ids, _retired and the lists below
        self._ids: dict[str, Iterator[int]] = {}
        watched = carrier.serial or self._hook is not None or self.probe.atomic is not None
        self.atomic: Atomics = ProbedAtomics(self) if watched else Atomics()
        self.threads: list[Thread] = []
        """The live threads, oldest first (other host threads: use ``live_threads``)."""
        self._retired: tuple[dict[str, int], ...] = ({}, {}, {})
        self.panics: list[tuple[Thread, Panic]] = []
        """Every Panic that ended a thread, in order."""
        self.errors: list[tuple[Thread, BaseException]] = []
        """Every other exception that ended a thread: a defect of smpvm itself."""
        self.on_panic: Callable[[Thread, Panic], None] | None = None
        """Called for the first Panic that ends a thread, before the carrier is stopped."""
        self.on_error: Callable[[Thread, BaseException], None] | None = None
        """Called for the first other exception, before the carrier is stopped."""
        self.boot = self.make_thread("boot", lambda: None)
        carrier.adopt(self.boot)
        self.spin_pool = SpinPool(self, spin_pool)
        known = default_parts()
        if unknown := (parts or {}).keys() - known.keys():
            raise TypeError(f"the kernel has no part {', '.join(sorted(unknown))}")
        for name, cls in {**known, **(parts or {})}.items():
            setattr(self, name, cls(self))
        self.lwkt_yield = self.sched.lwkt_yield
        self.lwkt_user_yield = self.sched.lwkt_user_yield
        for observer in self.probe.observers:
            observer.attach(self)

    @own
    def forget(self) -> None:
        """The machine has run and is no longer needed: drop the references between its parts.

        May be called more than once.
        """
        hook: Hook | None = vars(self).get("_hook")
        if hook is not None:
            hook.forget()
        vars(self).clear()

    # -- threads

    @own
    def make_thread(
        self, name: str, main: Callable[[], None], *, role: str = "", cpu: int = 0
    ) -> Thread:
        """A new thread, not yet running."""
        td = Thread(self.next_id("thread"), name, main, role=role, cpu=cpu)
        td.main = lambda: self._run(td, main)
        with self._guard:
            self.threads.append(td)
        return td

    @c("lwkt_create", "lwkt_thread.c:1558-1586")
    @c("kthread_create", "kern_kthread.c:80-92")
    def spawn(self, name: str, main: Callable[[], None], *, role: str = "", cpu: int = 0) -> Thread:
        """Create a thread and start it (lwkt_create, kthread_create)."""
        td = self.make_thread(name, main, role=role, cpu=cpu)
        self.start(td)
        return td

    @own
    def start(self, td: Thread) -> None:
        """Start a thread created by ``make_thread``."""
        if (f := self.probe.thread_spawn) is not None:
            f(self.curthread(), td)
        self.carrier.spawn(td)

    @own
    def join(self, td: Thread, timo: int = 0) -> int:
        """Wait until *td* has ended (the exit interlock of lwkt_switch_return), *timo* ticks at
        most (0: no end).

        Blocks; no spinlock may be held (Misuse), tokens are given up meanwhile.  Returns 0, or
        EWOULDBLOCK when the timer ended the wait.
        """
        me = self.curthread()
        if me.spins:
            self.misuse("sleep-with-spinlock", f"{me} joins {td} with {me.spins[-1]} held")
        error = 0
        if (p := self.point) is not None and td.end_of is not None and not (timo or me.toks):
            # One step whenever the end comes: whether there was a wait makes no difference.
            me.waiting = td.end_of
            p(ACQUIRE_SHARED, td.end_of, ready=lambda: td.exited)
            me.waiting = None
        else:
            error = self._join_asleep(td, timo)
        if not error and (f := self.probe.thread_join) is not None:
            f(me, td)
        return error

    def _join_asleep(self, td: Thread, timo: int) -> int:
        # Looked at behind the interlock only: that step and the wakeup of the end are of one
        # identity, so that an explorer knows that their order matters.
        error = 0
        self.sleep.tsleep_interlock(td)
        while not (td.exited or error):
            error = self.sleep.tsleep(td, PINTERLOCKED, "tdjoin", timo, lambda: td.exited)
            self.sleep.tsleep_interlock(td)
        self.sleep.tsleep_remove(self.curthread())
        return 0 if td.exited else error

    def _ended(self, td: Thread) -> None:
        """*td* has come to its end: who joins it may go on."""
        td.exited = True
        if td.end_of is not None and self.point is not None:
            self.carrier.touched(td.end_of)

    @own
    def live_threads(self) -> list[Thread]:
        """The threads that have not ended, oldest first; callable from any host thread."""
        with self._guard:
            return list(self.threads)

    def _run(self, td: Thread, main: Callable[[], None]) -> None:
        if (f := self.probe.thread_start) is not None:
            f(td)
        try:
            main()
            if td.spins or td.toks or td.locks:
                held = [*map(str, td.spins), *(str(r.tok) for r in td.toks), *map(str, td.locks)]
                self.misuse("exit-with-lock", f"{td} ends with {', '.join(held)}")
            self.sleep.wakeup(td, lambda: self._ended(td))
        except Stopped:
            pass
        except Panic as panic:
            self.panicked(td, panic)
        except Exception as error:
            self._failed(td, error)
        finally:
            td.exited = True
            if (f := self.probe.thread_exit) is not None:
                f(td)
            self._retire(td)

    @own
    def panicked(self, td: Thread, panic: Panic) -> None:
        """*td* ends by *panic*: call ``on_panic`` if it is the first, and stop the machine."""
        with self._guard:
            self.panics.append((td, panic))
            first = len(self.panics) == 1 and not self.carrier.stopping
        if first and self.on_panic is not None:
            self.on_panic(td, panic)
        self.carrier.stop()

    def _failed(self, td: Thread, error: BaseException) -> None:
        with self._guard:
            self.errors.append((td, error))
            first = len(self.errors) == 1
        if first and self.on_error is not None:
            self.on_error(td, error)
        self.carrier.stop()

    @own
    def check(self) -> None:
        """Raise the first error or Panic that ended a thread, if any."""
        for _, error in [*self.errors, *self.panics]:
            raise error

    # -- counters

    def _retire(self, td: Thread) -> None:
        with self._guard:
            for total, own in zip(self._retired, (td.cnt, td.acquired, td.contended), strict=True):
                for name, n in own.items():
                    total[name] = total.get(name, 0) + n
            if td in self.threads:
                self.threads.remove(td)

    def _total(self, which: int, name: str) -> Counter[str]:
        with self._guard:
            total = Counter(self._retired[which])
            for td in self.threads:
                # The owner may add a key at the same time; copying a dict is one step.
                total.update(getattr(td, name).copy())
            return total

    @own
    def counts(self) -> Counter[str]:
        """gd_cnt summed over all threads, including ended ones: exact at rest, else approximate."""
        return self._total(0, "cnt")

    @own
    def lock_acquires(self) -> Counter[str]:
        """Acquisitions by lock class."""
        return self._total(1, "acquired")

    @own
    def lock_contention(self) -> Counter[str]:
        """Acquisitions that had to wait and tries that failed, by lock class."""
        return self._total(2, "contended")

    # -- objects

    @own
    def next_id(self, kind: str) -> int:
        """A number for a new object of *kind*: stable from run to run, unlike id().

        On a serial carrier, objects are numbered per creating thread, so the number does not depend
        on the interleaving either (``object 3001``: the second object of thread 3).
        """
        boot: Thread | None = getattr(self, "boot", None)
        if boot is None or not self.carrier.serial or (td := self.curthread()) is boot:
            with self._guard:
                ids = self._ids.get(kind)
                if ids is None:
                    ids = self._ids[kind] = count()
                return next(ids)
        thousands, rest = divmod(next(self._ids.setdefault(f"{kind} {td.tid}", count())), 1000)
        return (thousands * 1000 + td.tid) * 1000 + rest

    @own
    def reserve_ids(self, kind: str, first: int) -> None:
        """Number further objects of *kind* from *first* on (a loaded state already has some)."""
        with self._guard:
            now = next(self._ids.get(kind, count()))
            self._ids[kind] = count(max(now, first))

    @own
    def new(self, cls: type[T], *args: Any, **kwargs: Any) -> T:
        """An instance of a class with shared fields: plain, or instrumented if anybody observes."""
        hook, look = self._hook, self._look
        if hook is None and look is None:
            return cls(*args, **kwargs)
        bare: type = cls
        if hook is None and not hasattr(bare, "__guards__"):
            return cls(*args, **kwargs)
        real: Any = instrumented(
            bare, hook is not None, look is not None, buffers=self.drain is not None
        )
        obj = real.__new__(real)
        obj._hook = SILENT
        obj._look = guard.nobody
        if hook is not None:
            obj._seen = {}  # used by the race checker, by field
        obj.__init__(*args, **kwargs)
        obj._hook = hook
        obj._look = look
        return cast(T, obj)

    @own
    def container(self, cls: type[T], obj: Any, field: str, *args: Any) -> T:
        """A container for a guarded field of *obj*: it looks for the lock itself, if anybody cares.

        What changes it can then be told from what only looks into it.
        """
        look = self._look
        if look is None:
            return cls(*args)
        made: Any = guard.container_of(cast(type, cls))(*args)
        made._access = partial(look, obj, type(obj).__guards__[field])
        return cast(T, made)

    def _access_hook(self) -> Hook | None:
        """The hook of instrumented objects; None if neither scheduler nor observer needs it."""
        carrier = self.carrier
        if not carrier.serial:
            return self._observed(2)
        return serial_hook(carrier, self._observed(3))

    def _observed(self, depth: int) -> Hook | None:
        """The observers' part of each access; its caller is *depth* frames outside the hook."""
        probe, current = self.probe, self.carrier.current
        seen_read, seen_write = probe.read, probe.write
        if seen_read is None and seen_write is None:
            return None
        for observer in probe.observers:
            make = getattr(observer, "access_hook", None)
            if make is not None and seen_read == observer.read:
                return cast(Hook, make(current, depth))

        def read(obj: Any, field: str, new: object = None, td: Any = None) -> None:
            td = td or current()
            if not td.quiet and seen_read is not None:
                seen_read(td, obj, field)

        def write(obj: Any, field: str, new: object, td: Any = None) -> None:
            td = td or current()
            if not td.quiet and seen_write is not None:
                seen_write(td, obj, field, new)

        return Hook(read, write)

    @contextmanager
    @own
    def quietly(self) -> Iterator[None]:
        """Reads inside belong to a checker: no schedule points, no race checks."""
        td = self.curthread()
        td.quiet += 1
        carrier = self.carrier
        inert, carrier.inert = carrier.inert, True
        try:
            yield
        finally:
            td.quiet -= 1
            carrier.inert = inert or carrier.stopping

    # -- trouble

    @c("panic", "kern_shutdown.c:715-854")
    @holds("", "does not return")
    def panic(self, code: str, message: str = "", kind: str = "panic") -> NoReturn:
        """Stop as the kernel would: report to the probe, then raise ``Panic``."""
        if (f := self.probe.panic) is not None:
            f(self.curthread(), code, message)
        raise Panic(code, message, kind)

    @own
    def misuse(self, code: str, message: str = "") -> NoReturn:
        """A primitive was used in violation of its contract: like ``panic``, with ``Misuse``."""
        if (f := self.probe.panic) is not None:
            f(self.curthread(), code, message)
        raise Misuse(code, message)

    @c("KASSERT", "systm.h:103-104")
    @c("KKASSERT", "systm.h:105-108")
    def kassert(self, ok: object, code: str, message: str = "") -> None:
        """KASSERT / KKASSERT, with the INVARIANTS of the default kernel configuration."""
        if not ok:
            self.panic(code, message)
