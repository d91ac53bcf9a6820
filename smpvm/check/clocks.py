"""Vector clocks in the manner of FastTrack, and what is kept of a field, a lock, a clash."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

TID_BITS: Final = 20
TID_MASK: Final = (1 << TID_BITS) - 1
ONE: Final = 1 << TID_BITS
Release = tuple[int, dict[int, int]]
"""What a release hands over: the releaser's epoch, and what it knew of the others."""


class VectorClock:
    """A thread's vector clock: its own epoch, and what it knows of the others' (never itself).

    *tid* is a slot, taken over from a thread that has ended where there is one: clocks stay as
    short as the number of threads that live at once.
    """

    __slots__ = ("epoch", "frozen", "last", "others", "pending", "tid")

    def __init__(self, tid: int, epoch: int = 0) -> None:
        self.tid = tid
        self.epoch = epoch or ONE | tid
        self.last: Release | None = None
        """All of it, once the thread has ended."""
        self.others: dict[int, int] = {}
        self.frozen = False
        """``others`` has been handed out: copy before the next change."""
        self.pending: Var | None = None
        """A field with an atomic history that was being read when this was last looked at."""

    def caught_up(self) -> None:
        """Be ordered after what the last read saw.

        The hook comes before the access: among free-running threads an atomic operation may slip
        in between, and its value be read.
        """
        var, self.pending = self.pending, None
        if var is not None:
            self.acquire(var.atomic)

    def release(self) -> Release:
        """A point that others may be ordered after; a new epoch begins."""
        if self.pending is not None:
            self.caught_up()
        self.frozen = True
        now = (self.epoch, self.others)
        self.epoch += ONE
        return now

    def acquire(self, released: Release | None) -> None:
        """From here on this thread is ordered after *released*."""
        if released is None:
            return
        epoch, knew = released
        tid = epoch & TID_MASK
        mine = self.others
        if tid == self.tid or mine.get(tid, 0) >= epoch:
            return  # what that release knew came along then
        if self.frozen:
            self.others = mine = dict(mine)
            self.frozen = False
        mine[tid] = epoch
        own = self.tid
        for other, then in knew.items():
            if other != own and mine.get(other, 0) < then:
                mine[other] = then

    def after(self, epoch: int) -> bool:
        """Is this thread ordered after the access at *epoch*?"""
        tid = epoch & TID_MASK
        return tid == self.tid or self.others.get(tid, 0) >= epoch


class Var:
    """One shared field of one object: its last write, the reads since, its atomic history."""

    __slots__ = ("atomic", "atomic_site", "read", "read_site", "reads", "write", "write_site")

    def __init__(self) -> None:
        self.write = 0
        self.write_site = 0
        self.read = 0
        self.read_site = 0
        self.reads: dict[int, tuple[int, int]] | None = None
        """Unordered readers: thread → (epoch, site); None while one epoch tells it all."""
        self.atomic: Release | None = None
        """The last atomic operation that changed it."""
        self.atomic_site = 0


class Named(NamedTuple):
    """What is kept of a thread after its end."""

    name: str
    role: str


class Clash(NamedTuple):
    """Two accesses with no order between them: *deed* by *td* now, *last_deed* before."""

    td: Any
    obj: Any
    field: str
    deed: str
    where: int
    last: int
    last_where: int
    last_deed: str
    new: Any = None


class Shared:
    """Releases of the shared holders of a lock, and the last of an exclusive one."""

    __slots__ = ("excl", "shared")

    def __init__(self) -> None:
        self.excl: Release | None = None
        self.shared: list[Release] = []
