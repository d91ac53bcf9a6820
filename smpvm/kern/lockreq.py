"""lockmgr requests: their flags, the bits of a lock's state word, and one call in progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from smpvm.host.carrier import ACQUIRE, ACQUIRE_SHARED, HOLDING, RELEASE, TRY
from smpvm.kern.cname import c
from smpvm.kern.thread import TDF_DEADLKTREAT

if TYPE_CHECKING:
    from smpvm.kern.lockmgr import Lock
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
"""Only returned by lockstatus: another thread holds it exclusively."""
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

KEEPS_OUT: Final = LKC_EXREQ | LKC_UPREQ | LKC_EXCL
"""The bits that block a shared request."""


class Request:
    """One lockmgr call in progress: the C's ``flags``, which a retry may change, and its state."""

    __slots__ = ("blocked", "ext", "let_go", "td", "timo", "type")

    @c("lockmgr", "kern_lock.c:129-130", part=True)
    def __init__(self, td: Thread, kind: int, ext: int, timo: int) -> None:
        self.td = td
        self.type = kind
        self.ext = ext
        self.timo = timo if ext & LK_TIMELOCK else 0  # ticks
        self.blocked = False
        self.let_go = False  # the probe has been told of the release


def mode_of(kind: int) -> str:
    """The mode that a request of this type asks for."""
    return "shared" if kind == LK_SHARED else "excl"


@c("lockmgr", "kern_lock.c:179-180", part=True)
def keeps_out(td: Thread) -> int:
    """The bits that block a shared request of *td*."""
    return LKC_EXCL if td.flags & TDF_DEADLKTREAT else KEEPS_OUT


def point_kind(r: Request) -> str:
    """The kind of schedule point for the request."""
    if r.type in (LK_RELEASE, LK_DOWNGRADE):
        return RELEASE
    if r.ext & LK_NOWAIT:
        return TRY
    return ACQUIRE_SHARED if r.type == LK_SHARED else ACQUIRE


def step(point: Callable[..., None], lock: Lock, r: Request) -> None:
    """Serial: one iteration is one step, with the sleep or the wakeups that it comes to.

    A request that may just wait, for as long as it takes and with no token to release, is the
    acquire of a mutex: its step comes when nothing blocks it.  Others find that they have to
    sleep, which is a step; so is an exclusive request behind shared holders, because it keeps new
    ones out.
    """
    td, kind = r.td, point_kind(r)
    ready = _gate(lock, r) if kind in (ACQUIRE, ACQUIRE_SHARED) else None
    if ready is None:
        point(kind, lock, HOLDING if td.toks and kind not in (TRY, RELEASE) else "")
        return
    if not ready():
        td.contended[lock.cls] += 1
    td.waiting = lock
    point(kind, lock, ready=ready)
    td.waiting = None


def _gate(lock: Lock, r: Request) -> Callable[[], bool] | None:
    """When the request can be granted; None for one that does more than wait."""
    if r.td.toks or lock.holder is r.td or r.ext & (LK_PCATCH | LK_SLEEPFAIL) or r.timo:
        return None
    if r.type == LK_EXCLUSIVE:
        return lock.not_exclusive
    if r.type == LK_SHARED:
        return lock.not_exclusive if keeps_out(r.td) == LKC_EXCL else lock.shareable
    return None
