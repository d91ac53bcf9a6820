"""The kernel's locks as scenarios take them: all have ``lock``, ``trylock`` and ``unlock``.

``lock(timo=n)`` gives up after *n* ticks and says so: it returns False.  Time is virtual: it moves
only when no thread can run, so a timed wait fails only if its lock is not given back before that.
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
    """Try *lock* once a tick, *timo* ticks long: neither spinlocks nor tokens have timers."""
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
    """A spinlock: never held while sleeping, never taken twice by one thread."""

    __slots__ = ()

    def lock(self, timo: int = 0) -> bool:  # type: ignore[override]  # only here it can fail
        """Exclusively.  With *timo* (ticks; no other spinlock may be held) False if in vain."""
        if timo:
            return _poll(self.k, self, timo)
        Spinlock.lock(self)
        return True


class TimedToken(Token):
    """An LWKT token: a thread that blocks gives it up meanwhile, and may take it twice."""

    __slots__ = ()

    def lock(self, timo: int = 0) -> bool:
        """``get``.  With *timo* (ticks) False if in vain."""
        if timo:
            return _poll(self.k, self, timo)
        self.get()
        return True

    def trylock(self) -> bool:
        """``try_``: without waiting."""
        return self.try_()

    def unlock(self) -> None:
        """``release``: the token taken last."""
        self.release()


class Lockmgr(Lock):
    """A lockmgr lock: who waits sleeps; may be held while sleeping."""

    __slots__ = ()

    def lock(self, timo: int = 0) -> bool:
        """Exclusively.  With *timo* (ticks) False if in vain."""
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
        """Exclusively, if that needs no wait."""
        return self.lockmgr(LK_EXCLUSIVE | LK_NOWAIT) == 0

    def unlock(self) -> None:
        """Give it back."""
        self.lockmgr(LK_RELEASE)


class RwLock(Lockmgr):
    """Many readers or one writer; a lockmgr lock by other names."""

    __slots__ = ()

    def read(self, timo: int = 0) -> bool:
        """Shared: waits for a writer, and behind writers that wait."""
        return self.lock_shared(timo)

    def write(self, timo: int = 0) -> bool:
        """Exclusively.  A thread that has it for reading waits for itself: use ``upgrade``."""
        return self.lock(timo)

    def try_read(self) -> bool:
        """Shared, if that needs no wait."""
        return self.lockmgr(LK_SHARED | LK_NOWAIT) == 0

    def try_write(self) -> bool:
        """Exclusively, if that needs no wait."""
        return self.trylock()

    def upgrade(self) -> None:
        """From reading to writing; waits for the other readers.

        Of two readers that upgrade one writes first: the other must look again at what it read.
        """
        self.lockmgr(LK_UPGRADE)

    def try_upgrade(self) -> bool:
        """The same unless another upgrade waits: then False, and the lock is given back."""
        return self.lockmgr(LK_EXCLUPGRADE) == 0

    def downgrade(self) -> None:
        """From writing to reading, without letting a writer in between."""
        self.lockmgr(LK_DOWNGRADE)

    def release(self) -> None:
        """Give it back, however it was taken."""
        self.unlock()
