"""The commands: exit codes, JSON, and one line for each mistake."""

import contextlib
import io
import json
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smpvm.check.finding import load
from smpvm.cli import main
from smpvm.commands import explore as explore_module
from smpvm.explore.engine import Settings
from smpvm.explore.search import Search, SearchPlan, SearchReport
from smpvm.explore.workers import merge, run_jobs

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
    first = SearchReport("s", "random", "access", executions=1, notes=["a", "b"])
    second = SearchReport("s", "random", "access", executions=2, limited=3, notes=["b", "c"])
    whole = merge([first, second])
    assert (whole.executions, whole.limited, whole.notes) == (3, 3, ["a", "b", "c"])
    assert whole.to_json()["given_up"] == 3
    assert "  abandoned at the step limit: 3 executions" in whole.lines()


def test_pieces_of_a_campaign_are_the_whole(toys):
    def run(first, schedules):
        plan = SearchPlan("random", schedules, first, shrink=False, settings=Settings(digest=False))
        return Search(toys.Locked, plan).run()

    pieces = merge([run(0, 12), run(12, 8)])
    whole = run(0, 20)
    assert (pieces.executions, pieces.points) == (20, whole.points)
    assert pieces.traces == whole.traces
    assert run(0, 12).traces != whole.traces


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(stat.parent)
    return found


def interrupted(tmp_path, jobs, begun, how=signal.SIGINT):
    """Interrupt a run once ``begun(pid)``; its exit code and report."""
    argv = [
        "explore",
        f"{TOYS}:Counter",
        "--strategy",
        "random",
        "--seconds",
        "60",
        "--jobs",
        jobs,
        "--json",
    ]
    run = subprocess.Popen(
        [sys.executable, "-m", "smpvm", *argv, "--run-dir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not begun(run.pid):
        time.sleep(0.05)
    run.send_signal(how)
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
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_workers_hand_over_what_they_have(tmp_path, how):
    code, doc = interrupted(tmp_path, "2", lambda pid: len(children(pid)) >= 2, how)
    assert code == (1 if doc["findings"] else 3)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked up in /proc")
def test_workers_do_not_outlive_who_gave_them_work(tmp_path):
    argv = ["explore", f"{TOYS}:Counter", "--strategy", "random", "--seconds", "60", "--jobs", "2"]
    run = subprocess.Popen([sys.executable, "-m", "smpvm", *argv, "--run-dir", str(tmp_path)])
    while not list(tmp_path.glob("findings/*.json")):
        time.sleep(0.05)
    workers = children(run.pid)
    assert len(workers) >= 2
    run.kill()
    run.wait()
    while any(worker.exists() for worker in workers):
        time.sleep(0.05)


def test_what_workers_find_is_on_disk_at_once(tmp_path):
    code, doc = interrupted(tmp_path, "2", lambda pid: list(tmp_path.glob("findings/*.json")))
    assert code == 1
    assert doc["findings"]


def test_workers_tell_how_far_they_are():
    told = []
    plan = SearchPlan(schedules=None, seconds=3.0, shrink=False, settings=Settings(digest=False))
    whole = run_jobs(f"{TOYS}:Counter", "", plan, 2, progress=told.append)
    assert told
    assert 0 < told[0].executions < whole.executions
    assert "distinct traces" in told[-1].progress()
    assert "race (" in told[-1].progress()


def test_any_executor_will_do():
    plan = SearchPlan("random", schedules=40, settings=Settings(digest=False))
    with ThreadPoolExecutor(2) as executor:
        whole = run_jobs(f"{TOYS}:Counter", "", plan, 2, executor)
    assert whole.executions == 40
    assert {f.kind for f in whole.findings} == {"race", "assertion"}


def test_one_worker_that_finds_ends_the_search_of_all(capsys, tmp_path):
    (tmp_path / "once.py").write_text(
        "from smpvm import Scenario\n"
        "class Once(Scenario):\n"
        "    def setup(self):\n"
        "        self.thread('t', int)\n"
        "    def check(self):\n"
        "        try:\n"
        f"            open({str(tmp_path / 'found')!r}, 'x').close()\n"
        "        except FileExistsError:\n"
        "            return\n"
        "        raise AssertionError('the only one')\n"
    )
    argv = ["--schedules", "9000000", "--jobs", "2", "--stop-on-first", "--no-shrink", "--json"]
    code, out, _ = run(capsys, "explore", f"{tmp_path / 'once.py'}:Once", *argv)
    doc = json.loads(out)["scenarios"][0]
    assert code == 1
    assert [f["kind"] for f in doc["findings"]] == ["assertion"]
    assert not doc["interrupted"]


def test_the_end_of_a_search_does_not_keep_a_worker_from_shrinking(toys):
    plan = SearchPlan(schedules=1, stop_on_first=True, settings=Settings(digest=False))
    report = Search(toys.Counter, plan, enough=lambda: True).run()
    assert all("schedule shrunk from" in f.evidence[-1] for f in report.findings)
    assert not report.interrupted
    hurried = Search(toys.Counter, plan, stop=lambda: True).run()
    assert not any("schedule shrunk from" in line for f in hurried.findings for line in f.evidence)
    assert hurried.interrupted


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


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--strategy", "pos", "--bound", "1"], "bound=1: not for strategy 'pos'"),
        (["--strategy", "random", "--depth", "2"], "depth=2: not for strategy 'random'"),
        (["--strategy", "pct", "--depth", "11"], "depth=11: from 1 to 10"),
        (["--strategy", "bounded", "--bound", "-1"], "bound=-1: from 0 to 100"),
    ],
)
def test_options_that_would_do_nothing(capsys, argv, why):
    code, out, err = run(capsys, "explore", f"{TOYS}:Counter", *argv)
    assert (code, out) == (2, "")
    assert why in err


def test_depth_is_for_the_portfolio_too(capsys):
    out = run(capsys, "explore", f"{TOYS}:Locked", "--schedules", "20", "--depth", "4")[1]
    assert out.count("d = 4") == 2
    assert "d = 2" not in out


def test_the_first_finding_ends_all(capsys):
    argv = ["explore", "all", "--stop-on-first", "--schedules", "2", "--check", "none"]
    code, out, _ = run(capsys, *argv, "--json", "--no-shrink")
    scenarios = json.loads(out)["scenarios"]
    assert code == 1
    assert scenarios[-1]["findings"]
    assert not any(each["findings"] for each in scenarios[:-1])


def test_a_second_run_in_a_directory_is_kept_beside_it(capsys, tmp_path):
    first = tmp_path / "run"
    argv = ["explore", f"{TOYS}:Counter", "--schedules", "9", "--run-dir", str(first)]
    assert run(capsys, *argv)[0] == 1
    before = {path: path.read_bytes() for path in first.rglob("*.json")}
    code, _, err = run(capsys, *argv)
    assert code == 1
    assert "this one is kept in" in err
    second = tmp_path / "run-2"
    assert {p.relative_to(second) for p in second.rglob("*.json")} == {
        p.relative_to(first) for p in before
    }
    assert {path: path.read_bytes() for path in first.rglob("*.json")} == before


def test_a_scenario_may_import_its_neighbour(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_it.py").write_text(Path(TOYS).read_text())
    (tmp_path / "it.py").write_text(
        "from neighbour_of_it import Counter\nclass It(Counter):\n    pass\n"
    )
    assert run(capsys, "explore", f"{tmp_path / 'it.py'}:It", "--schedules", "9")[0] == 1


def test_the_command_of_a_finding_is_for_a_shell(capsys, tmp_path):
    place = tmp_path / "it's here"
    place.mkdir()
    (place / "toys.py").write_text(Path(TOYS).read_text())
    argv = ["explore", f"{place / 'toys.py'}:Counter", "--check", "none", "--json"]
    (finding,) = json.loads(run(capsys, *argv)[1])["scenarios"][0]["findings"]
    smpvm, *again = shlex.split(finding["command"])
    assert smpvm == "smpvm"
    code, out, _ = run(capsys, *again)
    assert code == 1
    assert "an update is lost" in out
    assert "race" not in out  # as it was not looked for


def test_a_proof_says_which_checks(capsys):
    argv = ["explore", f"{TOYS}:Locked", "--strategy", "dpor"]
    assert "no finding; every" in run(capsys, *argv)[1]
    assert "no finding by the checks none; every" in run(capsys, *argv, "--check", "none")[1]


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


BAD = """
from smpvm import Scenario

class SetUp(Scenario):
    "Fails before anything runs."
    def setup(self):
        raise RuntimeError("no good")

class Check(Scenario):
    "Its check has a mistake."
    def setup(self):
        self.thread("a", lambda: None)
    def check(self):
        return 1 + "1"

class SetUpExits(Scenario):
    "Set-up ends the program."
    def setup(self):
        raise SystemExit(7)

class SetUpSleeps(Scenario):
    "Set-up waits for nobody."
    def setup(self):
        self.tsleep("x")

class NoSize(Scenario):
    "There is no such size."
    sizes = {"n": 1}
    def setup(self):
        self.thread("a", int)

class SmallSize(NoSize):
    "It is below what it may be reduced to."
    sizes = {"n": 2}
    n = 1

class Body(Scenario):
    "A thread has a mistake."
    def setup(self):
        self.thread("a", self.body)
    def body(self):
        return {}["missing"]
"""


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(BAD)
    return path


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("SetUp", "set-up: RuntimeError: no good ({}:7)"),
        ("SetUpExits", "set-up: SystemExit: 7 ({}:"),
        ("SetUpSleeps", "set-up: it blocks, and no thread will ever wake it ({}:"),
        ("NoSize", "sizes: n=None: a number, 1 or more, is expected"),
        ("SmallSize", "sizes: n=1: a number, 2 or more, is expected"),
    ],
)
def test_a_mistake_in_a_scenario_is_one_line_with_its_place(capsys, bad, name, says, jobs):
    code, out, err = run(capsys, "explore", f"{bad}:{name}", "--schedules", "4", "--jobs", jobs)
    assert (code, out) == (2, "")
    assert says.format(bad) in err
    assert f"{bad}:" in err
    assert len(err.splitlines()) == 1


def test_a_mistake_in_a_check_is_a_finding_with_its_place(capsys, bad):
    """It may be one in some interleavings only."""
    code, out, _ = run(capsys, "explore", f"{bad}:Check", "--schedules", "2", "--json")
    (finding,) = json.loads(out)["scenarios"][0]["findings"]
    assert code == 1
    assert finding["title"].startswith("check: TypeError: unsupported operand")
    assert f"({bad}:" in finding["title"]
    assert finding["schedule"].startswith("s1/access/")


def test_a_mistake_in_a_thread_is_a_finding_with_its_place(capsys, bad):
    code, out, _ = run(capsys, "explore", f"{bad}:Body", "--schedules", "2", "--json")
    (finding,) = json.loads(out)["scenarios"][0]["findings"]
    assert code == 1
    assert finding["title"] == "KeyError: 'missing'"
    assert [f["name"] for f in finding["sites"][0]["stack"]] == ["Body.body"]
    assert finding["count"] == 2  # of two executions


@pytest.mark.parametrize(
    "argv",
    [
        ("explore", "cache-lookup", "--check", "foo"),
        ("explore", "cache-lookup", "--run-dir", "/proc/x"),
        ("explore", "cache-lookup", "--run-dir", __file__),
        ("explore", f"{TOYS}:Locked", "--repair", "foo"),
        ("replay", "--schedule", f"s1/access/0.1.0/-/1x99999999999~00/{TOYS}:Counter"),
        ("replay", "--schedule", f"s1/access/0.1.0/-/1x2~84/{TOYS}:Counter", "--json", "--break=1"),
    ],
)
def test_more_mistakes(capsys, argv):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "internal" not in err


def test_a_file_that_exits_is_a_mistake(capsys, tmp_path):
    (tmp_path / "gone.py").write_text("raise SystemExit(0)")
    code, _, err = run(capsys, "explore", str(tmp_path / "gone.py"))
    assert code == 2
    assert "SystemExit" in err


def test_a_run_directory_and_a_replay_from_elsewhere(capsys, bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "explore", "bad.py:Body", "--schedules", "2", "--run-dir", "kept")[0] == 1
    assert json.loads((tmp_path / "kept/run.json").read_text())["explore"]["schedules"] == 2
    assert json.loads((tmp_path / "kept/result.json").read_text())["scenarios"][0]["findings"]
    (finding,) = (tmp_path / "kept/findings").glob("*.json")
    monkeypatch.chdir("/")
    assert run(capsys, "replay", str(finding))[0] == 1
    doc = json.loads(finding.read_text())
    finding.write_text(json.dumps({**doc, "schedule": 5}))
    code, _, err = run(capsys, "replay", str(finding))
    assert code == 2
    assert str(finding) in err
    # The scenario has changed: the same steps, or others.
    finding.write_text(json.dumps(doc))
    bad.write_text(BAD.replace('["missing"]', '.get("missing")'))
    code, out, err = run(capsys, "replay", str(finding))
    assert (code, out) == (2, "")
    assert (
        f"has changed since the finding was made; to run it all the same: --scenario {bad}" in err
    )
    code, out, _ = run(capsys, "replay", str(finding), "--scenario", str(bad))
    assert code == 3
    assert "the scenario or the code has changed" in out


def test_break_shows_the_access_and_says_what_was_not_reached(capsys, monkeypatch):
    text = f"s1/access/0.1.0/-/1x2~84.2x4~00.1x2~83/{TOYS}:Counter"
    monkeypatch.setattr("sys.stdin", io.StringIO("p self.c.n\nq\n"))
    _, out, _ = run(capsys, "replay", "--schedule", text, "--break", "1")
    assert "toys.py" in out.split("(Pdb)")[0]
    assert "self.c.n = self.c.n + 1" in out.split("(Pdb)")[0]
    assert "BdbQuit" not in out
    assert "an update is lost" in out  # q went on to the end
    _, out, _ = run(capsys, "replay", "--schedule", text, "--break", "500")
    assert "step 500 was not reached" in out


def test_breakpoints_set_at_a_break_are_heard(capsys, monkeypatch):
    text = f"s1/access/0.1.0/-/1x2~84.2x4~00.1x2~83/{TOYS}:Counter"
    lines = Path(TOYS).read_text().splitlines()
    line = next(n for n, code in enumerate(lines, 1) if "self.c.n + 1" in code)
    asked = f"b {TOYS}:{line}\nc\nw\nq\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(asked))
    _, out, _ = run(capsys, "replay", "--schedule", text, "--break", "0")
    assert f"Breakpoint 1 at {TOYS}:{line}" in out
    assert f"> {TOYS}({line})count()" in out.split("Breakpoint 1")[1]


def test_a_break_where_time_moves_on_says_so(capsys, tmp_path):
    path = tmp_path / "timed.py"
    path.write_text(
        "from smpvm import Scenario\n"
        "class Timed(Scenario):\n"
        "    def setup(self):\n"
        "        self.thread('a', self.tsleep, 'x', 1)\n"
        "    def check(self):\n"
        "        assert False\n"
    )
    out = run(capsys, "explore", str(path), "--schedules", "1", "--json")[1]
    schedule = json.loads(out)["scenarios"][0]["findings"][0]["schedule"]
    steps = [
        run(capsys, "replay", "--schedule", schedule, "--break", str(step))[1]
        for step in range(1, 4)
    ]
    assert any("the clock advances" in text and "(Pdb)" not in text for text in steps)


def test_seconds_are_for_all_scenarios_together(capsys, monkeypatch):
    from smpvm.commands.explore import Budget

    now = [100.0]
    monkeypatch.setattr(explore_module.time, "monotonic", lambda: now[0])
    budget = Budget(10.0)
    assert budget.share(2) == 5.0
    now[0] += 1.0  # the first took less than its share
    assert budget.share(1) == 9.0
    assert Budget(None).share(3) is None
