"""stress/portfolio.py: finished pieces are kept and not run again."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "stress" / "portfolio.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("portfolio_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def portfolio(script, monkeypatch, tmp_path):
    """Run the script's ``main`` with these arguments; returns its exit code."""

    def main(*args):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--dir", str(tmp_path), *args])
        return script.main()

    return main


def pieces(tmp_path, name):
    lines = (tmp_path / f"{name}.access-plain.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_it_goes_on_where_it_was_stopped(portfolio, tmp_path, capsys):
    args = ("--only", "cache-lookup", "--piece", "3")
    assert portfolio(*args, "--schedules", "4") == 0
    assert [(p["first"], p["executions"]) for p in pieces(tmp_path, "cache-lookup")] == [
        (0, 3),
        (3, 1),
    ]
    assert portfolio(*args, "--schedules", "4") == 0
    assert len(pieces(tmp_path, "cache-lookup")) == 2
    assert portfolio(*args, "--schedules", "6") == 0
    assert sum(p["executions"] for p in pieces(tmp_path, "cache-lookup")) == 6
    capsys.readouterr()
    assert portfolio("--only", "cache-lookup", "--table") == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:2] == ["cache-lookup", "6"]
    assert 1 <= int(row[3]) <= 6  # distinct traces over all pieces
    assert row[-1] == "none"


def test_a_piece_that_was_lost_is_run_and_nothing_twice(script, tmp_path):
    row = script.Row("cache-lookup", False, tmp_path / "row.jsonl", 0)
    row.taken = {0: 10, 30: 10}
    for expected in [(10, 15), (25, 5), (40, 15), (55, 5)]:
        first, n = row.next_piece(60, 15)
        assert (first, n) == expected
        row.taken[first] = n
    assert row.asked == 60


def test_it_can_begin_where_another_machine_stopped(portfolio, tmp_path):
    args = ("--only", "cache-lookup", "--piece", "3", "--from", "7", "--schedules", "11")
    assert portfolio(*args) == 0
    assert [(p["first"], p["executions"]) for p in pieces(tmp_path, "cache-lookup")] == [
        (7, 3),
        (10, 1),
    ]
    assert portfolio("--only", "cache-lookup", "--from", "3", "--schedules", "5") == 0
    assert pieces(tmp_path, "cache-lookup")[2]["first"] == 3


def test_a_damaged_file_is_named(portfolio, tmp_path):
    (tmp_path / "cache-lookup.access-plain.jsonl").write_text('{"first": 0, "exec')
    with pytest.raises(SystemExit, match=r"cache-lookup.access-plain.jsonl:1: damaged"):
        portfolio("--only", "cache-lookup", "--table")


def test_known_defects_are_told_and_no_failure_unless_repaired(portfolio, capsys):
    args = ("--only", "msync-pageout", "--schedules", "2")
    assert portfolio(*args) == 0
    out = capsys.readouterr().out
    assert "msync-pageout: assertion: msync has returned" in out
    assert "UNEXPECTED" not in out
    assert portfolio(*args, "--repaired") == 0
    assert "msync-pageout (repaired)" in capsys.readouterr().out
