"""Reference counts (sys/refcount.h, kern_refcount.c) on a field of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from smpvm.kern.clock import i32
from smpvm.kern.cname import c, holds
from smpvm.kern.tsleep import PINTERLOCKED, Addr

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel

REFCNTF_WAITING: Final = 0x40000000
"""Set in the count while a thread sleeps until it drops to zero."""


class Refcounts:
    """The refcount_* functions; *obj*.*field* is the counter (an u_int in the C)."""

    def __init__(self, k: Kernel) -> None:
        self.k = k

    @c("refcount_init", "refcount.h:42-46", uncalled=True)
    def init(self, obj: Any, field: str, value: int) -> None:
        """refcount_init (refcount.h:43)."""
        setattr(obj, field, value)

    @c("refcount_acquire", "refcount.h:48-52", uncalled=True)
    def acquire(self, obj: Any, field: str) -> None:
        """refcount_acquire (refcount.h:49)."""
        self.k.atomic.add_int(obj, field, 1)

    @c("refcount_acquire_n", "refcount.h:54-58", uncalled=True)
    def acquire_n(self, obj: Any, field: str, n: int) -> None:
        """refcount_acquire_n (refcount.h:55)."""
        self.k.atomic.add_int(obj, field, n)

    @c("refcount_release", "refcount.h:60-64", uncalled=True)
    def release(self, obj: Any, field: str) -> bool:
        """refcount_release (refcount.h:61): True for the last one.  No wakeup."""
        return self.k.atomic.fetchadd_int(obj, field, -1) == 1

    @c("refcount_release_n", "refcount.h:66-70", uncalled=True)
    def release_n(self, obj: Any, field: str, n: int) -> bool:
        """refcount_release_n (refcount.h:67)."""
        return self.k.atomic.fetchadd_int(obj, field, -n) == n

    @c("refcount_release_wakeup", "refcount.h:83-90", uncalled=True)
    def release_wakeup(self, obj: Any, field: str) -> bool:
        """refcount_release_wakeup (refcount.h:84): True for the last one; wakes ``wait``."""
        return self.release_wakeup_n(obj, field, 1)

    @c("refcount_release_wakeup_n", "refcount.h:92-99")
    @c("_refcount_release_wakeup_n", "kern_refcount.c:102-123")
    def release_wakeup_n(self, obj: Any, field: str, n: int) -> bool:
        """refcount_release_wakeup_n (refcount.h:93, kern_refcount.c:103).  *n* is not 0."""
        k = self.k
        old = getattr(obj, field) & ~REFCNTF_WAITING
        if k.atomic.cmpset_int(obj, field, old, old - n):
            return bool(old == n)
        while True:
            old = getattr(obj, field)
            if old == REFCNTF_WAITING | n:
                if k.atomic.cmpset_int(obj, field, old, 0):
                    k.sleep.wakeup(Addr(obj, field))
                    return True
            else:
                k.kassert(old != REFCNTF_WAITING, "refcount-illegal")
                if k.atomic.cmpset_int(obj, field, old, old - n):
                    return bool(old == n)

    @c("refcount_wait", "refcount.h:107-112", blocks=True)
    @c("_refcount_wait", "kern_refcount.c:64-85")
    @holds("no spinlock", "")
    def wait(self, obj: Any, field: str, wmesg: str) -> None:
        """refcount_wait (refcount.h:108, kern_refcount.c:65): sleep until the count is zero.

        Blocks.  The timeout of ten seconds only makes it test the count again.
        """
        k = self.k
        if not getattr(obj, field):
            return
        base = k.clock.ticks()
        ident = Addr(obj, field)
        while n := getattr(obj, field):
            if i32(k.clock.ticks() - base) >= k.hz * 60 - 1:
                if (f := k.probe.call) is not None:
                    f(k.curthread(), "kprintf", code="refcount-long-wait", wmesg=wmesg)
                base = k.clock.ticks()
            k.kassert(n != REFCNTF_WAITING, "refcount-illegal")
            k.sleep.tsleep_interlock(ident)
            if k.atomic.cmpset_int(obj, field, n, n | REFCNTF_WAITING):
                k.sleep.tsleep(
                    ident, PINTERLOCKED, wmesg, k.hz * 10, lambda: not getattr(obj, field)
                )
