"""Scenarios that do not return are abandoned, and their thread and line are reported."""

import json
import re
import threading
import time

import pytest

from smpvm.cli import main
from smpvm.explore import child, watchdog
from smpvm.explore.child import Hung, WorkerError, alone
from smpvm.explore.watchdog import Watchdog

pytestmark = pytest.mark.timeout(60)

OWN = """
import os, threading, time
from smpvm import Scenario

class Base(Scenario):
    "Two threads count."
    def setup(self):
        self.l, self.c = threading.Lock(), self.shared(n=0)
        for name in "ab":
            self.thread(name, self.count)
    def count(self):
        self.c.n = self.c.n + 1

class Spins(Base):
    def count(self):
        while True: pass  # HERE Spins

class Sleeps(Base):
    def count(self):
        self.c.n = 1
        time.sleep(1000)  # HERE Sleeps

class HostLock(Base):
    def count(self):
        with self.l:  # HERE HostLock
            self.atomic.add_int(self.c, "n", 1)

class Swallows(Base):
    def count(self):
        while True:
            try:
                self.tsleep("x")
            except BaseException:  # HERE Swallows
                pass

class SetUp(Base):
    def setup(self):
        while True: pass  # HERE SetUp

class Check(Base):
    def check(self):
        time.sleep(1000)  # HERE Check

class InC(Base):
    def count(self):
        sum(range(10**12))  # HERE InC

class Late(Base):
    "Finds something first."
    def check(self):
        if self.c.n == 1:
            os.environ["FOUND"] = "1"
            raise AssertionError("lost")
        while "FOUND" in os.environ: pass  # HERE Late

class Exits(Base):
    def count(self):
        os._exit(0)

class Raises(Base):
    def check(self):
        raise KeyboardInterrupt

class Blocks(Base):
    def check(self):
        self.tsleep("x")
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def explore(capsys, spec, *argv):
    code = main(["explore", str(spec), "--hang", "0.3", "--no-shrink", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def line_of(name):
    return next(n for n, text in enumerate(OWN.splitlines(), 1) if f"HERE {name}" in text)


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("Spins", "thread [ab] used"),
        ("Sleeps", "thread [ab] waited"),
        ("HostLock", "thread [ab] waited"),
        ("Swallows", "thread [ab] used"),
        ("SetUp", "set-up used"),
        ("Check", "check waited"),
        ("InC", "the interpreter was blocked"),
    ],
)
def test_who_does_not_come_back_is_named_with_the_line(capsys, own, name, who):
    code, out, err = explore(capsys, f"{own}:{name}", "--schedules", "50")
    assert (code, err) == (3, "")
    (line,) = [line for line in out.splitlines() if "abandoned" in line]
    assert re.search(who, line)
    place = re.search(rf"{own}:(\d+)", line)
    assert abs(int(place[1]) - line_of(name)) <= 3  # a loop may be met at any line of its own


def test_with_host_threads_it_is_the_thread_that_runs(capsys, own):
    code, out, _ = explore(capsys, f"{own}:Spins", "--carrier", "thread")
    assert code == 3
    assert f"{own}:{line_of('Spins')}" in out


def test_a_file_that_does_not_come_to_its_end(capsys, tmp_path):
    path = tmp_path / "endless.py"
    path.write_text("while True:\n    pass\n")
    code, out, _ = explore(capsys, path)
    assert code == 3
    assert "import used" in out


def test_what_was_found_before_is_reported_and_kept(capsys, own, tmp_path):
    run = tmp_path / "run"
    argv = ["--schedules", "500", "--run-dir", str(run), "--check", "none", "--json"]
    code, out, _ = explore(capsys, f"{own}:Late", *argv)
    (doc,) = json.loads(out)["scenarios"]
    assert code == 1
    assert f"{own}:{line_of('Late')}" in doc["hung"]
    (finding,) = doc["findings"]
    assert finding["schedule"].startswith("s1/")
    assert len(list(run.glob("findings/*.json"))) == 1


def test_a_replay_is_given_up_too(capsys, own):
    schedule = f"s1/access/0.1.0/-/1x1~00/{own}:Spins"
    assert main(["replay", "--schedule", schedule, "--hang", "0.3"]) == 3
    assert "abandoned: thread" in capsys.readouterr().out


def test_seconds_hold_whatever_happens(capsys, own):
    begun = time.monotonic()
    code = main(["explore", f"{own}:Sleeps", "--seconds", "0.5"])  # with the patience of 10 s
    assert code == 3
    assert time.monotonic() - begun < 9.0
    assert "waited 1 s outside the model" in capsys.readouterr().out


def test_a_scenario_that_ends_the_process_or_interrupts_it(capsys, own):
    code, out, _ = explore(capsys, f"{own}:Exits")
    assert code == 3
    assert "ended early (exit code 0)" in out
    code, out, err = explore(capsys, f"{own}:Raises")
    assert (code, out) == (2, "")
    assert "the scenario raises KeyboardInterrupt" in err
    assert f"{own}:" in err


def test_a_check_that_blocks_is_a_finding(capsys, own):
    code, out, _ = explore(capsys, f"{own}:Blocks", "--schedules", "1", "--json", "--check", "none")
    assert code == 1
    (finding,) = json.loads(out)["scenarios"][0]["findings"]
    assert finding["title"].startswith("check: it blocks, and no thread will ever wake it (")


class Clock:
    """Host time as the watchdog reads it: *cpu* seconds of the process for each second."""

    def __init__(self, monkeypatch, cpu, asleep):
        self.now, self.cpu = 0.0, cpu
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(watchdog.time, "process_time", lambda: self.now * self.cpu)
        monkeypatch.setattr(watchdog, "asleep", lambda me: asleep)


class Carrier:
    log = ()


@pytest.mark.parametrize(
    ("cpu", "asleep", "after"),
    [
        (1.0, False, 10),  # it spins
        (0.25, False, 40),  # on a host where it gets a quarter of a CPU: the same
        (0.0, True, 10),  # it sleeps
        (0.02, False, None),  # it is hardly ever let run: no fault of its own in 100 seconds
    ],
)
def test_a_loaded_host_does_not_set_it_off(monkeypatch, cpu, asleep, after):
    clock = Clock(monkeypatch, cpu, asleep)
    hangs = []
    dog = Watchdog(10.0, lambda why: hangs.append(clock.now))
    dog("thread", Carrier())

    class Over:
        def wait(self, seconds):
            clock.now += seconds
            return clock.now > 100.0

    dog._over = Over()
    dog._run()
    if after is None:
        assert hangs == []
    else:
        assert after <= hangs[0] <= after + 2


def test_steps_begin_it_anew(monkeypatch):
    clock = Clock(monkeypatch, 1.0, False)
    carrier = Carrier()
    carrier.log = []
    hangs = []
    dog = Watchdog(10.0, hangs.append)
    dog("thread", carrier)

    class Over:
        def wait(self, seconds):
            clock.now += seconds
            if int(clock.now) > len(carrier.log) * 9:
                carrier.log.append("a step, every 9 seconds")
            return clock.now > 100.0

    dog._over = Over()
    dog._run()
    assert hangs == []


def test_what_a_child_raises_or_returns():
    assert alone(lambda worker: 42) == 42

    def mistake(worker):
        raise KeyError("it")

    with pytest.raises(WorkerError, match=r"KeyError: 'it' \(.*test_watchdog.py:\d+\)"):
        alone(mistake)
    with pytest.raises(WorkerError):
        alone(lambda worker: lambda: None)  # cannot be sent
    with pytest.raises(Hung, match="signal 9"):
        alone(lambda worker: __import__("os").kill(__import__("os").getpid(), 9))


def test_a_thread_that_a_scenario_leaves_behind_does_not_keep_the_child():
    def call(worker):
        threading.Thread(target=time.sleep, args=(1000,)).start()
        return "done"

    begun = time.monotonic()
    assert alone(call) == "done"
    assert time.monotonic() - begun < child.GRACE
