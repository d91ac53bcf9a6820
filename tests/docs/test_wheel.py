"""The wheel alone is enough: in an environment of its own, smpvm explores, and has its traces."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WANTED = 77
"""The setuptools that knows licence expressions; the extra ``test`` brings it."""


def run(*argv, cwd, code=0):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in argv]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin directory of an environment with the wheel; it borrows this one's dependencies."""
    try:
        found = version("setuptools")
    except PackageNotFoundError:
        found = "0"
    if int(re.match(r"\d+", found)[0]) < WANTED:
        pytest.skip(f"setuptools {WANTED} or newer builds the wheel; here is {found}")
    tmp = tmp_path_factory.mktemp("wheel")
    tree = tmp / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "smpvm", tree / "smpvm", ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    offline = ("--no-deps", "--no-index")
    run(*pip, "wheel", *offline, "--no-build-isolation", "-w", tmp, tree, cwd=tmp)
    venv.create(tmp / "env", with_pip=False)
    site = next((tmp / "env").glob("lib*/python*/site-packages"))
    wheel = next(tmp.glob("smpvm-*.whl"))
    run(*pip, "--python", tmp / "env/bin/python", "install", *offline, wheel, cwd=tmp)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return tmp / "env" / "bin"


def test_it_is_the_wheels_own(installed, tmp_path):
    where = run(installed / "python", "-c", "import smpvm; print(smpvm.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))


def test_explore_runs_from_it(installed, tmp_path):
    argv = ("explore", "protect-kill", "--repair", "all", "--strategy", "dpor")
    assert "proven" in run(installed / "smpvm", *argv, cwd=tmp_path)


def test_the_recorded_traces_are_in_it(installed, tmp_path):
    code = "from smpvm.workload.stress import shipped_trace as t; print(t('sort').pages > 0)"
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "True\n"
