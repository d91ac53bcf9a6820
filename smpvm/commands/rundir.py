"""The run directory of one run: claimed while it runs, and never written over by another."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from smpvm.config import ConfigError
from smpvm.report.output import complain

LOCK: Final = ".lock"
KEPT: Final = ("run.json", "result.json", "findings")
"""What only a run leaves behind; run.json is written before anything runs."""


@contextmanager
def claimed(asked: Path | None) -> Iterator[Path | None]:
    """The directory for a run that asked for *asked*; None if it asked for none.

    A directory in use by another run is refused.  Beside one with an earlier run a numbered one is
    made.  The kernel releases the lock when its process ends, however that ends; children of the
    process do not have it.  Raises ConfigError.
    """
    if asked is None:
        yield None
        return
    fd = -1
    try:
        path, fd = _claim(asked)
        if path != asked:
            complain(f"{asked} has an earlier run; this one is kept in {path}")
        (path / "findings").mkdir(exist_ok=True)
    except OSError as why:
        if fd >= 0:
            os.close(fd)
        raise ConfigError(f"{asked}: {why.strerror or why}") from None
    try:
        yield path
    finally:
        with suppress(OSError):
            (path / LOCK).unlink()
        os.close(fd)


def _claim(asked: Path) -> tuple[Path, int]:
    if asked.name in ("", ".."):
        asked = asked.resolve()
    number = 1
    while True:
        path = asked if number == 1 else Path(f"{asked}-{number}")
        path.mkdir(parents=True, exist_ok=True)
        fd = _lock(path, refuse=number == 1)
        if fd is not None:
            if not any((path / name).exists() for name in KEPT):
                return path, fd
            (path / LOCK).unlink()
            os.close(fd)
        number += 1


def _lock(path: Path, *, refuse: bool) -> int | None:
    """A descriptor that holds the lock of *path*; None if another process has it.

    With *refuse* that raises ConfigError instead.
    """
    while True:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as why:
            pid = os.pread(fd, 20, 0).decode(errors="replace").strip()
            os.close(fd)
            if why.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if refuse:
                raise ConfigError(f"{path}: in use by another run (process {pid})") from None
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path / LOCK)):
                with suppress(OSError):  # a full disk: the number is for people, the lock holds
                    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
        os.close(fd)  # the run that had it has just removed it
