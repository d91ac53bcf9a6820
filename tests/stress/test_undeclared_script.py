"""stress/undeclared.py: the model has no undeclared shared fields, and one would be found."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "stress" / "undeclared.py"
RUN = (
    "import runpy, sys; sys.argv = ['undeclared', '--executions', '8', {names}];"
    "script = runpy.run_path({path!r}); {before}; sys.exit(script['main']())"
)


@pytest.mark.parametrize(
    ("names", "before", "code"),
    [
        ("'exit-kill', 'store-pageout', 'two-scanners'", "pass", 0),
        ("'store-pageout'", "script['KNOWN'].clear()", 1),
        (
            "'exit-kill'",
            "from smpvm.kern.proc import Proc as P;"
            "P.__shared__ = tuple(f for f in P.__shared__ if f != 'p_flags')",
            1,
        ),
    ],
)
def test_what_is_not_declared_is_told(names, before, code):
    text = RUN.format(names=names, path=str(SCRIPT), before=before)
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    assert run.returncode == code, run.stdout
    assert ("NOT KNOWN" in run.stdout) == bool(code)
