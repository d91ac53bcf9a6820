"""Files that a run keeps beside its report: a full disk must not cost the run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Unwritten:
    """Notes which files could not be written, and why; thread-safe."""

    def __init__(self) -> None:
        self._why: dict[str, str] = {}
        self._mutex = threading.Lock()

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """An OSError in the body is noted instead of raised: the first one of each file."""
        try:
            yield
        except OSError as why:
            with self._mutex:
                self._why.setdefault(str(path), why.strerror or str(why))

    def lines(self) -> list[str]:
        """One line for each file that is missing or not whole."""
        with self._mutex:
            return [f"{path}: not written: {why}" for path, why in self._why.items()]
