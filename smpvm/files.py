"""Reading files that others have written: regular files only, never more than a limit.

Every reader of a format goes through here.  gzip is unpacked on the way, and the limits count
unpacked bytes: a small file that unpacks to a huge one is refused before it fills the memory.
What cannot be read is one line, raised as the format's own error; ``naming`` puts the file's name
before it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from smpvm.text import brief, printable

MIB: Final = 1 << 20


@contextmanager
def naming(path: Path, error: type[ValueError]) -> Iterator[None]:
    """Every *error* raised inside is raised again with the name of the file before it."""
    try:
        yield
    except error as why:
        raise error(f"{shown(path)}: {why}") from None


def shown(path: Path) -> str:
    """The name of a file in an error line."""
    return brief(printable(str(path)), 250)


@contextmanager
def opened(path: Path, error: type[ValueError]) -> Iterator[io.BufferedReader[Any]]:
    """The bytes of the regular file *path*, unpacked if it is gzip.  Raises *error*."""
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as why:
        raise error(str(why.strerror or why)) from None
    except ValueError:  # a null character in the name
        raise error("not the name of a file") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise error("not a regular file")
    with open(fd, "rb") as raw:
        try:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as unpacked, io.BufferedReader(unpacked) as data:
                yield data
        except EOFError:
            raise error("damaged or truncated gzip data: it is cut short") from None
        except (gzip.BadGzipFile, zlib.error):
            raise error("damaged or truncated gzip data: not whole gzip data") from None
        except OSError as why:
            raise error(str(why.strerror or why)) from None


def read(path: Path, most: int, error: type[ValueError]) -> bytes:
    """All of *path*, at most *most* bytes.  Raises *error*."""
    with opened(path, error) as data:
        got = data.read(most + 1)
    if len(got) > most:
        raise error(f"larger than {most // MIB} MiB")
    return got


def lines(
    path: Path, error: type[ValueError], *, longest: int = MIB, most: int = 1024 * MIB
) -> Iterator[bytes]:
    """The lines of *path*, each with its newline.  Raises *error*."""
    left = most
    with opened(path, error) as data:
        number = 0
        while line := data.readline(longest + 1):
            number += 1
            left -= len(line)
            if len(line) > longest:
                raise error(f"line {number}: longer than {longest:,} bytes")
            if left < 0:
                raise error(f"larger than {most // MIB} MiB")
            yield line


def document(path: Path, most: int, error: type[ValueError]) -> Any:
    """The JSON document in *path*.  Raises *error*."""
    try:
        return parse_json(read(path, most, error))
    except error:
        raise
    except ValueError as why:
        raise error(f"damaged: {why}") from None


def parse_json(data: bytes) -> Any:
    """One JSON document in UTF-8, as the standard has it: no NaN.  Raises ValueError."""
    try:
        return json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):  # numbers of 5,000 digits are a ValueError, too
        raise ValueError("not JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
