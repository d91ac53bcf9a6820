"""Runs smpvm processes under bad conditions: closed pipes, full disks, signals, shared folders.

    python stress/torture.py --cases 500 [--seed N]

Each case is a command and one disturbance.  Checked: the process ends; its exit code is the
expected one, or that of an interrupted run; no traceback and no internal error; every finding can
be read (in the run directory, or in the output); no process is left behind.

A full and a read-only disk need the right to mount a tmpfs; otherwise those cases use /dev/full and
/proc.  Outside smpvm's control: a SIGINT while the interpreter itself starts, before the first line
of smpvm runs, ends it with Python's own traceback (`Case.check` recognizes it by its files).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0
"""Host seconds after which a process counts as hung."""

SCENARIOS = """
from smpvm import Scenario

class Lost(Scenario):
    "Two threads count without a lock: findings."
    def setup(self):
        self.c = self.shared(n=0)
        for name in "ab":
            self.thread(name, self.count)
    def count(self):
        self.c.n = self.c.n + 1
    def check(self):
        assert self.c.n == 2, "an update is lost"

class Atomic(Lost):
    "Proven."
    def count(self):
        self.atomic.add_int(self.c, "n", 1)

class Spins(Lost):
    "A thread does not come back."
    def count(self):
        while True:
            pass

class Sleeps(Lost):
    "Nor does this one, and it uses no CPU."
    def count(self):
        import time
        time.sleep(1000)
"""
SCHEDULE = "s1/access/0.1.0/-/1x2~84.2x4~00.1x2~83/"
STRESS = ["stress", "--seconds", "0.5", "--pages", "256", "--profile", "tiny-pool", "--no-coverage"]
STRESS += ["--check", "none", "--repair", "all"]

COMMANDS = {
    "stress": (STRESS, {0, 1}),  # real threads: a race of the kernel may show
    "lost": (["explore", "{file}:Lost", "--schedules", "200"], {1}),
    "jobs": (["explore", "{file}:Lost", "--schedules", "200", "--jobs", "2"], {1}),
    "proven": (["explore", "{file}:Atomic", "--strategy", "dpor"], {0}),
    "spins": (["explore", "{file}:Spins", "--hang", "0.3"], {3}),
    "sleeps": (["explore", "{file}:Sleeps", "--hang", "0.3"], {3}),
    "replay": (["replay", "--schedule", SCHEDULE + "{file}:Lost", "--lanes"], {1}),
    "repairs": (["repairs"], {0}),
}
"""Name → arguments and exit codes of an undisturbed run."""
KEEPS = ("stress", "lost", "jobs", "proven", "spins")
"""Commands that take --run-dir."""
TROUBLES = (
    *("SIGINT", "SIGTERM", "SIGKILL", "twice"),
    *("head", "full", "full-both", "closed", "closed-both"),
    *("disk", "disk-out", "read-only", "same-dir"),
)


@dataclass
class Case:
    """One process with one disturbance."""

    command: str
    trouble: str
    after: float
    """Host seconds from its start to the signal."""
    room: int
    """Bytes free on the full disk."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.command}, {self.trouble} ({self.after:.3f} s, {self.room} bytes)"


def case_of(rng: random.Random, trouble: str) -> Case:
    """A random case with that disturbance."""
    keeps = trouble in ("disk", "read-only", "same-dir")
    command = rng.choice(KEEPS if keeps else tuple(COMMANDS))
    return Case(command, trouble, rng.uniform(0.0, rng.choice((0.3, 2.0))), rng.randrange(20_000))


class Torture:
    """Runs cases in a folder of its own."""

    def __init__(self, folder: Path, disk: Path | None, read_only: Path) -> None:
        self.folder = folder
        self.disk = disk
        self.read_only = read_only
        self.file = folder / "own.py"
        self.file.write_text(SCENARIOS)
        self._number = 0

    def run(self, case: Case) -> None:
        """Run *case*; what went wrong is in ``case.wrong``."""
        self._number += 1
        argv = [part.format(file=self.file) for part in COMMANDS[case.command][0]]
        run_dir = self._run_dir(case)
        if run_dir is not None:
            argv += ["--run-dir", str(run_dir)]
        if case.trouble == "disk" and case.command == "stress" and self.disk is not None:
            argv += ["--log", str(self.disk / "log")]
        if case.trouble == "same-dir":
            self._pair(case, argv, run_dir)
        else:
            self._one(case, argv, run_dir)

    def _run_dir(self, case: Case) -> Path | None:
        if case.trouble == "read-only":
            return self.read_only / "run"
        if case.trouble == "disk" and self.disk is not None:
            subprocess.run(["rm", "-rf", *map(str, self.disk.iterdir())], check=True)
            free = os.statvfs(self.disk)
            fill = max(free.f_bavail * free.f_frsize - case.room, 0)
            (self.disk / "fill").write_bytes(bytes(fill))
            return self.disk / "run"
        if case.command in KEEPS:
            return self.folder / f"run {self._number}"
        return None

    def _one(self, case: Case, argv: list[str], run_dir: Path | None) -> None:
        process = self._start(case, argv)
        self._trouble(case, process)
        out, err = self._end(case, process)
        if case.trouble == "read-only":
            allowed = {2}
        elif case.trouble == "disk" and process.returncode == 2:
            allowed = {2} if "No space left" in err else set()  # not even its folder fits
        else:
            allowed = COMMANDS[case.command][1]
        interrupted = case.trouble in ("SIGINT", "SIGTERM", "twice")
        if interrupted:
            allowed = allowed | {0, 1, 3, -signal.SIGINT, -signal.SIGTERM}
            if "Traceback" in err and _of_python(err):
                return  # the interpreter had not reached smpvm
        if case.trouble == "SIGKILL":
            allowed = allowed | {-signal.SIGKILL}
        if process.returncode not in allowed:
            case.wrong.append(f"exit code {process.returncode}, allowed {sorted(allowed)}: {err}")
        if process.returncode == -signal.SIGTERM and case.after > 0.5:
            case.wrong.append("ended by the signal, not by smpvm")
        self._check_text(case, out, err)
        self._check_findings(case, process.returncode, run_dir, out + err)

    def _pair(self, case: Case, argv: list[str], run_dir: Path | None) -> None:
        """Two runs in one directory: the second is refused, or uses another directory."""
        assert run_dir is not None
        first = self._start(case, argv)
        time.sleep(case.after)
        second = self._start(case, argv)
        codes = []
        for process in (first, second):
            out, err = self._end(case, process)
            codes.append(process.returncode)
            self._check_text(case, out, err)
            if process.returncode == 2 and "in use by another run" not in err:
                case.wrong.append(f"refused: {err}")
        due = COMMANDS[case.command][1]
        if not set(codes) <= due | {2} or set(codes) == {2}:
            case.wrong.append(f"exit codes {codes}")
        results = list(run_dir.parent.glob(f"{run_dir.name}*/result.json"))
        if len(results) != sum(code in due for code in codes):
            case.wrong.append(f"{len(results)} results of runs that ended with {codes}")

    # -- a process

    def _start(self, case: Case, argv: list[str]) -> subprocess.Popen[bytes]:
        shell = {
            "full": ">/dev/full",
            "full-both": ">/dev/full 2>/dev/full",
            "closed": ">&-",
            "closed-both": ">&- 2>&-",
        }.get(case.trouble, "")
        if case.trouble == "disk-out":
            shell = f">'{self._full_file(case)}'"
        return subprocess.Popen(
            ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "smpvm", *argv],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _full_file(self, case: Case) -> Path:
        if self.disk is None:
            return Path("/dev/full")
        case.trouble, trouble = "disk", case.trouble
        self._run_dir(case)
        case.trouble = trouble
        return self.disk / "out"

    def _trouble(self, case: Case, process: subprocess.Popen[bytes]) -> None:
        if case.trouble == "head":
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
        signals = {"twice": ["SIGINT", "SIGINT"]}.get(case.trouble, [case.trouble])
        for name in signals:
            if name.startswith("SIG"):
                time.sleep(case.after)
                process.send_signal(signal.Signals[name])

    def _end(self, case: Case, process: subprocess.Popen[bytes]) -> tuple[str, str]:
        out = err = b""
        try:
            if process.stdout is not None and process.stdout.closed:
                process.stdout = None
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            case.wrong.append(f"does not end in {PATIENCE:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        end = time.monotonic() + 5.0
        while (left := members(process.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        if left:
            case.wrong.append(f"left behind: {left}")
        return (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace")

    # -- what must hold

    def _check_text(self, case: Case, out: str, err: str) -> None:
        for bad in ("Traceback", "internal error", "Exception ignored", "Logging error"):
            if bad in out or bad in err:
                case.wrong.append(f"{bad}: {err[-600:]}")

    def _check_findings(self, case: Case, code: int, run_dir: Path | None, text: str) -> None:
        printed = set(re.findall(r"fingerprint ([0-9a-f]{12})", text))
        kept = set()
        if run_dir is not None:
            for path in run_dir.glob("findings/*.json"):
                try:
                    kept.add(json.loads(path.read_text())["fingerprint"])
                except (ValueError, KeyError) as why:
                    case.wrong.append(f"{path}: {why}")
        readable = case.trouble not in ("head", "full-both", "closed", "closed-both", "disk-out")
        if code == 1 and readable and not printed:
            case.wrong.append("the report is lost")
        if run_dir is not None and case.trouble not in ("disk", "read-only") and printed - kept:
            case.wrong.append(f"printed and not kept: {printed - kept}")
        if code == 1 and run_dir is not None and case.trouble != "disk" and not kept:
            case.wrong.append("no finding is kept")


def _of_python(err: str) -> bool:
    """Is it a traceback only of the interpreter's start?"""
    files = re.findall(r'File "(.+?)"', err)
    return not any(str(ROOT / "smpvm") + "/" in name for name in files)


def members(session: int) -> list[str]:
    """The processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(f"{stat.parent.name} {(stat.parent / 'cmdline').read_bytes()!r}")
        except OSError:  # it has ended meanwhile
            continue
    return found


@contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """Mount a tmpfs at *place* for the body; False if that is not permitted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(place)], check=False)


@contextmanager
def places(folder: Path) -> Iterator[Torture]:
    """A ``Torture`` in *folder*, with a small disk and a read-only one if possible."""
    with (
        mounted(folder / "small", "size=64k") as small,
        mounted(folder / "fixed", "size=64k,ro") as fixed,
    ):
        read_only = folder / "fixed" if fixed else Path("/proc")
        yield Torture(folder, folder / "small" if small else None, read_only)


def main() -> int:
    """Run the cases; returns 1 if something went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100, help="how many cases to run")
    parser.add_argument("--seed", type=int, default=0, help="seed for all random choices")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # unmounts the disks
    rng = random.Random(options.seed)
    count: Counter[str] = Counter()
    bad: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, places(Path(folder)) as torture:
        for number in range(options.cases):
            case = case_of(rng, TROUBLES[number % len(TROUBLES)])
            torture.run(case)
            count[case.trouble] += 1
            if case.wrong:
                bad.append(case)
                print(f"case {number}: {case}", flush=True)
                for line in case.wrong:
                    print(f"    {line}", flush=True)
    for trouble, times in sorted(count.items()):
        print(f"{trouble:<12} {times:5} cases, {sum(c.trouble == trouble for c in bad)} wrong")
    print(f"{options.cases} cases, {len(bad)} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
