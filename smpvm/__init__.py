"""smpvm: an executable, checkable model of DragonFly BSD's SMP page-out machinery."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from smpvm.explore.scenario import Scenario as Scenario


def __getattr__(name: str) -> Any:
    """``smpvm.Scenario``, without importing the explorer for those who do not explore."""
    if name == "Scenario":
        from smpvm.explore.scenario import Scenario

        return Scenario
    raise AttributeError(f"module 'smpvm' has no attribute {name!r}")
