"""What the source does knowingly: declared with a reason, counted, and never silently dropped."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from smpvm.text import plural

ATOMIC_READ: Final = "atomic-read"
"""Kind of declaration: of a field that changes atomically and is read without order."""

UNGUARDED: Final = "unguarded-access"
"""Kind of finding: a field used without its lock."""


class Declared(NamedTuple):
    """One declaration, as verdicts tell of it."""

    kind: str
    """The kind of finding that it answers for, or ATOMIC_READ."""
    what: str
    """A field, or what is waited for."""
    function: str
    """The C function that does it; "" for any."""
    at: str
    """The line of the C; "" where a scenario declares."""
    why: str

    def __str__(self) -> str:
        where = f" in {self.function}" if self.function else ""
        at = f" ({self.at})" if self.at else ""
        return f"{self.kind} of {self.what}{where}{at}: {self.why}"


class Tally:
    """How often one declaration answered."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Accepted:
    """The declarations that answered in one run, and how often each.

    With *heeded* false nobody may ask: every one of them is a finding.
    """

    def __init__(self, heeded: bool = True) -> None:
        self.heeded = heeded
        self._tallies: dict[Declared, Tally] = {}
        self._mutex = threading.Lock()

    def tally(self, declared: Declared) -> Tally:
        """The tally of *declared*: whoever accepts something adds to its count."""
        with self._mutex:
            return self._tallies.setdefault(declared, Tally())

    def counts(self) -> dict[Declared, int]:
        """How often each has answered so far."""
        with self._mutex:
            return {declared: tally.count for declared, tally in sorted(self._tallies.items())}

    def lines(self) -> list[str]:
        """The same for people."""
        return accepted_lines(self.counts())


def accepted_lines(counts: Mapping[Declared, int]) -> list[str]:
    """What was accepted, one line for each declaration; of what is usual only how many."""
    rows = [(d, n) for d, n in counts.items() if d.kind not in (ATOMIC_READ, UNGUARDED)]
    out = [f"accepted {plural(n, 'time')}: {declared}" for declared, n in sorted(rows)]
    atomic = [n for d, n in counts.items() if d.kind == ATOMIC_READ]
    if atomic:
        reads, fields = plural(sum(atomic), "read"), plural(len(atomic), "atomic field")
        out.append(f"accepted: {reads} of {fields} without order")
    bare = [n for d, n in counts.items() if d.kind == UNGUARDED]
    if bare:
        uses, places = plural(sum(bare), "use"), plural(len(bare), "declared place")
        out.append(f"accepted: {uses} of fields without their locks at {places}")
    return out
