"""Data integrity: what each process must read, and what files must contain.

A process keeps a ``Ledger``: every word that it wrote, with the value that it must read back.
Every value is written only once, so a word of another page, or an old one, is recognized.  The
words of shared files are kept in ``FileWords``: each has one owner who writes it; for readers there
is a range of valid values while the owner is writing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from smpvm.check.finding import Finding, FindingLog, site_of
from smpvm.kern.probe import Probe

COUNTER_BITS = 40
FILE_BIT = 1 << 120


def show_value(value: Any) -> str:
    """A word as text: who wrote it, and the number of that write."""
    if not value:
        return "0 (never written)"
    if not isinstance(value, int):
        return repr(value)
    counter = value & (1 << COUNTER_BITS) - 1
    if value & FILE_BIT:
        rest = (value ^ FILE_BIT) >> COUNTER_BITS
        return f"file {rest >> 32} word {rest & 0xFFFFFFFF} version {counter}"
    return f"process {value >> COUNTER_BITS} write {counter}"


class PageHistory(Probe):
    """The last events of each page, for stale-data findings.  Slow, so only on request."""

    def __init__(self, depth: int = 24) -> None:
        self.depth = depth
        self._rings: dict[int, deque[tuple[str, str]]] = {}

    def _add(self, td: Any, m: Any, what: str) -> None:
        ring = self._rings.get(m.idx)
        if ring is None:
            ring = self._rings.setdefault(m.idx, deque(maxlen=self.depth))
        ring.append((str(td), what))

    def page_busied(self, td: Any, m: Any) -> None:
        self._add(td, m, "busied")

    def page_unbusied(self, td: Any, m: Any) -> None:
        self._add(td, m, "unbusied")

    def io_start(self, td: Any, m: Any) -> None:
        self._add(td, m, "I/O started")

    def io_finish(self, td: Any, m: Any) -> None:
        self._add(td, m, "I/O finished")

    def page_alloc(self, td: Any, m: Any) -> None:
        self._add(td, m, "allocated")

    def page_free(self, td: Any, m: Any) -> None:
        self._add(td, m, "freed")

    def page_wire(self, td: Any, m: Any, delta: int) -> None:
        self._add(td, m, f"wire {delta:+d}")

    def page_hold(self, td: Any, m: Any, delta: int) -> None:
        self._add(td, m, f"hold {delta:+d}")

    def lines(self, idx: int) -> list[str]:
        """The last events of page *idx*, oldest first."""
        return [f"page {idx}: {what} by {who}" for who, what in list(self._rings.get(idx, ()))]


Where = Callable[[int], str]
"""Names the page that now holds an address, for a finding ("" if it is not resident)."""


class Contents:
    """The records of one machine: its ledgers, its files, and the words found wrong."""

    def __init__(self, findings: FindingLog, history: PageHistory | None = None) -> None:
        self.findings = findings
        self.history = history
        self.lost = 0
        self._past = 0  # words checked by ledgers that are closed
        self._mutex = threading.Lock()
        self._ledgers: list[Ledger] = []
        self.files: list[FileWords] = []

    def ledger(self, pid: int) -> Ledger:
        """A new process's empty ledger."""
        ledger = Ledger(self, pid)
        with self._mutex:
            self._ledgers.append(ledger)
        return ledger

    def close(self, ledger: Ledger) -> None:
        """The process has ended: keep only its counts."""
        with self._mutex:
            self._ledgers.remove(ledger)
            self._past += ledger.checked

    def file(self, name: str) -> FileWords:
        """A new file's words."""
        with self._mutex:
            words = FileWords(self, len(self.files), name)
            self.files.append(words)
        return words

    @property
    def checked(self) -> int:
        """Words compared so far."""
        with self._mutex:
            return self._past + sum(ledger.checked for ledger in self._ledgers)

    def add_checked(self, n: int) -> None:
        """Count *n* comparisons made outside any ledger."""
        with self._mutex:
            self._past += n

    def stale(self, td: Any, place: str, what: str, got: Any, want: str, where: str = "") -> None:
        """A word has the wrong value: *what* names it; *place* is "memory" or "file"."""
        with self._mutex:
            self.lost += 1
        evidence = [f"read:     {show_value(got)}", f"expected: {want}"]
        if where:
            evidence.append(f"in {where}")
        if self.history is not None and (idx := page_number(where)) is not None:
            evidence += self.history.lines(idx)
        kind = "stale-data"
        lost = "old" if got else "zero"
        self.findings.add(
            Finding(
                kind,
                f"{what} reads as {show_value(got)}",
                sites=[site_of(td, f"read {what}")],
                objects=[where] if where else [],
                evidence=evidence,
                identity=(place, lost),
            )
        )

    def line(self) -> str:
        """The line that ends every run."""
        return f"contents: {self.checked:,} words checked, {self.lost:,} lost"


class Ledger:
    """What one address space must read.  Used by its own process only.

    Addresses are whatever the process uses to name a word; those not in the ledger are not
    checked.
    """

    __slots__ = ("_contents", "_count", "checked", "pid", "words")

    def __init__(self, contents: Contents, pid: int) -> None:
        self._contents = contents
        self.pid = pid
        self.words: dict[int, tuple[int, ...]] = {}
        self.checked = 0
        self._count = 0

    def fresh(self) -> int:
        """A value that has never been written before."""
        self._count += 1
        return self.pid << COUNTER_BITS | self._count

    def wrote(self, addr: int, value: int) -> None:
        """*addr* holds *value* from now on."""
        self.words[addr] = (value,)

    def maybe(self, addr: int, value: int) -> None:
        """*addr* holds *value* or its old value (the write did not return)."""
        self.words[addr] = (*self.words.get(addr, (0,)), value)

    def zeroed(self, first: int, last: int) -> None:
        """[first, last) is new zero-filled memory: its words read as 0."""
        for addr in self.within(first, last):
            self.words[addr] = (0,)

    def freed(self, first: int, last: int) -> None:
        """MADV_FREE: each word in [first, last) may be replaced by 0 at any later time."""
        for addr in self.within(first, last):
            self.words[addr] = (*self.words[addr], 0)

    def forget(self, first: int, last: int) -> None:
        """[first, last) is unmapped."""
        for addr in self.within(first, last):
            del self.words[addr]

    def within(self, first: int, last: int) -> list[int]:
        """The known words in [first, last)."""
        return [addr for addr in self.words if first <= addr < last]

    def check(self, td: Any, addr: int, got: Any, where: Where | None = None) -> bool:
        """Compare what was read at *addr*; False (and a finding) if it is wrong."""
        want = self.words.get(addr)
        if want is None:
            return True
        self.checked += 1
        if got in want:
            if len(want) > 1 and (got == 0 or 0 not in want):
                self.words[addr] = (got,)
            return True
        page = where(addr) if where is not None else ""
        self._contents.stale(
            td,
            "memory",
            f"process {self.pid} address {addr:#x}",
            got,
            " or ".join(show_value(v) for v in want),
            page,
        )
        self.words[addr] = (got,)  # report it once
        return False

    def fork(self, pid: int) -> Ledger:
        """The child's ledger: the child must read what the parent must read."""
        child = self._contents.ledger(pid)
        child.words = dict(self.words)
        return child

    def close(self) -> None:
        """The process exits."""
        self._contents.close(self)


def page_number(name: str) -> int | None:
    """12 for ``page 12``."""
    tail = name.rpartition(" ")[2]
    return int(tail) if tail.isdigit() else None


class FileWord:
    """One word of a file: how many writes its owner has begun, and how many have finished."""

    __slots__ = ("done", "started")

    def __init__(self) -> None:
        self.started = 0
        self.done = 0


class FileWords:
    """The words of one file.  Only a word's owner may call ``begin`` and ``end`` for it."""

    def __init__(self, contents: Contents, number: int, name: str) -> None:
        self._contents = contents
        self.number = number
        self.name = name
        self._words: dict[int, FileWord] = {}

    def value(self, word: int, version: int) -> int:
        """The value of *word* after *version* writes; version 0 is the initial value."""
        return FILE_BIT | (self.number << 32 | word) << COUNTER_BITS | version

    def made(self, word: int) -> int:
        """Declare *word* part of the file; returns its initial value."""
        self._words.setdefault(word, FileWord())
        return self.value(word, 0)

    def begin(self, word: int) -> int:
        """The owner is about to write *word*; returns the value."""
        state = self._words[word]
        state.started += 1
        return self.value(word, state.started)

    def end(self, word: int) -> None:
        """The write has returned: from now on nobody may read an older value."""
        state = self._words[word]
        state.done = state.started

    def before_read(self, word: int) -> int:
        """Call before a read, and pass the result to ``check``."""
        state = self._words.get(word)
        return 0 if state is None else state.done

    def check(
        self, td: Any, ledger: Ledger | None, word: int, before: int, got: Any, where: str = ""
    ) -> bool:
        """Compare a read of *word* that began when *before* writes had finished."""
        state = self._words.get(word)
        if state is None:
            return True
        if ledger is None:
            self._contents.add_checked(1)
        else:
            ledger.checked += 1
        if isinstance(got, int) and got - self.value(word, 0) in range(before, state.started + 1):
            return True
        want = show_value(self.value(word, before))
        if state.started > before:
            want += f" to {state.started}"
        what = f"file {self.name} word {word}"
        self._contents.stale(td, "file", what, got, want, where)
        return False

    def words(self) -> Iterator[int]:
        """Every word of the file."""
        return iter(sorted(self._words))

    def forget(self, first: int) -> None:
        """The file is truncated: it no longer contains the words from *first* on."""
        for word in [w for w in self._words if w >= first]:
            del self._words[word]
