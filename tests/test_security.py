"""Untrusted files: no command runs code that they name."""

import json
import pickle
import shutil

import pytest

from smpvm.check.finding import Finding, save
from smpvm.cli import main
from smpvm.explore.registry import source_hash

EVIL = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from smpvm import Scenario
class Evil(Scenario):
    def setup(self):
        self.thread("t", lambda: None)
"""


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "ran"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the user is: beside the stranger's folder, not in it."""
    (tmp_path / "user").mkdir()
    monkeypatch.chdir(tmp_path / "user")
    return tmp_path / "user"


@pytest.fixture
def evil(tmp_path, mark, place):
    """A run directory of a stranger's, with a program beside it that the finding names."""
    folder = tmp_path / "stranger"
    (folder / "findings").mkdir(parents=True)
    path = folder / "evil.py"
    path.write_text(EVIL.format(mark=str(mark)))
    schedule = f"s1/access/0.1.0/-/1x1~00/{path}:Evil"
    finding = Finding("race", "innocent", schedule=schedule, source_hash=source_hash(str(path)))
    save(finding, folder / "findings" / "race-0.json")
    return folder


def line(capsys, *argv):
    assert main([str(arg) for arg in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


def test_show_runs_nothing(evil, mark, capsys):
    assert main(["show", str(evil)]) == 0
    assert main(["show", str(evil), "--json"]) == 0
    assert main(["show", str(evil / "findings" / "race-0.json")]) == 0
    assert "innocent" in capsys.readouterr().out
    assert not mark.exists()


def test_replay_runs_no_program_that_only_the_finding_names(evil, mark, capsys):
    said = line(capsys, "replay", evil / "findings" / "race-0.json")
    assert "evil.py" in said
    assert "not below the current directory" in said
    assert not mark.exists()


@pytest.mark.parametrize("named", ["evil.py", "../stranger/evil.py", "link.py"])
def test_nor_by_way_of_a_relative_path_or_a_link(evil, place, mark, named, capsys):
    (place / "link.py").symlink_to(evil / "evil.py")
    schedule = f"s1/access/0.1.0/-/1x1~00/{named}:Evil"
    save(Finding("race", "innocent", schedule=schedule), evil / "f.json")
    assert "not below the current directory" in line(capsys, "replay", evil / "f.json")
    assert not mark.exists()


def test_a_program_that_the_user_names_is_run_and_said(evil, mark, capsys):
    finding = evil / "findings" / "race-0.json"
    code = main(["replay", str(finding), "--scenario", str(evil / "evil.py")])
    assert code == 3
    assert f"runs {evil / 'evil.py'}:Evil" in capsys.readouterr().err
    assert mark.exists()


def test_the_users_own_program_is_run_if_it_is_the_same(evil, place, mark, capsys):
    shutil.copy(evil / "evil.py", place / "own.py")
    finding = place / "f.json"
    schedule = "s1/access/0.1.0/-/1x1~00/own.py:Evil"
    save(Finding("race", "x", schedule=schedule, source_hash="0" * 64), finding)
    assert "own.py: has changed since the finding was made" in line(capsys, "replay", finding)
    assert not mark.exists()
    own = source_hash("own.py")
    save(Finding("race", "x", schedule=schedule, source_hash=own), finding)
    assert main(["replay", str(finding)]) == 3
    assert "runs own.py:Evil" in capsys.readouterr().err
    assert mark.exists()


def test_explore_keeps_the_hash_of_the_users_own_file(place, capsys):
    (place / "own.py").write_text(
        "from smpvm import Scenario\n"
        "class Own(Scenario):\n"
        "    def setup(self):\n        self.thread('t', lambda: None)\n"
        "    def check(self):\n        assert False, 'so it is'\n"
    )
    assert main(["explore", "own.py:Own", "--schedules", "1", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["scenarios"][0]["findings"]
    assert found["source_hash"] == source_hash("own.py")


class Boom:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize(
    "argv",
    [["show"], ["replay"], ["locks"], ["snapshot"], ["conform"], ["stress", "--from"]]
    + [["stress", "--trace"]],
    ids=" ".join,
)
def test_nothing_is_unpickled(argv, place, mark, capsys):
    path = place / "x.json"
    path.write_bytes(pickle.dumps(Boom(mark)))
    line(capsys, *argv, path)
    assert not mark.exists()
