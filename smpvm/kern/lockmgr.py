"""lockmgr locks (kern_lock.c): sleeping locks, exclusive or shared, that can be converted.

One word holds the state, changed by compare-and-set as in the C; who waits sleeps on the lock.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from smpvm.host.carrier import ACQUIRE, ACQUIRE_SHARED, RELEASE
from smpvm.host.carrier import TRY as TRY_POINT
from smpvm.kern.errno import EBUSY, ENOLCK
from smpvm.kern.order import Ordered
from smpvm.kern.probe import TIMED, TRY, WAIT
from smpvm.kern.thread import TDF_DEADLKTREAT
from smpvm.kern.tsleep import PCATCH, PINTERLOCKED

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

# Requests (sys/lock.h).
LK_SHARED: Final = 0x1
LK_EXCLUSIVE: Final = 0x2
LK_UPGRADE: Final = 0x3
LK_EXCLUPGRADE: Final = 0x4
LK_DOWNGRADE: Final = 0x5
LK_RELEASE: Final = 0x6
LK_WAITUPGRADE: Final = 0x7
LK_EXCLOTHER: Final = 0x8
"""Only an answer of lockstatus: somebody else holds it exclusively."""
LK_TYPE_MASK: Final = 0xF

LK_NOWAIT: Final = 0x10
LK_SLEEPFAIL: Final = 0x20
LK_CANRECURSE: Final = 0x40
LK_FAILRECLAIM: Final = 0x10000
LK_RETRY: Final = 0x20000
LK_TIMELOCK: Final = 0x2000000
LK_PCATCH: Final = 0x4000000
LK_EXTFLG_MASK: Final = 0x7000070

# The state word.
LKC_EXREQ: Final = 0x80000000
LKC_SHREQ: Final = 0x40000000
LKC_UPREQ: Final = 0x20000000
LKC_EXCL: Final = 0x10000000
LKC_UPGRANT: Final = 0x08000000
LKC_MASK: Final = 0x03FFFFFF

_BUSY: Final = LKC_EXREQ | LKC_UPREQ | LKC_EXCL
"""What keeps a shared request out."""
_WANTS: Final = (LK_SHARED, LK_EXCLUSIVE, LK_UPGRADE, LK_EXCLUPGRADE)


class _Request:
    """One lockmgr call under way: the C's ``flags``, which a retry may change, and its facts."""

    __slots__ = ("blocked", "ext", "let_go", "td", "type")

    def __init__(self, td: Thread, kind: int, ext: int) -> None:
        self.td = td
        self.type = kind
        self.ext = ext
        self.blocked = False
        self.let_go = False  # the probe knows that the lock was given up


class Lock(Ordered):
    """struct lock.  *timo* in ticks counts for LK_TIMELOCK; *wmesg* names the sleep.

    *meant* is the reason why a timed wait for it may be part of a deadlock, which the timer breaks.
    """

    __slots__ = ("_guard", "canrecurse", "count", "holder", "meant", "timo", "wmesg")

    kind, noun = "lockmgr", "lock"

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

    def lockmgr(self, flags: int) -> int:
        """lockmgr (kern_lock.c:85-655): set, change or release the lock.

        Blocks unless LK_NOWAIT (no spinlock may be held, tokens are given up meanwhile).  Returns
        0, EBUSY (NOWAIT, or EXCLUPGRADE behind another upgrade), EWOULDBLOCK (TIMELOCK ran out),
        ENOLCK (SLEEPFAIL slept); an upgrade that fails has released the shared lock.  Raises
        Misuse for recursion, release by a stranger, and a wait with a spinlock held.
        """
        k = self.k
        td = k.curthread()
        kind = flags & LK_TYPE_MASK
        ext = flags & LK_EXTFLG_MASK | (LK_CANRECURSE if self.canrecurse else 0)
        if td.spins and kind in _WANTS and not flags & LK_NOWAIT:
            k.misuse("sleep-with-spinlock", f"{td} locks {self} with {td.spins[-1]} held")
        if kind in (LK_SHARED, LK_EXCLUSIVE) and not flags & LK_NOWAIT:
            self._want(td, kind)
        r = _Request(td, kind, ext)
        error = 0
        if k.point is not None or not self._quick(td, kind):
            while (turn := self._turn(r)) is None:
                pass
            error = turn
        if kind != LK_RELEASE:
            self._report(r, kind, error)
        return error

    def _quick(self, td: Thread, kind: int) -> bool:
        """The critical paths of LK_EXCLUSIVE and LK_SHARED: one compare-and-set."""
        count = self.count
        if kind == LK_EXCLUSIVE:
            return count == 0 and self._cas_holder(0, LKC_EXCL | 1, td)
        return kind == LK_SHARED and not count & _BUSY and self._cas(count, count + 1)

    def _want(self, td: Thread, kind: int) -> None:
        if (f := self.k.probe.lock_want) is not None:
            f(td, self, _mode(kind))

    def _turn(self, r: _Request) -> int | None:
        """One turn of the C's retry loop: an error number, 0 when done, None to go again."""
        if (p := self.k.point) is not None:
            p(_point_kind(r), self)
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
        """The compare-and-set together with the change of lk_lockholder that goes with it."""
        with self._guard:
            if self.count != old:
                return False
            self.count = new
            self.holder = holder
        if self.k.point is not None:
            self.k.carrier.touched(self)
        return True

    def _block(self, r: _Request) -> int:
        """The tsleep of every case; tsleep_interlock has been called.  Returns its error."""
        k = self.k
        timo = self.timo if r.ext & LK_TIMELOCK else 0
        if not r.blocked:
            r.blocked = True
            r.td.contended[self.cls] += 1
            if (f := k.probe.lock_block) is not None:
                f(r.td, self, _mode(r.type), timo)
        flags = PINTERLOCKED | (PCATCH if r.ext & LK_PCATCH else 0)
        wants = r.type
        error = k.sleep.tsleep(self, flags, self.wmesg, timo, lambda: self._grantable(wants, r.td))
        return error or (ENOLCK if r.ext & LK_SLEEPFAIL else 0)

    def _recurse(self, r: _Request, count: int) -> int:
        """The caller holds it exclusively and asks again."""
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

    def _shared(self, r: _Request) -> int | None:
        """LK_SHARED (kern_lock.c:137-228): behind waiting exclusive and upgrade requests.

        Not behind those with TDF_DEADLKTREAT: then only an exclusive holder keeps it out.
        """
        count = self.count
        if not count & _keeps_out(r.td):
            return 0 if self._cas(count, count + 1) else None
        if self.holder is r.td:
            return self._recurse(r, count)
        if r.ext & LK_NOWAIT:
            return EBUSY
        self.k.sleep.tsleep_interlock(self)
        if not self._cas(count, count | LKC_SHREQ):
            return None
        return self._block(r) or None

    def _exclusive(self, r: _Request) -> int | None:
        """LK_EXCLUSIVE (kern_lock.c:230-304)."""
        count = self.count
        if count == 0:
            return 0 if self._cas_holder(0, LKC_EXCL | 1, r.td) else None
        if self.holder is r.td:
            return self._recurse(r, count)
        if r.ext & LK_NOWAIT:
            return EBUSY
        self.k.sleep.tsleep_interlock(self)
        if not self._cas(count, count | LKC_EXREQ):
            return None
        return self._block(r) or None

    def _downgrade(self, r: _Request) -> int | None:
        """LK_DOWNGRADE (kern_lock.c:306-340): exclusive to shared, waking shared requests."""
        count = self.count
        if self.holder is not r.td or count & (LKC_EXCL | LKC_MASK) != LKC_EXCL | 1:
            self.k.misuse("wrong-release", f"{r.td} downgrades {self} without holding it")
        if not self._cas_holder(count, count & ~(LKC_EXCL | LKC_SHREQ), None):
            return None
        if count & LKC_SHREQ:
            self.k.sleep.wakeup(self)
        return 0

    def _upgrade(self, r: _Request) -> int | None:
        """LK_UPGRADE, LK_EXCLUPGRADE (kern_lock.c:342-464): shared to exclusive.

        May let others have the lock in between, which EXCLUPGRADE refuses.
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
        k.sleep.tsleep_interlock(self)
        mine = LKC_EXREQ if count & LKC_UPREQ else LKC_UPREQ
        last = count & (LKC_UPREQ | LKC_MASK) == LKC_UPREQ | 1
        if last:  # the one who asked before us gets it
            new = (count | mine | LKC_EXCL | LKC_UPGRANT) & ~LKC_UPREQ
        else:
            new = (count - 1) | mine
        if not self._cas(count, new):
            return None
        self._told(r, "shared")
        self._forget(r.td)
        self._want(r.td, LK_EXCLUSIVE)
        if last:
            k.sleep.wakeup(self)
        if error := self._block(r):
            return error
        r.type = LK_EXCLUSIVE if count & LKC_UPREQ else LK_WAITUPGRADE
        return None

    def _give_up(self, r: _Request) -> int:
        """An upgrade that may not wait: release, and say EBUSY."""
        while self._release(r) is None:
            pass
        return EBUSY

    def _waitupgrade(self, r: _Request) -> int | None:
        """LK_WAITUPGRADE (kern_lock.c:466-513): LKC_UPREQ is ours, wait for LKC_UPGRANT."""
        count = self.count
        if count & LKC_UPGRANT:
            self.k.kassert(count & LKC_EXCL, "lockmgr-upgrant")
            return 0 if self._cas_holder(count, count & ~LKC_UPGRANT, r.td) else None
        self.k.sleep.tsleep_interlock(self)
        if self._cas(count, count) and (error := self._block(r)):
            self._undo_upreq(r)
            return error
        return None

    def _undo_upreq(self, r: _Request) -> None:
        """undo_upreq (kern_lock.c:662-722): take back an upgrade request, granted or not."""
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
                    k.sleep.wakeup(self)
                return

    def _release(self, r: _Request) -> int | None:
        """LK_RELEASE (kern_lock.c:515-626): grants a pending upgrade, else wakes requests."""
        k, td, count = self.k, r.td, self.count
        if not count & LKC_MASK or self not in td.locks:
            k.misuse("wrong-release", f"{td} releases {self}, which it does not hold")
        if count & LKC_EXCL and self.holder is not td:
            k.misuse("wrong-release", f"{td} releases {self}, which {self.holder} holds")
        self._told(r, "excl" if count & LKC_EXCL else "shared")
        requests = LKC_EXREQ | LKC_SHREQ
        match count & (LKC_UPREQ | LKC_MASK):
            case 1:  # the last one out
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
            k.sleep.wakeup(self)
        return 0

    def _told(self, r: _Request, mode: str) -> None:
        """The probe hears of one release once, however often it is tried."""
        if not r.let_go and (f := self.k.probe.lock_release) is not None:
            f(r.td, self, mode)
        r.let_go = True

    def _forget(self, td: Thread) -> None:
        for i in range(len(td.locks) - 1, -1, -1):
            if td.locks[i] is self:
                del td.locks[i]
                return

    def _report(self, r: _Request, kind: int, error: int) -> None:
        """Tell the probe how the request ended, and keep td.locks."""
        k, td = self.k, r.td
        how = TIMED if r.ext & LK_TIMELOCK and self.timo else WAIT
        if r.ext & LK_NOWAIT or (kind == LK_SHARED and td.flags & TDF_DEADLKTREAT):
            how = TRY
        if error:
            if not r.blocked:
                td.contended[self.cls] += 1
            if (f := k.probe.lock_failed) is not None:
                f(td, self, _mode(kind), error)
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

    def _grantable(self, kind: int, td: Thread) -> bool:
        """Is what a sleeper waits for true already?"""
        count = self.count
        if kind == LK_WAITUPGRADE:
            return bool(count & LKC_UPGRANT)
        if kind == LK_SHARED:
            return not count & _keeps_out(td)
        return count == 0 or bool(count & LKC_UPGRANT)

    def lockstatus(self, td: Thread | None = None) -> int:
        """lockstatus (kern_lock.c:776): LK_EXCLUSIVE, LK_EXCLOTHER, LK_SHARED or 0."""
        count = self.count
        if count & LKC_EXCL:
            return LK_EXCLUSIVE if td is None or self.holder is td else LK_EXCLOTHER
        return LK_SHARED if count & LKC_MASK else 0

    def lockcount(self) -> int:
        """lockcount (kern_lock.c:820): how many holds there are."""
        return self.count & LKC_MASK

    def lockowned(self) -> bool:
        """lockowned (kern_lock.c:800): by the caller; for a shared lock the C can only guess."""
        return self.held_by(self.k.curthread())

    def held_by(self, td: Thread) -> bool:
        """Does *td* hold it, in either mode?"""
        return self in td.locks

    def owners(self) -> list[Thread]:
        """The threads that hold it (for the waits-for graph; walks the threads if shared)."""
        if (holder := self.holder) is not None:
            return [holder]
        if not self.count & LKC_MASK:
            return []
        return [td for td in self.k.live_threads() if self in td.locks]


def _mode(kind: int) -> str:
    return "shared" if kind == LK_SHARED else "excl"


def _keeps_out(td: Thread) -> int:
    """The bits that keep a shared request of *td* out."""
    return LKC_EXCL if td.flags & TDF_DEADLKTREAT else _BUSY


def _point_kind(r: _Request) -> str:
    if r.type in (LK_RELEASE, LK_DOWNGRADE):
        return RELEASE
    if r.ext & LK_NOWAIT:
        return TRY_POINT
    return ACQUIRE_SHARED if r.type == LK_SHARED else ACQUIRE
