"""Condition variables, semaphores and barriers, made of the kernel's spinlocks and tsleep.

So they behave like the same code in a kernel: the checkers see their locks and sleeps, a thread
that sleeps releases its tokens, and it must hold no spinlock.  All waits take *timo* in ticks (0:
no limit) and return False on timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from smpvm.explore.scenario import rules
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RELEASE, LK_SHARED
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token
from smpvm.kern.tsleep import PINTERLOCKED

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

Take = Callable[[], object]


class Condvar:
    """A condition variable (kern_condvar.c).  A signal is lost if no thread is waiting."""

    __slots__ = ("k", "name")

    def __init__(self, k: Kernel, name: str) -> None:
        self.k = k
        self.name = name

    def __str__(self) -> str:
        return f"condvar {self.name}"

    def wait(self, lock: Any, timo: int = 0, cond: Callable[[], bool] | None = None) -> bool:
        """cv_wait, cv_timedwait: atomically release *lock* and sleep; then take *lock* again.

        *lock*: a spinlock, token, lockmgr or reader/writer lock that the caller holds, in either
        mode (else Misuse, ``condvar-unlocked``).  *cond* tells the checkers the condition.
        Returns False on timeout.  The caller must recheck its condition in any case.
        """
        rules.number("wait timo", timo)
        rules.condition("wait", cond)
        k = self.k
        td = k.curthread()
        if isinstance(lock, Token):  # tsleep releases it, like all tokens of the thread
            if not lock.held_by(td):
                self._unlocked(td, lock)
            return k.sleep.tsleep(self, 0, self.name, timo, cond) == 0
        give, take = self._of(lock, td)
        k.sleep.tsleep_interlock(self)
        give()
        error = k.sleep.tsleep(self, PINTERLOCKED, self.name, timo, cond)
        take()
        return error == 0

    def _of(self, lock: Any, td: Thread) -> tuple[Take, Take]:
        """How to release *lock*, and how to take it again in its current mode."""
        if not isinstance(lock, Spinlock | Lock):
            raise rules.Refused(f"condvar {self.name}: {lock!r} is not a lock to wait with")
        if not lock.held_by(td):
            self._unlocked(td, lock)
        if isinstance(lock, Lock):
            mode = LK_EXCLUSIVE if lock.holder is td else LK_SHARED
            return partial(lock.lockmgr, LK_RELEASE), partial(lock.lockmgr, mode)
        if lock.owner is td:
            return lock.unlock, lock.lock
        return lock.unlock_shared, lock.lock_shared

    def _unlocked(self, td: Thread, lock: Any) -> None:
        self.k.misuse("condvar-unlocked", f"{td} waits on {self} without holding {lock}")

    def signal(self) -> None:
        """cv_signal: wake the longest waiter, if there is one."""
        self.k.sleep.wakeup_one(self)

    def broadcast(self) -> None:
        """cv_broadcast: wake all waiters."""
        self.k.sleep.wakeup(self)


class _Monitor:
    """A spinlock and a condition variable for the state of subclasses."""

    __slots__ = ("_changed", "_guard", "_waiters", "k", "name")

    def __init__(self, k: Kernel, kind: str, name: str) -> None:
        self.k = k
        self.name = name
        self._guard = Spinlock(k, f"{kind} {name}")
        self._changed = Condvar(k, name)
        self._waiters = 0

    def _enter(self) -> None:
        td = self.k.curthread()
        if td.spins:  # even if there is nothing to wait for
            self.k.misuse("sleep-with-spinlock", f"{td} waits on {self}, holding {td.spins[-1]}")
        self._guard.lock()

    def _await(self, cond: Callable[[], bool], timo: int) -> bool:
        """Sleep until *cond*; the guard is held on entry and return, released while asleep."""
        ticks = self.k.carrier.ticks
        end = ticks() + timo
        while not cond():
            if timo and ticks() >= end:
                return False
            self._waiters += 1
            self._changed.wait(self._guard, end - ticks() if timo else 0, cond)
            self._waiters -= 1
        return True


class Semaphore(_Monitor):
    """A counting semaphore: *count* threads can acquire it before one must wait."""

    __slots__ = ("count",)

    def __init__(self, k: Kernel, name: str, n: int) -> None:
        super().__init__(k, "semaphore", name)
        self.count = n

    def __str__(self) -> str:
        return f"semaphore {self.name}"

    def acquire(self, timo: int = 0) -> bool:
        """Decrement the count; waits while it is 0."""
        rules.number("acquire timo", timo)
        self._enter()
        got = self._await(lambda: self.count > 0, timo)
        self.count -= got
        self._guard.unlock()
        return got

    def try_acquire(self) -> bool:
        """Decrement the count unless it is 0.  Does not wait; spinlocks may be held."""
        self._guard.lock()
        got = self.count > 0
        self.count -= got
        self._guard.unlock()
        return got

    def release(self) -> None:
        """Increment the count and wake one waiter.  From any thread; spinlocks may be held."""
        self._guard.lock()
        self.count += 1
        if self._waiters:
            self._changed.signal()
        self._guard.unlock()


class Barrier(_Monitor):
    """Lets threads continue when *n* of them have arrived; then it starts over."""

    __slots__ = ("_come", "_round", "n")

    def __init__(self, k: Kernel, name: str, n: int) -> None:
        super().__init__(k, "barrier", name)
        self.n = n
        self._come = 0
        self._round = 0

    def __str__(self) -> str:
        return f"barrier {self.name}"

    def wait(self) -> bool:
        """Wait for the others; True in the thread that arrived last."""
        self._enter()
        mine = self._round
        self._come += 1
        last = self._come == self.n
        if last:
            self._come = 0
            self._round += 1
            self._changed.broadcast()
        else:
            self._await(lambda: self._round != mine, 0)
        self._guard.unlock()
        return last
