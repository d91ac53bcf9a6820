"""The command line: output, exit codes, and one line for each mistake."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest

import smpvm
from smpvm.cli import main
from smpvm.commands import options, stress
from smpvm.workload.profiles import PROFILES

pytestmark = pytest.mark.timeout(120)

QUICK = ["stress", "--seconds", "1", "--pages", "256", "--check", "none"]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must be refused: exit code 2 and one line on standard error."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("smpvm: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nonesuch"], "nonesuch"),
        (["stress", "--nonesuch"], "--nonesuch"),
        (["stress", "--profile", "x"], "tiny-pool"),
        (["stress", "--set", "max_launder=-1"], "allowed 0 to"),
        (["stress", "--set", "nonesuch=1"], "unknown"),
        (["stress", "--set", "max_launder"], "name=value"),
        (["stress", "--pages", "3"], "pages: 3 is out of range"),
        (["stress", "--pages", "many"], "many"),
        (["stress", "--pq-l2-size", "6"], "power of two"),
        (["stress", "--cpus", "0"], "ncpus: 0"),
        (["stress", "--swap-pages", "-1"], "swap_pages"),
        (["stress", "--seconds", "0"], "--seconds"),
        (["stress", "--repair", "x"], "repair x: unknown"),
        (["stress", "--check", "x"], "check 'x'"),
        (["stress", "--trace", "/nonexistent"], "No such file"),
        (["stress", "--run-dir", "/proc/x"], "/proc/x"),
        (["stress", "--log", "/proc/x"], "/proc/x"),
        (["record", "-o", "/nonexistent/x", "--", "true"], "No such file"),
        (["record", "-o", "/tmp/x"], "COMMAND"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert said in refused(capsys, *argv)


def test_a_wired_limit_above_the_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "stress", "--pages", "256", "--set", "page_max_wired=257")
    assert "page_max_wired" in line
    assert "256" in line


def test_more_wired_than_memory_allows_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from smpvm.workload import profiles

    greedy = profiles.Profile("greedy", "", (profiles.task("locker", 5, share=0.2),))
    monkeypatch.setitem(profiles.PROFILES, "greedy", greedy)
    assert "wire" in refused(capsys, "stress", "--profile", "greedy")


def test_a_foreign_and_a_cut_trace_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x89PNG\r\n")
    assert "neither" in refused(capsys, "stress", "--trace", str(foreign))
    cut = tmp_path / "cut"
    cut.write_bytes(gzip.compress(b'{"format": "smpvm-trace", "version": 1}\n' * 99)[:-9])
    assert "cut short" in refused(capsys, "stress", "--trace", str(cut))


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == list(PROFILES)
    assert main(["repairs"]) == 0
    assert "vm_pageout.c" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert main(["--help"]) == 0


def test_a_run_prints_the_table_the_summary_and_the_two_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    argv = [*QUICK, "--seconds", "2.5", "--profile", "tiny-pool", "--repair", "all"]
    code = main([*argv, "--run-dir", str(run_dir)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert " avm " in out
    assert "vm_pageout_scan_inactive" in out
    assert "lock class" in out
    assert ", 0 lost\naudit: clean\nfindings: none\n" in out
    run = json.loads((run_dir / "run.json").read_text())
    assert run["profile"] == "tiny-pool"
    assert run["config"]["spin_pool"] == 1
    assert json.loads((run_dir / "result.json").read_text())["counters"]["v_vm_faults"] > 0


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--profile", "thrash", "--json", "--set", "vm.max_launder=8"]) == 0
    doc = json.loads(capsys.readouterr().out)
    assert doc["format"] == "smpvm-run"
    assert doc["words_lost"] == 0
    assert doc["findings"] == []


def test_a_trace_of_ones_own_is_replayed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "mine.log"
    lines = ["I  00401000,4"] + [f" S {page:05x}000,8" for page in range(0x500, 0x540)]
    log.write_text("\n".join(lines) + "\n")
    assert main([*QUICK, "--profile", "default", "--trace", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["words_checked"] > 0


def test_the_lock_log_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    argv = [*QUICK, "--check", "order", "--profile", "thrash", "--log", str(log), "--json"]
    assert main(argv) == 0
    capsys.readouterr()
    lines = log.read_text().splitlines()
    assert len(lines) > 100
    assert all(json.loads(line) for line in lines)


def start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "smpvm", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_ctrl_c_ends_a_run_in_order_with_the_same_summary() -> None:
    child = start("stress", "--seconds", "600", "--pages", "256", "--profile", "tiny-pool")
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode in (0, 1), err
    assert "interrupted" in out
    assert "contents: " in out
    assert "audit: " in out
    assert "Traceback" not in err


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    child = start("stress", "--seconds", "600", "--profile", "thrash")
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, err = child.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert "Traceback" not in err
    assert child.returncode in (0, 3)


def test_an_error_of_smpvm_itself_is_exit_code_4(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def boom(*args: object) -> int:
        raise RuntimeError("boom")

    monkeypatch.setattr(stress, "command", boom)
    assert main(["stress"]) == 4
    err = capsys.readouterr().err
    assert "internal error: RuntimeError: boom" in err
    assert err.count("\n") == 1


def test_bare_smpvm_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr()
    assert main(["--help"]) == 0
    assert capsys.readouterr() == bare
    assert bare.out.startswith("Usage: smpvm")


def test_every_option_has_help_and_a_shared_one_has_the_same() -> None:
    from smpvm.cli import cli

    seen: dict[str, set[str]] = {}
    for name, command in cli.commands.items():
        assert command.help, name
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{name} {param.name}"
                seen.setdefault(param.opts[-1], set()).add(param.help)
    # What differs says what is the command's own: its limits, its repairs, what it makes smaller.
    own = {"--seconds", "--repair", "--schedules", "--jobs", "--shrink", "--lanes"}
    assert {flag for flag, texts in seen.items() if len(texts) > 1} == own


@pytest.mark.parametrize("number", ["٣", "1_000", "1e3", "0x", "", "9" * 5000])
def test_numbers_are_read_in_one_way(capsys: pytest.CaptureFixture[str], number: str) -> None:
    for argv in (["--pages", number], ["--set", f"max_launder={number}"], ["--seed", number]):
        line = refused(capsys, "stress", *argv)
        assert "whole number" in line
        assert len(line) < 200


def test_a_long_value_is_not_echoed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        ["stress", "--profile", "p" * 2000],
        ["stress", "--set", "s" * 2000],
        ["stress", "--set", "s" * 2000 + "=1"],
        ["stress", "--repair", "r" * 2000],
        ["stress", "--check", "c" * 2000],
        ["stress", "--seconds", "s" * 2000],
        ["explore", "e" * 2000],
        ["explore", "two-scanners", "--strategy", "s" * 2000],
        ["explore", "two-scanners?" + "q" * 2000],
        ["explore", "two-scanners", "--carrier", "c" * 2000],
        ["--" + "o" * 2000],
        ["c" * 2000],
    ):
        assert len(refused(capsys, *argv)) < 1200  # known names may be listed


def test_a_module_that_is_missing_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(options: object) -> int:
        raise ModuleNotFoundError("No module named 'rich'", name="rich")

    monkeypatch.setattr(stress, "command", command)
    assert "python -m pip install rich" in refused(capsys, "stress")
    monkeypatch.setattr(options, "have_greenlet", lambda: False)
    line = refused(capsys, "explore", "two-scanners", "--carrier", "greenlet")
    assert "python -m pip install greenlet" in line


def test_an_old_python_and_a_missing_module_are_one_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ast

    import smpvm.__main__ as entry

    # Python 3.8 can compile what it must read before it can say that it is too old.
    for file in (entry.__file__, smpvm.__file__):
        ast.parse(Path(file).read_text(), feature_version=(3, 8))
    monkeypatch.setattr(entry, "TOO_OLD", True)
    assert entry.main() == 2
    assert "too old: install smpvm with 3.11 or newer" in capsys.readouterr().err


def test_a_scenario_that_imports_what_there_is_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = tmp_path / "own.py"
    own.write_text("from smpvm import Nonesuch")
    assert f"this version of smpvm, {smpvm.__version__}, does not have it" in refused(
        capsys, "explore", str(own)
    )
    own.write_text("import nonesuch.module")
    assert "python -m pip install nonesuch" in refused(capsys, "explore", str(own))


def test_an_error_of_the_display_stops_the_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from smpvm.report.live import PlainWatch

    def sample(self: object, now: object, total: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(PlainWatch, "sample", sample)
    assert main([*QUICK, "--seconds", "600", "--profile", "tiny-pool"]) == 4
    assert "internal error: ZeroDivisionError" in capsys.readouterr().err
    running = {t.name for t in threading.enumerate() if not t.daemon}
    assert not running & {"pagedaemon", "vmdaemon", "syncer", "swapper"}


def test_nothing_is_imported_before_the_signal_handlers_are_set() -> None:
    """Each import is time in which an interrupt would print a traceback."""
    program = (
        "import os, sys; before = set(sys.modules)\n"
        "import smpvm.__main__\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['smpvm', 'smpvm.__main__']\n"
