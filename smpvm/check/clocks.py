"""FastTrack's vector clocks, and the race checker's records of fields, locks and races."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

TID_BITS: Final = 20
TID_MASK: Final = (1 << TID_BITS) - 1
ONE: Final = 1 << TID_BITS
Release = tuple[int, dict[int, int]]
"""What a release publishes: the releaser's epoch, and its clock entries for other threads."""


class VectorClock:
    """A thread's vector clock: its own epoch, and its entries for the other threads.

    *tid* is a slot number.  Slots of ended threads are reused, so the length of the clocks is
    bounded by the number of threads alive at once.
    """

    __slots__ = ("epoch", "frozen", "last", "others", "pending", "tid")

    def __init__(self, tid: int, epoch: int = 0) -> None:
        self.tid = tid
        self.epoch = epoch or ONE | tid
        self.last: Release | None = None
        """The final clock, once the thread has ended."""
        self.others: dict[int, int] = {}
        self.frozen = False
        """``others`` is shared with a release: copy it before the next change."""
        self.pending: Var | None = None
        """A field with atomic operations whose read is announced but not yet accounted for."""

    def caught_up(self) -> None:
        """Order this thread after the atomic operation whose value its last read saw.

        The hook is called before the access: with free-running threads an atomic operation may
        happen in between, and the read then sees its value.
        """
        var, self.pending = self.pending, None
        if var is not None:
            self.acquire(var.atomic)

    def release(self) -> Release:
        """Publish the clock, so that others can be ordered after this point; begin a new epoch."""
        if self.pending is not None:
            self.caught_up()
        self.frozen = True
        now = (self.epoch, self.others)
        self.epoch += ONE
        return now

    def acquire(self, released: Release | None) -> None:
        """Order this thread after *released* from here on."""
        if released is None:
            return
        epoch, knew = released
        tid = epoch & TID_MASK
        mine = self.others
        if tid == self.tid or mine.get(tid, 0) >= epoch:
            return  # the other entries of that release are known too
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
    """One shared field of one object: last write, reads since, last atomic operation."""

    __slots__ = ("atomic", "atomic_site", "read", "read_site", "reads", "write", "write_site")

    def __init__(self) -> None:
        self.write = 0
        self.write_site = 0
        self.read = 0
        self.read_site = 0
        self.reads: dict[int, tuple[int, int]] | None = None
        """Unordered readers: thread → (epoch, site); None while a single epoch is enough."""
        self.atomic: Release | None = None
        """The release of the last atomic operation that changed it."""
        self.atomic_site = 0


class Named(NamedTuple):
    """What is kept of a thread after it has ended."""

    name: str
    role: str


class Clash(NamedTuple):
    """Two unordered accesses: *deed* by *td* now, *last_deed* before."""

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
    """The releases of a lock by its shared holders, and the last one by an exclusive holder."""

    __slots__ = ("excl", "shared")

    def __init__(self) -> None:
        self.excl: Release | None = None
        self.shared: list[Release] = []
