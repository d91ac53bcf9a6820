"""smpvm: an executable, checkable model of DragonFly BSD's SMP page-out machinery.

What users write against: ``Scenario`` and ``VmScenario`` (what is explored), ``Machine`` and
``Config`` (a whole machine that runs), ``Change`` (kernel code of one's own in front of it).
"""

# Nothing is imported here: until __main__ has set its signal handlers, an interrupt would print a
# traceback, and typing alone takes milliseconds.  Type checkers know this name as typing's.
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from smpvm.config import Config as Config
    from smpvm.explore.scenario import Scenario as Scenario
    from smpvm.machine import Machine as Machine
    from smpvm.scenarios.base import VmScenario as VmScenario
    from smpvm.vm.build import Change as Change

_HOMES = {
    "Change": "smpvm.vm.build",
    "Config": "smpvm.config",
    "Machine": "smpvm.machine",
    "Scenario": "smpvm.explore.scenario",
    "VmScenario": "smpvm.scenarios.base",
}

__all__ = ["Change", "Config", "Machine", "Scenario", "VmScenario"]


def __getattr__(name: str) -> object:
    """Imported when first asked for: those who do not explore need no explorer."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'smpvm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
