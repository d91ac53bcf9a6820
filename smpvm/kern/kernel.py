"""What every part of one machine's kernel shares: its carrier, its probes, its threads.

There are no module-level globals: everything hangs from one ``Kernel``, which one ``Machine`` owns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast

from smpvm.host.carrier import READ, WRITE, Carrier, Stopped
from smpvm.host.probe import Probe, Probes
from smpvm.kern.atomic import Atomics, ProbedAtomics
from smpvm.kern.shared import SILENT, Hook, instrumented
from smpvm.kern.thread import Panic, Thread

T = TypeVar("T")


class Kernel:
    """One machine's kernel context.

    ``point`` is the carrier's schedule point, or None where there is none (native): sites write
    ``if (p := k.point) is not None: p(ACQUIRE, self, ready=...)``.
    """

    def __init__(self, carrier: Carrier, observers: Sequence[Probe] = (), *, hz: int = 100) -> None:
        self.carrier = carrier
        self.hz = hz
        self.probe = Probes(observers)
        self.point = carrier.point if carrier.serial else None
        self._hook = self._access_hook()
        self._factories: dict[type, Callable[..., Any]] = {}
        self._ids: dict[str, int] = {}
        watched = carrier.serial or self._hook is not None or self.probe.atomic is not None
        self.atomic: Atomics = ProbedAtomics(self) if watched else Atomics()
        self.threads: list[Thread] = []
        self.on_panic: Callable[[Thread, Panic], None] | None = None
        """Called once for a Panic that ends a thread; default: the carrier is stopped."""
        self.boot = self.make_thread("boot", lambda: None)
        carrier.adopt(self.boot)
        for observer in self.probe.observers:
            observer.attach(self)

    # -- threads

    def make_thread(
        self, name: str, main: Callable[[], None], *, role: str = "", cpu: int = 0
    ) -> Thread:
        """A new thread, not yet running."""
        td = Thread(self.next_id("thread"), name, main, role=role, cpu=cpu)
        td.main = lambda: self._run(td, main)
        self.threads.append(td)
        return td

    def spawn(
        self, name: str, main: Callable[[], None], *, role: str = "", cpu: int = 0
    ) -> Thread:
        """Make a thread and start it (lwkt_create, kthread_create)."""
        td = self.make_thread(name, main, role=role, cpu=cpu)
        self.start(td)
        return td

    def start(self, td: Thread) -> None:
        """Start a thread made by ``make_thread``."""
        if (f := self.probe.thread_spawn) is not None:
            f(self.curthread(), td)
        self.carrier.spawn(td)

    def _run(self, td: Thread, main: Callable[[], None]) -> None:
        if (f := self.probe.thread_start) is not None:
            f(td)
        try:
            main()
        except Stopped:
            pass
        except Panic as panic:
            if self.on_panic is not None:
                self.on_panic(td, panic)
            self.carrier.stop()
        finally:
            if (f := self.probe.thread_exit) is not None:
                f(td)

    def curthread(self) -> Thread:
        """curthread."""
        return cast(Thread, self.carrier.current())

    # -- objects

    def next_id(self, kind: str) -> int:
        """A number for a new object of *kind*: stable from run to run, unlike id()."""
        n = self._ids.get(kind, 0)
        self._ids[kind] = n + 1
        return n

    def new(self, cls: type[T], *args: Any, **kwargs: Any) -> T:
        """An instance of a class with shared fields: bare, or instrumented when watched."""
        if self._hook is None:
            return cls(*args, **kwargs)
        real = instrumented(cls)
        obj = real.__new__(real)
        obj._hook = SILENT
        obj.__init__(*args, **kwargs)
        obj._hook = self._hook
        return cast(T, obj)

    def _access_hook(self) -> Hook | None:
        """The hook of instrumented objects; None when neither scheduler nor observer asks."""
        carrier, current = self.carrier, self.carrier.current
        point = carrier.point if carrier.serial and carrier.access_points else None
        seen_read, seen_write = self.probe.read, self.probe.write
        touched = carrier.touched if carrier.serial else None
        if point is None and seen_read is None and seen_write is None:
            return None

        def read(obj: Any, field: str) -> None:
            td = cast(Thread, current())
            if td.quiet:
                return
            if point is not None:
                point(READ, obj, field)
            if seen_read is not None:
                seen_read(td, obj, field)

        def write(obj: Any, field: str, new: Any) -> None:
            td = cast(Thread, current())
            if td.quiet:
                return
            if point is not None:
                point(WRITE, obj, field)
            if seen_write is not None:
                seen_write(td, obj, field, new)
            if touched is not None:
                touched(obj)

        return Hook(read, write)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Reads inside are a checker's: no schedule points, no race checks."""
        td = self.curthread()
        td.quiet += 1
        try:
            yield
        finally:
            td.quiet -= 1

    # -- trouble

    def panic(self, code: str, message: str = "", kind: str = "panic") -> NoReturn:
        """Stop as the kernel would: tells the probe, then raises ``Panic``."""
        if (f := self.probe.panic) is not None:
            f(self.curthread(), code, message)
        raise Panic(code, message, kind)

    def kassert(self, ok: object, code: str, message: str = "") -> None:
        """KASSERT / KKASSERT, with the INVARIANTS of the stock kernel configuration."""
        if not ok:
            self.panic(code, message)
