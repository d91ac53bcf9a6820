"""Values of options that several commands share, checked."""

from __future__ import annotations

from pathlib import Path

from smpvm.check.suite import parse_checks
from smpvm.config import ConfigError


def checks_of(text: str) -> frozenset[str]:
    """The checkers that ``--check`` names.  Raises ConfigError."""
    try:
        return parse_checks(text)
    except ValueError as why:
        raise ConfigError(str(why)) from None


def make_dir(path: Path) -> None:
    """Make a run directory, and see that it can be written to, and that no other run's findings
    are in it.  Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as why:
        raise ConfigError(f"{path}: {why.strerror or why}") from None
    old = path / "findings"
    if next(old.glob("*.json"), None) is not None:
        raise ConfigError(f"{path}: has findings of an earlier run: remove {old}, or name another")
