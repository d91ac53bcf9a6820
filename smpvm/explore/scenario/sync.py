"""Condition variables, semaphores and barriers.

They behave like code made of the kernel's spinlocks and tsleep: a thread that waits must hold no
spinlock.  All waits take *timo* in ticks (0: no limit) and return False on timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from smpvm.explore.scenario import rules
from smpvm.host.carrier import ACQUIRE, ACQUIRE_SHARED, COUNTED, RELEASE, TRY
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
    """What semaphores and barriers have in common.

    Under a scheduler a wait is one step, taken when it is over, as an acquire of a lock is: whether
    the thread slept meanwhile makes no difference to anybody.  On free-running threads it is a
    spinlock and a condition variable.
    """

    __slots__ = ("_changed", "_guard", "_waiters", "k", "name")
    kind = cls = ""
    under = None

    def __init__(self, k: Kernel, kind: str, name: str) -> None:
        self.k = k
        self.name = name
        self._guard = Spinlock(k, f"{kind} {name}")
        self._changed = Condvar(k, name)
        self._waiters = 0

    def owners(self) -> list[Thread]:
        """As the waits-for graph asks: anybody may end the wait."""
        return []

    def _enter(self) -> None:
        td = self.k.curthread()
        if td.spins:  # even if there is nothing to wait for
            self.k.misuse("sleep-with-spinlock", f"{td} waits on {self}, holding {td.spins[-1]}")

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

    def _ordered(self, obj: Any, old: int, new: int) -> None:
        """Whoever changes *obj* and whoever sees it later are ordered."""
        if (f := self.k.probe.atomic) is not None:
            f(self.k.curthread(), obj, "count", old, new)


class Semaphore(_Monitor):
    """A counting semaphore: *count* threads can acquire it before one must wait."""

    __slots__ = ("count",)
    kind = cls = COUNTED

    def __init__(self, k: Kernel, name: str, n: int) -> None:
        super().__init__(k, "semaphore", name)
        self.count = n

    def __str__(self) -> str:
        return f"semaphore {self.name}"

    def _free(self) -> bool:
        return self.count > 0

    def _take(self) -> bool:
        """Count down in the running step, if that is possible."""
        got = self.count > 0
        if got:
            self.count -= 1
            self._ordered(self, self.count + 1, self.count)
        return got

    def acquire(self, timo: int = 0) -> bool:
        """Decrement the count; waits while it is 0."""
        rules.number("acquire timo", timo)
        self._enter()
        if (p := self.k.point) is None:
            with self._guarded():
                got = self._await(self._free, timo)
                self.count -= got
            return got
        if timo:
            return self._acquire_timed(timo)
        td = self.k.curthread()
        td.waiting = self
        p(ACQUIRE, self, ready=self._free)
        td.waiting = None
        return self._take()

    def _acquire_timed(self, timo: int) -> bool:
        """Under a scheduler: look, and in the same step fall asleep."""
        sleep, ticks = self.k.sleep, self.k.carrier.ticks
        end = ticks() + timo
        while not self.try_acquire():
            if (left := end - ticks()) <= 0:
                return False
            sleep.tsleep_interlock(self, step=False)
            sleep.tsleep(self, PINTERLOCKED, self.name, left, self._free, step=False)
        return True

    def try_acquire(self) -> bool:
        """Decrement the count unless it is 0.  Does not wait; spinlocks may be held."""
        if (p := self.k.point) is not None:
            p(TRY, self)
            return self._take()
        with self._guarded():
            got = self.count > 0
            self.count -= got
        return got

    def release(self) -> None:
        """Increment the count and wake one waiter.  From any thread; spinlocks may be held."""
        if (p := self.k.point) is not None:
            p(RELEASE, self)
            self.count += 1
            self._ordered(self, self.count - 1, self.count)
            self.k.carrier.touched(self)
            self.k.sleep.wakeup(self, step=False)  # threads with a timer, which look again
            return
        with self._guarded():
            self.count += 1
            if self._waiters:
                self._changed.signal()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        self._guard.lock()
        yield
        self._guard.unlock()


class _Round:
    """One use of a barrier: over when the last has come."""

    __slots__ = ("barrier", "over")
    kind = cls = "barrier"
    under = owner = None

    def __init__(self, barrier: Barrier) -> None:
        self.barrier = barrier
        self.over = False

    def __str__(self) -> str:
        return str(self.barrier)

    def owners(self) -> list[Thread]:
        """As the waits-for graph asks: whoever has not come is not known."""
        return []

    def is_over(self) -> bool:
        """May those who wait go on?"""
        return self.over


class Barrier(_Monitor):
    """Lets threads continue when *n* of them have arrived; then it starts over."""

    __slots__ = ("_come", "_round", "n")
    kind = cls = "barrier"

    def __init__(self, k: Kernel, name: str, n: int) -> None:
        super().__init__(k, "barrier", name)
        self.n = n
        self._come = 0
        self._round = _Round(self)

    def __str__(self) -> str:
        return f"barrier {self.name}"

    def wait(self) -> bool:
        """Wait for the others; True in the thread that arrived last."""
        self._enter()
        if (p := self.k.point) is None:
            self._guard.lock()
            mine = self._round
            if not (last := self._came()):
                self._await(mine.is_over, 0)
            self._guard.unlock()
            return last
        p(RELEASE, self)
        mine = self._round
        self._ordered(self, 0, 1)
        if self._came():
            self._ordered(mine, 0, 1)
            self.k.carrier.touched(mine)
            return True
        td = self.k.curthread()
        td.waiting = mine
        p(ACQUIRE_SHARED, mine, ready=mine.is_over)
        td.waiting = None
        self._ordered(mine, 1, 1)
        return False

    def _came(self) -> bool:
        """One more has come; is it the last?"""
        self._come += 1
        if self._come < self.n:
            return False
        self._come = 0
        self._round.over = True
        self._round = _Round(self)
        if self.k.point is None:
            self._changed.broadcast()
        return True
