"""The programs that processes run: one function for each kind of process.

Each is called in its process's thread with the ``User`` that stands for the process.  It returns
when its work is done or ``u.going()`` is false; the runner then reads back everything that the
process wrote, and the process exits.  *share* arguments are fractions of the machine's physical
pages.
"""

from __future__ import annotations

from collections.abc import Callable

from smpvm.workload.trace import FETCH, WRITE, Trace
from smpvm.workload.user import WORDS, Area, User

Kind = Callable[..., None]

BURST = 32
"""Accesses between two checks of ``u.going()``."""


def touch(u: User, area: Area, page: int, *, write: float = 0.5) -> None:
    """Write or read one word of *page*."""
    slot = u.rng.randrange(WORDS)
    if u.rng.random() < write:
        u.write(area, page, slot)
    else:
        u.read(area, page, slot)


def pick(u: User, pages: int) -> int:
    """A random page number below *pages*; with probability 0.8 one of the first fifth."""
    if u.rng.random() < 0.8:
        return u.rng.randrange(max(1, pages // 5))
    return u.rng.randrange(pages)


def hog(u: User, *, share: float, rss: float = 0.0, life: int = 0, fill: bool = False) -> None:
    """Read and write anonymous memory at random.

    *rss* limits the resident share (0: no limit); *life* ends the process after that many bursts
    (0: it does not end); *fill* writes every page first.
    """
    if rss:
        u.limit_rss(u.pages(rss))
    area = u.anonymous(u.pages(share))
    for page in range(area.pages if fill else 0):
        if page % BURST == 0 and not u.going():
            return
        u.write(area, page, 0)
    bursts = 0
    while u.going() and not 0 < life <= bursts:
        for _ in range(BURST):
            touch(u, area, pick(u, area.pages))
        bursts += 1


def short_lived(u: User, *, share: float) -> None:
    """Fill some memory, use it a little, and exit; the runner starts another."""
    area = u.anonymous(u.pages(share))
    for page in range(area.pages):
        if page % BURST == 0 and not u.going():
            return
        u.write(area, page, 0)
    for _ in range(area.pages // 2):
        touch(u, area, u.rng.randrange(area.pages), write=0.1)


def file_reader(u: User, *, share: float, order: str) -> None:
    """Map a shared file and read it, sequentially or at random."""
    area = u.shared_file("common", u.pages(share))
    at = 0
    while u.going():
        for _ in range(BURST):
            page = at if order == "sequential" else u.rng.randrange(area.pages)
            u.read(area, page, u.rng.randrange(WORDS))
            at = (at + 1) % area.pages


def file_writer(u: User, *, share: float, msync_every: int = 200) -> None:
    """Map a shared file; write the words that this process owns, read any, and msync sometimes."""
    area = u.shared_file("common", u.pages(share))
    mine = u.own_word(area)
    bursts = 0
    while u.going():
        for _ in range(BURST):
            page = u.rng.randrange(area.pages)
            if mine is not None and u.rng.random() < 0.5:
                u.write(area, page, mine)
            else:
                u.read(area, page, u.rng.randrange(WORDS))
        bursts += 1
        if bursts % msync_every == 0:
            u.msync(area)


def file_cutter(u: User, *, share: float) -> None:
    """Map a private file: write it, truncate it to half, extend it again."""
    area = u.own_file(u.pages(share))
    while u.going():
        for page in range(area.pages):
            if page % BURST == 0 and not u.going():
                return
            u.write(area, page, 0)
        u.truncate(area, area.pages // 2)
        for page in range(area.pages // 2):
            u.read(area, page, 0)
        u.truncate(area, area.pages)


def raw_io(u: User, *, share: float, file: bool = False) -> None:
    """Use memory (anonymous, or a shared *file*), and do raw I/O from it now and then."""
    area = u.shared_file("common", u.pages(share)) if file else u.anonymous(u.pages(share))
    while u.going():
        for _ in range(BURST):
            touch(u, area, u.rng.randrange(area.pages), write=0.0 if file else 0.5)
        pages = [u.rng.randrange(area.pages) for _ in range(8)]
        u.raw_io(area, pages, u.rng.randrange(1, 100))


def fork_tree(u: User, *, share: float, depth: int = 1, rss: float = 0.0) -> None:
    """Fill memory and fork; parent and children then write to the pages that they share."""
    if rss:
        u.limit_rss(u.pages(rss))
    area = u.anonymous(u.pages(share))
    for page in range(area.pages):
        u.write(area, page, 0)
    while u.going():
        children = [u.fork(_fork_child, area, depth - 1) for _ in range(2)]
        for _ in range(area.pages):
            touch(u, area, u.rng.randrange(area.pages))
            if not u.going():
                break
        u.wait(children)


def _fork_child(u: User, area: Area, depth: int) -> None:
    for _ in range(area.pages):
        if not u.going():
            return
        touch(u, area, u.rng.randrange(area.pages), write=0.4)
    if depth > 0:
        u.wait([u.fork(_fork_child, area, depth - 1)])
        for page in range(0, area.pages, 3):
            u.read(area, page, 0)


def exec_churn(u: User, *, share: float) -> None:
    """Use some memory, then exec, which discards the address space; repeat."""
    while u.going():
        area = u.anonymous(u.pages(share))
        for _ in range(area.pages):
            touch(u, area, u.rng.randrange(area.pages))
        u.exec()
        u.sleep(0.2)


def locker(u: User, *, share: float) -> None:
    """mlock and munlock parts of an area."""
    area = u.anonymous(u.pages(share) * 4)
    while u.going():
        first = u.rng.randrange(area.pages)
        count = min(area.pages // 4 or 1, area.pages - first)
        if u.mlock(area, first, count):
            for _ in range(BURST):
                touch(u, area, first + u.rng.randrange(count))
            u.munlock(area, first, count)
        u.sleep(0.2)
        for _ in range(BURST):
            touch(u, area, u.rng.randrange(area.pages))


def advise(u: User, *, share: float) -> None:
    """madvise(DONTNEED, FREE, WILLNEED) on parts of anonymous memory."""
    area = u.anonymous(u.pages(share))
    while u.going():
        for _ in range(BURST * 2):
            touch(u, area, u.rng.randrange(area.pages))
        first = u.rng.randrange(area.pages)
        count = min(8, area.pages - first)
        u.madvise(area, first, count, u.rng.choice(("dontneed", "free", "willneed")))


def sleeper(u: User, *, share: float) -> None:
    """Fill memory, then sleep most of the time: an idle process whose pages can be stolen."""
    area = u.anonymous(u.pages(share))
    for page in range(area.pages):
        u.write(area, page, 0)
    while u.going():
        u.sleep(3.0)
        for page in range(area.pages):
            u.read(area, page, 0)


def text_pages(trace: Trace) -> list[int]:
    """The pages that a recorded program executed and never wrote: its text."""
    written, fetched = set(), set()
    for ref in trace.refs:
        if ref & 3 == WRITE:
            written.add(ref >> 2)
        elif ref & 3 == FETCH:
            fetched.add(ref >> 2)
    return sorted(fetched - written)


def trace(u: User, *, trace: Trace) -> None:
    """Replay the page references of a recorded program, over and over.

    The program's text is mapped from a file; all other pages are anonymous memory.
    """
    text = text_pages(trace)
    data = sorted(set(range(trace.pages)).difference(text))
    areas: dict[int, tuple[Area, int]] = {}
    if text:
        area = u.shared_file(f"text of {trace.name}", len(text))
        areas.update((page, (area, i)) for i, page in enumerate(text))
    if data:
        area = u.anonymous(len(data))
        areas.update((page, (area, i)) for i, page in enumerate(data))
    while u.going():
        for n, ref in enumerate(trace.refs):
            if n % BURST == 0 and not u.going():
                return
            area, page = areas[ref >> 2]
            if ref & 3 == WRITE:
                u.write(area, page, n % WORDS)
            else:
                u.read(area, page, n % WORDS)


KINDS: dict[str, Kind] = {
    f.__name__: f
    for f in (
        hog,
        short_lived,
        file_reader,
        file_writer,
        file_cutter,
        raw_io,
        fork_tree,
        exec_churn,
        locker,
        advise,
        sleeper,
        trace,
    )
}
