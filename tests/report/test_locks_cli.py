"""``smpvm show`` and ``smpvm locks``: what they print, and one line for bad input."""

import json

import pytest

from smpvm.check.finding import Finding, FindingLog, Site
from smpvm.check.stacks import Frame
from smpvm.cli import main

EDGE = {
    "v": 1,
    "ev": "edge",
    "first": "page",
    "then": "queue",
    "binding": True,
    "td": "t0",
    "held": "",
    "first_stack": ["vm_page_lock (vm/page.py:1)"],
    "then_stack": ["vm_page_queue_lock (vm/page.py:2)"],
}
END = {
    "v": 1,
    "ev": "end",
    "written": 0,
    "dropped": 0,
    "acquired": {"page": 10},
    "contended": {"page": 1},
}


@pytest.fixture
def run_dir(tmp_path):
    log = FindingLog(tmp_path, command="smpvm stress --seed 3")
    stack = (Frame("Pages.activate", "vm/page.py", 7, "vm_page_activate"),)
    log.add(Finding("race", "Page.queue of page 3", [Site("t0", "daemon", "writes it", stack)]))
    log.finish()
    lines = (json.dumps(EDGE), json.dumps(END))
    (tmp_path / "lockorder.jsonl").write_text("".join(line + "\n" for line in lines))
    return tmp_path


def test_show_a_run_and_a_file(run_dir, capsys):
    assert main(["show", str(run_dir)]) == 0
    whole = capsys.readouterr().out
    assert whole.startswith("race: Page.queue of page 3\n")
    assert "vm_page_activate [Pages.activate] (vm/page.py:7)" in whole
    assert "again: smpvm stress --seed 3" in whole
    (file,) = (run_dir / "findings").iterdir()
    assert main(["show", str(file)]) == 0
    assert capsys.readouterr().out == whole


def test_show_as_json(run_dir, capsys):
    assert main(["show", str(run_dir), "--json"]) == 0
    (doc,) = json.loads(capsys.readouterr().out)
    assert doc["kind"] == "race"
    assert doc["version"] == 2


def test_locks_with_its_pictures(run_dir, capsys, tmp_path):
    dot, svg = tmp_path / "g.dot", tmp_path / "g.svg"
    assert main(["locks", str(run_dir), "--dot", str(dot), "--svg", str(svg)]) == 0
    out = capsys.readouterr().out
    assert "page → queue   vm_page.c:550" in out
    assert dot.read_text().startswith("digraph")
    assert svg.read_text().startswith("<svg")


def test_locks_as_json(run_dir, capsys):
    assert main(["locks", str(run_dir), "--json"]) == 0
    doc = json.loads(capsys.readouterr().out)
    assert doc["agreeing"] == [["page", "queue"]]
    assert doc["acquired"] == {"page": 10}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["show", "{}/none"], "No such file"),
        (["show", "{}/empty"], "not a run directory"),
        (["show", "{}/bad.json"], "damaged: not JSON"),
        (["locks", "{}/empty"], "No such file"),
        (["locks", "{}/bad.json"], "damaged: not JSON"),
        (["locks", "{}", "--svg", "{}/empty"], "Is a directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run_dir, capsys, argv, says):
    (run_dir / "empty").mkdir()
    (run_dir / "bad.json").write_text("nonsense\n")
    assert main([arg.format(run_dir) for arg in argv]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
