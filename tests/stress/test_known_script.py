"""stress/known.py: the table of known findings is what it makes."""

import importlib.util
from pathlib import Path

import pytest

from smpvm import scenarios
from smpvm.explore.registry import builtin
from smpvm.repairs.known import KNOWN

SCRIPT = Path(__file__).parents[2] / "stress" / "known.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("known_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["exit-kill", "msync-pageout"])
def test_the_table_is_what_the_script_makes(script, name):
    rows = script.defects(builtin(scenarios)[name], 30)
    assert rows
    for mark, names in rows.items():
        assert set(names) <= set(KNOWN[mark])


def test_the_file_is_as_written(script):
    assert script.TABLE.read_text() == script.text(dict(KNOWN))
