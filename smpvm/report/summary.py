"""The text at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smpvm.check.finding import Finding

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


def counter_lines(counters: Mapping[str, int], extra: Mapping[str, int]) -> list[str]:
    """What happened, in two columns of names and numbers."""
    items = [(label, total(counters, names)) for label, names in COUNTERS]
    items += list(extra.items())
    half = (len(items) + 1) // 2
    rows = []
    for i in range(half):
        left = items[i]
        right = items[i + half] if i + half < len(items) else None
        rows.append(
            (
                left[0],
                f"{left[1]:,}",
                "   " + (right[0] if right else "").ljust(24),
                f"{right[1]:,}" if right else "",
            )
        )
    return columns(rows)


def lock_lines(locks: Mapping[str, tuple[int, int]]) -> list[str]:
    """Acquires and contention by lock class, most used first."""
    rows = [("lock class", "acquired", "contended", "%")]
    for cls, (acquired, contended) in sorted(locks.items(), key=lambda kv: (-kv[1][0], kv[0])):
        share = 100 * contended / acquired if acquired else 0.0
        rows.append((cls, f"{acquired:,}", f"{contended:,}", f"{share:.2f}"))
    return columns(rows)


def queue_lines(queues: Mapping[str, int]) -> list[str]:
    """Queue lengths, in one line."""
    return ["  " + "  ".join(f"{name} {n:,}" for name, n in queues.items())]


def coverage_lines(rows: Sequence[tuple[str, str, int]], *, branches: bool = True) -> list[str]:
    """The seed's functions (and branches): name, where in the C, how often."""
    out = [("C function", "lines", "times")]
    for name, where, times in rows:
        if ":" in name:
            if branches:
                out.append((f"    {name.partition(':')[2]}", where, f"{times:,}"))
        else:
            out.append((name, where, f"{times:,}"))
    return columns(out)


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Every finding, whole."""
    out: list[str] = []
    for finding in findings:
        out += ["", *finding.lines()]
    return out


def run_lines(result: Any, *, coverage: bool = True) -> list[str]:
    """The whole summary of a ``workload.stress.StressResult``."""
    out = [
        f"{result.profile}: {result.pages:,} pages, {result.swap_pages:,} swap pages, "
        f"{result.ncpus} CPUs, {result.processes:,} processes, {result.seconds:.1f} s"
        + (", interrupted" if result.interrupted else ""),
        *counter_lines(result.counters, result.extra),
        "locks",
        *lock_lines(result.locks),
        "pages at the end",
        *queue_lines(result.queues),
    ]
    if coverage:
        out += ["coverage of vm_pageout.c", *coverage_lines(result.coverage)]
    if result.stall:
        out += ["no progress: who waits for what", *(f"  {line}" for line in result.stall)]
    if result.findings:
        out += finding_lines(result.findings)
        out.append("")
    out += result.accepted
    if result.repairs:
        out.append(f"repairs: {', '.join(result.repairs)}")
    out += [result.contents_line, result.audit_line]
    out.append(f"findings: {len(result.findings)}" if result.findings else "findings: none")
    return out
