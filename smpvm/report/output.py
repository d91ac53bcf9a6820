"""Standard output that cannot fail: here, and nowhere else, a full disk or a closed pipe is met.

``printing()`` puts an ``Output`` in place of ``sys.stdout`` for the time of a command, so that
whatever prints (commands, displays, click, rich) prints into it.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from smpvm.text import brief


class Output(io.TextIOBase):
    """Passes lines on to *stream* at once.

    If the reader of a pipe has gone, the rest is dropped, and ``reader_gone`` says so.  If a line
    cannot be written for another reason, it and the rest go to standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.reader_gone = False
        self._stream: TextIO | None = stream
        self._was = stream
        self._line: list[str] = []
        self._mutex = threading.RLock()  # model threads print findings
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return getattr(self._was, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Is it a terminal?"""
        return self._was.isatty()

    def fileno(self) -> int:
        """The file descriptor of the stream.  Raises OSError where it has none."""
        return self._was.fileno()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Keep *text*, and pass it on once the line is complete.  Never fails."""
        if not isinstance(text, str):
            raise TypeError(f"text is wanted, not {type(text).__name__}")
        with self._mutex:
            self._line.append(text)
            if "\n" in text:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Pass on what is kept.  Never fails."""
        with self._mutex:
            text, self._line = "".join(self._line), []
            if not text:
                return
            if self._stream is not None:
                try:
                    self._stream.write(text)
                    self._stream.flush()
                    return
                except (OSError, ValueError) as why:
                    self._lose(why)
            if not self.reader_gone:
                _to_stderr(text)

    def _lose(self, why: OSError | ValueError) -> None:
        assert self._stream is not None
        _detach(self._stream)
        self._stream = None
        if isinstance(why, BrokenPipeError):
            self.reader_gone = True
        else:
            complain(f"standard output: {getattr(why, 'strerror', None) or why}; see below")


def reader_gone() -> bool:
    """Has whoever read standard output gone?  Then a run may end early."""
    return bool(getattr(sys.stdout, "reader_gone", False))


def width() -> int:
    """Characters of a line on standard output: the terminal's, or 100."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 100


@contextmanager
def printing() -> Iterator[None]:
    """Standard output is an ``Output`` meanwhile."""
    before = sys.stdout
    sys.stdout = out = Output(before)
    try:
        yield
    finally:
        out.flush()
        sys.stdout = before


def complain(text: str) -> None:
    """One line on standard error; words longer than any sensible path, and the whole, are cut."""
    words = [brief(word) if len(word) > 160 else word for word in text.split()]
    _to_stderr(f"smpvm: {brief(' '.join(words), 1000)}\n")


def _to_stderr(text: str) -> None:
    stream = sys.stderr
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        _detach(stream)


def _detach(stream: TextIO) -> None:
    """Let the interpreter flush the rest of a broken stream to nowhere, at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
