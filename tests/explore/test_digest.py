"""The same scenario, strategy and seed give the same event stream everywhere."""

import glob
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smpvm.explore.engine import Settings
from smpvm.explore.search import Search, SearchPlan

ROOT = Path(__file__).parents[2]
TOYS = Path(__file__).parent / "toys.py"
PURE = ("loguru", "sortedcontainers")
"""What the model imports; both are pure Python, and serve any version."""

# Toys on both carriers where there are greenlets; situations of the VM, one with findings.
PROGRAM = """
import sys
import smpvm.scenarios
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.engine import Settings
from smpvm.explore.registry import find
from smpvm.host.switcher import have_greenlet

def digest(name, carrier, schedules):
    spec = f"{sys.argv[1]}:{name}" if name[0].isupper() else name
    plan = SearchPlan(schedules=schedules, seed=3, shrink=False, settings=Settings(carrier=carrier))
    report = Search(find(spec, smpvm.scenarios), plan).run()
    marks = sorted(f.fingerprint for f in report.findings)
    return f"{name} {report.points} {report.digest} {marks}"

for name, schedules in (
    ("Locked", 8), ("MissedWakeup", 8), ("MarkerScan", 8), ("scan-moves", 4), ("swapout-request", 4)
):
    lines = {digest(name, c, schedules) for c in ["thread"] + ["greenlet"] * have_greenlet()}
    print(*sorted(lines), sep="\\n")
"""


def digest(scenario, carrier, strategy="portfolio", n=20):
    settings = Settings(carrier=carrier)
    plan = SearchPlan(strategy=strategy, schedules=n, settings=settings, shrink=False)
    return Search(scenario, plan).run().digest


def lines_of(python, **env):
    """What PROGRAM prints under another interpreter, or another hash seed."""
    done = subprocess.run(
        [python, "-c", PROGRAM, str(TOYS)],
        env={**os.environ, **env}, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def expected():
    """The lines of this interpreter: one a scenario, or the carriers differ."""
    lines = lines_of(sys.executable, PYTHONHASHSEED="0")
    assert len(lines) == 5
    assert lines[-1].count("'") >= 4  # there are findings, and they are compared, too
    return lines


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "dpor", "bounded"])
def test_both_carriers(toys, strategy):
    for scenario in (toys.Locked, toys.Message, toys.MissedWakeup):
        assert digest(scenario, "greenlet", strategy) == digest(scenario, "thread", strategy)


def test_another_seed_is_another_stream(toys):
    plans = [SearchPlan(strategy="random", schedules=20, seed=s, shrink=False) for s in (1, 2)]
    one, two = (Search(toys.Locked, plan).run().digest for plan in plans)
    assert one != two


@pytest.mark.parametrize("seed", range(1, 10))
def test_hash_seeds(expected, seed):
    assert lines_of(sys.executable, PYTHONHASHSEED=str(seed)) == expected


def others_at_hand():
    """Interpreters of other versions, from 3.11 on: on the path, and where pyenv keeps them."""
    found = {}
    places = [shutil.which(f"python3.{minor}") for minor in range(11, 16)]
    places += sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3")))
    ask = "import sys; print(sys.version_info[:2] >= (3, 11), sys.version)"
    for python in filter(None, places):
        told = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
        fits, _, version = told.stdout.partition(" ")
        if fits == "True" and version.strip() != sys.version.strip():
            found.setdefault(version.split()[0], python)
    return found


def test_other_versions_of_python(expected, tmp_path):
    others = others_at_hand()
    if not others:
        pytest.skip("no other Python from 3.11 on is at hand")
    for name in PURE:
        (tmp_path / name).symlink_to(Path(importlib.util.find_spec(name).origin).parent)
    path = os.pathsep.join((str(ROOT), str(tmp_path)))
    for version, python in others.items():
        assert lines_of(python, PYTHONPATH=path, PYTHONHASHSEED="5") == expected, version
