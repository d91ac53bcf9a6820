"""Damaged files and odd options: a short run of stress/fuzz.py, and inputs that once failed."""

import importlib.util
import os
import random
import sys
from pathlib import Path

import pytest

from smpvm.report import findings

HERE = Path(__file__).parents[1]
CORPUS = sorted((HERE / "data" / "corpus").iterdir())


@pytest.fixture(scope="module")
def fuzz():
    """stress/fuzz.py as a module."""
    script = HERE.parent / "stress" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz_script", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    del sys.modules[spec.name]


@pytest.mark.parametrize("target", ["finding", "schedule", "snapshot", "conform", "trace", "locks"])
def test_nothing_breaks_a_reader(fuzz, target):
    tally = fuzz.fuzz(0, range(60), [target], None)
    assert tally.cases == 60
    assert dict(tally.failures) == {}
    assert tally.codes[2] > 20


def test_nothing_breaks_a_reader_of_lines(fuzz):
    tally = fuzz.fuzz(0, range(150), ["lackey"], None)
    assert dict(tally.failures) == {}
    assert tally.codes[2] > 50


@pytest.mark.parametrize("folder", CORPUS, ids=lambda folder: folder.name)
def test_what_once_failed_fails_no_more(fuzz, folder, tmp_path, monkeypatch):
    argv, data = fuzz.load(folder)
    path = tmp_path / "input"
    path.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    code, fault = fuzz.judge(argv, path)
    assert fault == ""
    assert code in (0, 1, 2, 3)


def test_a_case_is_the_same_for_the_same_seed(fuzz):
    names = list(fuzz.TARGETS)
    cases = [fuzz.case(3, n, names) for n in range(30)]
    assert cases == [fuzz.case(3, n, names) for n in range(30)]
    assert cases != [fuzz.case(4, n, names) for n in range(30)]


def test_a_fault_is_noticed(fuzz, tmp_path, monkeypatch):
    """The harness itself: an internal error, a hang and a refusal that is too long."""

    def broken(path, as_json):
        return {}["x"]

    def slow(path, as_json):
        while True:
            pass

    def wordy(path, as_json):
        print("x\n" * 50, file=sys.stderr)
        raise fuzz.cli.ConfigError("x")

    monkeypatch.setattr(fuzz, "TIMEOUT", 0.2)
    said = []
    for body in (broken, slow, wordy):
        monkeypatch.setattr(findings, "show_command", body)
        said.append(fuzz.judge(["show", "@"], tmp_path)[1])
    assert said[0].startswith("internal: ")
    assert said[1] == "hang"
    assert said[2].startswith("refused with 5")
    fuzz.save(tmp_path / "kept", ["show", "@"], b"x", said[0])
    assert fuzz.load(tmp_path / "kept") == (["show", "@"], b"x")
    assert os.listdir(tmp_path / "kept")


def test_json_is_damaged_at_every_depth(fuzz):
    doc = {"a": [1, {"b": [2, 3]}], "c": "x"}
    rng = random.Random(0)
    seen = {repr(fuzz.mutate_json(rng, doc)) for _ in range(200)}
    assert len(seen) > 100
    assert sum("'c': 'x'" in text for text in seen) > 50
