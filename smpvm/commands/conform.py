"""What `smpvm conform` prints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from smpvm.conform.run import ConformReport, conform

SHOWN = 10
"""Vectors whose differences are printed in full."""


def command(
    files: Sequence[str | Path],
    *,
    as_json: bool = False,
    functions: Sequence[str] = (),
    changes: Sequence[type] = (),
    echo: Callable[[str], None] = print,
) -> int:
    """Run the vectors and report; returns the exit code.  Raises VectorError (a ValueError)."""
    began = time.monotonic()
    report = conform(files, changes, functions=functions)
    if as_json:
        echo(json.dumps(report.as_json(), indent=1))
    else:
        for line in text(report, time.monotonic() - began):
            echo(line)
    return report.exit_code


def text(report: ConformReport, seconds: float) -> list[str]:
    """The differences, then the summary by function."""
    lines: list[str] = []
    for result in report.failed[:SHOWN]:
        lines += result.lines()
    if len(report.failed) > SHOWN:
        lines.append(f"... and {len(report.failed) - SHOWN} more vectors (all of them: --json)")
    if lines:
        lines.append("")
    lines += report.summary()
    lines.append(f"{seconds:.1f} s")
    return lines
