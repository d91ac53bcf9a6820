"""struct pmap, and finding and locking its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smpvm.config import PAGE_SIZE
from smpvm.host.carrier import ATOMIC, READ
from smpvm.kern.cname import c, holds, own
from smpvm.kern.shared import shared
from smpvm.kern.token import Token
from smpvm.vm.pmap.pte import PV_HOLD_LOCKED, Mmu, PvEntry, PvLocks, make_mmu

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.vm import Vm

PAGE_MASK = PAGE_SIZE - 1


@shared(
    "resident_count",
    "wired_count",
    atomic={"resident_count": "changed by atomic operations; read as an instant's value"},
)
class Pmap:
    """struct pmap: one page table.

    ``ptes`` maps a page-aligned address to its entry.  ``resident_count`` counts entries (the model
    has no page table pages), ``wired_count`` the wired ones.  ``map`` is the VmMap that it belongs
    to.
    """

    __slots__ = ("map", "num", "pm_token", "ptes", "resident_count", "wired_count")

    def __init__(self, k: Kernel) -> None:
        self.num = k.next_id("pmap")
        self.pm_token: Token = k.new(Token, k, "pmap", str(self))
        self.ptes: dict[int, PvEntry] = {}
        self.resident_count = 0
        self.wired_count = 0
        self.map: Any = None

    def __str__(self) -> str:
        return f"pmap {self.num}"


class PmapBase:
    """Finding entries: they are returned locked (``pv_alloc``, ``pv_get``), and ``pv_free`` or
    ``pv.put`` unlocks them.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = k = vm.k
        self.atomic = k.atomic
        self.pool = k.spin_pool
        self.mmu: Mmu = make_mmu(k)
        self.pv = PvLocks(k)

    def _tree_point(self, pmap: Pmap, va: int) -> None:
        """Schedule point for a step on the tree of pv entries.

        The C takes pm_spin around the tree; here each step on it is atomic.
        """
        if (p := self.k.point) is not None:
            p(ATOMIC, pmap, f"pte {va:#x}")

    @c("vtopte", "pmap.c:636-644")
    def look(self, pmap: Pmap, va: int) -> PvEntry | None:
        """The entry at *va*, read without a lock (vtopte): a step of its own."""
        if (p := self.k.point) is not None:
            p(READ, pmap, f"pte {va:#x}")
        return pmap.ptes.get(va)

    @own
    def mapped(self, pmap: Pmap) -> list[int]:
        """The addresses of all entries, ascending, read in one step."""
        if (p := self.k.point) is not None:
            p(READ, pmap)
        return sorted(pmap.ptes)

    def _tree_changed(self, pmap: Pmap) -> None:
        if self.k.point is not None:
            self.k.carrier.touched(pmap)

    @c("_pv_alloc", "pmap.c:2930-2984", blocks=True)
    @holds("no spinlock", "the entry returned locked")
    def pv_alloc(self, pmap: Pmap, va: int, managed: bool) -> PvEntry:
        """_pv_alloc, pmap.c:2930-2984: the entry at *va*, created if necessary; locked.  Blocks."""
        while True:
            self._tree_point(pmap, va)
            pv = pmap.ptes.get(va)
            if pv is None:
                new: PvEntry = self.k.new(PvEntry, pmap, va, managed, PV_HOLD_LOCKED)
                if pmap.ptes.setdefault(va, new) is new:
                    self._tree_changed(pmap)
                    if managed:
                        self.atomic.add_int(pmap, "resident_count", 1)
                    return new
            elif self._lock_in(pmap, pv):
                return pv

    @c("_pv_get", "pmap.c:2989-3021", blocks=True)
    @holds("no spinlock", "the entry returned locked")
    def pv_get(self, pmap: Pmap, va: int) -> PvEntry | None:
        """_pv_get, pmap.c:2989-3021: the entry at *va*, locked, or None.  Blocks."""
        while True:
            self._tree_point(pmap, va)
            pv = pmap.ptes.get(va)
            if pv is None:
                return None
            if self._lock_in(pmap, pv):
                return pv

    @c("_pv_get", "pmap.c:3008-3018", part=True, blocks=True)
    @c("_pv_alloc", "pmap.c:2971-2981", part=True)
    @holds("no spinlock", "on True pv locked")
    def _lock_in(self, pmap: Pmap, pv: PvEntry) -> bool:
        """Lock *pv*.  Returns False, with it unlocked, if it left *pmap* before it was locked."""
        if not self.pv.hold_try(pv):
            self.pv.lock(pv)
        if pv.pmap is pmap:
            return True
        self.pv.put(pv)
        return False

    @c("pv_free", "pmap.c:3185-3222")
    @holds("pv locked, without page", "pv unlocked and gone")
    def pv_free(self, pv: PvEntry) -> None:
        """pv_free, pmap.c:3185-3222: remove *pv* from its page table and unlock it.

        *pv* is locked and no longer maps a page.
        """
        pmap = pv.pmap
        assert pmap is not None
        self._tree_point(pmap, pv.va)
        del pmap.ptes[pv.va]
        pv.pmap = None
        self._tree_changed(pmap)
        if pv.managed:
            self.atomic.add_int(pmap, "resident_count", -1)
        self.pv.put(pv)
