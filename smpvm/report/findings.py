"""``smpvm show``: findings as text."""

from __future__ import annotations

import json
import os
from pathlib import Path

from smpvm.check.finding import Finding, FindingError, load, load_all, show


def findings_of(path: Path) -> list[Finding]:
    """The finding in a file, or all of a run directory.  Raises FindingError."""
    if not os.path.isdir(path):
        return [load(path)]
    if not (path / "findings").is_dir():
        raise FindingError(f"{path}: not a run directory: there is no findings/ in it")
    return load_all(path)


def show_command(path: Path, as_json: bool) -> str:
    """What ``smpvm show PATH`` prints.  Raises FindingError."""
    found = findings_of(path)
    if as_json:
        return json.dumps([finding.to_json() for finding in found], indent=1)
    return show(found) if found else "no findings"
