"""The operations of programs: each a few lines around a real entry point, by theme."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from smpvm.fuzz.operations.daemons import DAEMON_OPS
from smpvm.fuzz.operations.files import FILE_OPS
from smpvm.fuzz.operations.memory import MEMORY_OPS
from smpvm.fuzz.operations.processes import PROCESS_OPS
from smpvm.fuzz.operations.table import Operation
from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP

OPERATIONS: Final = MappingProxyType(
    {op.name: op for op in (*MEMORY_OPS, *FILE_OPS, *PROCESS_OPS, *DAEMON_OPS)}
)
"""By name, in the order of the documentation."""

__all__ = ["OPERATIONS", "Operation"]
