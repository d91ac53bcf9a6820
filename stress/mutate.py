"""Damages files at random: JSON values, bytes, lines; all choices come from a given Random."""

from __future__ import annotations

import copy
import gzip
import json
import random
import re
from typing import Any, Final

EXTREMES: Final = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 256, 4095, 4097, 65536),
    *((1 << 31) - 1, 1 << 31, 1 << 32, 1 << 62, 1 << 63, 1 << 64, 10**30, -(1 << 63)),
    *(0.5, -1e308, 1e308, float("inf"), float("nan")),
    *("", "x", "x" * 5000, "\ud800", "\x00", "\x1b[2J", "٣", "1_000", "../../x", "a\nb"),
    *([], {}, [[]], [0], {"a": 1}, [None], {"id": 0}),
)
NUMBERS: Final = (
    *(b"0", b"-1", b"1", b"255", b"4294967296", b"18446744073709551616", b"9" * 30),
    *(b"9" * 5000, b"1e999", b"NaN", b"1_0", b"0x10", "٣".encode(), b"", b"00"),
)


def places(doc: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in a document."""
    found: list[tuple[Any, Any]] = []
    todo = [doc]
    while todo:
        part = todo.pop()
        keys = part if isinstance(part, dict) else range(len(part))
        for key in keys:
            found.append((part, key))
            if isinstance(part[key], dict | list):
                todo.append(part[key])
    return found


def mutate_json(rng: random.Random, doc: Any) -> Any:
    """A copy of *doc* with one to three changes."""
    doc = copy.deepcopy(doc)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        every = places(doc)
        if every:
            _change(rng, every, *rng.choice(every))
    return doc


def _change(rng: random.Random, every: list[tuple[Any, Any]], part: Any, key: Any) -> None:
    what = rng.randrange(8)
    value = part[key]
    if what == 0:
        del part[key]
    elif what == 1 and isinstance(value, int) and not isinstance(value, bool):
        part[key] = value + rng.choice((-1, 1, -4096, 4096, 1 << 31, -value))
    elif what == 2:
        other, at = rng.choice(every)
        part[key] = copy.deepcopy(other[at])
    elif what == 3 and isinstance(value, list) and value:
        value.append(copy.deepcopy(rng.choice(value)))
    elif what == 4 and isinstance(value, list):
        rng.shuffle(value)
    elif what == 5 and isinstance(part, dict):
        part[rng.choice(("x", "id", "0", "", "٣", "x" * 5000))] = part.pop(key)
    else:
        part[key] = copy.deepcopy(rng.choice(EXTREMES))


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """*data* with some bytes changed, cut, moved or duplicated, or numbers replaced."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 1, 4, 100)))
        what = rng.randrange(7)
        if what == 0:
            out[at:end] = rng.randbytes(end - at)
        elif what == 1:
            del out[at:]
        elif what == 2:
            del out[at:end]
        elif what == 3:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        elif what == 4:
            out[at:at] = rng.choice((b"\n", b"\0", b"\xff", b'"', b"{", b"[" * 2000, b",", b"\x1b"))
        elif numbers := list(re.finditer(rb"[0-9]+", out)):
            match = rng.choice(numbers)
            out[match.start() : match.end()] = rng.choice(NUMBERS)
    return bytes(out)


def mutate_lines(rng: random.Random, data: bytes) -> bytes:
    """*data* with lines shuffled, dropped, duplicated or joined."""
    lines = data.splitlines(keepends=True)
    what = rng.randrange(4)
    if what == 0:
        rng.shuffle(lines)
    elif what == 1:
        lines = [line for line in lines if rng.random() < 0.8]
    elif what == 2:
        lines += lines[: rng.randrange(len(lines) + 1)]
    elif lines:
        at = rng.randrange(len(lines))
        lines[at] = lines[at].rstrip(b"\n")
    return b"".join(lines)


def dumps(doc: Any) -> bytes:
    """JSON, not always valid by the standard."""
    return json.dumps(doc).encode()


def wrap(rng: random.Random, data: bytes) -> bytes:
    """*data*, sometimes compressed with gzip, intact or damaged."""
    what = rng.randrange(20)
    if what == 0:
        return _zip(data)
    if what == 1:
        return mutate_bytes(rng, _zip(data))
    if what == 2:
        return _zip(data) + _zip(data)
    if what == 3 and rng.random() < 0.02:
        return _zip(data[: rng.randrange(len(data) + 1)] + bytes(300 << 20))
    return data


def _zip(data: bytes) -> bytes:
    """gzip without a timestamp, so that a case is always the same."""
    return gzip.compress(data, 1, mtime=0)
