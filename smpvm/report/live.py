"""The display of a running machine: a progress bar, and the vmstat table, one row a second."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smpvm.report.vmstat import LEGEND, header, row, table, values
from smpvm.workload.sample import Sample

ROWS = 18
HEADING_EVERY = 20


class Watch:
    """Takes samples and shows nothing; the base of the others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing to undo."""

    def sample(self, now: Sample, total: float) -> None:
        """Show one sample; the run lasts *total* host seconds."""

    def note(self, text: str) -> None:
        """A line between the rows."""


class PlainWatch(Watch):
    """Lines, for a pipe or a file."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._last = Sample()
        self._rows = 0
        self._cpus = os.cpu_count() or 1

    def sample(self, now: Sample, total: float) -> None:
        if self._rows % HEADING_EVERY == 0:
            for line in header():
                self._write(line)
        self._write(row(values(self._last, now, self._cpus)))
        self._last = now
        self._rows += 1

    def note(self, text: str) -> None:
        self._write(text)


class RichWatch(Watch):
    """A table that stays in place, on a terminal."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._last = Sample()
        self._rows: list[list[int]] = []
        self._cpus = os.cpu_count() or 1
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, why, tb)
        if self._rows:
            self._console.print(self._table(), highlight=False)

    def sample(self, now: Sample, total: float) -> None:
        self._rows = [*self._rows[1 - ROWS :], values(self._last, now, self._cpus)]
        self._last = now
        done = min(now.seconds, total)
        progress = Table.grid(padding=(0, 2))
        progress.add_row(
            self._title,
            ProgressBar(total=total, completed=done, width=40),
            f"{now.seconds:.0f} of {total:.0f} s",
        )
        self._live.update(Group(progress, self._table()))

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _table(self) -> Text:
        lines = table(self._rows, self._console.width)
        return Text("\n".join([*lines, "", *textwrap.wrap(LEGEND, self._console.width)]))


def watch(title: str, *, quiet: bool = False) -> Watch:
    """The display that suits standard output: none, plain lines, or a table in place."""
    if quiet:
        return Watch()
    console = Console()
    if console.is_terminal:
        return RichWatch(console, title)
    return PlainWatch(print)
