"""smpvm: an executable, checkable model of DragonFly BSD's SMP page-out machinery.

What users write against: ``Scenario`` and ``VmScenario`` (what is explored), ``Machine`` and
``Config`` (a whole machine that runs), ``Change`` (kernel code of one's own in front of it).
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from smpvm.config import Config as Config
    from smpvm.explore.scenario import Scenario as Scenario
    from smpvm.machine import Machine as Machine
    from smpvm.scenarios.base import VmScenario as VmScenario
    from smpvm.vm.build import Change as Change

_HOMES = MappingProxyType(
    {
        "Change": "smpvm.vm.build",
        "Config": "smpvm.config",
        "Machine": "smpvm.machine",
        "Scenario": "smpvm.explore.scenario",
        "VmScenario": "smpvm.scenarios.base",
    }
)

__all__ = ["Change", "Config", "Machine", "Scenario", "VmScenario"]


def __getattr__(name: str) -> Any:
    """Imported when first asked for: those who do not explore need no explorer."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'smpvm' has no attribute {name!r}")
    return getattr(import_module(home), name)
