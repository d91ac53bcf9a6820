#!/usr/bin/env python3
"""Runs every profile in turn for a given time, each run with a new seed, and stops at a finding.

    python stress/soak.py --hours 8
    python stress/soak.py --minutes 5 --each 20 --profiles oom,thrash --check all

Prints one line per run; a run with a finding leaves its directory under --dir.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from smpvm.workload.profiles import PROFILES


def main() -> int:
    """Soak; returns 1 if any run was not clean."""
    args = arguments()
    names = args.profiles.split(",") if args.profiles else list(PROFILES)
    end = time.monotonic() + args.hours * 3600 + args.minutes * 60
    seeds = random.Random(args.seed)
    bad = runs = 0
    while time.monotonic() < end:
        for name in names:
            if time.monotonic() >= end:
                break
            runs += 1
            seed = seeds.randrange(1 << 31)
            code = one(args, name, seed, runs)
            bad += code != 0
            if code and not args.keep_going:
                return 1
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{runs} runs, {bad} not clean, {peak} MiB at most")
    return 1 if bad else 0


def one(args: argparse.Namespace, name: str, seed: int, number: int) -> int:
    """One run in a process of its own; returns its exit code."""
    run_dir = Path(args.dir) / f"{number:05}-{name}"
    repairs = [f"--repair={r}" for r in args.repair.split(",") if r]
    command = [
        *(sys.executable, "-m", "smpvm", "stress", f"--profile={name}", f"--seed={seed}"),
        *(f"--seconds={args.each}", f"--check={args.check}", f"--run-dir={run_dir}"),
        *repairs,
    ]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tail = " / ".join(done.stdout.strip().splitlines()[-3:])
    if done.returncode == 0:
        shutil.rmtree(run_dir, ignore_errors=True)
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "stdout").write_text(done.stdout)
        (run_dir / "stderr").write_text(done.stderr)
        tail += f" (see {run_dir})"
    print(
        f"{number:5} {name:<12} seed {seed:<10} {time.monotonic() - begun:6.1f} s "
        f"exit {done.returncode}: {tail}",
        flush=True,
    )
    return done.returncode


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--each", type=float, default=30.0, help="seconds for each run")
    parser.add_argument("--profiles", default="", help="names, joined by commas (default: all)")
    parser.add_argument("--repair", default="all", help='names joined by commas, "all" or ""')
    parser.add_argument("--check", default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", default="runs/soak")
    parser.add_argument("--keep-going", action="store_true", help="after a finding too")
    args = parser.parse_args()
    if not args.hours and not args.minutes:
        args.minutes = 10.0
    return args


if __name__ == "__main__":
    sys.exit(main())
