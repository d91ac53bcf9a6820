"""Data races by happens-before: FastTrack's epochs over the declared shared fields.

Each thread has a vector clock that tells how much of every other thread's past happens before it.
Two accesses to one field race if at least one is a write, not both are atomic, and neither happens
before the other.  A race that the source declares as intended is only counted.
Order comes from lock hand-over (spinlocks, lockmgr locks, tokens, also when tokens are given up
to block), atomic operations on the same field, wakeup → resume, thread start and end, and I/O.

The usual case must be cheap.  An *epoch* is one int (clock and thread), and an access by the
thread that accessed the field last is one comparison.  A release copies nothing: a thread's clock
is copied only when it changes after a release (``VectorClock.frozen``).
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final

from smpvm.check.accepted import ATOMIC_READ, Declared, Tally
from smpvm.check.checker import Checker, Context
from smpvm.check.clocks import (
    ONE,
    TID_MASK,
    Clash,
    Named,
    Release,
    Shared,
    Var,
    VectorClock,
)
from smpvm.check.finding import Finding, fingerprint, site_of
from smpvm.check.held import ThreadState, describe_held
from smpvm.check.stacks import PLACES, c_functions, capture, functions, kind_of, shown
from smpvm.kern.cname import KEEP
from smpvm.kern.probe import WAIT
from smpvm.kern.shared import Hook, Site, peek

KEPT: Final = 64
"""How many ended threads keep their slots, so that races with their last accesses are seen."""


NOUNS: Final = {"read": "read", "write": "write", "atomic": "atomic operation"}
VERBS: Final = {"read": "reads", "write": "writes", "atomic": "changes atomically"}


class Races(Checker):
    """The race checker.  Its state of a field or a lock is kept on the object itself."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._bare: dict[Any, dict[str, Var]] = {}
        """State of the fields of objects that are not instrumented."""
        self._threads: dict[int, Release] = {}
        self._io: dict[Any, Release] = {}
        self._woken: dict[int, list[Release]] = {}
        self._pairs: dict[tuple[type, str, str, int, str, int], Finding | Tally] = {}
        """The counter of each pair of places that has raced.  With free-running threads it may
        miss a few: a mutex would cost more than the rest of the check."""
        self._names: dict[int, list[tuple[int, Named]]] = {}
        """Slot → its last few owners, each with its first epoch."""
        self._free: deque[VectorClock] = deque()
        """The clocks of ended threads whose slots can be reused, oldest first."""
        self._mutex = threading.Lock()
        self._hook = self.access_hook(lambda: None)

    def _known(self, td: Any) -> VectorClock:
        st: ThreadState = td.observed or self.tracker.state(td)
        known: VectorClock | None = st.vc
        if known is None:
            known = st.vc = self._new(td)
        return known

    def clock(self, td: Any) -> VectorClock:
        """What *td* is ordered after now, for those who watch accesses of their own."""
        known = self._known(td)
        known.caught_up()
        return known

    def _new(self, td: Any) -> VectorClock:
        """A clock for *td*.  With a reused slot it is ordered after the slot's former thread."""
        with self._mutex:
            if len(self._free) > KEPT:
                old = self._free.popleft()
                known = VectorClock(old.tid, old.epoch + ONE)
                known.others, known.frozen = old.others, True
            else:
                known = VectorClock(len(self._names) + 1)
            names = self._names.setdefault(known.tid, [])
            names.append((known.epoch, Named(td.name, td.role)))
            del names[:-8]
        return known

    # -- plain accesses

    def access_hook(self, current: Callable[[], Any], depth: int = 2) -> Hook:
        """For the Kernel: the hook of instrumented objects if this is the only observer.

        The code that accesses the field is *depth* frames out.  Accesses are very frequent, so the
        common case is written inline here.
        """
        clock, place, getframe, race = self._known, PLACES.number, sys._getframe, self._race

        def read(
            obj: Any, field: str, new: object = None, td: Any = None, at: FrameType | None = None
        ) -> None:
            if td is None:
                td = current()
            if td.quiet:
                return
            st = td.observed
            known = clock(td) if st is None or st.vc is None else st.vc
            var = obj._seen.get(field)
            if var is None:
                var = obj._seen.setdefault(field, Var())
            if known.pending is not None:
                known.caught_up()
            if (atomic := var.atomic) is not None:
                # On x86, the kernel's only platform, every load is an acquire: a reader that sees
                # the value of an atomic operation is ordered after it.  It is still a race.
                if not known.after(atomic[0]):
                    where = place(at or getframe(depth))
                    race(td, obj, field, "read", where, atomic[0], var.atomic_site, "atomic")
                known.acquire(atomic)
                known.pending = var
            epoch = known.epoch
            if (last := var.read) == epoch:
                return
            where = place(at or getframe(depth))
            others, wrote = known.others, var.write
            if (wrote ^ epoch) & TID_MASK and others.get(wrote & TID_MASK, 0) < wrote:
                race(td, obj, field, "read", where, wrote, var.write_site, "write")
            if var.reads is not None:
                var.reads[known.tid] = (epoch, where)
            elif not (last ^ epoch) & TID_MASK or others.get(last & TID_MASK, 0) >= last:
                # The only reader since the last write, or ordered after the previous reader.
                var.read_site = where
                var.read = epoch
            else:
                var.reads = {last & TID_MASK: (last, var.read_site), known.tid: (epoch, where)}
                var.read = 0

        def write(
            obj: Any, field: str, new: object, td: Any = None, at: FrameType | None = None
        ) -> None:
            if td is None:
                td = current()
            if td.quiet:
                return
            st = td.observed
            known = clock(td) if st is None or st.vc is None else st.vc
            var = obj._seen.get(field)
            if var is None:
                var = obj._seen.setdefault(field, Var())
            if known.pending is not None:
                known.caught_up()
            epoch = known.epoch
            if (last := var.write) == epoch:
                return
            where = place(at or getframe(depth))
            if (atomic := var.atomic) is not None and not known.after(atomic[0]):
                race(td, obj, field, "write", where, atomic[0], var.atomic_site, "atomic", new)
            others = known.others
            if (last ^ epoch) & TID_MASK and others.get(last & TID_MASK, 0) < last:
                race(td, obj, field, "write", where, last, var.write_site, "write", new)
            if var.reads is not None:
                for last, site in list(var.reads.values()):
                    if not known.after(last):
                        race(td, obj, field, "write", where, last, site, "read", new)
                var.reads = None
            elif (last := var.read) and not known.after(last):
                race(td, obj, field, "write", where, last, var.read_site, "read", new)
            var.read = 0
            var.write_site = where
            var.write = epoch

        return Hook(read, write)

    def read(self, td: Any, obj: Any, field: str, at: FrameType | None = None) -> None:
        self._hook.read(obj, field, None, td, at or self._caller())

    def write(self, td: Any, obj: Any, field: str, new: Any, at: FrameType | None = None) -> None:
        self._hook.write(obj, field, new, td, at or self._caller())

    def _caller(self) -> FrameType:
        """The frame of the kernel code that accesses a field, outside hooks and properties."""
        frame = sys._getframe(2)
        while not kind_of(frame.f_code) and frame.f_back is not None:
            frame = frame.f_back
        return frame

    # -- order

    def lock_acquired(self, td: Any, lock: Any, mode: str, how: int) -> None:
        known = self._known(td)
        last = lock.seen
        if last is None:
            return
        known.acquire(last.excl)
        if mode != "shared" and last.shared:
            for released in last.shared:
                known.acquire(released)
            last.shared = []

    def lock_release(self, td: Any, lock: Any, mode: str) -> None:
        released = self._known(td).release()
        last = lock.seen
        if last is None:
            last = lock.seen = Shared()
        if mode == "shared":
            tid = released[0] & TID_MASK
            last.shared = [r for r in last.shared if r[0] & TID_MASK != tid] + [released]
        else:
            last.excl = released

    def lock_converted(self, td: Any, lock: Any, mode: str) -> None:
        """An upgrade is ordered after the readers; a downgrade releases to them."""
        if mode == "shared":
            self.lock_release(td, lock, "excl")
        else:
            self.lock_acquired(td, lock, "excl", WAIT)

    def token_drop(self, td: Any, tokens: Sequence[Any]) -> None:
        for token in tokens:
            self.lock_release(td, token, self._mode(td, token))

    def token_regain(self, td: Any, tokens: Sequence[Any]) -> None:
        for token in tokens:
            self.lock_acquired(td, token, self._mode(td, token), WAIT)

    def _mode(self, td: Any, token: Any) -> str:
        """The mode in which *td* holds a token: exclusive if any of its references is."""
        modes = [ref.mode for ref in td.toks if ref.tok is token]
        return "excl" if "excl" in modes or not modes else "shared"

    def atomic(self, td: Any, obj: Any, field: str, old: Any, new: Any) -> None:
        known = self._known(td)
        seen = getattr(obj, "_seen", None)
        if seen is None:  # an object without shared fields: an allocator, a counter
            seen = self._bare.setdefault(obj, {})
        var = seen.get(field)
        if var is None:
            var = seen.setdefault(field, Var())
        known.acquire(var.atomic)
        where = PLACES.number(self._caller())
        if (last := var.write) and not known.after(last):
            self._race(td, obj, field, "atomic", where, last, var.write_site, "write", new)
        if new == old:
            return  # it was only a read
        if var.reads is not None:
            for last, site in list(var.reads.values()):
                if not known.after(last):
                    self._race(td, obj, field, "atomic", where, last, site, "read", new)
        elif (last := var.read) and not known.after(last):
            self._race(td, obj, field, "atomic", where, last, var.read_site, "read", new)
        var.atomic_site = where
        var.atomic = known.release()

    def wakeup(self, td: Any, ident: Any, sleepers: Sequence[Any]) -> None:
        if not sleepers:
            return
        released = self._known(td).release()
        for sleeper in sleepers:
            self._woken.setdefault(sleeper.tid, []).append(released)

    def sleep_done(self, td: Any, ident: Any, wmesg: str, timed_out: bool) -> None:
        known = self._known(td)
        for released in self._woken.pop(td.tid, ()):
            known.acquire(released)

    def thread_spawn(self, td: Any, child: Any) -> None:
        self._threads[child.tid] = self._known(td).release()

    def thread_start(self, td: Any) -> None:
        self._known(td).acquire(self._threads.pop(td.tid, None))

    def thread_exit(self, td: Any) -> None:
        known = self._known(td)
        known.last = known.release()
        with self._mutex:
            self._free.append(known)

    def thread_join(self, td: Any, child: Any) -> None:
        st = child.observed
        if st is not None and st.vc is not None:
            # It has ended, but may not have reached thread_exit.
            self._known(td).acquire(st.vc.last or st.vc.release())

    def io_submit(self, td: Any, io: Any) -> None:
        self._io[io] = self._known(td).release()

    def io_complete(self, td: Any, io: Any) -> None:
        self._known(td).acquire(self._io.pop(io, None))

    # -- reporting

    def _race(
        self,
        td: Any,
        obj: Any,
        field: str,
        deed: str,
        where: int,
        last: int,
        last_where: int,
        last_deed: str,
        new: Any = None,
    ) -> None:
        """Report two unordered accesses; a pair of places reported before is only counted."""
        cls = type(obj)
        pair = (cls, field, deed, where, last_deed, last_where)
        known = self._pairs.get(pair)
        if known is not None:
            known.count += 1
            return
        clash = Clash(td, obj, field, deed, where, last, last_where, last_deed, new)
        told = self._accepted(clash) or self._report(clash)
        if isinstance(told, Tally) or self._tells_function(where):
            self._pairs[pair] = told

    def _tells_function(self, where: int) -> bool:
        """Do the frames kept for a place include the function named in a fingerprint?"""
        return any(kind_of(code) == KEEP for code, _ in PLACES.stack(where))

    def _report(self, c: Clash) -> Finding:
        """Report a race between two places; returns its finding."""
        cls = type(c.obj)
        mine, theirs = capture(3), shown(PLACES.stack(c.last_where))
        ends = sorted(
            (
                " ".join((c.deed, *functions(mine, 1))),
                " ".join((c.last_deed, *functions(theirs, 1))),
            )
        )
        identity = (cls.__name__, c.field, *ends)
        known = self.log.seen(fingerprint("race", *identity))
        if known is not None:
            return known
        td, other, what = c.td, self._thread(c.last), f"{c.obj}.{c.field}"
        now = peek(c.obj, c.field)
        change = f"reads {now}" if c.deed == "read" else f"{now} → {c.new}"
        finding = Finding(
            "race",
            f"{cls.__name__}.{c.field} of {c.obj}: {NOUNS[c.deed]} by {td.name}, "
            f"{NOUNS[c.last_deed]} by {other.name if other is not None else '?'}, "
            "with no order between them",
            sites=[
                site_of(other, f"{VERBS[c.last_deed]} {what}", theirs),
                site_of(td, f"{VERBS[c.deed]} {what}", mine),
            ],
            objects=[what],
            evidence=[
                f"{c.field}: {change}",
                f"{td.name} holds {describe_held(td.observed)}",
            ],
            identity=identity,
        )
        return self.log.add(finding)

    def _accepted(self, c: Clash) -> Tally | None:
        """Count the race, if the source declares one of its accesses as intended."""
        declared = self._declared(c)
        if declared is None:
            return None
        tally = self.accepted.tally(declared)
        tally.count += 1
        return tally

    def _declared(self, c: Clash) -> Declared | None:
        cls = type(c.obj)
        what = f"{cls.__name__}.{c.field}"
        if {c.deed, c.last_deed} == {"atomic", "read"} and c.field in cls.__instant__:
            return Declared(ATOMIC_READ, what, "", "", cls.__instant__[c.field])
        ends = ((c.deed, c.where, c.last_deed), (c.last_deed, c.last_where, c.deed))
        for site in cls.__benign__ if self.accepted.heeded else ():
            if site.field == c.field and any(answers(site, *end) for end in ends):
                return Declared("race", what, site.function, site.at, site.why)
        return None

    def _thread(self, epoch: int) -> Named | None:
        """The thread that *epoch* belongs to."""
        with self._mutex:
            for since, named in reversed(self._names.get(epoch & TID_MASK, [])):
                if since <= epoch:
                    return named
        return None


def answers(site: Site, deed: str, where: int, against: str) -> bool:
    """Does *site* accept an access of kind *deed* at place *where* that races with one of kind
    *against*?"""
    if site.deed != "both" and (site.deed != deed or (deed == "write" and against != "read")):
        return False
    return not site.function or site.function in c_functions(PLACES.stack(where))
