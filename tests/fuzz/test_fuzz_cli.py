"""The commands ``smpvm fuzz`` and ``smpvm coverage``."""

import json

import pytest

from smpvm.cli import main
from smpvm.explore.registry import find

QUICK = ("fuzz", "--programs", "4", "--seed", "1", "--no-shrink", "--check", "none")


def test_json_gives_programs_executions_interactions_findings(capsys):
    assert main([*QUICK, "--json", "--repair", "all"]) in (1, 3)
    doc = json.loads(capsys.readouterr().out)
    assert doc["version"] == 1
    assert doc["programs"] == 4
    assert doc["executions"] >= 4
    assert doc["interactions"] > 0
    assert doc["pairs"]["cells"] > 10_000
    assert isinstance(doc["findings"], list)


def test_a_finding_has_its_program_and_is_saved(tmp_path, capsys):
    corpus, path = tmp_path / "corpus", tmp_path / "found.py"
    corpus.mkdir()
    asked = ["fuzz", "--programs", "60", "--seed", "2", "--no-pairs", "--stop-on-first"]
    asked += ["--no-shrink", "--corpus", str(corpus), "--save", str(path), "--json"]
    assert main([*asked, "--run-dir", str(tmp_path / "run")]) == 1
    doc = json.loads(capsys.readouterr().out)
    finding = doc["findings"][0]
    program = next(line for line in finding["evidence"] if line.startswith("program: "))
    assert finding["schedule"].endswith("/fuzz:" + program.removeprefix("program: "))
    assert find(f"{path}:Found1").program.text == program.removeprefix("program: ")
    assert list((tmp_path / "run" / "findings").glob("*.json"))
    assert main(["replay", "--schedule", finding["schedule"]]) == 1
    assert main(["coverage", str(corpus), "--schedules", "1", "--json"]) == 0
    out = capsys.readouterr().out
    cover = json.loads(out[out.index('{\n "version"') :])
    assert 0 < cover["functions"]["reached"] < cover["functions"]["all"]
    assert 0 < cover["lines"]["reached"] < cover["lines"]["all"]
    assert cover["functions"]["never"]


def test_several_jobs(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    assert main([*QUICK, "--jobs", "2", "--corpus", str(corpus)]) in (1, 3)
    assert "fuzz: 4 programs" in capsys.readouterr().out
    assert [p.name for p in corpus.iterdir()] == ["corpus.json"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["fuzz", "--cover", "nowhere"], "write it as vm_pageout.c:1075"),
        (["fuzz", "--programs", "0"], "too small"),
        (["fuzz", "--repair", "nothing"], "unknown"),
        (["explore", "fuzz:a: fly"], "fly: unknown; known are"),
        (["replay", "--schedule", "s1/access/0/-/1x1~00/fuzz:q: x"], "q: x: unknown"),
        (["coverage", "nothing"], "unknown"),
    ],
)
def test_errors_are_one_line(asked, words, capsys):
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_a_directory_that_is_neither(tmp_path, capsys):
    assert main(["coverage", str(tmp_path)]) == 2
    assert "neither a corpus" in capsys.readouterr().err
