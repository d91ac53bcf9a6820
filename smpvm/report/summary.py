"""The summary at the end of a run, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from smpvm.check.finding import Finding, hidden_lines

WIDE: Final = 100
"""Characters of a line that goes to a file or a pipe."""

COUNTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("faults", ("v_vm_faults",)),
    ("page-ins", ("v_swappgsin", "v_vnodepgsin")),
    ("page-outs", ("v_swappgsout", "v_vnodepgsout")),
    ("pages scanned", ("v_pdpages",)),
    ("reactivations", ("v_reactivated",)),
    ("copy-on-write copies", ("v_cow_faults",)),
    ("zero-filled pages", ("v_zfod",)),
    ("daemon rounds", ("v_pdwakeups",)),
    (
        "vget time-outs",
        ("vm_pageout_scan_inactive:vget-timeout", "vm_pageout_scan_inactive:vget-nowait"),
    ),
    ("vmdaemon deactivations", ("vm_daemon_callback:over-limit",)),
)


def total(counters: Mapping[str, int], names: Iterable[str]) -> int:
    """The sum of some counters."""
    return sum(counters.get(name, 0) for name in names)


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows as aligned text: the first column to the left, the others to the right."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        out.append((indent + "  ".join(cells)).rstrip())
    return out


def counter_lines(
    counters: Mapping[str, int], extra: Mapping[str, int], room: int = WIDE
) -> list[str]:
    """The event counters: names and numbers, two of each in a line if *room* allows."""
    items = [(label, f"{total(counters, names):,}") for label, names in COUNTERS]
    items += [(label, f"{number:,}") for label, number in extra.items()]
    half = (len(items) + 1) // 2
    right = [*items[half:], ("", "")][:half]
    wide = max(len(label) for label, _ in right)
    rows = [
        (*left, "   " + label.ljust(wide), number)
        for left, (label, number) in zip(items[:half], right, strict=True)
    ]
    two = columns(rows)
    return two if max(map(len, two)) <= room else columns(items)


def lock_lines(locks: Mapping[str, tuple[int, int]]) -> list[str]:
    """Acquisitions and contention by lock class, most acquired first."""
    rows = [("lock class", "acquired", "contended", "%")]
    for cls, (acquired, contended) in sorted(locks.items(), key=lambda kv: (-kv[1][0], kv[0])):
        share = 100 * contended / acquired if acquired else 0.0
        rows.append((cls, f"{acquired:,}", f"{contended:,}", f"{share:.2f}"))
    return columns(rows)


def queue_lines(queues: Mapping[str, int]) -> list[str]:
    """Queue lengths."""
    return columns([(name, f"{n:,}") for name, n in queues.items()])


def coverage_lines(rows: Sequence[tuple[str, str, int]], *, branches: bool = True) -> list[str]:
    """The C functions and branches: name, lines in the source, how often they ran."""
    out = [("C function", "lines", "times")]
    for name, where, times in rows:
        if ":" in name:
            if branches:
                out.append((f"    {name.partition(':')[2]}", where, f"{times:,}"))
        else:
            out.append((name, where, f"{times:,}"))
    return columns(out)


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Every finding in full."""
    out: list[str] = []
    for finding in findings:
        out += ["", *finding.lines()]
    return out


def run_lines(result: Any, *, coverage: bool = True, room: int = WIDE) -> list[str]:
    """The whole summary of a ``workload.stress.StressResult``, for a line of *room* characters.

    Findings and the report on a stall are not broken: their lines are copied and searched for.
    """
    title = (
        f"{result.profile}: {result.pages:,} pages, {result.swap_pages:,} swap pages, "
        f"{result.ncpus} CPUs, {result.processes:,} processes, {result.seconds:.1f} s"
        + (", interrupted" if result.interrupted else "")
    )
    out = [
        *textwrap.wrap(title, room, subsequent_indent="  "),
        *counter_lines(result.counters, result.extra, room),
        "locks",
        *lock_lines(result.locks),
        "pages at the end",
        *queue_lines(result.queues),
    ]
    if coverage:
        out += ["coverage of vm_pageout.c", *coverage_lines(result.coverage)]
    if result.stall:
        out += [
            "no progress; each thread and what it waits for:",
            *(f"  {line}" for line in result.stall),
        ]
    if result.findings:
        out += finding_lines(result.findings)
        out.append("")
    out += result.accepted
    out += hidden_lines(result.hidden)
    if result.repairs:
        out += textwrap.wrap(f"repairs: {', '.join(result.repairs)}", room, subsequent_indent="  ")
    out += [result.contents_line, result.audit_line]
    out.append(f"findings: {len(result.findings)}" if result.findings else "findings: none")
    return out
