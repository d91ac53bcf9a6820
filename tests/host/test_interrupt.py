"""Ctrl-C as a request to stop."""

import signal
import subprocess
import sys

import pytest

from smpvm.interrupt import interrupts


def test_ctrl_c_makes_the_wish_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with interrupts() as asked:
        assert not asked.is_set()
        assert not asked.wait(0.001)
        signal.raise_signal(signal.SIGINT)
        assert asked.is_set()
        assert asked.wait(60.0)  # at once
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.timeout(20)
def test_it_may_come_at_any_line_of_the_wait():
    # With threading.Event the handler hangs in some of them, by its own thread's lock.
    hit = []

    def line_by_line(frame, event, arg):
        here = (frame.f_code, frame.f_lineno)
        if event == "line" and here not in hit and not sent:
            hit.append(here)
            sent.append(here)
            signal.raise_signal(signal.SIGINT)
        return line_by_line

    while True:
        sent = []
        with interrupts() as asked:
            sys.settrace(line_by_line)
            try:
                asked.wait(0.001)
            finally:
                sys.settrace(None)
            assert asked.is_set() == bool(sent)
        if not sent:
            break
    assert len(hit) >= 2


def test_a_second_one_ends_the_program():
    program = (
        "import signal\n"
        "from smpvm.interrupt import interrupts\n"
        "with interrupts():\n"
        "    print('out', flush=True)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "print('not here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")


def test_another_reason_stops_it_too():
    gone = []
    with interrupts(lambda: bool(gone)) as asked:
        assert not asked.is_set()
        gone.append("reader")
        assert asked.wait(60.0)


def test_threads_that_do_not_end_are_named_and_the_code_is_kept():
    program = (
        "import threading, time\n"
        "from smpvm.interrupt import leave\n"
        "threading.Thread(target=time.sleep, args=(1000,), name='cpu3').start()\n"
        "leave(1, patience=0.1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (1, "smpvm: threads that do not end: cpu3\n")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("module", ["smpvm.cli", "click", "smpvm.commands.explore"])
def test_a_signal_during_the_imports_is_one_word_and_exit_code_3(number, module):
    program = (
        "import signal, sys\n"
        "import smpvm.__main__ as entry\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        f"            signal.raise_signal(signal.{number})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['smpvm', 'explore', 'two-scanners', '--schedules', '1']\n"
        "entry.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "smpvm: interrupted\n")


def test_a_signal_at_the_very_end_does_not_change_the_exit_code():
    program = (
        "import signal, sys\n"
        "from smpvm.interrupt import leave\n"
        "class Last:\n"
        "    def __del__(self, kill=signal.raise_signal, number=signal.SIGTERM):\n"
        "        kill(number)\n"
        "sys.last_of_all = Last()\n"
        "sys.exit(leave(1))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 1
