"""The same scenario, strategy and seed: the same event stream, wherever it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smpvm.explore.campaign import Campaign, Plan
from smpvm.explore.engine import Settings

TOYS = Path(__file__).parent / "toys.py"
PROGRAM = """
import sys
from smpvm.explore.campaign import Campaign, Plan
from smpvm.explore.find import find
plan = Plan(strategy="portfolio", schedules=12, seed=3, shrink=False)
print(*(Campaign(find(sys.argv[1] + ":" + name), plan).run().digest
        for name in ("Locked", "MissedWakeup", "MarkerScan")))
"""


def digest(scenario, carrier, strategy="portfolio", n=20):
    settings = Settings(carrier=carrier)
    plan = Plan(strategy=strategy, schedules=n, settings=settings, shrink=False)
    return Campaign(scenario, plan).run().digest


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "dpor", "bounded"])
def test_both_carriers(toys, strategy):
    for scenario in (toys.Locked, toys.Message, toys.MissedWakeup):
        assert digest(scenario, "greenlet", strategy) == digest(scenario, "thread", strategy)


def test_another_seed_is_another_stream(toys):
    plans = [Plan(strategy="random", schedules=20, seed=s, shrink=False) for s in (1, 2)]
    one, two = (Campaign(toys.Locked, plan).run().digest for plan in plans)
    assert one != two


def test_hash_seeds():
    seen = set()
    for seed in ("0", "1", "7"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(TOYS)],
            env=env, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        seen.add(done.stdout)
    assert len(seen) == 1
