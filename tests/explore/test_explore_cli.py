"""The commands: exit codes, JSON, and one line for each mistake."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smpvm.check.finding import load
from smpvm.cli import main
from smpvm.explore.campaign import Campaign, Plan, Report, merge
from smpvm.explore.engine import Settings

TOYS = str(Path(__file__).parent / "toys.py")


def run(capsys, *argv):
    code = main(list(argv))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_finding_is_exit_code_1_and_replays(capsys, tmp_path):
    code, out, _ = run(
        capsys, "explore", f"{TOYS}:Counter", "--strategy", "dpor", "--run-dir", str(tmp_path)
    )
    assert code == 1
    assert "an update is lost" in out
    files = sorted((tmp_path / "findings").glob("assertion-*.json"))
    assert len(files) == 1
    code, out, _ = run(capsys, "replay", str(files[0]), "--lanes", "--carrier", "thread")
    assert code == 1
    assert "as recorded" in out


def test_exhausted_is_0_and_says_what_was_proven(capsys):
    code, out, _ = run(capsys, "explore", f"{TOYS}:Locked", "--strategy", "dpor")
    assert code == 0
    assert "proven at granularity access" in out
    assert "90 executions" in out


def test_not_exhausted_is_3(capsys):
    code, out, _ = run(capsys, "explore", f"{TOYS}:Locked", "--schedules", "20")
    assert code == 3
    assert "inconclusive" in out


def test_json(capsys):
    argv = ["explore", f"{TOYS}:Locked", "--schedules", "20", "--json", "--strategy", "random"]
    docs = [json.loads(run(capsys, *argv)[1])["scenarios"][0] for _ in range(2)]
    assert docs[0]["digest"] == docs[1]["digest"]
    assert docs[0]["executions"] == 20
    assert docs[0]["verdict"] == "inconclusive"


def test_a_merged_report_tells_of_every_worker():
    first = Report("s", "random", "access", executions=1, notes=["a", "b"])
    second = Report("s", "random", "access", executions=2, limited=3, notes=["b", "c"])
    whole = merge([first, second])
    assert (whole.executions, whole.limited, whole.notes) == (3, 3, ["a", "b", "c"])
    assert whole.to_json()["given_up"] == 3
    assert "  3 executions were given up as too long" in whole.lines()


def test_pieces_of_a_campaign_are_the_whole(toys):
    def run(first, schedules):
        plan = Plan("random", schedules, first, shrink=False, settings=Settings(digest=False))
        return Campaign(toys.Locked, plan).run()

    pieces = merge([run(0, 12), run(12, 8)])
    whole = run(0, 20)
    assert (pieces.executions, pieces.points) == (20, whole.points)
    assert pieces.traces == whole.traces
    assert run(0, 12).traces != whole.traces


def interrupted(tmp_path, jobs, begun):
    """Interrupt a run once ``begun(pid)``; its exit code and report."""
    argv = ["explore", f"{TOYS}:Counter", "--seconds", "60", "--jobs", jobs, "--json"]
    run = subprocess.Popen(
        [sys.executable, "-m", "smpvm", *argv, "--run-dir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not begun(run.pid):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=40)
    assert err == ""
    doc = json.loads(out)["scenarios"][0]
    assert doc["interrupted"]
    kept = [load(path) for path in sorted(tmp_path.glob("findings/*.json"))]
    assert {f.fingerprint for f in kept} == {f["fingerprint"] for f in doc["findings"]}
    assert {f.kind for f in kept} <= {"race", "assertion"}
    assert all(f.schedule and "KeyboardInterrupt" not in f.title for f in kept)
    return run.returncode, doc


def test_an_interrupted_run_keeps_what_it_has_found(tmp_path):
    # A finding is there before the run is over.
    code, doc = interrupted(tmp_path, "1", lambda pid: list(tmp_path.glob("findings/*.json")))
    assert code == 1
    assert doc["findings"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked up in /proc")
def test_interrupted_workers_hand_over_what_they_have(tmp_path):
    def children(pid):
        found = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found += int(stat.read_text().rpartition(")")[2].split()[1]) == pid
        return found

    code, doc = interrupted(tmp_path, "2", lambda pid: children(pid) >= 2)
    assert code == (1 if doc["findings"] else 3)


def test_jobs_find_the_same(capsys):
    argv = ["explore", f"{TOYS}:Counter", "--schedules", "20", "--jobs", "2", "--json"]
    code, out, _ = run(capsys, *argv)
    doc = json.loads(out)["scenarios"][0]
    assert code == 1
    assert doc["executions"] == 20
    assert {f["kind"] for f in doc["findings"]} == {"race", "assertion"}


@pytest.mark.parametrize(
    "argv",
    [
        ["explore", "no-such-scenario"],
        ["explore", "no/such/file.py:X"],
        ["explore", f"{TOYS}:Nobody"],
        ["explore", f"{TOYS}:Counter", "--strategy", "psychic"],
        ["explore", f"{TOYS}:Philosophers?n=x"],
        ["replay"],
        ["replay", "--schedule", "s9/x"],
        ["replay", "/nowhere.json"],
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, argv):
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1


def test_sizes(capsys):
    code, out, _ = run(capsys, "explore", f"{TOYS}:Philosophers?n=2", "--strategy", "dpor")
    assert code == 1
    assert "3 executions" in out


@pytest.mark.parametrize("step", ["1", "2"])
def test_break_drops_into_pdb_in_the_thread(capsys, monkeypatch, step):
    monkeypatch.setattr("sys.stdin", io.StringIO("where\ncontinue\n"))
    text = f"s1/access/0.1.0/-/1x2~84.2x4~00.1x2~83/{TOYS}:Counter"
    code, out, _ = run(capsys, "replay", "--schedule", text, "--break", step)
    assert code == 1
    assert "(Pdb)" in out
    assert "toys.py" in out or step == "2"
