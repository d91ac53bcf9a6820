"""Recording of real programs: which processes, what is kept, nothing left running."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smpvm.cli import main
from smpvm.commands.record import beside
from smpvm.workload.record import Stream, record
from smpvm.workload.trace import Reducer, read

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")


def test_a_cut_line_and_a_mixed_one_are_not_refused():
    """They are what a killed process leaves, and two that write at once."""
    stream = Stream(Reducer(strict=False))
    stream.feed(b"==12== Lackey\n==12== Command: ls -l\n==12== \n L 0400")
    stream.feed(b"1000,8\n L 04 L 04003000,8\n S 040")
    assert (stream.pid, stream.command) == (12, "ls -l")
    assert stream.reducer.trace().runs == [(0x4001, 1)]


def test_the_second_process_goes_beside_the_first(tmp_path):
    assert beside(tmp_path / "x.trace.gz", 2) == tmp_path / "x-2.trace.gz"
    assert beside(tmp_path / "x", 3) == tmp_path / "x-3"


def running(pid):
    """Is there such a process, and is it not just waited for by nobody?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@needs_valgrind
def test_children_are_followed(tmp_path, capsys):
    out = tmp_path / "t.gz"
    assert main(["record", "-o", str(out), "--", "sh", "-c", "ls; kill $$"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: " in said
    assert f"{tmp_path / 't-2.gz'}: " in said
    assert "the command was ended by SIGTERM" in said
    first, second = read(out), read(tmp_path / "t-2.gz")
    assert (first.name, second.name) == ("sh", "ls")
    assert second.command == [shutil.which("ls")]


@needs_valgrind
def test_or_they_are_not():
    recording = record(["sh", "-c", "ls >/dev/null; exit 3"], follow=False)
    assert [trace.name for trace in recording.traces] == ["sh"]
    assert recording.status == 3


@needs_valgrind
def test_a_process_that_has_given_enough_is_ended():
    recording = record(["sh", "-c", "while :; do :; done"], limit=100)
    (trace,) = recording.traces
    assert len(trace.refs) == 100
    assert not trace.whole
    assert recording.status == -signal.SIGTERM


@needs_valgrind
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_killed_it_ends_all_and_keeps_what_is_there(tmp_path, number):
    out, pids = tmp_path / "t.gz", tmp_path / "pids"
    script = f"echo $$ >{pids}; sh -c 'echo $$ >>{pids}; while :; do :; done'"
    recorder = subprocess.Popen(
        [sys.executable, "-m", "smpvm", "record", "-o", str(out), "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 40
    while not (pids.exists() and pids.read_text().count("\n") == 2) and time.monotonic() < end:
        time.sleep(0.05)
    recorder.send_signal(number)
    said, err = recorder.communicate(timeout=40)
    assert (recorder.returncode, err) == (3, "")
    assert "interrupted" in said
    assert read(out).refs
    assert not read(tmp_path / "t-2.gz").whole
    for pid in map(int, pids.read_text().split()):
        assert not running(pid)
