"""Reading the event log of locks: its edges, and how long locks were held and waited for."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smpvm.check.lockevents import LOG_NAME, VERSION, rotated


class LogError(ValueError):
    """A log that cannot be read: one line with the file, the line, and what is wrong."""


@dataclass
class Times:
    """Durations of one lock class, in host nanoseconds."""

    count: int = 0
    total: int = 0
    longest: int = 0

    def add(self, ns: int) -> None:
        """One more."""
        self.count += 1
        self.total += ns
        self.longest = max(self.longest, ns)

    @property
    def mean(self) -> float:
        """Mean, 0 for none."""
        return self.total / self.count if self.count else 0.0


@dataclass
class LockLog:
    """The contents of a log."""

    edges: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    events: int = 0
    dropped: int = 0
    ended: bool = False
    """It has its last line; the log of a killed run does not."""
    torn: bool = False
    """Its last line is incomplete: the run was killed."""
    acquired: Counter[str] = field(default_factory=Counter)
    contended: Counter[str] = field(default_factory=Counter)
    hold: dict[str, Times] = field(default_factory=lambda: defaultdict(Times))
    wait: dict[str, Times] = field(default_factory=lambda: defaultdict(Times))


def log_path(run: Path) -> Path:
    """The log of *run*: a run directory, or the file itself."""
    return run / LOG_NAME if run.is_dir() else run


def records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(line number, record) of the log and its rotated parts; None for a torn last line.

    Raises LogError for a damaged line or a version that this smpvm does not know.
    """
    for file in [*rotated(path), path]:
        try:
            with file.open(encoding="utf-8") as lines:
                yield from _records(file, lines)
        except OSError as why:
            raise LogError(f"{file}: {why.strerror or why}") from None
        except UnicodeDecodeError:
            raise LogError(f"{file}: damaged: not text") from None


def _records(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            if line.endswith("\n"):
                raise LogError(f"{file}:{number}: damaged: not JSON") from None
            yield number, None
            return
        if not isinstance(record, dict) or "ev" not in record:
            raise LogError(f"{file}:{number}: not a line of a smpvm lock log")
        if record.get("v") != VERSION:
            raise LogError(
                f"{file}:{number}: format version {record.get('v')!r}; "
                f"this smpvm reads version {VERSION}"
            )
        yield number, record


def read_log(run: Path) -> LockLog:
    """Everything in the log of a run.  Raises LogError."""
    path = log_path(run)
    log = LockLog()
    since: dict[tuple[str, str], int] = {}
    blocked: dict[str, tuple[str, int]] = {}
    for number, record in records(path):
        if record is None:
            log.torn = True
            continue
        try:
            _take(log, record, since, blocked)
        except (KeyError, TypeError, ValueError) as why:
            raise LogError(f"{path}:{number}: damaged: {why}") from None
    return log


def _take(
    log: LockLog,
    r: dict[str, Any],
    since: dict[tuple[str, str], int],
    blocked: dict[str, tuple[str, int]],
) -> None:
    ev = r["ev"]
    if ev == "edge":
        log.edges[r["first"], r["then"]] = r
        return
    if ev == "end":
        log.ended = True
        log.dropped = int(r["dropped"])
        log.acquired = Counter(r["acquired"])
        log.contended = Counter(r["contended"])
        return
    log.events += 1
    td, ns = r["td"], int(r["ns"])
    if ev == "block":
        blocked[td] = (r["cls"], ns)
    elif ev == "acquire":
        _waited(log, td, ns, blocked)
        since[td, r["lock"]] = ns
    elif ev == "wake":
        _waited(log, td, ns, blocked)
    elif ev == "regain":
        since[td, r["lock"]] = ns
    elif ev in ("release", "drop") and (start := since.pop((td, r["lock"]), None)) is not None:
        log.hold[r["cls"]].add(ns - start)


def _waited(log: LockLog, td: str, ns: int, blocked: dict[str, tuple[str, int]]) -> None:
    wait = blocked.pop(td, None)
    if wait is not None:
        log.wait[wait[0]].add(ns - wait[1])
