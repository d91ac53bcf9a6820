"""Spinlocks (kern_spinlock.c, spinlock2.h): exclusive or shared, never recursive.

The C keeps one word: a count, a SHARED bit, and a count of exclusive waiters (EXCLWAIT) that blocks
new shared requests.  Here the same state is three slots under a host lock that is held for a few
bytecodes only.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from smpvm.host.carrier import ACQUIRE, ACQUIRE_SHARED, RELEASE
from smpvm.host.carrier import TRY as TRY_POINT
from smpvm.kern.cname import c, holds, own
from smpvm.kern.order import Ordered
from smpvm.kern.probe import TRY, WAIT

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread


class HasIdx(Protocol):
    """An object that hashes into the pool: a page."""

    idx: int


class Spinlock(Ordered):
    """struct spinlock."""

    __slots__ = ("_guard", "exclwait", "owner", "shared")

    kind = noun = "spinlock"

    @c("spin_init", "spinlock2.h:273-279")
    def __init__(
        self, k: Kernel, cls: str, name: str = "", *, subclass: int = 0, under: Any = None
    ) -> None:
        super().__init__(k, cls, name, subclass=subclass, under=under)
        self.owner: Thread | None = None  # the exclusive holder
        self.shared = 0  # shared holders
        self.exclwait = 0  # waiting exclusive requests
        self._guard = threading.Lock()

    # -- exclusive

    @c("spin_lock", "spinlock2.h:63")
    @c("_spin_lock", "spinlock2.h:136-140")
    @c("_spin_lock_quick", "spinlock2.h:112-134")
    @holds("not this lock", "the lock, exclusively")
    def lock(self) -> None:
        """spin_lock (spinlock2.h:137, kern_spinlock.c:191 if contested).

        Spins until the caller has the lock exclusively.  Raises Misuse on recursion.
        """
        k = self.k
        td = k.curthread()
        if (f := k.probe.lock_want) is not None:
            f(td, self, "excl")
        if self in td.spins:
            k.misuse("spin-recursion", f"{td} takes {self} again")
        if (p := k.point) is not None:
            if not self.can_lock():
                td.contended[self.cls] += 1
            td.waiting = self
            p(ACQUIRE, self, ready=self._not_exclusive)
            td.waiting = None
        with self._guard:
            # EXCLWAIT of another thread does not block an exclusive request.
            got = self.owner is None and self.shared == 0
            if got:
                self.owner = td
            else:
                self.exclwait += 1
        if not got:
            self._spin(td)
        td.spins.append(self)
        td.acquired[self.cls] += 1
        if (f := k.probe.lock_acquired) is not None:
            f(td, self, "excl", WAIT)

    @c("_spin_lock_contested", "kern_spinlock.c:190-260")
    @holds("EXCLWAIT registered", "the lock, exclusively")
    def _spin(self, td: Thread) -> None:
        """_spin_lock_contested (kern_spinlock.c:190-260): EXCLWAIT has been registered already."""
        k = self.k
        if k.point is None:
            td.contended[self.cls] += 1
        td.waiting = self
        if (f := k.probe.lock_block) is not None:
            f(td, self, "excl", 0)
        relax = k.carrier.relax
        while True:
            relax(self)
            if self.owner is None and self.shared == 0:  # test before the attempt under the lock
                with self._guard:
                    if self.owner is None and self.shared == 0:
                        self.owner = td
                        self.exclwait -= 1
                        break
        td.waiting = None

    @c("spin_trylock", "spinlock2.h:73-96", uncalled=True)
    @c("spin_trylock_contested", "kern_spinlock.c:135-149")
    @holds("", "on True the lock, exclusively")
    def trylock(self) -> bool:
        """spin_trylock (spinlock2.h:74): also fails while an exclusive request waits."""
        k = self.k
        td = k.curthread()
        if (p := k.point) is not None:
            p(TRY_POINT, self)
        with self._guard:
            got = self.owner is None and self.shared == 0 and self.exclwait == 0
            if got:
                self.owner = td
        return self._tried(td, "excl", got)

    def _tried(self, td: Thread, mode: str, got: bool) -> bool:
        k = self.k
        if got:
            td.spins.append(self)
            td.acquired[self.cls] += 1
            if (f := k.probe.lock_acquired) is not None:
                f(td, self, mode, TRY)
        else:
            td.contended[self.cls] += 1
            if (f := k.probe.lock_failed) is not None:
                f(td, self, mode, 0)
        return got

    @c("spin_unlock", "spinlock2.h:180-184")
    @c("spin_unlock_quick", "spinlock2.h:147-178")
    @holds("the lock, exclusively", "released")
    def unlock(self) -> None:
        """spin_unlock (spinlock2.h:181).  Raises Misuse unless the caller holds it exclusively."""
        k = self.k
        td = k.curthread()
        if self.owner is not td:
            self._wrong_release(td, "excl")
        if (p := k.point) is not None:
            p(RELEASE, self)
        if (f := k.probe.lock_release) is not None:
            f(td, self, "excl")
        if td.spins[-1] is self:
            td.spins.pop()
        else:
            td.spins.remove(self)
        self.owner = None  # a single store: the guard is not needed
        if k.point is not None:
            k.carrier.touched(self)

    # -- shared

    @c("spin_lock_shared", "spinlock2.h:65", uncalled=True)
    @c("_spin_lock_shared", "spinlock2.h:255-259")
    @c("_spin_lock_shared_quick", "spinlock2.h:191-219")
    @holds("not this lock", "the lock, shared")
    def lock_shared(self) -> None:
        """spin_lock_shared (spinlock2.h:256, kern_spinlock.c:268 if contested).

        Waits while the lock is held exclusively or an exclusive request waits.
        """
        k = self.k
        td = k.curthread()
        if (f := k.probe.lock_want) is not None:
            f(td, self, "shared")
        if self in td.spins:
            k.misuse("spin-recursion", f"{td} takes {self} again, shared")
        if (p := k.point) is not None:
            if not self._shareable():
                td.contended[self.cls] += 1
            td.waiting = self
            p(ACQUIRE_SHARED, self, ready=self._shareable)
            td.waiting = None
        if not self._take_shared():
            self._spin_shared(td)
        td.spins.append(self)
        td.acquired[self.cls] += 1
        if (f := k.probe.lock_acquired) is not None:
            f(td, self, "shared", WAIT)

    @c("_spin_lock_shared_quick", "spinlock2.h:200-205", part=True)
    @holds("", "on True the lock, shared")
    def _take_shared(self) -> bool:
        with self._guard:
            if self.owner is not None or self.exclwait:
                return False
            self.shared += 1
            return True

    @c("_spin_lock_shared_contested", "kern_spinlock.c:267-325")
    @holds("", "the lock, shared")
    def _spin_shared(self, td: Thread) -> None:
        """_spin_lock_shared_contested (kern_spinlock.c:267-325)."""
        k = self.k
        if k.point is None:
            td.contended[self.cls] += 1
        td.waiting = self
        if (f := k.probe.lock_block) is not None:
            f(td, self, "shared", 0)
        relax = k.carrier.relax
        while True:
            relax(self)
            if self._shareable() and self._take_shared():
                break
        td.waiting = None

    @own
    def trylock_shared(self) -> bool:
        """A shared request that does not wait (the C of this commit has none; for tests)."""
        k = self.k
        td = k.curthread()
        if (p := k.point) is not None:
            p(TRY_POINT, self)
        return self._tried(td, "shared", self not in td.spins and self._take_shared())

    @c("spin_unlock_shared", "spinlock2.h:261-265")
    @c("spin_unlock_shared_quick", "spinlock2.h:226-253")
    @holds("the lock, shared", "released")
    def unlock_shared(self) -> None:
        """spin_unlock_shared (spinlock2.h:262).

        Raises Misuse unless the caller holds it shared.
        """
        k = self.k
        td = k.curthread()
        if self.owner is td or self not in td.spins:
            self._wrong_release(td, "shared")
        if (p := k.point) is not None:
            p(RELEASE, self)
        if (f := k.probe.lock_release) is not None:
            f(td, self, "shared")
        td.spins.remove(self)
        with self._guard:
            self.shared -= 1
        if k.point is not None:
            k.carrier.touched(self)

    # -- questions

    def _not_exclusive(self) -> bool:
        return self.owner is None

    def _shareable(self) -> bool:
        return self.owner is None and not self.exclwait

    @own
    def can_lock(self) -> bool:
        """Would an exclusive request succeed at once?"""
        return self.owner is None and self.shared == 0

    @c("spin_held", "spinlock2.h:101-105", uncalled=True)
    def held(self) -> bool:
        """spin_held (spinlock2.h:102).

        Held in either mode, or requested exclusively, by any thread.
        """
        return self.owner is not None or self.shared > 0 or self.exclwait > 0

    @own
    def held_by(self, td: Thread) -> bool:
        """Does *td* hold it, in either mode?"""
        return self in td.spins

    @own
    def owners(self) -> list[Thread]:
        """The threads that hold it (for the waits-for graph; walks the threads if shared)."""
        if (owner := self.owner) is not None:
            return [owner]
        return [td for td in self.k.live_threads() if self in td.spins] if self.shared else []

    def _wrong_release(self, td: Thread, mode: str) -> None:
        holders = ", ".join(str(o) for o in self.owners()) or "nobody"
        self.k.misuse("wrong-release", f"{td} releases {self} ({mode}), which {holders} holds")


class SpinPool:
    """The pool that pages hash to (kern_spinlock.c:96-113): N locks, exclusive only.

    N is 8192 in the kernel.  Two pages may share a lock, so a thread that holds two page locks at
    once can deadlock against itself; N = 1 makes that certain.
    """

    def __init__(self, k: Kernel, size: int = 8192) -> None:
        self.k = k
        self.size = size
        self._locks: dict[int, Spinlock] = {}  # each created at first use
        self._guard = threading.Lock()

    @c("_spin_pool_hash", "kern_spinlock.c:330-338")
    def lock_of(self, index: int) -> Spinlock:
        """The lock that page number *index* hashes to."""
        slot = index % self.size
        lock = self._locks.get(slot)
        return self._make(slot) if lock is None else lock

    def _make(self, slot: int) -> Spinlock:
        with self._guard:
            lock = self._locks.get(slot)
            if lock is None:
                lock = self._locks[slot] = Spinlock(self.k, "page", f"pool+{slot}")
            return lock

    @c("spin_pool_lock", "spinlock2.h:67")
    @c("_spin_pool_lock", "kern_spinlock.c:340-347")
    @holds("no spinlock of the pool", "the pool spinlock of m")
    def lock(self, m: HasIdx) -> None:
        """spin_pool_lock (kern_spinlock.c:341)."""
        lock = self._locks.get(m.idx % self.size)
        if lock is None:
            lock = self.lock_of(m.idx)
        lock.lock()

    @own
    def trylock(self, m: HasIdx) -> bool:
        """The same without waiting."""
        return self.lock_of(m.idx).trylock()

    @c("spin_pool_unlock", "spinlock2.h:267-271")
    @c("_spin_pool_unlock", "kern_spinlock.c:349-356")
    @holds("the pool spinlock of m", "released")
    def unlock(self, m: HasIdx) -> None:
        """spin_pool_unlock (kern_spinlock.c:350)."""
        lock = self._locks.get(m.idx % self.size)
        if lock is None:
            lock = self.lock_of(m.idx)
        lock.unlock()

    @own
    def held_by(self, m: HasIdx, td: Thread) -> bool:
        """Does *td* hold the lock that *m* hashes to?"""
        return self.lock_of(m.idx).owner is td
