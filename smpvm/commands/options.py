"""Values of options that several commands share, checked."""

from __future__ import annotations

from smpvm.check.suite import parse_checks
from smpvm.commands.flags import missing
from smpvm.config import ConfigError
from smpvm.host.switcher import have_greenlet


def checks_of(text: str) -> frozenset[str]:
    """The checkers that ``--check`` names.  Raises ConfigError."""
    try:
        return parse_checks(text)
    except ValueError as why:
        raise ConfigError(str(why)) from None


def check_memory(memory: str, granularity: str) -> None:
    """Raises ConfigError for store buffers where plain accesses are no steps."""
    if memory == "tso" and granularity != "access":
        raise ConfigError("--memory tso: only with --granularity access")


def check_carrier(name: str) -> None:
    """Raises ConfigError for ``--carrier greenlet`` without greenlets."""
    if name == "greenlet" and not have_greenlet():
        raise ConfigError(f"--carrier greenlet: {missing('greenlet')}")
