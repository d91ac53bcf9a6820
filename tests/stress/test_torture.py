"""A short run of stress/torture.py: one process for each kind of disturbance."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "stress" / "torture.py"

CASES = [
    ("stress", "SIGINT", 0.9),
    ("lost", "SIGINT", 0.06),
    ("jobs", "SIGTERM", 0.45),
    ("sleeps", "SIGKILL", 0.4),
    ("spins", "twice", 0.4),
    ("stress", "head", 0.0),
    ("lost", "full", 0.0),
    ("repairs", "full-both", 0.0),
    ("proven", "closed", 0.0),
    ("replay", "closed-both", 0.0),
    ("lost", "disk", 0.0),
    ("stress", "disk", 0.0),
    ("lost", "disk-out", 0.0),
    ("stress", "read-only", 0.0),
    ("stress", "same-dir", 0.3),
]


@pytest.fixture(scope="module")
def torture():
    spec = importlib.util.spec_from_file_location("smpvm_torture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def place(torture, tmp_path_factory):
    if not Path("/dev/full").exists() or shutil.which("sh") is None:
        pytest.skip("needs /dev/full and a shell")
    with torture.places(tmp_path_factory.mktemp("torture")) as place:
        yield place


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize(("command", "trouble", "after"), CASES)
def test_a_process_in_trouble_ends_well(torture, place, command, trouble, after):
    case = torture.Case(command, trouble, after, room=2000)
    place.run(case)
    assert case.wrong == []
