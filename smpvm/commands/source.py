"""Which Python a replay may load.

A scenario file is a program: loading it runs it, as the user.  A finding may come from a stranger,
and names such a file.  So it is loaded only if it is in the user's own tree (the current directory
and what is below), or if the user names it.  See docs/security.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from smpvm.explore.registry import ScenarioError, file_of, source_hash
from smpvm.text import brief, printable


def scenario_of_finding(spec: str, finding: Path, recorded: str) -> str:
    """*spec*, which *finding* names, with the path of its file; a built-in one as it is.

    *recorded* is the SHA-256 that the finding has of the file; "" if it has none.  Raises
    ScenarioError if the file is not the user's own, or has changed since.
    """
    named = file_of(spec)
    if named is None:
        return spec
    path = _in_own_tree(named, finding)
    found = f"{path}{spec.removeprefix(str(named))}"
    if recorded and source_hash(found) != recorded:
        raise ScenarioError(
            f"{printable(str(path))}: has changed since the finding was made; "
            f"to run it all the same: --scenario {printable(str(path))}"
        )
    return found


def scenario_of_user(spec: str, given: str) -> str:
    """*spec* with the file (and the class, if it is named) that the user has *given*."""
    where, mark, sizes = spec.partition("?")
    name = where.partition(":")[2]
    if ":" not in given and name:
        given = f"{given}:{name}"
    return given if "?" in given else f"{given}{mark}{sizes}"


def _in_own_tree(named: Path, finding: Path) -> Path:
    """The file, from here or from a folder above the finding.  Raises ScenarioError."""
    here = Path.cwd().resolve()
    for place in (Path(), *finding.resolve().parents):
        path = place / named
        if not os.path.isfile(path):
            continue
        if path.resolve().is_relative_to(here):
            return path
        name = printable(str(path))
        raise ScenarioError(
            f"the finding names {name}, a Python program that is not below the current "
            f"directory: not loaded; if you trust it: --scenario {name}"
        )
    raise ScenarioError(f"the finding's scenario: no file {brief(printable(str(named)))}")
