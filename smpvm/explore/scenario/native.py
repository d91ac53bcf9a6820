"""Scenarios on free-running threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel

if TYPE_CHECKING:
    from smpvm.explore.scenario.base import ScenarioClass


def run_native(scenario: ScenarioClass, times: int = 100, patience: float = 10.0) -> list[str]:
    """Stress *scenario* on real threads, *times* times; returns what went wrong, as text.

    *patience*: host seconds within which all threads of one run must end.
    """
    wrong: list[str] = []
    for n in range(times):
        carrier = NativeCarrier()
        k = Kernel(carrier, spin_pool=scenario.spin_pool)
        body = scenario(k)
        left = carrier.join(patience)
        if left:
            wrong.append(f"run {n}: still there: {', '.join(td.name for td in left)}")
            carrier.stop()
            carrier.join(patience)
        failed = [*k.errors, *k.panics]
        wrong += [f"run {n}: {td}: {type(why).__name__}: {why}" for td, why in failed]
        if not left and not failed:
            wrong += [f"run {n}: {text}" for text in body.failures()]
        carrier.stop()
    return wrong
