"""The kernel's locks as used by scenarios: all have ``lock``, ``trylock`` and ``unlock``.

``lock(timo=n)`` gives up after *n* ticks and returns False.  Time is virtual: it advances only when
no thread can run, so a timed wait fails only if its lock is not released before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.explore.scenario import rules
from smpvm.kern.errno import EWOULDBLOCK
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import (
    LK_DOWNGRADE,
    LK_EXCLUPGRADE,
    LK_EXCLUSIVE,
    LK_NOWAIT,
    LK_RELEASE,
    LK_SHARED,
    LK_TIMELOCK,
    LK_UPGRADE,
)
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel


def _poll(k: Kernel, lock: TimedSpinlock | TimedToken, timo: int) -> bool:
    """Try *lock* once per tick for *timo* ticks: spinlocks and tokens have no timed acquire."""
    rules.number("lock timo", timo)
    td = k.curthread()
    end = k.carrier.ticks() + timo
    while not lock.trylock():
        if k.carrier.ticks() >= end:
            return False
        if (f := k.probe.lock_block) is not None:
            f(td, lock, "excl", timo)
        k.sleep.tsleep(lock, 0, "timed lock", 1)
    return True


class TimedSpinlock(Spinlock):
    """A spinlock: must not be held while sleeping nor taken twice by one thread."""

    __slots__ = ()

    def lock(self, timo: int = 0) -> bool:  # type: ignore[override]  # only here can it fail
        """Exclusive.  With *timo* (ticks; no other spinlock may be held) False on timeout."""
        if timo:
            return _poll(self.k, self, timo)
        Spinlock.lock(self)
        return True


class TimedToken(Token):
    """An LWKT token: released while its thread is blocked; may be taken recursively."""

    __slots__ = ()

    def lock(self, timo: int = 0) -> bool:
        """``get``.  With *timo* (ticks) False on timeout."""
        if timo:
            return _poll(self.k, self, timo)
        self.get()
        return True

    def trylock(self) -> bool:
        """``try_``: without waiting."""
        return self.try_()

    def unlock(self) -> None:
        """``release``: releases the token taken last."""
        self.release()


class Lockmgr(Lock):
    """A lockmgr lock: waiting threads sleep; it may be held while sleeping."""

    __slots__ = ()

    def lock(self, timo: int = 0) -> bool:
        """Exclusive.  With *timo* (ticks) False on timeout."""
        return self._take(LK_EXCLUSIVE, timo)

    def lock_shared(self, timo: int = 0) -> bool:
        """Shared."""
        return self._take(LK_SHARED, timo)

    def _take(self, mode: int, timo: int) -> bool:
        if timo:
            rules.number("lock timo", timo)
            return self.lockmgr(mode | LK_TIMELOCK, timo) != EWOULDBLOCK
        return self.lockmgr(mode) == 0

    def trylock(self) -> bool:
        """Exclusive, without waiting."""
        return self.lockmgr(LK_EXCLUSIVE | LK_NOWAIT) == 0

    def unlock(self) -> None:
        """Release it."""
        self.lockmgr(LK_RELEASE)


class RwLock(Lockmgr):
    """Many readers or one writer; a lockmgr lock with other method names."""

    __slots__ = ()

    def read(self, timo: int = 0) -> bool:
        """Shared: waits for a writer, and behind waiting writers."""
        return self.lock_shared(timo)

    def write(self, timo: int = 0) -> bool:
        """Exclusive.  A thread that holds it for reading would deadlock: use ``upgrade``."""
        return self.lock(timo)

    def try_read(self) -> bool:
        """Shared, without waiting."""
        return self.lockmgr(LK_SHARED | LK_NOWAIT) == 0

    def try_write(self) -> bool:
        """Exclusive, without waiting."""
        return self.trylock()

    def upgrade(self) -> None:
        """From reading to writing; waits for the other readers.

        If two readers upgrade, one writes first: the other must read the data again.
        """
        self.lockmgr(LK_UPGRADE)

    def try_upgrade(self) -> bool:
        """The same, but if another upgrade is waiting, release the lock and return False."""
        return self.lockmgr(LK_EXCLUPGRADE) == 0

    def downgrade(self) -> None:
        """From writing to reading, without letting a writer in between."""
        self.lockmgr(LK_DOWNGRADE)

    def release(self) -> None:
        """Release it, in whichever mode it is held."""
        self.unlock()
