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
import io
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FORMAT: Final = "smpvm-trace"
VERSION: Final = 1

READ: Final = 0
WRITE: Final = 1
FETCH: Final = 2

MAX_HEADER: Final = 1 << 20
MAX_REFS: Final = 50_000_000
MAX_PAGES: Final = 1 << 26


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
    """The file for *trace*; the same bytes for the same trace."""
    body = bytearray(json.dumps(trace.header(), separators=(",", ":")).encode() + b"\n")
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
        raise TraceError(f"{path}: {why.strerror or why}") from None
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


def _field(header: dict[str, Any], name: str, high: int) -> int:
    value = header.get(name)
    if type(value) is not int or not 0 <= value <= high:
        raise TraceError(f"damaged header: {name} is {value!r}")
    return value


def _runs(header: dict[str, Any]) -> list[tuple[int, int]]:
    runs = header.get("runs")
    if not isinstance(runs, list):
        raise TraceError("damaged header: no runs")
    out: list[tuple[int, int]] = []
    end = 0
    for run in runs:
        if not (isinstance(run, list) and len(run) == 2 and all(type(n) is int for n in run)):
            raise TraceError(f"damaged header: run {run!r}")
        first, count = run
        if count < 1 or first < end:
            raise TraceError(f"damaged header: run {run!r} is empty or out of order")
        end = first + count
        out.append((first, count))
    return out


def parse(data: bytes) -> Trace:
    """The trace of an uncompressed file image.  Raises TraceError."""
    line, newline, body = data.partition(b"\n")
    if not newline or len(line) > MAX_HEADER:
        raise TraceError("damaged: no header line")
    try:
        header = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise TraceError("damaged: the header is not JSON") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TraceError("not a trace of smpvm")
    if header.get("version") != VERSION:
        raise TraceError(
            f"format version {header.get('version')!r}; this smpvm reads version {VERSION}"
        )
    pages = _field(header, "pages", MAX_PAGES)
    count = _field(header, "refs", MAX_REFS)
    runs = _runs(header)
    if sum(n for _, n in runs) != pages:
        raise TraceError("damaged header: the runs do not add up to its pages")
    refs = array("I")
    last = 0
    for n in _varints(body):
        kind, zigzag = n & 3, n >> 2
        last += -(zigzag + 1 >> 1) if zigzag & 1 else zigzag >> 1
        if not 0 <= last < pages or kind > FETCH:
            raise TraceError(f"damaged: reference {len(refs)} names page {last} of {pages}")
        refs.append(last << 2 | kind)
        if len(refs) > count:
            break
    if len(refs) != count:
        raise TraceError(
            f"damaged: {len(refs)} references, its header says {count}"
            if len(refs) < count
            else f"damaged: more references than the {count} of its header"
        )
    command = header.get("command")
    return Trace(
        refs,
        runs,
        str(header.get("name", "")),
        [str(word) for word in command] if isinstance(command, list) else [],
        _field(header, "seen", 1 << 62),
        _field(header, "window", 1 << 20),
        bool(header.get("whole", True)),
    )


KNOWN_BY: Final = (1 << READ, 1 << WRITE | 1 << READ, 1 << FETCH)
"""The kinds of reference that say nothing new after one of each kind."""


class Reducer:
    """Turns memory references into page references.

    The last *window* pages are remembered, each with the kinds of reference since it came in; a
    reference that adds no kind to a remembered page is dropped (a write counts as a read too).  A
    small memory would hold those pages anyway; with a window of one this is the collapsing of
    runs.  A first write to a page that was only read is kept.  At most *limit* references are.
    """

    def __init__(self, window: int = 8, limit: int = 200_000) -> None:
        self.window = window
        self.limit = limit
        self.seen = 0
        self.full = False
        self._recent: dict[bytes, int] = {}
        self._pages: dict[bytes, int] = {}
        self._refs = array("I")

    def feed(self, lines: Iterable[bytes]) -> None:
        """Take lines of a lackey log; stops early once ``full``."""
        recent, limit = self._recent, self.limit
        last_code = last_data = b""
        wrote = False
        for line in lines:
            # "I  addr,size" fetch; " L addr,size" load; " S addr,size" store; " M" both
            if line[:3] == b"I  ":
                page = line[3 : line.find(b",") - 3]
                self.seen += 1
                if page == last_code:
                    continue
                last_code, kind = page, FETCH
            elif line[:1] == b" " and line[2:3] == b" " and line[1:2] in b"LSM":
                page = line[3 : line.find(b",") - 3]
                self.seen += 1
                kind = READ if line[1:2] == b"L" else WRITE
                if page == last_data and (kind == READ or wrote):
                    continue
                last_data, wrote = page, kind == WRITE
            else:
                continue
            mask = recent.pop(page, 0)
            recent[page] = mask | KNOWN_BY[kind]
            if not mask & 1 << kind:
                self._keep(page, kind)
                if len(self._refs) >= limit:
                    self.full = True
                    return
            if len(recent) > self.window:
                del recent[next(iter(recent))]

    def _keep(self, page: bytes, kind: int) -> None:
        number = self._pages.setdefault(page, len(self._pages))
        self._refs.append(number << 2 | kind)

    def trace(self, name: str = "", command: Iterable[str] = ()) -> Trace:
        """What was kept, its pages numbered in order of address.  Raises TraceError if nothing."""
        if not self._refs:
            raise TraceError("no memory references in it")
        where = {int(page or b"0", 16): n for page, n in self._pages.items()}
        order = array("I", bytes(4 * len(self._pages)))
        runs: list[tuple[int, int]] = []
        for new, address in enumerate(sorted(where)):
            order[where[address]] = new
            if runs and address == runs[-1][0] + runs[-1][1]:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((address, 1))
        refs = array("I", (order[ref >> 2] << 2 | ref & 3 for ref in self._refs))
        return Trace(refs, runs, name, list(command), self.seen, self.window, not self.full)


def _is_lackey(head: bytes) -> bool:
    line = head.lstrip().partition(b"\n")[0]
    return line.startswith((b"==", b"I ", b"L ", b"S ", b"M "))


def read(path: Path, *, window: int = 8, limit: int = 200_000) -> Trace:
    """A trace file, or a raw lackey log (either may be gzipped).  Raises TraceError."""
    try:
        with open(path, "rb") as raw:
            plain = raw.read(2) != b"\x1f\x8b"
        with io.BufferedReader(open(path, "rb") if plain else gzip.open(path)) as data:
            head = data.peek(4096)[:4096]
            if head.startswith(b"{"):
                trace = parse(data.read())
            elif _is_lackey(head):
                reducer = Reducer(window, limit)
                reducer.feed(data)
                trace = reducer.trace()
            else:
                raise TraceError("neither a trace of smpvm nor a log of valgrind's lackey")
    except TraceError as why:
        raise TraceError(f"{path}: {why}") from None
    except EOFError:
        raise TraceError(f"{path}: damaged: it is cut short") from None
    except (gzip.BadGzipFile, zlib.error):
        raise TraceError(f"{path}: damaged: not whole gzip data") from None
    except OSError as why:
        raise TraceError(f"{path}: {why.strerror or why}") from None
    trace.name = trace.name or path.name.partition(".")[0]
    return trace


def check_writable(path: Path) -> None:
    """Raises TraceError now if *path* could not be written later."""
    there = path.exists()
    try:
        with open(path, "ab"):
            pass
        if not there:
            path.unlink()
    except OSError as why:
        raise TraceError(f"{path}: {why.strerror or why}") from None
