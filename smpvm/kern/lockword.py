"""The state of a lockmgr lock: one word, changed by compare-and-set, and who holds it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from smpvm.kern.thread import TDF_DEADLKTREAT

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

LKC_EXREQ: Final = 0x80000000
LKC_SHREQ: Final = 0x40000000
LKC_UPREQ: Final = 0x20000000
LKC_EXCL: Final = 0x10000000
LKC_UPGRANT: Final = 0x08000000
LKC_MASK: Final = 0x03FFFFFF

BUSY: Final = LKC_EXREQ | LKC_UPREQ | LKC_EXCL
"""What keeps a shared request out."""


class LockWord:
    """What a lock is; ``Lock`` has what is done with it."""

    __slots__ = (
        "_guard",
        "canrecurse",
        "cls",
        "count",
        "holder",
        "k",
        "name",
        "seen",
        "timo",
        "wmesg",
    )

    kind = "lockmgr"

    def __init__(
        self,
        k: Kernel,
        cls: str,
        name: str = "",
        timo: int = 0,
        canrecurse: bool = False,
        wmesg: str = "",
    ) -> None:
        self.k = k
        self.cls = cls
        self.name = name
        self.timo = timo
        self.canrecurse = canrecurse
        self.wmesg = wmesg or cls
        self.count = 0  # lk_count
        self.holder: Thread | None = None  # lk_lockholder: the exclusive holder
        self.seen: Any = None  # an observer's
        self._guard = threading.Lock()

    def __str__(self) -> str:
        return f"lock {self.cls} {self.name}" if self.name else f"lock {self.cls}"

    # -- changes

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

    # -- questions

    def not_exclusive(self) -> bool:
        """Would an exclusive request get it, or keep others out until it does?"""
        return not self.count & LKC_EXCL

    def shareable(self) -> bool:
        """Would a shared request get it?"""
        return not self.count & BUSY

    def lockcount(self) -> int:
        """lockcount (kern_lock.c:820): how many holds there are."""
        return self.count & LKC_MASK

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


def keeps_out(td: Thread) -> int:
    """The bits that keep a shared request of *td* out."""
    return LKC_EXCL if td.flags & TDF_DEADLKTREAT else BUSY
