"""A model of one device: a queue, several requests in service, latency, injected errors.

``strategy`` never blocks.  One kernel thread per device (role "io") stands for its interrupt: it
starts requests while fewer than ``queue_depth`` are in service, waits for their latency, moves the
data, and calls each request's ``done``.  Data are moved at completion, as by DMA, so a page that
was reused in the meantime is detected.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from smpvm.config import DiskConfig
from smpvm.host.carrier import IO
from smpvm.kern.cname import c, holds
from smpvm.kern.errno import EIO
from smpvm.kern.shared import shared
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.tsleep import PINTERLOCKED, Ident
from smpvm.vm.console import kprintf
from smpvm.vm.page.struct import words_point

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread
    from smpvm.vm.page.pages import Page

READ: Final = "read"
WRITE: Final = "write"

Contents = dict[int, int]
Store = MutableMapping[int, Contents]
"""Block number (or page index of a file) → the words written; zero blocks are absent."""


@shared("biodone", atomic={"biodone": "BIO_DONE is set atomically, and looked at to wait for it"})
class Io:
    """struct bio and its struct buf: one request for the pages of one run of blocks.

    The data are in *store*, from block *first* on.  ``done`` runs in the device's thread; ``error``
    is an errno, 0 on success.  ``reqpage`` is the page that a read is for (-1: none).  ``slots`` is
    the buffer count that the request was charged to.
    """

    __slots__ = (
        "biodone",
        "cmd",
        "disk",
        "done",
        "due",
        "error",
        "first",
        "num",
        "object",
        "pages",
        "reqpage",
        "slots",
        "store",
    )

    def __init__(
        self,
        kernel: Kernel,
        cmd: str,
        store: Store,
        first: int,
        pages: Sequence[Page],
        done: Callable[[Io], None] | None = None,
    ) -> None:
        self.num = kernel.next_id("io")
        self.cmd = cmd
        self.store = store
        self.first = first
        self.pages = list(pages)
        self.done = done
        self.disk: Disk | None = None
        self.object: Any = None
        self.error = 0
        self.due = 0
        self.reqpage = -1
        self.slots: Slots | None = None
        self.biodone = False

    def ended(self) -> bool:
        """Whether biodone has been called."""
        return self.biodone

    def owners(self) -> list[Thread]:
        """The thread that must complete the request (for the waits-for graph): the device's."""
        disk = self.disk
        return [] if disk is None or disk.thread is None or self.biodone else [disk.thread]

    def __str__(self) -> str:
        return f"io {self.num}"

    def __repr__(self) -> str:
        return f"<io {self.num} {self.cmd} {len(self.pages)} pages at {self.first}>"


@shared("started")
class Disk:
    """One device.  ``fail`` lists errors to inject; otherwise *config*.error_rate decides."""

    __slots__ = (
        "_serving",
        "_wait",
        "config",
        "fail",
        "ident",
        "k",
        "lock",
        "name",
        "random",
        "reads",
        "started",
        "thread",
        "writes",
    )

    def __init__(self, kernel: Kernel, name: str, config: DiskConfig, seed: int) -> None:
        self.k = kernel
        self.name = name
        self.config = config
        self.random = random.Random(f"{seed}/{name}")
        self.lock = Spinlock(kernel, "disk", name)
        self.ident = Ident(f"disk {name}")
        self._wait: deque[Io] = deque()
        self._serving: deque[Io] = deque()
        self.fail: deque[str] = deque()
        self.started = 0
        self.thread: Thread | None = None
        self.reads = 0
        self.writes = 0

    def __str__(self) -> str:
        return f"disk {self.name}"

    def fail_next(self, *cmds: str) -> None:
        """Make the next request of each of *cmds* ("read", "write") fail, but no other."""
        self.fail.extend(cmds)

    def start(self) -> None:
        """Start the device's thread, once; the first request does so if nobody has."""
        if self.k.atomic.cmpset_int(self, "started", 0, 1):
            self.thread = self.k.spawn(f"io-{self.name}", self._main, role="io")

    # -- the caller's side

    @c("vn_strategy", "vfs_bio.c:3732-3765")
    @holds("no spinlock", "")
    def strategy(self, io: Io) -> None:
        """vn_strategy: pass *io* to the device.  Never blocks."""
        k = self.k
        self.start()
        io.disk = self
        if (f := k.probe.io_submit) is not None:
            f(k.curthread(), io)
        self.lock.lock()
        self._queue_point()
        self._wait.append(io)
        self.lock.unlock()
        k.sleep.wakeup(self.ident)

    def _queue_point(self) -> None:
        """Schedule point before a read or change of the queue of waiting requests."""
        if (p := self.k.point) is not None:
            p(IO, self, "queue")

    @c("biowait", "vfs_bio.c:3677-3681", blocks=True)
    @c("_biowait", "vfs_bio.c:3636-3675")
    @holds("no spinlock", "")
    def biowait(self, io: Io, wmesg: str) -> int:
        """biowait (vfs_bio.c): sleep until *io* is done.  Returns its error.  Blocks."""
        k = self.k
        while not io.ended():
            # Interlock, then test again: the completion may come between the test and the sleep.
            k.sleep.tsleep_interlock(io)
            if not io.ended():
                k.sleep.tsleep(io, PINTERLOCKED, wmesg, 0, cond=io.ended)
        return io.error

    def pending(self) -> list[Io]:
        """Requests that are not done, oldest first (read-only, for audits)."""
        return [*self._serving, *self._wait]

    # -- the device's side

    def _main(self) -> None:
        """The device's thread: start requests, wait for their latency, complete them; for ever."""
        k = self.k
        while True:
            now = k.carrier.ticks()
            self._start_some(now)
            if not self._serving:
                k.sleep.tsleep_interlock(self.ident)
                self._queue_point()
                if self._wait:
                    continue
                k.sleep.tsleep(
                    self.ident, PINTERLOCKED, "diskidle", 0, cond=lambda: bool(self._wait)
                )
            elif (left := self._serving[0].due - now) > 0:
                self._let_pass(left)
            else:
                self._complete(self._serving.popleft())

    def _let_pass(self, left: int) -> None:
        """Sleep until the oldest request is due, or until another one can be started."""
        k = self.k
        k.sleep.tsleep_interlock(self.ident)
        if not self._startable():
            k.sleep.tsleep(self.ident, PINTERLOCKED, "diskio", left, cond=self._startable)

    def _startable(self) -> bool:
        """Whether a waiting request can be started in addition to those in service."""
        self._queue_point()
        return bool(self._wait) and len(self._serving) < max(self.config.queue_depth, 1)

    def _start_some(self, now: int) -> None:
        while self._startable():
            self.lock.lock()
            self._queue_point()
            io = self._wait.popleft()
            self.lock.unlock()
            io.due = now + self.latency(io)
            self._serving.append(io)

    def latency(self, io: Io) -> int:
        """The ticks that *io* takes from its start."""
        return self.config.latency

    def verdict(self, io: Io) -> int:
        """Whether *io* fails: an errno, or 0."""
        if io.cmd in self.fail:
            self.fail.remove(io.cmd)
            return EIO
        rate = self.config.error_rate
        return EIO if rate and self.random.random() < rate else 0

    def _complete(self, io: Io) -> None:
        """Move the data and call biodone."""
        k = self.k
        if (p := k.point) is not None:
            p(IO, self, "complete")
        k.curthread().hit("v_intr")
        io.error = self.verdict(io)
        if io.error:
            kprintf(k, "disk-error", disk=self, io=io)
        else:
            self._move(io)
        if (f := k.probe.io_complete) is not None:
            f(k.curthread(), io)
        if io.cmd == READ:
            self.reads += 1
        else:
            self.writes += 1
        self.biodone(io)

    @c("biodone", "vfs_bio.c:4085-4126", blocks=True)
    def biodone(self, io: Io) -> None:
        """biodone (vfs_bio.c): run the request's ``done`` and wake the threads that wait for it."""
        if io.done is not None:
            io.done(io)
        self.k.atomic.cmpset_int(io, "biodone", False, True)  # BIO_DONE of bio_flags
        self.k.sleep.wakeup(io)

    def _move(self, io: Io) -> None:
        store = io.store
        for block, m in enumerate(io.pages, io.first):
            words_point(self.k, m, io.cmd == READ)
            if io.cmd == READ:
                got = store.get(block)
                m.contents = dict(got) if got else None
            elif m.contents:
                store[block] = dict(m.contents)
            else:
                store.pop(block, None)


@shared("count", atomic={"count": "getpbuf looks, then takes atomically (vm_pager.c)"})
class Slots:
    """A limited number of I/O buffers (an ``int *pfreecnt`` and its pbufs).

    ``users`` are the requests that have a buffer: a sleeper waits for them.  ``wakes`` decides from
    the count before a release whether the release wakes the sleepers.
    """

    __slots__ = ("count", "k", "limit", "name", "users", "wakes")

    def __init__(self, kernel: Kernel, name: str, count: int, wakes: Callable[[int], bool]) -> None:
        self.k = kernel
        self.name = name
        self.wakes = wakes
        self.count = count
        self.limit = count
        self.users: dict[Io, None] = {}

    def __str__(self) -> str:
        return self.name

    def owners(self) -> list[Thread]:
        """The threads that will release buffers."""
        found = [td for io in tuple(self.users) for td in io.owners()]
        return list(dict.fromkeys(found))

    @c("getpbuf_kva", "vm_pager.c:453-496", blocks=True)
    @holds("no spinlock", "a buffer charged to io")
    def getpbuf(self, io: Io) -> None:
        """getpbuf_kva (vm_pager.c:453-496): get a buffer for *io*; sleeps while there is none.

        Testing and taking are two steps, so the count can go below zero.
        """
        k = self.k
        while self.count <= 0:
            k.curthread().hit("getpbuf_kva:wait")
            k.sleep.tsleep_interlock(self)
            # Test again after the interlock, so that a release in between is not missed.
            if k.atomic.fetchadd_int(self, "count", 0) <= 0:
                k.sleep.tsleep(self, PINTERLOCKED, "wswbuf2", 0, cond=lambda: self.count > 0)
        k.atomic.add_int(self, "count", -1)
        io.slots = self
        self.users[io] = None

    @c("relpbuf", "vm_pager.c:627-682")
    @holds("a buffer charged to io", "buffer released")
    def relpbuf(self, io: Io) -> None:
        """relpbuf (vm_pager.c:627-682).

        Release the buffer of *io*; may wake sleepers (see ``wakes``).
        """
        self.users.pop(io, None)
        io.slots = None
        if (f := self.k.probe.freed) is not None:
            f(self.k.curthread(), io)
        old = self.k.atomic.fetchadd_int(self, "count", 1)
        if self.wakes(old):
            self.k.sleep.wakeup(self)

    @c("pbuf_adjcount", "vm_pager.c:684-691")
    def adjcount(self, n: int) -> None:
        """pbuf_adjcount (vm_pager.c:684-691): change the limit by *n*."""
        if n:
            self.limit += n
            self.k.atomic.add_int(self, "count", n)
            self.k.sleep.wakeup(self)
