"""What the C source does on purpose: declared with a reason, and counted instead of reported."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from smpvm.text import plural

ATOMIC_READ: Final = "atomic-read"
"""Kind of declaration: a field that is changed atomically and read without synchronization."""

UNGUARDED: Final = "unguarded-access"
"""Kind of finding: a field used without its lock."""


class Declared(NamedTuple):
    """One declaration, as shown in verdicts."""

    kind: str
    """The kind of finding that it accepts, or ATOMIC_READ."""
    what: str
    """A field, or the lock that is waited for."""
    function: str
    """The C function that does it; "" for any."""
    at: str
    """The line of the C; "" if a scenario declares it."""
    why: str

    def __str__(self) -> str:
        where = f" in {self.function}" if self.function else ""
        at = f" ({self.at})" if self.at else ""
        return f"{self.kind} of {self.what}{where}{at}: {self.why}"


class Tally:
    """How often one declaration matched."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Accepted:
    """The declarations that matched in one run, and how often each.

    If *heeded* is false, declarations are ignored and each case is reported as a finding.
    """

    def __init__(self, heeded: bool = True) -> None:
        self.heeded = heeded
        self._tallies: dict[Declared, Tally] = {}
        self._mutex = threading.Lock()

    def tally(self, declared: Declared) -> Tally:
        """The tally of *declared*; a checker that accepts a case adds to its count."""
        with self._mutex:
            return self._tallies.setdefault(declared, Tally())

    def counts(self) -> dict[Declared, int]:
        """How often each has matched so far."""
        with self._mutex:
            return {declared: tally.count for declared, tally in sorted(self._tallies.items())}

    def lines(self) -> list[str]:
        """The same as text."""
        return accepted_lines(self.counts())


def accepted_lines(counts: Mapping[Declared, int]) -> list[str]:
    """What was accepted, one line per declaration; of the usual ones only the sums."""
    rows = [(d, n) for d, n in counts.items() if d.kind not in (ATOMIC_READ, UNGUARDED)]
    out = [f"accepted {plural(n, 'time')}: {declared}" for declared, n in sorted(rows)]
    atomic = [n for d, n in counts.items() if d.kind == ATOMIC_READ]
    if atomic:
        reads, fields = plural(sum(atomic), "read"), plural(len(atomic), "atomic field")
        out.append(f"accepted: {reads} of {fields} without synchronization")
    bare = [n for d, n in counts.items() if d.kind == UNGUARDED]
    if bare:
        uses, places = plural(sum(bare), "use"), plural(len(bare), "declared place")
        out.append(f"accepted: {uses} of fields without their locks at {places}")
    return out
