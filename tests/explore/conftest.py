"""Helpers that run a scenario class in tests of the explorer."""

from collections import Counter
from types import SimpleNamespace

import pytest

from smpvm.explore.engine import Settings, execute
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.trace.happens_before import order_of


def run_all(scenario, strategy, limit=50_000, settings=None):
    """Run a strategy to its end; classes of executions, findings by kind."""
    strategy = make_strategy(strategy) if isinstance(strategy, str) else strategy
    settings = settings or Settings(checks=frozenset(), digest=False)
    classes, kinds, n, stopped = Counter(), Counter(), 0, 0
    while n < limit:
        outcome = execute(scenario, strategy, settings, n)
        if outcome is None:
            break
        n += 1
        kinds.update(f.kind for f in outcome.findings)
        # A failed assertion stops the others wherever they are: that makes no class.
        if outcome.carrier.left and not outcome.stuck:
            stopped += 1
        elif outcome.stuck != "cut":
            classes[order_of(outcome.carrier).signature()] += 1
    return SimpleNamespace(
        n=n,
        stopped=stopped,
        classes=classes,
        kinds=kinds,
        claim=strategy.claim(),
        strategy=strategy,
    )


@pytest.fixture
def explored():
    """The function ``run_all``."""
    return run_all


@pytest.fixture
def toys():
    """The small programs."""
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parent / "toys.py"
    spec = importlib.util.spec_from_file_location("smpvm_toys", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
