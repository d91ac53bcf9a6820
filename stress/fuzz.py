#!/usr/bin/env python3
"""Runs every reader and every command with damaged files and odd options: none may break.

    python stress/fuzz.py --cases 100000 --jobs 2 --keep runs/fuzz
    python stress/fuzz.py --only snapshot,conform --seed 7

A case is one command, run in this process.  It fails if it ends with an internal error or a
traceback, does not end in time, uses too much memory, or rejects its input with more than one short
line.  Failing inputs are kept in --keep; tests/data/corpus has those that have been fixed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

sys.path.insert(0, str(Path(__file__).parent))
from mutate import dumps, mutate_bytes, mutate_json, mutate_lines, wrap

from smpvm import cli
from smpvm.workload.profiles import find
from smpvm.workload.resume import read as read_snapshot
from smpvm.workload.stress import StressPlan, run
from smpvm.workload.trace import FETCH, READ, WRITE, Trace, dump, read

DATA: Final = Path(__file__).parents[1] / "tests" / "data"
TIMEOUT: Final = 20.0
"""Time limit of one case, in host seconds."""
MEMORY: Final = 3 << 30
"""Limit of a worker's address space, in bytes."""
LONGEST: Final = 600
"""The longest error line, in characters without the file name."""

Input = tuple[list[str], bytes]
"""A command, with @ for the file, and the content of the file."""


class Hang(BaseException):
    """A case took too long.  Not an Exception, so that no handler catches it."""


@dataclass
class Tally:
    """The results of the cases."""

    cases: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    """Peak memory of a worker, in MiB."""

    def add(self, other: Tally) -> None:
        """Add the results of another worker."""
        self.cases += other.cases
        self.codes += other.codes
        self.failures += other.failures
        self.peak = max(self.peak, other.peak)


# -- inputs, one generator for each format


def _sample(name: str) -> bytes:
    data = (DATA / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


def _some_json(rng: random.Random, doc: Any) -> bytes:
    if rng.random() < 0.15:
        return mutate_bytes(rng, dumps(doc))
    return dumps(mutate_json(rng, doc))


def findings(rng: random.Random) -> Input:
    """A finding, shown or replayed."""
    doc = json.loads(_sample("samples/finding.json"))
    command = rng.choice((["show", "@"], ["show", "--json", "@"], ["replay", "@"]))
    if rng.random() < 0.3:
        doc["schedule"] = _schedule(rng, doc["schedule"])
    return [*command], _some_json(rng, doc)


def _schedule(rng: random.Random, text: str) -> str:
    return mutate_bytes(rng, text.encode()).decode(errors="replace").replace("\0", "")


def schedules(rng: random.Random) -> Input:
    """A schedule on the command line."""
    text = _schedule(rng, json.loads(_sample("samples/finding.json"))["schedule"])
    if rng.random() < 0.3:
        size = rng.choice(("users=1", "users=2", "users=99999", "users=٣", "users=-1", "x=1", "&"))
        text = text.rpartition("/")[0] + f"/low-memory?{size}"
    more = rng.choice(([], ["--json"], ["--lanes"], ["--break", "3"], ["--carrier", "thread"]))
    return ["replay", "--schedule", text, *more], b""


def snapshots(rng: random.Random) -> Input:
    """A snapshot."""
    name = rng.choice(("forks", "files", "pool"))
    return ["snapshot", "@"], _some_json(rng, json.loads(_sample(f"samples/{name}.json.gz")))


def resumed(rng: random.Random) -> Input:
    """A snapshot that a machine resumes from, if it is accepted."""
    return ["resume", "@"], snapshots(rng)[1]


def vectors(rng: random.Random) -> Input:
    """A vector, or two."""
    lines = _sample("vectors.jsonl.gz").splitlines()
    docs = [json.loads(rng.choice(lines)) for _ in range(rng.choice((1, 1, 2)))]
    more = rng.choice(([], ["--json"], ["--function", docs[0]["function"]]))
    return ["conform", "@", *more], b"\n".join(_some_json(rng, doc) for doc in docs)


def traces(rng: random.Random) -> Input:
    """A trace file."""
    from array import array

    refs = array("I", [n % 9 << 2 | (READ, WRITE, FETCH)[n % 3] for n in range(99)])
    plain = gzip.decompress(dump(Trace(refs, [(3, 4), (9, 5)], "t", ["t"], 500, 8)))
    head, _, body = plain.partition(b"\n")
    if rng.random() < 0.6:
        head = _some_json(rng, json.loads(head))
    else:
        body = mutate_bytes(rng, body)
    return ["trace", "@"], head + b"\n" + body


def lackey(rng: random.Random) -> Input:
    """A raw log."""
    lines = [b"==1== Lackey\n", b"hello\n", b"I  0401a000,3\n", b" S 1fff000748,8\n"]
    lines += [b" L %08x,8\n" % rng.randrange(1 << 40) for _ in range(9)] + [b" M 04020000,4\n"]
    data = b"".join(lines)
    return ["trace", "@"], rng.choice((mutate_bytes, mutate_lines))(rng, data)


def lock_logs(rng: random.Random) -> Input:
    """A lock log."""
    data = _sample("samples/locks.jsonl")
    if rng.random() < 0.3:
        data = rng.choice((mutate_bytes, mutate_lines))(rng, data)
    else:
        lines = data.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = _some_json(rng, json.loads(lines[at]))
        data = b"\n".join(lines) + b"\n"
    more = rng.choice(([], ["--json"], ["--stacks"], ["--dot", "out.dot"], ["--svg", "out.svg"]))
    return ["locks", "@", *more], data


WORDS: Final = (
    *("", "0", "1", "-1", "2", "1_000", "٣", "1e3", "0x10", "nan", "inf", "9" * 400, "x" * 3000),
    *("all", "none", "default", "low-memory", "swapout-request", "dpor", "pct", "thrash", "a=1"),
    *("max_launder=1", "max_launder=٣", "max_launder=1_0", "vm.x=1", "a,b", ",", "=", "?", "\x1b"),
    *("/dev/zero", "/dev/null", "/proc/self/mem", "/", ".", "no/such", "/proc/x", "@", "\ud800"),
)
BOUNDS: Final = {
    "stress": ["--seconds", "0.1", "--pages", "64", "--check", "none"],
    "explore": ["--schedules", "2", "--seconds", "1"],
    "record": ["--", "no-such-program"],
}
"""Options appended to a command so that it does not take long."""


def options(rng: random.Random) -> Input:
    """Any command with any options."""
    name, command = rng.choice(sorted(cli.cli.commands.items()))
    argv = [name]
    for param in command.params:
        if isinstance(param, click.Option) and param.name != "jobs" and rng.random() < 0.25:
            argv.append(rng.choice(param.opts + param.secondary_opts))
            if not param.is_flag:
                kind = param.type
                known = list(kind.choices) if isinstance(kind, click.Choice) else []
                argv.append(rng.choice([*WORDS, *known]))
        elif isinstance(param, click.Argument) and rng.random() < 0.9:
            argv += [rng.choice(WORDS) for _ in range(rng.choice((1, 1, 1, 2)))]
    if rng.random() < 0.1:
        argv.insert(rng.randrange(len(argv) + 1), rng.choice((*WORDS, "--nonesuch", "-h")))
    if rng.random() < 0.97 or name in BOUNDS:
        argv += BOUNDS.get(name, [])
    return argv, _sample("samples/finding.json")


TARGETS: Final[dict[str, tuple[Callable[[random.Random], Input], int]]] = {
    "finding": (findings, 20),
    "schedule": (schedules, 10),
    "snapshot": (snapshots, 20),
    "resume": (resumed, 1),
    "conform": (vectors, 20),
    "trace": (traces, 10),
    "lackey": (lackey, 10),
    "locks": (lock_logs, 15),
    "options": (options, 15),
}
"""Target → its inputs, and its share of all cases."""


# -- running one


def perform(argv: list[str], path: Path) -> int:
    """Run *argv*, with *path* for @; returns the exit code."""
    argv = [str(path) if word == "@" else word for word in argv]
    if argv[0] == "trace":  # only reads the trace, as `stress --trace` does
        return _refusing(lambda: read(path))
    if argv[0] == "resume":
        return _refusing(lambda: _resume(path))
    return cli.main(argv)


def _refusing(body: Callable[[], object]) -> int:
    try:
        body()
    except ValueError as why:
        if type(why) is ValueError:
            raise
        cli.complain(str(why))
        return 2
    return 0


def _resume(path: Path) -> None:
    """Resume from a snapshot briefly.  The machine may have defects, smpvm must not."""
    snapshot = read_snapshot(path)
    snapshot.config.tick_scale = 0.01
    empty = find("thrash")
    plan = StressPlan(
        empty, snapshot.config, seconds=0.05, start=snapshot, checks=frozenset(), patience=10.0
    )
    result = run(plan)
    if result.errors:
        raise RuntimeError(f"the machine broke: {result.errors[0]}")


def _ring(number: int, frame: object) -> None:
    raise Hang


def judge(argv: list[str], path: Path) -> tuple[int, str]:
    """Run one case; returns its exit code, and what is wrong ("" for nothing)."""
    out, err = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    code = -1
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _stdin(io.StringIO("c\n" * 9)),
        ):
            code = perform(argv, path)
    except Hang:
        return code, "hang"
    except MemoryError:
        return code, "memory"
    except BaseException as why:
        return code, f"{type(why).__name__}: {str(why)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    said = out.getvalue() if argv[0] != "snapshot" else ""  # its output may contain any text
    return code, _fault(code, said, err.getvalue().replace(str(path), "@"))


@contextlib.contextmanager
def _stdin(text: io.StringIO) -> Iterator[None]:
    before, sys.stdin = sys.stdin, text
    try:
        yield
    finally:
        sys.stdin = before


def _fault(code: int, out: str, err: str) -> str:
    for text in (err, out):
        if "Traceback (most" in text or "internal error" in text:
            last = text.strip().splitlines()[-1]
            return f"internal: {last[-300:]}"
    if code not in (0, 1, 2, 3):
        return f"exit code {code}"
    with contextlib.suppress(UnicodeEncodeError):
        out.encode()
        if code == 2:
            lines = err.splitlines()
            if out or len(lines) != 1:
                return f"refused with {len(lines)} lines of errors, {len(out)} characters of output"
            if len(err) > LONGEST:
                return f"refused with {len(err)} characters: {err[:100]}"
        return ""
    return "output that is no Unicode"


def case(seed: int, n: int, names: list[str]) -> tuple[str, Input]:
    """The *n*-th case of a seed: target and input; deterministic for the same targets."""
    rng = random.Random(f"{seed}/{n}")
    target = rng.choices(names, [TARGETS[name][1] for name in names])[0]
    argv, data = TARGETS[target][0](rng)
    return target, (argv, data if target in ("options", "schedule") else wrap(rng, data))


def fuzz(
    seed: int, numbers: range, names: list[str], keep: Path | None, now: Path | None = None
) -> Tally:
    """Run these cases.  The file *now* always names the running one."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="smpvm-fuzz-") as place:
        here = os.getcwd()
        os.chdir(place)  # some commands write to the current directory
        try:
            for n in numbers:
                if now is not None:
                    now.write_text(str(n))
                target, (argv, data) = case(seed, n, names)
                path = Path(place) / "input"
                path.write_bytes(data)
                code, fault = judge(argv, path)
                tally.cases += 1
                tally.codes[code] += 1
                if fault:
                    tally.failures[f"{target}: {fault}"] += 1
                    if keep is not None:
                        save(keep / f"{target}-{seed}-{n}", argv, data, fault)
        finally:
            os.chdir(here)
    tally.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return tally


def save(folder: Path, argv: list[str], data: bytes, fault: str = "") -> None:
    """Save a case for ``load``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input").write_bytes(data)
    (folder / "argv.json").write_text(json.dumps(argv) + "\n")
    if fault:
        (folder / "fault").write_text(fault + "\n")


def load(folder: Path) -> Input:
    """Load a saved case; larger ones in the corpus are compressed."""
    argv = json.loads((folder / "argv.json").read_text())
    packed, plain = folder / "input.gz", folder / "input"
    if packed.exists():
        return argv, gzip.decompress(packed.read_bytes())
    return argv, plain.read_bytes() if plain.exists() else b""


# -- many


def work(seed: int, numbers: range, args: argparse.Namespace, now: Path, results: Any) -> None:
    """A worker: runs its cases with limited memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    results.put(fuzz(seed, numbers, args.names, args.keep, now))


def supervise(args: argparse.Namespace) -> Tally:
    """Run workers; one that does not return from a case is restarted after that case."""
    total = Tally()
    results: Any = multiprocessing.Queue()
    with tempfile.TemporaryDirectory(prefix="smpvm-fuzz-") as place:
        todo = [range(i, args.cases, args.jobs) for i in range(args.jobs)]
        running: dict[int, tuple[Any, range]] = {}
        for i, numbers in enumerate(todo):
            running[i] = (_start(args, numbers, Path(place) / str(i), results), numbers)
        while running:
            while not results.empty():
                total.add(results.get())
            for i, (worker, numbers) in list(running.items()):
                now = Path(place) / str(i)
                stuck = now.exists() and time.time() - now.stat().st_mtime > 3 * TIMEOUT
                if worker.is_alive() and not stuck:
                    continue
                worker.kill()
                worker.join()
                del running[i]
                if worker.exitcode == 0:
                    continue
                at = int(now.read_text() or 0)
                total.failures[f"worker ended with {worker.exitcode}"] += 1
                total.cases += numbers.index(at) + 1
                argv, data = case(args.seed, at, args.names)[1]
                save(args.keep / f"worker-{args.seed}-{at}", argv, data, "the worker ended")
                rest = numbers[numbers.index(at) + 1 :]
                if rest:
                    now.unlink()
                    running[i] = (_start(args, rest, now, results), rest)
            time.sleep(0.2)
        while not results.empty():
            total.add(results.get())
    return total


def _start(args: argparse.Namespace, numbers: range, now: Path, results: Any) -> Any:
    worker = multiprocessing.Process(target=work, args=(args.seed, numbers, args, now, results))
    worker.start()
    return worker


def main() -> int:
    """Fuzz; returns 1 if anything failed."""
    args = arguments()
    begun = time.monotonic()
    total = supervise(args)
    codes = ", ".join(f"{n:,} with {code}" for code, n in sorted(total.codes.items()))
    seconds = time.monotonic() - begun
    print(f"{total.cases:,} cases in {seconds:.0f} s: {codes}; {total.peak} MiB at most")
    hangs = sum(n for what, n in total.failures.items() if "hang" in what or "worker" in what)
    internal = sum(n for what, n in total.failures.items() if "internal" in what)
    other = total.failures.total() - hangs - internal
    print(f"{internal} internal errors or tracebacks, {hangs} hangs, {other} other failures")
    for what, n in total.failures.most_common(40):
        print(f"{n:6}  {what}")
    return 1 if total.failures else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help=f"targets: {', '.join(TARGETS)}")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="for failing inputs")
    args = parser.parse_args()
    args.names = args.only.split(",") if args.only else list(TARGETS)
    args.keep = args.keep.resolve()
    shutil.rmtree(args.keep, ignore_errors=True)
    return args


if __name__ == "__main__":
    sys.exit(main())
