"""What ``smpvm record`` prints, and where it puts the traces."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from smpvm.exits import CLEAN, INCONCLUSIVE
from smpvm.text import brief, printable
from smpvm.workload.record import record
from smpvm.workload.trace import Trace, check_writable, save


def command(
    output: Path,
    argv: Sequence[str],
    *,
    window: int,
    limit: int,
    follow: bool,
    echo: Callable[[str], None] = print,
) -> int:
    """Record and save; returns the exit code.  Raises TraceError."""
    check_writable(output)
    found = record(argv, window=window, limit=limit, follow=follow)
    for n, trace in enumerate(found.traces, 1):
        path = output if n == 1 else beside(output, n)
        echo(_said(path, trace, save(trace, path)))
    if not found.traces:
        echo("nothing was recorded")
    if found.left_out:
        echo(f"not recorded: {found.left_out:,} processes more")
    if found.interrupted:
        echo("interrupted: the command's processes were ended; what they had done is kept")
        return INCONCLUSIVE
    echo(f"the command {_status(found.status)}")
    return CLEAN


def beside(output: Path, n: int) -> Path:
    """Where the trace of the *n*-th process goes: ``x.trace.gz`` → ``x-2.trace.gz``."""
    stem, dot, rest = output.name.partition(".")
    return output.with_name(f"{stem}-{n}{dot}{rest}")


def _said(path: Path, trace: Trace, size: int) -> str:
    cut = "" if trace.whole else " (cut)"
    words = printable(brief(" ".join(trace.command)))
    return (
        f"{path}: {len(trace.refs):,} references to {trace.pages:,} pages{cut}, "
        f"of {trace.seen:,} seen; {size:,} bytes; {words}"
    )


def _status(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    return f"was ended by {signal.Signals(-status).name}"
