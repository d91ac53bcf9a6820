"""One page table entry with its pv_entry, and the hardware that reads and writes it.

``bits`` is what the MMU sees: it changes only in atomic steps.  A thread's access to the page
through the entry is one such step, as on a real CPU: it either comes before the entry is cleared,
or it faults.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from smpvm.host.carrier import ATOMIC, Compound
from smpvm.kern.atomic import Atomics
from smpvm.kern.cname import c, holds
from smpvm.kern.guard import FREE, Guard, guarded, page_spin
from smpvm.kern.shared import peek, poke, shared
from smpvm.kern.tsleep import PINTERLOCKED

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.page.struct import Page
    from smpvm.vm.pmap.pmaps import Pmap

PTE_V: Final = 0x01
PTE_RW: Final = 0x02
PTE_A: Final = 0x04
PTE_M: Final = 0x08
PTE_W: Final = 0x10
"""Valid, writeable, accessed (referenced), modified, wired."""

PV_HOLD_LOCKED: Final = 0x80000000
PV_HOLD_WAITING: Final = 0x40000000

MISS: Final = -1
"""Returned by ``access`` if the access faults."""


def _list_spin(k: Kernel, pv: PvEntry, new: object) -> object:
    """The spinlock of the page in whose list of mappings *pv* is."""
    m = peek(pv, "m")
    return None if m is None else page_spin(k, m, new)


def _page_spin(k: Kernel, pv: PvEntry, new: Page | None) -> object:
    """The spinlock of the page that *pv* maps, or is to map."""
    return page_spin(k, new, None) if new is not None else _list_spin(k, pv, None)


@guarded(
    Guard("m", _page_spin, "pmap.c:2673, 4252", read=FREE),
    Guard("pv_next", _list_spin, "pmap.c:2673, 4252"),
    Guard("pv_prev", _list_spin, "pmap.c:2673, 4252"),
)
@shared(
    "bits",
    "hold",
    atomic={
        "bits": "changed atomically, by the MMU too: 'a state of flux' (pmap.c:4691, 4749)",
        "hold": "the pv's lock word: atomic, looked at before each compare-and-set",
    },
)
class PvEntry:
    """A page table entry and its struct pv_entry: (pmap, va) → page.

    ``hold`` is the pv's lock (PV_HOLD_LOCKED, PV_HOLD_WAITING).  ``m`` is None once the entry no
    longer maps a page, ``pmap`` None once the entry has left its page table.  ``managed`` entries
    are in the page's list of mappings (``pv_next``/``pv_prev``, protected by the page's spinlock).
    """

    __slots__ = ("bits", "hold", "m", "managed", "pmap", "pv_next", "pv_prev", "va")

    def __init__(self, pmap: Pmap | None, va: int, managed: bool, hold: int) -> None:
        self.pmap = pmap
        self.va = va
        self.managed = managed
        self.hold = hold
        self.bits = 0
        self.m: Page | None = None
        self.pv_next: PvEntry | None = None
        self.pv_prev: PvEntry | None = None

    @property
    def referenced(self) -> bool:
        """The hardware's accessed bit."""
        return self.bits & PTE_A != 0

    @property
    def modified(self) -> bool:
        """The hardware's dirty bit."""
        return self.bits & PTE_M != 0

    @property
    def writeable(self) -> bool:
        """Whether a user can write through it."""
        return self.bits & PTE_RW != 0

    @property
    def wired(self) -> bool:
        """The map entry's wiring; the hardware ignores it."""
        return self.bits & PTE_W != 0

    def __str__(self) -> str:
        return f"pte {self.pmap} {self.va:#x}"


class Mmu:
    """Atomic steps on entries.

    Each takes one of a few host locks, chosen by page, for that step only.
    """

    STRIPES: Final = 64

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self._locks = [threading.Lock() for _ in range(self.STRIPES)]

    def _lock(self, pv: PvEntry) -> threading.Lock:
        m = pv.m
        return self._locks[m.idx % self.STRIPES if m is not None else 0]

    def update(self, pv: PvEntry, clear: int, put: int = 0) -> int:
        """Clear and set bits of an entry in one step; returns the old bits."""
        with self._lock(pv):
            old = pv.bits
            pv.bits = old & ~clear | put
        return old

    @c("pmap_inval_smp_cmpset", "pmap_inval.c:419-532")
    def cmpset(self, pv: PvEntry, old: int, new: int) -> bool:
        """pmap_inval_smp_cmpset: store *new* if the bits are still *old*; True if stored."""
        with self._lock(pv):
            if pv.bits != old:
                return False
            pv.bits = new
        return True

    def access(self, pv: PvEntry, write: bool, word: int, value: int) -> int:
        """A user's load or store through *pv*, in one step.

        Returns the word's value (for a store, the value stored), or MISS if the access faults.
        """
        need, put = (PTE_V | PTE_RW, PTE_A | PTE_M) if write else (PTE_V, PTE_A)
        while True:
            m = pv.m
            if m is None:
                return MISS
            with self._locks[m.idx % self.STRIPES]:
                bits = pv.bits
                if pv.m is not m:
                    continue  # the entry's page changed before the lock was taken
                if bits & need != need:
                    return MISS
                if bits & put != put:
                    pv.bits = bits | put
                return self._touch(m, write, word, value)

    def _touch(self, m: Page, write: bool, word: int, value: int) -> int:
        contents = m.contents
        if not write:
            return 0 if contents is None else contents.get(word, 0)
        if contents is None:
            contents = m.contents = {}
        contents[word] = value
        return value


class ProbedMmu(Mmu):
    """The same with a schedule point before each step and an event after it.

    The steps themselves bypass the hooks of an instrumented entry.
    """

    def _before(self, pv: PvEntry) -> None:
        if (p := self.k.point) is not None:
            p(ATOMIC, pv, "bits")

    def _after(self, pv: PvEntry, old: int, new: int) -> None:
        k = self.k
        if (f := k.probe.atomic) is not None:
            f(k.curthread(), pv, "bits", old, new)
        if k.point is not None and old != new:
            k.carrier.touched(pv)

    def update(self, pv: PvEntry, clear: int, put: int = 0) -> int:
        self._before(pv)
        with self._lock(pv):
            old: int = peek(pv, "bits")
            new = old & ~clear | put
            poke(pv, "bits", new)
        self._after(pv, old, new)
        return old

    @c("pmap_inval_smp_cmpset", "pmap_inval.c:419-532")
    def cmpset(self, pv: PvEntry, old: int, new: int) -> bool:
        self._before(pv)
        with self._lock(pv):
            now: int = peek(pv, "bits")
            if now == old:
                poke(pv, "bits", new)
        self._after(pv, now, new if now == old else now)
        return now == old

    def access(self, pv: PvEntry, write: bool, word: int, value: int) -> int:
        need, put = (PTE_V | PTE_RW, PTE_A | PTE_M) if write else (PTE_V, PTE_A)
        while True:
            m = pv.m
            if m is None:
                self._before(pv)
            elif (p := self.k.point) is not None:
                p(ATOMIC, Compound(((pv, "bits"), (m, "contents"))))
            if pv.m is not m:
                continue  # the entry's page changed before this thread was scheduled
            if m is None:
                return MISS
            with self._locks[m.idx % self.STRIPES]:
                old: int = peek(pv, "bits")
                if pv.m is not m:
                    continue
                if old & need != need:
                    return MISS
                poke(pv, "bits", old | put)
                value = self._touch(m, write, word, value)
                break
        self._after(pv, old, old | put)
        return value


def make_mmu(k: Kernel) -> Mmu:
    """The plain Mmu, or the probed one if the kernel's atomics are probed too."""
    return Mmu(k) if type(k.atomic) is Atomics else ProbedMmu(k)


class PvLocks:
    """Locking of pv entries (pmap.c:2845-3173): held while the page table entry changes."""

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.atomic = k.atomic

    @c("_pv_hold_try", "pmap.c:2846-2881")
    @holds("", "on True pv locked")
    def hold_try(self, pv: PvEntry) -> bool:
        """_pv_hold_try, pmap.c:2846-2881: lock *pv* if it is unlocked.  Returns True if locked."""
        while True:
            count = pv.hold
            if count & PV_HOLD_LOCKED:
                return False
            if self.atomic.cmpset_int(pv, "hold", count, count | PV_HOLD_LOCKED):
                return True

    @c("_pv_lock", "pmap.c:3086-3117", blocks=True)
    @holds("no spinlock", "pv locked")
    def lock(self, pv: PvEntry) -> None:
        """_pv_lock, pmap.c:3086-3117: lock *pv*, sleeping for up to a second at a time.

        Blocks: the caller must hold no spinlock.
        """
        k = self.k
        while True:
            count = pv.hold
            if not count & PV_HOLD_LOCKED:
                if self.atomic.cmpset_int(pv, "hold", count, count | PV_HOLD_LOCKED):
                    return
                continue
            k.sleep.tsleep_interlock(pv)
            if self.atomic.cmpset_int(pv, "hold", count, count | PV_HOLD_WAITING):
                k.sleep.tsleep(pv, PINTERLOCKED, "pvwait", k.hz, cond=self._unlocked(pv))

    def _unlocked(self, pv: PvEntry) -> Callable[[], bool]:
        return lambda: not pv.hold & PV_HOLD_LOCKED

    @c("pv_put", "pmap.c:3151-3173")
    @c("pv_unlock", "pmap.c:3122-3141")
    @holds("pv locked", "pv unlocked")
    def put(self, pv: PvEntry) -> None:
        """pv_put, pmap.c:3151-3173: unlock *pv* and wake its waiters."""
        k = self.k
        if self.atomic.cmpset_int(pv, "hold", PV_HOLD_LOCKED, 0):
            return
        while True:
            count = pv.hold
            if not count & PV_HOLD_LOCKED:
                k.panic("pv-unlocked", str(pv))
            if self.atomic.cmpset_int(pv, "hold", count, 0):
                if count & PV_HOLD_WAITING:
                    k.sleep.wakeup(pv)
                return
