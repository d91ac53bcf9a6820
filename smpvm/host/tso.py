"""x86-TSO: each thread's plain stores go to memory later, in order, through a buffer of its own.

(Owens, Sarkar and Sewell, 2009.)  A thread reads its own newest buffered store, others read memory.
That the oldest store of a buffer reaches memory is a step of its own.  It is taken by a *shadow*
thread, one for each thread that stores, as in Nidhugg (Abdulla and others, 2015): so it is a choice
like any other to every strategy.  The store itself is a step that depends on nothing.

Locked instructions and ``fence`` wait until the buffer is empty.  If the thread has stored since it
last waited, that wait is a step (FENCE), even where nothing is left to wait for: which steps a
thread takes must not depend on when its buffer was emptied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from smpvm.host.carrier import HOLDING, READ, WAKEUP, WRITE, YIELD, Access, Carried, Peek, Stopped
from smpvm.host.choices import CHOOSE
from smpvm.host.serial import SerialCarrier
from smpvm.host.serialthread import AWAIT, CLOCK, SerialThread

STORE: Final = "store"
"""A plain store, into the buffer."""
FENCE: Final = "fence"
"""The buffer is empty: the thread goes on."""

_NO_LOCK: Final = frozenset((READ, WRITE, STORE, WAKEUP, YIELD, CHOOSE))
"""Steps that are no locked instruction.  A wakeup that finds nobody only reads a mask
(kern_synch.c:956); one that finds somebody calls ``drain``."""

Poke = Callable[[Any, str, Any], None]
"""Sets a shared field, and nobody hears of it."""


def shadow_tid(tid: int) -> int:
    """The tid of the shadow thread of thread *tid*: below all others, and not that of the clock."""
    return CLOCK - 1 - tid


def owner_tid(tid: int) -> int:
    """The tid of the thread whose shadow is *tid*."""
    return CLOCK - 1 - tid


class Shadow(Carried):
    """What carries a buffer's stores to memory, as far as anybody asks."""

    __slots__ = ("observed", "quiet", "role")

    def __init__(self, td: Carried) -> None:
        super().__init__(shadow_tid(td.tid), f"buffer of {td.name}", lambda: None)
        self.role = self.name
        self.quiet = 0
        self.observed = None


class Entry(NamedTuple):
    """One store that has not reached memory."""

    obj: Any
    field: str
    value: Any
    at: int
    """The log position of the store."""


class Buffer:
    """The stores of one thread, oldest first."""

    __slots__ = ("dirty", "drained_at", "entries", "shadow", "waits", "writer")

    def __init__(self, writer: SerialThread, shadow: SerialThread) -> None:
        self.writer = writer
        self.shadow = shadow
        self.entries: deque[Entry] = deque()
        self.dirty = False
        """The thread has stored since its last fence."""
        self.drained_at = CLOCK
        """The log position at which the last store reached memory."""
        self.waits = False
        """The thread is at a fence, and not runnable."""

    def __str__(self) -> str:
        return str(self.shadow)

    def newest(self, obj: Any, field: str) -> Entry | None:
        """The thread's own newest store to the field, if it is still here."""
        stores = reversed(self.entries)
        return next((e for e in stores if e.obj is obj and e.field == field), None)


class StoreBuffers(SerialCarrier):
    """A serial carrier whose plain stores are buffered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffers: dict[int, Buffer] = {}
        self._peek: Peek
        self._poke: Poke

    def memory(self, peek: Peek, poke: Poke) -> None:
        """How shared fields are read and set without anybody hearing of it."""
        self._peek, self._poke = peek, poke

    def point(
        self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
    ) -> None:
        ends = kind == WAKEUP and obj is self._me.td
        if kind not in _NO_LOCK or field == HOLDING or ends:
            self.drain()
        super().point(kind, obj, field, ready)

    def spawn(self, td: Carried) -> None:
        self.drain()  # the new thread sees all that its maker has stored
        super().spawn(td)

    def drain(self) -> None:
        """Wait until all that the thread has stored is in memory (mfence, a locked instruction)."""
        me = self._me
        buffer = self._buffers.get(me.tid)
        if buffer is None or not buffer.dirty or self.inert:
            return
        pending = me.op
        me.op = (me.tid, FENCE, buffer, "")
        if buffer.entries:
            buffer.waits = True
            self._able.disable(me)
        nxt = self._pick(me)
        if nxt is not me:
            self._switch(nxt)
        me.cause = buffer.drained_at
        self._step(me)
        me.op = pending
        buffer.dirty = False

    def own(self, obj: Any, field: str) -> Entry | None:
        """The running thread's own newest store to a field, if it is not in memory yet."""
        buffer = self._buffers.get(self._me.tid)
        return None if buffer is None else buffer.newest(obj, field)

    def buffered_load(self, seen: Access | None) -> Callable[[Any, str], Entry | None]:
        """What is called before a plain read: returns the thread's own store that it finds, if
        it is not in memory yet."""

        def load(obj: Any, field: str) -> Entry | None:
            me = self._me
            if self.inert:
                if self.stopping and me is not self.boot:
                    raise Stopped
                return self.own(obj, field)
            self.point(READ, obj, field)
            if seen is not None:
                seen(obj, field, None, me.td)
            return self.own(obj, field)

        return load

    def buffered_store(self, seen: Access | None) -> Callable[[Any, str, Any], bool]:
        """What is called before a plain write; returns whether the buffer has taken it."""

        def store(obj: Any, field: str, new: Any) -> bool:
            me = self._me
            if self.inert:
                if self.stopping and me is not self.boot:
                    raise Stopped
                return False
            buffer = self._buffers.get(me.tid) or self._new_buffer(me)
            self.point(STORE, buffer, field)
            if seen is not None:
                seen(obj, field, new, me.td)
            buffer.entries.append(Entry(obj, field, new, len(self.log) - 1))
            buffer.dirty = True
            if len(buffer.entries) == 1:
                self._next_drain(buffer)
                self._able.enable(buffer.shadow)
            return True

        return store

    def _new_buffer(self, writer: SerialThread) -> Buffer:
        shadow = SerialThread(Shadow(writer.td))
        shadow.daemon = True
        self._time.daemons.add(shadow.tid)
        buffer = self._buffers[writer.tid] = Buffer(writer, shadow)
        shadow.go = self._switcher.make(lambda: self._drains(buffer))
        self.threads.append(shadow)
        return buffer

    def _next_drain(self, buffer: Buffer) -> None:
        """The shadow is about to carry the oldest store to memory."""
        entry, shadow = buffer.entries[0], buffer.shadow
        shadow.op = (shadow.tid, WRITE, entry.obj, entry.field)
        shadow.cause = entry.at

    def _drains(self, buffer: Buffer) -> None:
        """The shadow's body: a store to memory each time that it is chosen."""
        me = buffer.shadow
        me.started = True
        try:
            while not self.stopping:
                self._drain_one(buffer)
                nxt = self._pick(me)
                if nxt is not me:
                    self._switch(nxt)
        except Stopped:
            pass
        me.done = True

    def _drain_one(self, buffer: Buffer) -> None:
        me = buffer.shadow
        self._step(me)
        obj, field, value, _ = buffer.entries.popleft()
        at = buffer.drained_at = len(self.log) - 1
        same = self._peek(obj, field) == value
        self._poke(obj, field, value)
        if same:
            self.idle.add(at)
        else:
            self._able.wake(at, obj)
        if buffer.entries:
            self._next_drain(buffer)
            return
        me.op = (me.tid, AWAIT, (), "")
        self._able.disable(me)
        if buffer.waits:
            buffer.waits = False
            self._able.enable(buffer.writer)


def buffered(base: type[SerialCarrier]) -> type[SerialCarrier]:
    """*base* with store buffers."""
    return type(f"Tso{base.__name__}", (StoreBuffers, base), {})
