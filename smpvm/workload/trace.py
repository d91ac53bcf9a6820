"""Page-reference traces: what a program did to its memory, reduced to pages.

The file format (version 1), gzip around everything::

    {"format": "smpvm-trace", "version": 1, ...}\\n      one line of JSON, see ``Trace.header``
    reference, reference, ...                           one LEB128 varint each

The pages of the program are numbered from 0 in order of address; ``runs`` in the header lists
them as ``[first page number of the program, count]``, so the numbering can be undone.  A reference
is the zigzag-coded difference of its page's number to the one before (from 0), times four, plus
its kind: 0 read, 1 write, 2 instruction fetch.  gzip's own checksum guards the whole.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from smpvm.files import MIB, lines, naming, opened, parse_json, shown
from smpvm.files import read as read_bytes
from smpvm.shape import Misfit, flag, integer, list_of, one_of, record, row, text
from smpvm.text import brief, quoted

FORMAT: Final = "smpvm-trace"
VERSION: Final = 1

READ: Final = 0
WRITE: Final = 1
FETCH: Final = 2

MAX_HEADER: Final = 4 * MIB
MAX_REFS: Final = 50_000_000
MAX_PAGE: Final = (1 << 52) - 1
"""The last page of a 64-bit address space."""
MAX_FILE: Final = 256 * MIB
"""Of a trace, unpacked: the header, and up to nine bytes for each reference."""
MAX_LINE: Final = MIB
MAX_LOG: Final = 16 * 1024 * MIB
"""Of a raw log, unpacked; `smpvm record` reads longer ones while they are made."""


class TraceError(ValueError):
    """A trace that cannot be read or made: one line with the file and what is wrong."""


@dataclass
class Trace:
    """A reduced trace.  ``refs`` holds ``page * 4 + kind`` for each reference."""

    refs: array[int]
    runs: list[tuple[int, int]]
    name: str = ""
    command: list[str] = field(default_factory=list)
    seen: int = 0
    """Memory references of the program that these stand for."""
    window: int = 0
    whole: bool = True
    """False: the recording was cut at its limit."""
    skipped: int = field(default=0, compare=False)
    """Lines of a raw log that were not lackey's.  Not kept in the file."""

    @property
    def pages(self) -> int:
        """How many pages the program touched."""
        return sum(count for _, count in self.runs)

    def header(self) -> dict[str, Any]:
        """The JSON line: format, version, name, command, pages, refs, runs, and how reduced."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "command": self.command,
            "pages": self.pages,
            "refs": len(self.refs),
            "seen": self.seen,
            "window": self.window,
            "whole": self.whole,
            "runs": [list(run) for run in self.runs],
        }

    def counts(self) -> tuple[int, int, int]:
        """References by kind: reads, writes, fetches."""
        got = [0, 0, 0]
        for ref in self.refs:
            got[ref & 3] += 1
        return got[0], got[1], got[2]


def dump(trace: Trace) -> bytes:
    """The file for *trace*; the same bytes for the same trace.  Raises TraceError."""
    body = bytearray(json.dumps(trace.header(), separators=(",", ":")).encode() + b"\n")
    if len(body) > MAX_HEADER:
        raise TraceError(f"its memory is in {len(trace.runs):,} pieces: more than a trace can list")
    last = 0
    for ref in trace.refs:
        delta = (ref >> 2) - last
        last = ref >> 2
        n = (delta * 2 if delta >= 0 else -delta * 2 - 1) << 2 | (ref & 3)
        while n > 0x7F:
            body.append(n & 0x7F | 0x80)
            n >>= 7
        body.append(n)
    return gzip.compress(bytes(body), compresslevel=9, mtime=0)


def save(trace: Trace, path: Path) -> int:
    """Write *trace* to *path*; returns the size in bytes.  Raises TraceError."""
    data = dump(trace)
    try:
        path.write_bytes(data)
    except OSError as why:
        raise TraceError(f"{shown(path)}: {why.strerror or why}") from None
    return len(data)


def _varints(data: bytes) -> Iterator[int]:
    n = shift = 0
    for byte in data:
        n |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 56:
                raise TraceError("damaged: a number does not end")
        else:
            yield n
            n = shift = 0
    if shift:
        raise TraceError("damaged: it ends inside a number")


_RUN: Final = row(integer(0, MAX_PAGE), integer(1, MAX_REFS))
_HEADER: Final = record(
    {
        "format": one_of([FORMAT]),
        "version": one_of([VERSION]),
        "pages": integer(1, MAX_REFS),
        "refs": integer(1, MAX_REFS),
        "runs": list_of(_RUN, "run", least=1),
    },
    {
        "name": text(200),
        "command": list_of(text()),
        "seen": integer(0, 1 << 62),
        "window": integer(0, 1 << 20),
        "whole": flag,
    },
)


def _header(line: bytes) -> dict[str, Any]:
    """The header line, validated.  Raises TraceError."""
    try:
        header = parse_json(line)
    except ValueError:
        raise TraceError("damaged: the header is not JSON") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TraceError("not a trace of smpvm")
    if header.get("version") != VERSION:
        raise TraceError(
            f"format version {quoted(header.get('version'))}; this smpvm reads version {VERSION}"
        )
    try:
        _HEADER(header)
    except Misfit as why:
        raise TraceError(f"damaged header: {why}") from None
    end = total = 0
    for first, count in header["runs"]:
        if first < end:
            raise TraceError(f"damaged header: run [{first}, {count}] is out of order")
        end, total = first + count, total + count
    if total != header["pages"]:
        raise TraceError("damaged header: the runs do not add up to its pages")
    if header["pages"] > header["refs"]:
        raise TraceError(
            f"damaged header: {header['pages']:,} pages, but only {header['refs']:,} references: "
            "each page has one at least"
        )
    return header


def parse(data: bytes) -> Trace:
    """The trace of an unpacked file.  Raises TraceError.

    Whoever replays it makes something of each page: a header may not claim more pages than the
    file has references, nor more references than it has bytes.
    """
    line, newline, body = data.partition(b"\n")
    if not newline or len(line) > MAX_HEADER:
        raise TraceError("damaged: no header line")
    header = _header(line)
    pages, count = header["pages"], header["refs"]
    if count > len(body):
        raise TraceError(f"damaged: {len(body):,} bytes of references, its header says {count:,}")
    refs = array("I")
    last = 0
    for n in _varints(body):
        kind, zigzag = n & 3, n >> 2
        last += -(zigzag + 1 >> 1) if zigzag & 1 else zigzag >> 1
        if not 0 <= last < pages or kind > FETCH:
            raise TraceError(f"damaged: reference {len(refs)} names page {last} of {pages}")
        refs.append(last << 2 | kind)
        if len(refs) > count:
            raise TraceError(f"damaged: more references than the {count} of its header")
    if len(refs) != count:
        raise TraceError(f"damaged: {len(refs)} references, its header says {count}")
    return Trace(
        refs,
        [(first, length) for first, length in header["runs"]],
        header.get("name", ""),
        header.get("command", []),
        header.get("seen", 0),
        header.get("window", 0),
        header.get("whole", True),
    )


KNOWN_BY: Final = (1 << READ, 1 << WRITE | 1 << READ, 1 << FETCH)
"""The kinds of reference that say nothing new after one of each kind."""


_REFERENCE: Final = re.compile(rb"(I  | L | S | M )([0-9a-f]{1,16}),([1-9][0-9]{0,3})\n?")
"""A line of lackey: "I  addr,size" fetch, " L addr,size" load, " S" store, " M" both."""


class Reducer:
    """Turns memory references into page references.

    The last *window* pages are remembered, each with the kinds of reference since it came in; a
    reference that adds no kind to a remembered page is dropped (a write counts as a read too).  A
    small memory would hold those pages anyway; with a window of one this is the collapsing of
    runs.  A first write to a page that was only read is kept.  At most *limit* references are.
    """

    def __init__(self, window: int = 8, limit: int = 200_000, *, strict: bool = True) -> None:
        self.window = window
        self.limit = limit
        self.seen = 0
        self.skipped = 0
        """Lines that are not lackey's: the program's own output."""
        self.full = False
        self._strict = strict
        self._lines = 0
        self._recent: dict[int, int] = {}
        self._pages: dict[int, int] = {}
        self._refs = array("I")
        self._last = {FETCH: -1, WRITE: -1}
        self._wrote = False

    def feed(self, lines: Iterable[bytes]) -> None:
        """Take lines of a lackey log, from where it was left; stops early once ``full``.

        Raises TraceError, if *strict*, for a line that begins like one of lackey's and goes on
        otherwise; two processes that write the same log may make such lines.
        """
        match = _REFERENCE.fullmatch
        last, wrote = self._last, self._wrote
        for line in lines:
            self._lines += 1
            found = match(line)
            if found is None:
                self._other(line)
                continue
            what = found[1]
            page = int(found[2], 16) >> 12
            self.seen += 1
            if what == b"I  ":
                if page == last[FETCH]:
                    continue
                last[FETCH], kind = page, FETCH
            else:
                kind = READ if what == b" L " else WRITE
                if page == last[WRITE] and (kind == READ or wrote):
                    continue
                last[WRITE], wrote = page, kind == WRITE
            if self._take(page, kind):
                return
        self._wrote = wrote

    def _take(self, page: int, kind: int) -> bool:
        """One reference that is not the same as the one before; returns whether that is all."""
        mask = self._recent.pop(page, 0)
        self._recent[page] = mask | KNOWN_BY[kind]
        if not mask & 1 << kind:
            number = self._pages.setdefault(page, len(self._pages))
            self._refs.append(number << 2 | kind)
            self.full = len(self._refs) >= self.limit
        if len(self._recent) > self.window:
            del self._recent[next(iter(self._recent))]
        return self.full

    def _other(self, line: bytes) -> None:
        """A line that is no reference.  Raises TraceError if it was to be one."""
        if self._strict and line.startswith((b"I  ", b" L ", b" S ", b" M ")):
            echo = brief(ascii(line.rstrip(b"\n"))[1:])
            raise TraceError(
                f"line {self._lines}: {echo} is not one of lackey's: a hexadecimal address, "
                "a comma, and a size from 1 to 9999 are allowed"
            )
        self.skipped += not line.startswith(b"==")

    def trace(self, name: str = "", command: Iterable[str] = ()) -> Trace:
        """What was kept, its pages numbered in order of address.  Raises TraceError if nothing."""
        if not self._refs:
            raise TraceError("no memory references in it")
        order = array("I", bytes(4 * len(self._pages)))
        runs: list[tuple[int, int]] = []
        for new, page in enumerate(sorted(self._pages)):
            order[self._pages[page]] = new
            if runs and page == runs[-1][0] + runs[-1][1]:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((page, 1))
        refs = array("I", (order[ref >> 2] << 2 | ref & 3 for ref in self._refs))
        return Trace(
            refs,
            runs,
            name,
            list(command),
            self.seen,
            self.window,
            not self.full,
            skipped=self.skipped,
        )


def _is_lackey(head: bytes) -> bool:
    line = head.lstrip().partition(b"\n")[0]
    return line.startswith((b"==", b"I ", b"L ", b"S ", b"M "))


def read(path: Path, *, window: int = 8, limit: int = 200_000) -> Trace:
    """A trace file, or a raw lackey log (either may be gzipped).  Raises TraceError."""
    with naming(path, TraceError):
        with opened(path, TraceError) as data:
            head = data.peek(4096)[:4096]
        if head.startswith(b"{"):
            trace = parse(read_bytes(path, MAX_FILE, TraceError))
        elif _is_lackey(head):
            reducer = Reducer(window, limit)
            reducer.feed(lines(path, TraceError, longest=MAX_LINE, most=MAX_LOG))
            trace = reducer.trace()
        else:
            raise TraceError("neither a trace of smpvm nor a log of valgrind's lackey")
    trace.name = trace.name or path.name.partition(".")[0]
    return trace


def check_writable(path: Path) -> None:
    """Raises TraceError now if *path* could not be written later."""
    there = os.path.lexists(path)
    try:
        # Without O_NONBLOCK, opening a pipe that nobody reads would wait for ever.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666))
        if not there:
            path.unlink()
    except OSError as why:
        raise TraceError(f"{shown(path)}: {why.strerror or why}") from None
