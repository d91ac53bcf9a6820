"""The lock event log can be reloaded line by line, and its graph is the checker's."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from smpvm.check.lockevents import LockTrace
from smpvm.check.lockorder import LockOrder
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RELEASE
from smpvm.kern.spinlock import Spinlock
from smpvm.report.locklog import read_log, records


def work(w, rounds=50):
    """Two bodies that take a few locks many times."""
    page, queue, lock = Spinlock(w.k, "page", "1"), Spinlock(w.k, "queue", "Q"), Lock(w.k, "map")

    def body():
        for _ in range(rounds):
            lock.lockmgr(LK_EXCLUSIVE)
            page.lock()
            queue.lock()
            queue.unlock()
            page.unlock()
            lock.lockmgr(LK_RELEASE)

    w.together(body, body)


@pytest.fixture
def traced(watch, tmp_path):
    def make(**kw):
        trace = LockTrace(tmp_path / "log.jsonl", **kw)
        w = watch("order", traces=[trace])
        w.trace, w.path = trace, tmp_path / "log.jsonl"
        return w

    return make


class TestFile:
    def test_every_event_is_there_with_its_facts(self, traced):
        w = traced()
        work(w, rounds=5)
        w.suite.finish()
        events = [r for _, r in records(w.path) if r["ev"] == "acquire"]
        assert len(events) == 2 * 5 * 3
        queue = next(r for r in events if r["cls"] == "queue")
        assert queue["lock"] == "spinlock queue Q"
        assert queue["td"] in ("t0", "t1")
        assert queue["mode"] == "excl"
        assert queue["held"] == ["lock map", "spinlock page 1", "spinlock queue Q"]
        assert queue["tick"] >= 0

    def test_the_graph_in_the_log_is_the_checkers(self, traced):
        w = traced()
        work(w)
        w.suite.finish()
        log = read_log(w.path)
        assert set(log.edges) == set(w.suite.find(LockOrder).graph.edges)
        assert set(log.edges) == {("map", "page"), ("map", "queue"), ("page", "queue")}
        assert log.ended
        assert log.events == w.trace.written

    def test_hold_and_wait_times_come_from_the_events(self, traced):
        w = traced()
        work(w)
        w.suite.finish()
        log = read_log(w.path)
        assert log.hold["queue"].count == 100
        assert 0 < log.hold["queue"].mean <= log.hold["map"].longest
        assert log.acquired["page"] == 100

    def test_edges_alone_cost_no_events(self, traced):
        w = traced(events=False)
        work(w)
        w.suite.finish()
        log = read_log(w.path)
        assert log.events == 0
        assert len(log.edges) == 3

    def test_what_the_writer_cannot_keep_up_with_is_dropped_and_counted(self, traced):
        w = traced(backlog=0)
        work(w, rounds=200)
        w.suite.finish()
        log = read_log(w.path)
        assert w.trace.dropped == log.dropped > 0
        assert log.events + log.dropped >= 2 * 200 * 6
        assert len(log.edges) == 3

    def test_its_size_is_bounded_by_rotation(self, traced, tmp_path):
        w = traced(max_bytes=60_000, keep=2)
        work(w, rounds=1000)
        w.suite.finish()
        files = list(tmp_path.glob("log*.jsonl"))
        assert 2 <= len(files) <= 3
        assert sum(f.stat().st_size for f in files) < 4 * 60_000 + 512 * 400 * 3
        assert set(read_log(w.path).edges) == set(w.suite.find(LockOrder).graph.edges)


def test_the_parts_of_an_older_log_are_gone(traced, tmp_path):
    old = tmp_path / "log.2020-01-01_00-00-00_000000.jsonl"
    old.write_text("nonsense\n")
    w = traced()
    work(w, rounds=2)
    w.suite.finish()
    assert not old.exists()
    assert read_log(w.path).ended


class TestTerminal:
    @pytest.mark.parametrize(
        ("level", "lines"), [("WARNING", 0), ("DEBUG", 3), ("TRACE", 3 + 2 * 3 * 6)]
    )
    def test_the_level_chooses(self, watch, tmp_path, level, lines):
        out = io.StringIO()
        trace = LockTrace(None, terminal=out, level=level)
        w = watch("order", traces=[trace])
        page, queue, lock = (Spinlock(w.k, c) for c in ("page", "queue", "leaf"))

        def body():
            for _ in range(3):
                for s in (page, queue, lock):
                    s.lock()
                for s in (lock, queue, page):
                    s.unlock()

        w.go(body, body)
        w.suite.finish()
        text = out.getvalue().splitlines()
        assert len(text) == lines
        if level == "DEBUG":
            assert text[0].startswith("DEBUG   lock order page → queue (t0 at ")


KILLED = """
import sys, threading
from pathlib import Path
from smpvm.check.finding import FindingLog
from smpvm.check.suite import CheckSuite
from smpvm.check.lockevents import LockTrace
from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel
from smpvm.kern.spinlock import Spinlock
run = Path(sys.argv[1])
suite = CheckSuite({"order"}, FindingLog(run), traces=[LockTrace(run / "lockorder.jsonl")])
k = Kernel(NativeCarrier(), suite.observers)
a, b = Spinlock(k, "alpha"), Spinlock(k, "beta")
def pair(x, y):
    x.lock(); y.lock(); y.unlock(); x.unlock()
def body():
    pair(a, b)
    pair(b, a)
    print("found", flush=True)
    while True:
        pair(a, b)
k.spawn("t0", body)
"""


def test_a_run_killed_half_way_leaves_its_findings_and_a_log_that_reloads(tmp_path):
    from smpvm.check.finding import load_all

    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "found\n"
    time.sleep(0.3)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    (found,) = load_all(tmp_path)
    assert found.kind == "lock-order"
    log = read_log(tmp_path)
    assert not log.ended
    assert set(log.edges) == {("alpha", "beta"), ("beta", "alpha")}
    assert log.events > 0


def test_each_line_stands_for_itself(traced):
    w = traced()
    work(w, rounds=3)
    w.suite.finish()
    with w.path.open() as lines:
        assert all(json.loads(line)["v"] == 1 for line in lines)
