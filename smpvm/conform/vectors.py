"""Reading vector files: JSON lines, plain or gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Vector = dict[str, Any]

REQUIRED = ("name", "function", "args", "config", "before", "after", "returns", "events")


class VectorError(ValueError):
    """A file that holds no vectors, or damaged ones; the text is one line that names it."""


def read_vectors(path: str | Path) -> Iterator[Vector]:
    """The vectors of one file, in order.  Raises VectorError where it is damaged."""
    seen: set[str] = set()
    for number, line in _lines(Path(path)):
        try:
            vector = json.loads(line)
        except ValueError as error:
            raise VectorError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(vector, dict):
            raise VectorError(f"{path}, line {number}: not a vector")
        missing = [key for key in REQUIRED if key not in vector]
        if missing:
            raise VectorError(f"{path}, line {number}: no {missing[0]!r}; not a vector")
        if vector["name"] in seen:
            raise VectorError(f"{path}, line {number}: {vector['name']} is there twice")
        seen.add(vector["name"])
        yield vector
    if not seen:
        raise VectorError(f"{path}: no vectors in it")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if zipped else raw
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line.decode()
    except OSError as error:
        raise VectorError(f"{path}: {error.strerror or error}") from None
    except (EOFError, zlib.error):
        raise VectorError(f"{path}: damaged or truncated gzip data") from None
    except UnicodeDecodeError:
        raise VectorError(f"{path}: not text") from None
