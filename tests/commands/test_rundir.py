"""A run directory belongs to only one run."""

import subprocess
import sys

import pytest

from smpvm.commands.rundir import LOCK, claimed
from smpvm.config import ConfigError

HOLDER = """
import sys
from pathlib import Path
from smpvm.commands.rundir import claimed
with claimed(Path(sys.argv[1])) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has claimed a directory, and that directory."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == f"{run}\n"
    yield process, run
    process.kill()
    process.communicate()


def keep(path):
    (path / "run.json").write_text("{}")


def test_one_in_use_is_refused_with_its_process(holder):
    process, run = holder
    by = f"in use by another run \\(process {process.pid}\\)"
    with pytest.raises(ConfigError, match=by), claimed(run):
        pass


def test_the_lock_of_a_killed_run_is_nobody_s(holder, capsys):
    process, run = holder
    process.kill()
    process.wait()
    assert (run / LOCK).exists()
    with claimed(run) as path:
        assert path == run.with_name("run-2")  # it has been a run: nothing of it is written over
    assert "has an earlier run" in capsys.readouterr().err


def test_later_runs_are_numbered(tmp_path, capsys):
    names = []
    for _ in range(3):
        with claimed(tmp_path / "run") as path:
            keep(path)
            names.append(path.name)
    assert names == ["run", "run-2", "run-3"]
    assert not list(tmp_path.glob(f"*/{LOCK}"))
    assert capsys.readouterr().err.count("kept in") == 2


def test_a_directory_with_other_things_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with claimed(tmp_path.__class__(".")) as path:
        assert path.resolve() == tmp_path
        keep(path)
    with claimed(tmp_path.__class__(".")) as path:
        assert path == tmp_path.with_name(f"{tmp_path.name}-2")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_none_is_none():
    with claimed(None) as path:
        assert path is None


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file: File exists"), claimed(tmp_path / "file"):
        pass
