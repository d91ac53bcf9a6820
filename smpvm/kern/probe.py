"""The events that can be observed: one method for each kind.

An *observer* is a subclass of ``Probe`` that overrides the methods it wants.  ``Probes`` combines a
machine's observers into one object with an attribute for each event: ``None`` if nobody listens, so
an unobserved event costs one attribute load at its site::

    if (f := k.probe.wakeup) is not None:
        f(td, ident, sleepers)

In every event *td* is the kernel thread that acts.  An observer never changes what it observes, and
reads shared fields with ``peek``.  In native mode many host threads call at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from smpvm.kern.cname import SKIP

FRAMES: Final = SKIP

WAIT: Final = 0
TRY: Final = 1
TIMED: Final = 2
"""How a lock was got: by a request that waits, one that does not, or one with a time limit."""

Event = Callable[..., None] | None


class Probe:
    """Every event, doing nothing.  *lock* is a Spinlock, Token or Lock (lockmgr) object."""

    def attach(self, kernel: Any) -> None:
        """Not an event: called once, at the end of the kernel's construction, with the kernel."""

    def attach_vm(self, vm: Any) -> None:
        """Not an event: called once, at the end of the VM's construction, with the VM."""

    # -- threads
    def thread_spawn(self, td: Any, child: Any) -> None:
        """*td* made *child* runnable (happens-before edge)."""

    def thread_start(self, td: Any) -> None:
        """The first thing *td* does."""

    def thread_exit(self, td: Any) -> None:
        """The last thing *td* does; it should hold nothing."""

    def thread_join(self, td: Any, child: Any) -> None:
        """*td* has seen that *child* ended (happens-before edge)."""

    # -- locks.  mode: "excl" or "shared"
    def lock_want(self, td: Any, lock: Any, mode: str) -> None:
        """Before a blocking acquire, contended or not."""

    def lock_block(self, td: Any, lock: Any, mode: str, timo: int) -> None:
        """The acquire has to wait; *timo* ticks limit the wait (0: no limit)."""

    def lock_acquired(self, td: Any, lock: Any, mode: str, how: int) -> None:
        """The lock is held now; *how*: WAIT, TRY or TIMED."""

    def lock_failed(self, td: Any, lock: Any, mode: str, error: int) -> None:
        """A try or a timed acquire gave up (ends a ``lock_block``)."""

    def lock_release(self, td: Any, lock: Any, mode: str) -> None:
        """Just before the lock is released."""

    def lock_converted(self, td: Any, lock: Any, mode: str) -> None:
        """Upgrade or downgrade done: now held in *mode*."""

    def token_drop(self, td: Any, tokens: Sequence[Any]) -> None:
        """*td* blocks: all its tokens (outermost first) are released until it resumes."""

    def token_regain(self, td: Any, tokens: Sequence[Any]) -> None:
        """*td* has reacquired all of them."""

    # -- sleep and wakeup
    def sleep_interlock(self, td: Any, ident: Any) -> None:
        """tsleep_interlock: from here on a wakeup on *ident* is not missed."""

    def sleep(
        self, td: Any, ident: Any, wmesg: str, timo: int, cond: Callable[[], bool] | None
    ) -> None:
        """*td* goes to sleep.  *cond* tells whether the awaited condition already holds."""

    def sleep_done(self, td: Any, ident: Any, wmesg: str, timed_out: bool) -> None:
        """*td* runs again."""

    def wakeup(self, td: Any, ident: Any, sleepers: Sequence[Any]) -> None:
        """wakeup(ident) found *sleepers* (threads)."""

    # -- memory
    def read(self, td: Any, obj: Any, field: str) -> None:
        """A plain read of a shared field, before it."""

    def write(self, td: Any, obj: Any, field: str, new: Any) -> None:
        """A plain write of a shared field, before it (``peek`` gives the old value)."""

    def atomic(self, td: Any, obj: Any, field: str, old: Any, new: Any) -> None:
        """An atomic operation on a shared field changed it from *old* to *new* (possibly the same).

        Called just before the store, under the lock of the atomics: the observer must not do an
        atomic operation or wait.
        """

    def unguarded(self, td: Any, obj: Any, guard: Any, lock: Any, writes: bool) -> None:
        """An access of the field that *guard* declares (kern/guard.py), without *lock*."""

    # -- pages
    def page_busied(self, td: Any, m: Any) -> None:
        """*td* owns PG_BUSY of *m* now."""

    def page_unbusied(self, td: Any, m: Any) -> None:
        """Just before PG_BUSY of *m* is cleared."""

    def page_want(self, td: Any, m: Any, also_soft: bool) -> None:
        """Before a busy request that may wait (busy_wait, lookup_busy_wait), contended or not."""

    def page_block(self, td: Any, m: Any, also_soft: bool) -> None:
        """*td* is going to sleep until *m* is not busy (and not soft-busy, with *also_soft*)."""

    def io_start(self, td: Any, m: Any) -> None:
        """One more soft-busy reference on *m*."""

    def io_finish(self, td: Any, m: Any) -> None:
        """One soft-busy reference on *m* less."""

    def page_hold(self, td: Any, m: Any, delta: int) -> None:
        """hold_count of *m* changed by *delta*."""

    def page_wire(self, td: Any, m: Any, delta: int) -> None:
        """wire_count of *m* changed by *delta*."""

    def page_alloc(self, td: Any, m: Any) -> None:
        """*m* was taken off the free or cache queue for a new use."""

    def page_free(self, td: Any, m: Any) -> None:
        """*m* is about to go to the free or hold queue."""

    # -- queues; q is a PageQueue, called with its spinlock held
    def queue_insert(self, td: Any, q: Any, m: Any, at_head: bool) -> None:
        """*m* (a page or a marker) is added to *q*."""

    def queue_remove(self, td: Any, q: Any, m: Any) -> None:
        """*m* (a page or a marker) is removed from *q*."""

    def queue_requeue(self, td: Any, q: Any, m: Any) -> None:
        """*m* moves to the tail of *q*, which it is already on."""

    def marker_hop(self, td: Any, q: Any, marker: Any, m: Any) -> None:
        """A scan moves *marker* from before *m* to behind it."""

    def scan_begin(self, td: Any, q: Any, marker: Any, maxscan: int) -> None:
        """A marker scan of *q* begins; it takes at most *maxscan* steps."""

    def scan_end(self, td: Any, q: Any, marker: Any, why: str) -> None:
        """The scan ends: "queue" (end of queue), "maxscan", "target" or "stop" (enough memory)."""

    # -- paging_in_progress and I/O
    def pip_add(self, td: Any, obj: Any, n: int) -> None:
        """paging_in_progress of object *obj* went up by *n*."""

    def pip_wakeup(self, td: Any, obj: Any, n: int) -> None:
        """paging_in_progress of object *obj* went down by *n*."""

    def pip_block(self, td: Any, obj: Any) -> None:
        """*td* is going to sleep until paging_in_progress of *obj* is zero."""

    def io_submit(self, td: Any, io: Any) -> None:
        """An I/O request was passed to its device (happens-before edge to io_complete)."""

    def io_complete(self, td: Any, io: Any) -> None:
        """The device thread completed *io*."""

    # -- the rest
    def freed(self, td: Any, obj: Any) -> None:
        """*td* has given back the memory of *obj*: nobody may touch it any more.

        An object, map entry, vmspace with its map and pmap, process, vnode or I/O buffer.  Pages
        are never given back: see ``page_free``.
        """

    def call(self, td: Any, what: str, **facts: Any) -> None:
        """A call to the outside of the model's core (vget, put_pages, killproc, kprintf, ...)."""

    def panic(self, td: Any, code: str, message: str) -> None:
        """A kernel assertion failed; a Panic is about to be raised."""


EVENTS = tuple(name for name in vars(Probe) if not name.startswith(("_", "attach")))


@cache
def _heard_by(cls: Callable[..., Any]) -> tuple[str, ...]:
    """The events that an observer of class *cls* listens to."""
    return tuple(name for name in EVENTS if getattr(cls, name) is not getattr(Probe, name))


def _fan(calls: tuple[Callable[..., None], ...]) -> Callable[..., None]:
    first, second = calls[:2]

    def both(*args: Any, **facts: Any) -> None:
        first(*args, **facts)
        second(*args, **facts)

    def fan(*args: Any, **facts: Any) -> None:
        for call in calls:
            call(*args, **facts)

    return both if len(calls) == 2 else fan


class Probes:
    """One attribute for each event: None, one observer's method, or a fan-out to several."""

    thread_spawn: Event = None
    thread_start: Event = None
    thread_exit: Event = None
    thread_join: Event = None
    lock_want: Event = None
    lock_block: Event = None
    lock_acquired: Event = None
    lock_failed: Event = None
    lock_release: Event = None
    lock_converted: Event = None
    token_drop: Event = None
    token_regain: Event = None
    sleep_interlock: Event = None
    sleep: Event = None
    sleep_done: Event = None
    wakeup: Event = None
    read: Event = None
    write: Event = None
    atomic: Event = None
    unguarded: Event = None
    page_busied: Event = None
    page_unbusied: Event = None
    page_want: Event = None
    page_block: Event = None
    io_start: Event = None
    io_finish: Event = None
    page_hold: Event = None
    page_wire: Event = None
    page_alloc: Event = None
    page_free: Event = None
    queue_insert: Event = None
    queue_remove: Event = None
    queue_requeue: Event = None
    marker_hop: Event = None
    scan_begin: Event = None
    scan_end: Event = None
    pip_add: Event = None
    pip_wakeup: Event = None
    pip_block: Event = None
    io_submit: Event = None
    io_complete: Event = None
    freed: Event = None
    call: Event = None
    panic: Event = None

    def __init__(self, observers: Sequence[Probe] = ()) -> None:
        self.observers = tuple(observers)
        calls: dict[str, list[Callable[..., None]]] = {}
        for observer in observers:
            cls: Any = type(observer)
            for name in _heard_by(cls):
                calls.setdefault(name, []).append(getattr(observer, name))
        for name, heard in calls.items():
            setattr(self, name, heard[0] if len(heard) == 1 else _fan(tuple(heard)))
