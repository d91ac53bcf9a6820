#!/usr/bin/env python3
"""The cost of the model on real threads, relative to a plain Python loop in the same run.

    python stress/bench_native.py [--quick] [--plot FILE.png] [--json]

1. faults and lock operations per second, bare, with the default checkers, and with all of them;
2. the cost of a fault as memory grows from 1,000 to 256,000 pages (it should be flat);
3. the cost of a fault as CPUs grow from 1 to 32;
4. bytes of host memory per page.

"x loop" is the time of one operation divided by that of one iteration of a plain Python loop (a
method call that looks a number up in a dict and adds to an attribute) of the same length.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from smpvm.check.suite import CheckSuite, parse_checks
from smpvm.config import PAGE_SHIFT, Config
from smpvm.kern.proc import Proc
from smpvm.kern.spinlock import Spinlock
from smpvm.machine import Machine

SIZES = (1_000, 4_000, 16_000, 64_000, 256_000)
CPUS = (1, 2, 4, 8, 16, 32)


class Plain:
    """The body of the reference loop."""

    def __init__(self) -> None:
        self.table = dict.fromkeys(range(1024), 1)
        self.sum = 0

    def turn(self, i: int) -> None:
        """One iteration."""
        self.sum += self.table[i & 1023]


def reference(turns: int) -> float:
    """Seconds per iteration of the plain loop, the best of three."""
    best = float("inf")
    for _ in range(3):
        turn = Plain().turn
        begun = time.perf_counter()
        for i in range(turns):
            turn(i)
        best = min(best, (time.perf_counter() - begun) / turns)
    return best


def faults(pages: int, ncpus: int, count: int, checks: str = "none") -> float:
    """Host seconds per zero-fill fault; *count* faults are shared by one process per CPU."""
    suite = CheckSuite(parse_checks(checks))
    machine = Machine(
        Config(pages=pages, swap_pages=0, ncpus=ncpus),
        observers=suite.observers if checks != "none" else (),
    )
    each = count // ncpus
    process = machine.vm.process

    def body(p: Proc) -> None:
        _, base = process.sys.mmap(p, 0, each << PAGE_SHIFT)
        for page in range(each):
            process.user_write(p, base + (page << PAGE_SHIFT), 0, 1)

    machine.boot()
    begun = time.perf_counter()
    threads = [process.start(process.create(), body, cpu=cpu) for cpu in range(ncpus)]
    while not all(td.exited for td in threads):
        time.sleep(0.001)
    spent = time.perf_counter() - begun
    machine.halt()
    for _, why in [*machine.k.panics, *machine.k.errors]:
        raise why
    got = machine.k.counts()["v_zfod"]
    return spent / max(got, 1)


def lock_pairs(count: int, checks: str = "none") -> float:
    """Host seconds for one uncontended lock and unlock of a spinlock."""
    suite = CheckSuite(parse_checks(checks))
    machine = Machine(Config(), observers=suite.observers if checks != "none" else ())
    lock = Spinlock(machine.k, "bench", "0")
    begun = time.perf_counter()
    for _ in range(count):
        lock.lock()
        lock.unlock()
    spent = (time.perf_counter() - begun) / count
    machine.halt()
    return spent


def bytes_per_page(pages: int) -> float:
    """Additional host memory per page of a machine of *pages*, compared with a small one."""

    def size(n: int) -> int:
        gc.collect()
        tracemalloc.start()
        machine = Machine(Config(pages=n, pq_l2_size=256))
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        machine.halt()
        return used

    return (size(pages) - size(1000)) / (pages - 1000)


def best(measure: Callable[[], float], times: int = 2) -> float:
    """The lowest of several measurements, which is the least disturbed one."""
    return min(measure() for _ in range(times))


def measure(quick: bool) -> dict[str, Any]:
    """All figures."""
    count = 400 if quick else 2_000
    out: dict[str, Any] = {"loop_s": reference(200_000)}
    out["what"] = {}
    for checks in ("none", "default", "all"):
        out["what"][checks] = {
            "fault_s": best(lambda c=checks: faults(4_000, 1, count, c)),  # type: ignore[misc]
            "lock_s": best(lambda c=checks: lock_pairs(20_000, c)),  # type: ignore[misc]
        }
    sizes = SIZES[:3] if quick else SIZES
    out["pages"] = {n: best(lambda n=n: faults(n, 1, min(count, n // 2))) for n in sizes}  # type: ignore[misc]
    cpus = CPUS[:4] if quick else CPUS
    out["cpus"] = {n: best(lambda n=n: faults(16_000, n, count)) for n in cpus}  # type: ignore[misc]
    out["bytes_per_page"] = bytes_per_page(20_000 if quick else 100_000)
    return out


def table(got: dict[str, Any]) -> list[str]:
    """The figures as text."""
    loop = got["loop_s"]
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    out = [
        f"Python {sys.version.split()[0]}{'' if gil else ' free-threaded'}: "
        f"a turn of the plain loop takes {loop * 1e9:.0f} ns",
        "",
        f"{'checks':<10}{'faults/s':>10}{'x loop':>9}{'x bare':>8}"
        f"{'lock+unlock/s':>15}{'x loop':>9}{'x bare':>8}",
    ]
    bare = got["what"]["none"]
    for checks, row in got["what"].items():
        fault, lock = row["fault_s"], row["lock_s"]
        out.append(
            f"{checks:<10}{1 / fault:>10,.0f}{fault / loop:>9,.0f}{fault / bare['fault_s']:>8.2f}"
            f"{1 / lock:>15,.0f}{lock / loop:>9,.1f}{lock / bare['lock_s']:>8.2f}"
        )
    for what in ("pages", "cpus"):
        rows = got[what]
        first = next(iter(rows.values()))
        out += ["", f"{what:<10}{'us/fault':>10}{'x loop':>9}{'x first':>9}"]
        for n, fault in rows.items():
            out.append(f"{n:<10,}{fault * 1e6:>10.0f}{fault / loop:>9,.0f}{fault / first:>9.2f}")
    out += ["", f"bytes for each page: {got['bytes_per_page']:.0f}"]
    return out


def plot(got: dict[str, Any], path: str) -> None:
    """Plot both growth curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True)
    for axis, what in zip(axes, ("pages", "cpus"), strict=True):
        rows = got[what]
        axis.plot(list(rows), [s * 1e6 for s in rows.values()], marker="o")
        axis.set_xscale("log", base=2)
        axis.set_xlabel(what)
    # Set the shared scale now, when all points are known.
    axes[0].set_ylim(0, 1.1e6 * max(s for what in ("pages", "cpus") for s in got[what].values()))
    axes[0].set_ylabel("microseconds for each fault")
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller, in seconds")
    parser.add_argument("--plot", metavar="FILE.png")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    got = measure(args.quick)
    print(json.dumps(got, indent=1) if args.json else "\n".join(table(got)))
    if args.plot:
        plot(got, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
