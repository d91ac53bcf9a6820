"""An interleaving as text: one column for each thread, one row for each step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from smpvm.host.carrier import ATOMIC, READ, WAKEUP, WRITE
from smpvm.host.serialthread import CLOCK, TIMER, Op
from smpvm.host.tso import owner_tid
from smpvm.kern.probe import Probe
from smpvm.kern.shared import peek
from smpvm.kern.thread import End


class Recorder(Probe):
    """An observer that records what each step did: the fields, their values, the names."""

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
        """Recorded with the step before: waiting is not a step."""
        if not self.k.carrier.inert:
            self._note(f"({td.name} waits for {self._name(lock)})")

    def lock_failed(self, td: Any, lock: Any, mode: str, error: int) -> None:
        """A try that failed."""
        if not self.k.carrier.inert:
            self._note(f"fails to get {self._name(lock)}")

    def wakeup(self, td: Any, ident: Any, sleepers: Sequence[Any]) -> None:
        """Which threads it woke."""
        if not self.k.carrier.inert:
            names = ", ".join(t.name for t in sleepers) or "nobody"
            self._note(f"wakeup {self._name(ident)}: {names}")

    def panic(self, td: Any, code: str, message: str) -> None:
        """The panic's code and message."""
        self._note(f"PANIC {code} {message}")

    def _name(self, obj: Any) -> str:
        with self.k.quietly():
            return str(obj)

    def _text(self, value: Any) -> str:
        return self._name(value) if not isinstance(value, (int, str, type(None))) else repr(value)


def step_line(op: Op, notes: Sequence[str]) -> str:
    """One step in words."""
    _, kind, obj, field = op
    if notes and kind in (READ, WRITE, ATOMIC, WAKEUP):
        return "; ".join(notes)
    match kind:
        case "start":
            text = "starts"
        case "await":
            text = "sees a change; checks again"
        case "resume":
            text = "wakes up"
        case "timer":
            text = "the clock advances"
        case "store":
            return "stores " + "; ".join(notes)
        case "fence":
            text = "its stores are in memory"
        case "write":  # without notes: no thread's own step
            text = f"{obj}.{field} reaches memory"
        case _ if isinstance(obj, End):
            text = f"joins {obj.td}"
        case _:
            text = f"{kind} {obj}" + (f" ({field})" if field else "")
    return "; ".join([text, *notes])


def _column(tid: int) -> tuple[int, bool]:
    """A store buffer is beside its thread."""
    return (tid, False) if tid >= 0 else (owner_tid(tid), True)


def lanes(
    log: Sequence[Op],
    names: dict[int, str],
    rows: dict[int, list[str]],
    reasons: dict[int, str],
    *,
    width: int = 100,
    only: Sequence[int] | None = None,
) -> list[str]:
    """The rows.  *reasons*: step → why the thread changed before it; *only*: show these steps."""
    tids = sorted({op[0] for op in log if op[0] != CLOCK}, key=_column)
    column = max((width - 7) // max(len(tids), 1) - 3, 24)
    out = ["step   " + " | ".join(names.get(t, str(t))[:column].ljust(column) for t in tids)]
    out.append("-" * len(out[0]))
    before = -1
    for at in range(len(log)) if only is None else only:
        if at > before + 1:
            left_out = at - before - 1
            out.append(f"       ... {left_out} step{'s' if left_out > 1 else ''}")
        # Of several switches among the steps left out, the last explains why this thread runs.
        why = [reasons[i] for i in range(before + 1, at + 1) if i in reasons]
        if why and (before < 0 or at == before + 1 or log[at][0] != log[before][0]):
            out.append(f"       -- {why[-1]} --")
        before = at
        op = log[at]
        text = step_line(op, rows.get(at, ()))
        if op[1] == TIMER:
            out.append(f"{at:5}  {text}")
            continue
        where = tids.index(op[0])
        for i, line in enumerate(_wrap(text, column)):
            cells = [line.ljust(column) if t == where else " " * column for t in range(len(tids))]
            out.append((f"{at:5}  " if i == 0 else "       ") + " | ".join(cells).rstrip())
    return out


def excerpt(
    log: Sequence[Op], rows: dict[int, list[str]], about: Sequence[str], end: int, most: int
) -> list[int]:
    """Of the steps up to *end*, at most *most* that explain a finding *about* these objects.

    These are the last steps that name one of the objects, each with the step before it (of reads,
    only the last two of each thread), and the last steps of all.  The last step of every thread is
    always included.
    """
    names = [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)") for name in about if name]
    chosen = set(range(max(end - most // 2, 0), end + 1))
    last = {log[at][0]: at for at in range(end + 1) if log[at][0] != CLOCK}
    chosen |= {at + i for at in last.values() for i in (-1, 0) if at + i >= 0}
    reads: Counter[int] = Counter()
    for at in range(end, -1, -1):
        if not names or len(chosen) >= most:
            break
        tid, kind, _, _ = log[at]
        text = step_line(log[at], rows.get(at, ()))
        if any(name.search(text) for name in names):
            reads[tid] += kind == READ
            if kind != READ or reads[tid] <= 2:
                chosen |= {max(at - 1, 0), at}
    if not names:
        chosen |= set(range(max(end - most + 1, 0), end + 1))
    return sorted(chosen)


def _wrap(text: str, width: int) -> list[str]:
    lines = []
    while len(text) > width:
        cut = text.rfind(" ", 1, width)
        cut = width if cut < width // 2 else cut
        lines.append(text[:cut])
        text = text[cut:].lstrip()
    return [*lines, text]
