"""stress/verdicts.py: verdicts and class counts of its smaller programs, and the script itself."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "stress" / "verdicts.py"
CLEAN = {
    "litmus": ("IRIW", "TwoPlusTwoW", "N6"),
    "mutual": ("Peterson", "LamportFast"),
    "counting": ("LastZero", "Fibonacci", "FileSystem"),
    "primitives": ("LockmgrThree", "JoinTwo"),
    "sleeping": ("Interlocked",),
    "classics": ("PhilosophersOrdered", "DoubleChecked"),
    "lockfree": ("WorkSteal", "AbaTagged"),
    "traps": ("AtomicReadDeclared", "IfForWhile", "UnderGate"),
}
BROKEN = {
    "litmus": ("MPBackwards",),
    "mutual": ("FlagsOnly", "BakeryHasty", "McsHasty"),
    "sctbench": ("Carter01", "Sync01"),
    "sctraces": ("Twostage",),
    "sleeping": ("OneForTwo",),
    "classics": ("Philosophers",),
    "lockfree": ("AbaStack",),
    "traps": ("AtomicStoreOnly", "TimedDeadlock", "CheckFalse"),
    "undeclared": ("DictInShared",),
}


def names(programs):
    return [f"{theme}:{name}" for theme, some in programs.items() for name in some]


@pytest.fixture(scope="module")
def verdicts():
    spec = importlib.util.spec_from_file_location("verdicts_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", names(CLEAN))
def test_what_is_right_is_proven(verdicts, name):
    said = verdicts.judge(name, "dpor", seconds=20)
    assert said.expect == ""
    assert said.claim
    assert (said.verdict, said.found) == ("ok", [])


@pytest.mark.parametrize("name", names(BROKEN))
def test_what_is_broken_is_found(verdicts, name):
    said = verdicts.judge(name, "dpor", seconds=20)
    assert said.expect
    assert said.found
    assert said.verdict == "ok"


def said_of(verdicts, **more):
    first = {"claim": "", "found": [], "classes": 0, "expect": "", "executions": 5}
    parts = {"program": "p", "strategy": "dpor", "verdict": "", "seconds": 0.0, **first, **more}
    return verdicts.Said(**parts)


@pytest.mark.parametrize(
    ("more", "also", "right"),
    [
        ({"claim": "all"}, "", "ok"),
        ({"found": ["race"]}, "", "FALSE ALARM"),
        ({"found": ["race"]}, "race", "ok"),
        ({"expect": "race", "claim": "all"}, "", "WRONG PROOF"),
        ({"expect": "race", "claim": "all", "strategy": "bounded"}, "", "missed"),
        ({"expect": "race"}, "", "missed"),
        ({"expect": "race assertion", "found": ["race"]}, "", "missed"),
        ({"expect": "race/assertion", "found": ["race"]}, "", "ok"),
        ({"expect": "unproven", "claim": "all"}, "", "WRONG PROOF"),
        ({"expect": "unproven"}, "", "ok"),
        ({"claim": "all", "classes": 4}, "", "excess"),
        ({"claim": "all", "classes": 6}, "", "too few"),
        ({"classes": 5}, "", "not proven"),
    ],
)
def test_what_is_thought_of_it(verdicts, more, also, right):
    assert verdicts.verdict(said_of(verdicts, **more), also, False) == right


def test_every_program_says_what_it_should(verdicts):
    known = verdicts.programs()
    themes = {name.partition(":")[0] for name in known}
    assert themes == {path.stem for path in verdicts.PROGRAMS.glob("*.py")}
    assert themes >= {*CLEAN, *BROKEN}
    for name in known[::5]:  # each load runs its whole file
        program = verdicts.load(name)
        assert program.title, name
        assert program.source, name
        assert isinstance(getattr(program, "expect", ""), str), name


def run(*args):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *args], capture_output=True, text=True, timeout=60
    )


def test_the_script():
    done = run("--only", "litmus:SB", "--strategy", "dpor", "--json")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)[0]
    assert (first["verdict"], first["executions"]) == ("ok", 3)
    assert run("--only", "nothing").returncode == 2
