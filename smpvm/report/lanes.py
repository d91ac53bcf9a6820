"""An interleaving as people read it: one column for each thread, one row for each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smpvm.host.carrier import ATOMIC, READ, WRITE
from smpvm.host.probe import Probe
from smpvm.host.strand import CLOCK, TIMER, Op
from smpvm.kern.shared import peek


class Recorder(Probe):
    """An observer that keeps, for each step, what it did: field changes and names."""

    def __init__(self) -> None:
        self.k: Any = None
        self.rows: dict[int, list[str]] = {}

    def attach(self, kernel: Any) -> None:
        """Remember the kernel."""
        self.k = kernel

    def _note(self, text: str) -> None:
        self.rows.setdefault(len(self.k.carrier.log) - 1, []).append(text)

    def read(self, td: Any, obj: Any, field: str) -> None:
        """The value that is read."""
        if not self.k.carrier.inert:
            self._note(f"read {self._name(obj)}.{field} = {self._text(peek(obj, field))}")

    def write(self, td: Any, obj: Any, field: str, new: Any) -> None:
        """old → new."""
        if not self.k.carrier.inert:
            old = self._text(peek(obj, field))
            self._note(f"{self._name(obj)}.{field}: {old} → {self._text(new)}")

    def atomic(self, td: Any, obj: Any, field: str, old: Any, new: Any) -> None:
        """old → new, atomically."""
        if not self.k.carrier.inert:
            change = f"{self._text(old)} → {self._text(new)}" if old != new else f"stays {old}"
            self._note(f"atomic {self._name(obj)}.{field}: {change}")

    def lock_block(self, td: Any, lock: Any, mode: str, timo: int) -> None:
        """Said with the step before."""
        if not self.k.carrier.inert:
            self._note(f"({td.name} waits for {self._name(lock)})")

    def lock_failed(self, td: Any, lock: Any, mode: str, error: int) -> None:
        """A try that did not get it."""
        if not self.k.carrier.inert:
            self._note(f"does not get {self._name(lock)}")

    def wakeup(self, td: Any, ident: Any, sleepers: Sequence[Any]) -> None:
        """Whom it woke."""
        if not self.k.carrier.inert:
            names = ", ".join(t.name for t in sleepers) or "nobody"
            self._note(f"wakeup {self._name(ident)}: {names}")

    def panic(self, td: Any, code: str, message: str) -> None:
        """The end."""
        self._note(f"PANIC {code} {message}")

    def _name(self, obj: Any) -> str:
        with self.k.quietly():
            return str(obj)

    def _text(self, value: Any) -> str:
        return self._name(value) if not isinstance(value, (int, str, type(None))) else repr(value)


def step_line(op: Op, notes: Sequence[str]) -> str:
    """One step in words."""
    _, kind, obj, field = op
    if notes and kind in (READ, WRITE, ATOMIC):
        return "; ".join(notes)
    match kind:
        case "start":
            text = "starts"
        case "await":
            text = "sees a change, and looks again"
        case "resume":
            text = "wakes up"
        case "timer":
            text = "time moves on"
        case _:
            text = f"{kind} {obj}" + (f" ({field})" if field else "")
    return "; ".join([text, *notes])


def lanes(
    log: Sequence[Op],
    names: dict[int, str],
    rows: dict[int, list[str]],
    reasons: dict[int, str],
    *,
    width: int = 100,
    tail: int | None = None,
) -> list[str]:
    """The rows; *reasons* says why the thread changes before a step; *tail*: only the last ones."""
    tids = sorted({op[0] for op in log if op[0] != CLOCK})
    column = max((width - 7) // max(len(tids), 1) - 3, 24)
    out = ["step   " + " | ".join(names.get(t, str(t))[:column].ljust(column) for t in tids)]
    out.append("-" * len(out[0]))
    first = 0 if tail is None else max(len(log) - tail, 0)
    if first:
        out.append(f"       ... {first} steps before")
    for at in range(first, len(log)):
        op = log[at]
        if at in reasons:
            out.append(f"       -- {reasons[at]} --")
        text = step_line(op, rows.get(at, ()))
        if op[1] == TIMER:
            out.append(f"{at:5}  {text}")
            continue
        where = tids.index(op[0])
        for i, line in enumerate(_wrap(text, column)):
            cells = [line.ljust(column) if t == where else " " * column for t in range(len(tids))]
            out.append((f"{at:5}  " if i == 0 else "       ") + " | ".join(cells).rstrip())
    return out


def _wrap(text: str, width: int) -> list[str]:
    lines = []
    while len(text) > width:
        cut = text.rfind(" ", 1, width)
        cut = width if cut < width // 2 else cut
        lines.append(text[:cut])
        text = text[cut:].lstrip()
    return [*lines, text]
