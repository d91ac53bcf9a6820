"""Reading the event log of locks: its edges, and how long locks were held and waited for."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from smpvm.check.lockevents import LOG_NAME, VERSION, rotated
from smpvm.files import lines, naming, parse_json
from smpvm.shape import Misfit, Shape, flag, integer, list_of, nullable, one_of, record, table, text
from smpvm.text import quoted

EVENTS: Final = ("acquire", "release", "block", "wake", "drop", "regain")
MOST_CLASSES: Final = 200
"""A kernel has a few dozen lock classes."""
MOST_EDGES: Final = 2000


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
    return run / LOG_NAME if os.path.isdir(run) else run


_CLASSES: Final = table(text(200), integer(0, 1 << 62), most=MOST_CLASSES)
_STACK: Final = list_of(text())
_NAME: Final = text(200)
_HEAD: Final = {"v": one_of([VERSION]), "ev": text(20)}
_RECORD: Final[Mapping[str, Shape]] = {
    "edge": record(
        {
            **_HEAD,
            "first": _NAME,
            "then": _NAME,
            "binding": flag,
            "td": text(),
            "held": text(),
            "first_stack": _STACK,
            "then_stack": _STACK,
        }
    ),
    "end": record(
        {
            **_HEAD,
            "written": integer(0, 1 << 62),
            "dropped": integer(0, 1 << 62),
            "acquired": _CLASSES,
            "contended": _CLASSES,
        }
    ),
}
_EVENT: Final = record(
    {
        **_HEAD,
        "ev": one_of(EVENTS),
        "tick": integer(-(1 << 62), 1 << 62),
        "ns": integer(-(1 << 62), 1 << 62),
        "td": text(),
        "cls": _NAME,
        "lock": nullable(text()),
        "mode": text(),
        "held": list_of(text()),
    }
)


def records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(line number, record) of the log and its rotated parts; None for a torn last line.

    Raises LogError for a damaged line or a version that this smpvm does not know.
    """
    for file in [*rotated(path), path]:
        with naming(file, LogError):
            for number, line in enumerate(lines(file, LogError), 1):
                yield number, _record(number, line)


def _record(number: int, line: bytes) -> dict[str, Any] | None:
    """The record in a line; None for one that is torn.  Raises LogError."""
    try:
        got = parse_json(line)
    except ValueError:
        if line.endswith(b"\n") or line[:5] != b'{"v":'[: len(line)]:
            raise LogError(f"line {number}: damaged: not JSON") from None
        return None
    if not isinstance(got, dict) or "ev" not in got:
        raise LogError(f"line {number}: not a line of a lock log of smpvm")
    if got.get("v") != VERSION:
        raise LogError(
            f"line {number}: format version {quoted(got.get('v'))}; "
            f"this smpvm reads version {VERSION}"
        )
    try:
        _RECORD.get(str(got["ev"]), _EVENT)(got)
    except Misfit as why:
        raise LogError(f"line {number}: damaged: {why}") from None
    return got


def read_log(run: Path) -> LockLog:
    """Everything in the log of a run.  Raises LogError."""
    path = log_path(run)
    log = LockLog()
    since: dict[tuple[str, str], int] = {}
    blocked: dict[str, tuple[str, int]] = {}
    for number, found in records(path):
        if found is None:
            log.torn = True
            continue
        _take(log, found, since, blocked)
        if len(log.edges) > MOST_EDGES or len(log.hold) > MOST_CLASSES:
            raise LogError(
                f"{path}: line {number}: more than {MOST_CLASSES} lock classes, "
                f"or {MOST_EDGES} edges: not a log of smpvm"
            )
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
        log.dropped = r["dropped"]
        log.acquired = Counter(r["acquired"])
        log.contended = Counter(r["contended"])
        return
    log.events += 1
    td, ns = r["td"], r["ns"]
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
