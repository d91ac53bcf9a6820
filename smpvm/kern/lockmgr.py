"""lockmgr locks (kern_lock.c): sleeping locks, exclusive or shared, that can be converted.

One word holds the state and is changed by compare-and-set, as in the C; waiters sleep on the lock.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from smpvm.kern.cname import c, holds, own
from smpvm.kern.errno import EBUSY, ENOLCK
from smpvm.kern.lockreq import (
    KEEPS_OUT,
    LK_CANRECURSE,
    LK_EXCLOTHER,
    LK_EXCLUPGRADE,
    LK_EXCLUSIVE,
    LK_EXTFLG_MASK,
    LK_NOWAIT,
    LK_PCATCH,
    LK_RELEASE,
    LK_SHARED,
    LK_SLEEPFAIL,
    LK_TYPE_MASK,
    LK_UPGRADE,
    LK_WAITUPGRADE,
    LKC_EXCL,
    LKC_EXREQ,
    LKC_MASK,
    LKC_SHREQ,
    LKC_UPGRANT,
    LKC_UPREQ,
    Request,
    keeps_out,
    mode_of,
    step,
)
from smpvm.kern.order import Ordered
from smpvm.kern.probe import TIMED, TRY, WAIT
from smpvm.kern.thread import TDF_DEADLKTREAT
from smpvm.kern.tsleep import PCATCH, PINTERLOCKED

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

_WANTS: Final = (LK_SHARED, LK_EXCLUSIVE, LK_UPGRADE, LK_EXCLUPGRADE)


class Lock(Ordered):
    """struct lock.  *timo*, in ticks, is used for LK_TIMELOCK; *wmesg* names the sleep.

    *meant* is the reason why a timed wait for it may be part of a deadlock, which the timer breaks.
    """

    __slots__ = ("_guard", "canrecurse", "count", "holder", "meant", "timo", "wmesg")

    kind, noun = "lockmgr", "lock"

    @c("lockinit", "kern_lock.c:741-749")
    def __init__(
        self,
        k: Kernel,
        cls: str,
        name: str = "",
        timo: int = 0,
        canrecurse: bool = False,
        wmesg: str = "",
        *,
        subclass: int = 0,
        under: Any = None,
        meant: str = "",
    ) -> None:
        super().__init__(k, cls, name, subclass=subclass, under=under)
        self.meant = meant
        self.timo = timo
        self.canrecurse = canrecurse
        self.wmesg = wmesg or cls
        self.count = 0  # lk_count
        self.holder: Thread | None = None  # lk_lockholder: the exclusive holder
        self._guard = threading.Lock()

    # -- the call

    @c("lockmgr", "kern_lock.c:83-655", blocks=True)
    @holds(
        "as the request wants; no spinlock unless NOWAIT, RELEASE or DOWNGRADE",
        "as the request says",
    )
    def lockmgr(self, flags: int, timo: int = 0) -> int:
        """lockmgr (kern_lock.c:83-655): acquire, convert or release the lock.

        *timo* (ticks) replaces the lock's own with LK_TIMELOCK; the C has only that.

        Blocks unless LK_NOWAIT (no spinlock may be held; tokens are released while asleep).
        Returns 0, EBUSY (NOWAIT, or EXCLUPGRADE behind another upgrade), EWOULDBLOCK (TIMELOCK
        timed out), ENOLCK (SLEEPFAIL slept); a failed upgrade has released the shared lock.  Raises
        Misuse for recursion, for a release by a thread that does not hold it, and for a wait with a
        spinlock held.
        """
        k = self.k
        td = k.curthread()
        kind = flags & LK_TYPE_MASK
        ext = flags & LK_EXTFLG_MASK | (LK_CANRECURSE if self.canrecurse else 0)
        if td.spins and kind in _WANTS and not flags & LK_NOWAIT:
            k.misuse("sleep-with-spinlock", f"{td} locks {self} with {td.spins[-1]} held")
        if kind in (LK_SHARED, LK_EXCLUSIVE) and not flags & LK_NOWAIT:
            self._want(td, kind)
        r = Request(td, kind, ext, timo or self.timo)
        error = 0
        if k.point is not None or not self._quick(td, kind):
            while (turn := self._turn(r)) is None:
                pass
            error = turn
        if kind != LK_RELEASE:
            self._report(r, kind, error)
        return error

    @c("lockmgr", "kern_lock.c:141-148,234-242", part=True)
    @holds("", "on True the lock held")
    def _quick(self, td: Thread, kind: int) -> bool:
        """The fast paths of LK_EXCLUSIVE and LK_SHARED: one compare-and-set."""
        count = self.count
        if kind == LK_EXCLUSIVE:
            return count == 0 and self._cas_holder(0, LKC_EXCL | 1, td)
        return kind == LK_SHARED and not count & KEEPS_OUT and self._cas(count, count + 1)

    def _want(self, td: Thread, kind: int) -> None:
        if (f := self.k.probe.lock_want) is not None:
            f(td, self, mode_of(kind))

    @c("lockmgr", "kern_lock.c:132-653", part=True, blocks=True)
    @holds("as the request wants", "as the request says")
    def _turn(self, r: Request) -> int | None:
        """One iteration of the C's retry loop: an error number, 0 if done, None to retry."""
        if (p := self.k.point) is not None:
            step(p, self, r)
        match r.type:
            case 0x1:
                return self._shared(r)
            case 0x2:
                return self._exclusive(r)
            case 0x3 | 0x4:
                return self._upgrade(r)
            case 0x5:
                return self._downgrade(r)
            case 0x6:
                return self._release(r)
            case 0x7:
                return self._waitupgrade(r)
            case _:
                self.k.panic("lockmgr-request", f"unknown request {r.type}")

    def _cas(self, old: int, new: int) -> bool:
        with self._guard:
            if self.count != old:
                return False
            self.count = new
        if self.k.point is not None:
            self.k.carrier.touched(self)
        return True

    def _cas_holder(self, old: int, new: int, holder: Thread | None) -> bool:
        """The compare-and-set together with the matching change of lk_lockholder."""
        with self._guard:
            if self.count != old:
                return False
            self.count = new
            self.holder = holder
        if self.k.point is not None:
            self.k.carrier.touched(self)
        return True

    @c("lockmgr", "kern_lock.c:204-217", part=True, blocks=True)
    @holds("tsleep_interlock called; no spinlock", "")
    def _block(self, r: Request) -> int:
        """The tsleep of every case, after tsleep_interlock.  Returns its error."""
        k = self.k
        timo = r.timo
        if not r.blocked:
            r.blocked = True
            r.td.contended[self.cls] += 1
            if (f := k.probe.lock_block) is not None:
                f(r.td, self, mode_of(r.type), timo)
        flags = PINTERLOCKED | (PCATCH if r.ext & LK_PCATCH else 0)
        wants = r.type
        cond = partial(self._grantable, wants, r.td)
        error = k.sleep.tsleep(self, flags, self.wmesg, timo, cond, step=False)
        return error or (ENOLCK if r.ext & LK_SLEEPFAIL else 0)

    @c("lockmgr", "kern_lock.c:160-172,247-259", part=True)
    @holds("the lock, exclusively", "once more")
    def _recurse(self, r: Request, count: int) -> int:
        """The caller already holds the lock exclusively and requests it again."""
        k = self.k
        k.kassert(count & LKC_EXCL, "lockmgr-holder")
        if not r.ext & LK_CANRECURSE:
            if r.ext & LK_NOWAIT:
                return EBUSY
            k.misuse("lock-recursion", f"{r.td} locks {self} against itself")
        with self._guard:
            self.count += 1
        return 0

    # -- one method for each request

    @c("lockmgr", "kern_lock.c:137-228", part=True, blocks=True)
    @holds("no spinlock unless NOWAIT", "on 0 the lock shared")
    def _shared(self, r: Request) -> int | None:
        """LK_SHARED (kern_lock.c:137-228): waits behind exclusive and upgrade requests.

        A thread with TDF_DEADLKTREAT does not: only an exclusive holder blocks it.
        """
        count = self.count
        if not count & keeps_out(r.td):
            return 0 if self._cas(count, count + 1) else None
        if self.holder is r.td:
            return self._recurse(r, count)
        if r.ext & LK_NOWAIT:
            return EBUSY
        # Interlock first, then set the request bit: once it is set a release calls wakeup().
        self.k.sleep.tsleep_interlock(self, step=False)
        if not self._cas(count, count | LKC_SHREQ):
            return None
        return self._block(r) or None

    @c("lockmgr", "kern_lock.c:230-304", part=True, blocks=True)
    @holds("no spinlock unless NOWAIT", "on 0 the lock exclusively")
    def _exclusive(self, r: Request) -> int | None:
        """LK_EXCLUSIVE (kern_lock.c:230-304)."""
        count = self.count
        if count == 0:
            return 0 if self._cas_holder(0, LKC_EXCL | 1, r.td) else None
        if self.holder is r.td:
            return self._recurse(r, count)
        if r.ext & LK_NOWAIT:
            return EBUSY
        self.k.sleep.tsleep_interlock(self, step=False)
        if not self._cas(count, count | LKC_EXREQ):
            return None
        return self._block(r) or None

    @c("lockmgr", "kern_lock.c:306-340", part=True)
    @holds("the lock, exclusively, once", "the lock shared")
    def _downgrade(self, r: Request) -> int | None:
        """LK_DOWNGRADE (kern_lock.c:306-340): exclusive to shared; wakes shared requests."""
        count = self.count
        if self.holder is not r.td or count & (LKC_EXCL | LKC_MASK) != LKC_EXCL | 1:
            self.k.misuse("wrong-release", f"{r.td} downgrades {self} without holding it")
        if not self._cas_holder(count, count & ~(LKC_EXCL | LKC_SHREQ), None):
            return None
        if count & LKC_SHREQ:
            self.k.sleep.wakeup(self, step=False)
        return 0

    @c("lockmgr", "kern_lock.c:342-464", part=True, blocks=True)
    @holds(
        "the lock shared; no spinlock unless NOWAIT",
        "on 0 the lock exclusively; an error: unlocked",
    )
    def _upgrade(self, r: Request) -> int | None:
        """LK_UPGRADE, LK_EXCLUPGRADE (kern_lock.c:342-464): shared to exclusive.

        Other threads may get the lock in between; EXCLUPGRADE fails instead.
        """
        k, count = self.k, self.count
        if r.type == LK_EXCLUPGRADE and count & LKC_UPREQ:
            return self._give_up(r)
        if count & (LKC_UPREQ | LKC_EXCL | LKC_MASK) == 1:
            return 0 if self._cas_holder(count, count | LKC_EXCL, r.td) else None
        if count & LKC_EXCL and self.holder is r.td:
            return 0
        if count & LKC_EXCL or not count & LKC_MASK:
            k.misuse("wrong-release", f"{r.td} upgrades {self} without holding it")
        if r.ext & LK_NOWAIT:
            return self._give_up(r)
        k.sleep.tsleep_interlock(self, step=False)
        mine = LKC_EXREQ if count & LKC_UPREQ else LKC_UPREQ
        last = count & (LKC_UPREQ | LKC_MASK) == LKC_UPREQ | 1
        if last:  # the earlier upgrade request gets the lock
            new = (count | mine | LKC_EXCL | LKC_UPGRANT) & ~LKC_UPREQ
        else:
            new = (count - 1) | mine
        if not self._cas(count, new):
            return None
        self._told(r, "shared")
        self._forget(r.td)
        self._want(r.td, LK_EXCLUSIVE)
        if last:
            self.k.sleep.wakeup(self, step=False)
        if error := self._block(r):
            return error
        r.type = LK_EXCLUSIVE if count & LKC_UPREQ else LK_WAITUPGRADE
        return None

    @c("lockmgr", "kern_lock.c:351-355,397-401", part=True)
    @holds("the lock shared", "unlocked")
    def _give_up(self, r: Request) -> int:
        """An upgrade that may not wait: release the lock and return EBUSY."""
        while self._release(r) is None:
            pass
        return EBUSY

    @c("lockmgr", "kern_lock.c:466-513", part=True, blocks=True)
    @holds("LKC_UPREQ is the caller's", "on 0 the lock exclusively")
    def _waitupgrade(self, r: Request) -> int | None:
        """LK_WAITUPGRADE (kern_lock.c:466-513): LKC_UPREQ is ours; wait for LKC_UPGRANT."""
        count = self.count
        if count & LKC_UPGRANT:
            self.k.kassert(count & LKC_EXCL, "lockmgr-upgrant")
            return 0 if self._cas_holder(count, count & ~LKC_UPGRANT, r.td) else None
        self.k.sleep.tsleep_interlock(self, step=False)
        if self._cas(count, count) and (error := self._block(r)):
            self._undo_upreq(r)
            return error
        return None

    @c("undo_upreq", "kern_lock.c:660-722")
    @holds("LKC_UPREQ is the caller's", "released")
    def _undo_upreq(self, r: Request) -> None:
        """undo_upreq (kern_lock.c:660-722): withdraw an upgrade request, granted or not."""
        k = self.k
        while True:
            count = self.count
            if count & LKC_UPGRANT:
                if self._cas_holder(count, count & ~LKC_UPGRANT, r.td):
                    r.td.locks.append(self)
                    r.let_go = True
                    while self._release(r) is None:
                        pass
                    return
                continue
            k.kassert(count & LKC_UPREQ and count & LKC_MASK, "lockmgr-upreq")
            new = count & ~LKC_UPREQ
            if not count & (LKC_EXCL | LKC_EXREQ):
                new &= ~LKC_SHREQ
            if self._cas(count, new):
                if count & LKC_EXCL or (not count & LKC_EXREQ and count & LKC_SHREQ):
                    self.k.sleep.wakeup(self, step=False)
                return

    @c("lockmgr", "kern_lock.c:515-626", part=True)
    @holds("the lock, either mode", "released once")
    def _release(self, r: Request) -> int | None:
        """LK_RELEASE (kern_lock.c:515-626): grant a pending upgrade, else wake the requests."""
        k, td, count = self.k, r.td, self.count
        if not count & LKC_MASK or self not in td.locks:
            k.misuse("wrong-release", f"{td} releases {self}, which it does not hold")
        if count & LKC_EXCL and self.holder is not td:
            k.misuse("wrong-release", f"{td} releases {self}, which {self.holder} holds")
        self._told(r, "excl" if count & LKC_EXCL else "shared")
        requests = LKC_EXREQ | LKC_SHREQ
        match count & (LKC_UPREQ | LKC_MASK):
            case 1:  # the last holder
                if not self._cas_holder(count, (count - 1) & ~(LKC_EXCL | requests), None):
                    return None
                wake = bool(count & requests)
            case n if n == LKC_UPREQ | 1:
                new = (count & ~LKC_UPREQ) | LKC_EXCL | LKC_UPGRANT
                if not self._cas_holder(count, new, None):
                    return None
                wake = True
            case _:
                if not self._cas(count, count - 1):
                    return None
                wake = False
        self._forget(td)
        if wake:
            self.k.sleep.wakeup(self, step=False)
        return 0

    def _told(self, r: Request, mode: str) -> None:
        """Report a release to the probe once, however often it is retried."""
        if not r.let_go and (f := self.k.probe.lock_release) is not None:
            f(r.td, self, mode)
        r.let_go = True

    def _forget(self, td: Thread) -> None:
        for i in range(len(td.locks) - 1, -1, -1):
            if td.locks[i] is self:
                del td.locks[i]
                return

    def _report(self, r: Request, kind: int, error: int) -> None:
        """Report the result of the request to the probe, and update td.locks."""
        k, td = self.k, r.td
        how = TIMED if r.timo else WAIT
        if r.ext & LK_NOWAIT or (kind == LK_SHARED and td.flags & TDF_DEADLKTREAT):
            how = TRY
        if error:
            if not r.blocked:
                td.contended[self.cls] += 1
            if (f := k.probe.lock_failed) is not None:
                f(td, self, mode_of(kind), error)
            return
        mode = "excl" if self.holder is td else "shared"
        if kind in (LK_SHARED, LK_EXCLUSIVE) or r.let_go:
            td.locks.append(self)
            td.acquired[self.cls] += 1
            if (f := k.probe.lock_acquired) is not None:
                f(td, self, mode, how)
            return
        if (f := k.probe.lock_converted) is not None:
            f(td, self, mode)

    # -- questions

    @own
    def not_exclusive(self) -> bool:
        """Would an exclusive request get it, or block shared ones until it does?"""
        return not self.count & LKC_EXCL

    @own
    def shareable(self) -> bool:
        """Would a shared request get it?"""
        return not self.count & KEEPS_OUT

    def _grantable(self, kind: int, td: Thread) -> bool:
        """Does the condition hold that a sleeper waits for?"""
        count = self.count
        if kind == LK_WAITUPGRADE:
            return bool(count & LKC_UPGRANT)
        if kind == LK_SHARED:
            return not count & keeps_out(td)
        return count == 0 or bool(count & LKC_UPGRANT)

    @c("lockstatus", "kern_lock.c:775-793")
    def lockstatus(self, td: Thread | None = None) -> int:
        """lockstatus (kern_lock.c:776): LK_EXCLUSIVE, LK_EXCLOTHER, LK_SHARED or 0."""
        count = self.count
        if count & LKC_EXCL:
            return LK_EXCLUSIVE if td is None or self.holder is td else LK_EXCLOTHER
        return LK_SHARED if count & LKC_MASK else 0

    @c("lockcount", "kern_lock.c:819-823", uncalled=True)
    def lockcount(self) -> int:
        """lockcount (kern_lock.c:820): the number of holds."""
        return self.count & LKC_MASK

    @c("lockowned", "kern_lock.c:799-812", uncalled=True)
    def lockowned(self) -> bool:
        """lockowned (kern_lock.c:800).

        Held by the caller?  For a shared lock the C can only guess.
        """
        return self.held_by(self.k.curthread())

    @own
    def held_by(self, td: Thread) -> bool:
        """Does *td* hold it, in either mode?"""
        return self in td.locks

    @own
    def owners(self) -> list[Thread]:
        """The threads that hold it (for the waits-for graph; walks the threads if shared)."""
        if (holder := self.holder) is not None:
            return [holder]
        if not self.count & LKC_MASK:
            return []
        return [td for td in self.k.live_threads() if self in td.locks]
