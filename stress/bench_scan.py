"""Pages per second that the model's queue scans handle, compared with the kernel's C.

One queue of many pages, bare (no observer, free-running carrier, one thread): ``clean`` pages all
take the short path, ``mixed`` ones may also be referenced, dirty or held.  The reference, measured
in the same run, is a plain Python loop that calls one method per page and changes one attribute.
Times are CPU times, so that other load does not count.

    python stress/bench_scan.py [--pages N] [--rounds N] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import random
import time
from collections.abc import Callable, Sequence

from smpvm.config import Config
from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel
from smpvm.vm.build import build_vm
from smpvm.vm.page.struct import PG_REFERENCED, PG_WINATCFLS, Page
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.param import OBJT_DEFAULT
from smpvm.vm.vm import Vm

C_MILLIONS = {
    ("scan_inactive", "clean", "shuffled"): 6.5,
    ("scan_inactive", "mixed", "shuffled"): 5.7,
    ("scan_active", "clean", "shuffled"): 6.9,
    ("scan_active", "mixed", "shuffled"): 7.2,
    ("scan_inactive", "clean", "sequential"): 28.0,
    ("scan_inactive", "mixed", "sequential"): 20.0,
    ("scan_active", "clean", "sequential"): 28.0,
    ("scan_active", "mixed", "sequential"): 20.0,
}
"""Million pages per second of the compiled C on one core, FORMAT.md section 11."""

COLOUR = 3
SEED = 20161206


def machine(pages: int) -> Vm:
    """A bare machine in which only the scanning thread runs."""
    carrier = NativeCarrier()
    k = Kernel(carrier)
    return build_vm(k, Config(pages=pages))


def fill(vm: Vm, scan: str, mix: str, order: str) -> None:
    """Put every page on the scanned queue."""
    rng = random.Random(SEED)
    base = vm.pq.INACTIVE if scan == "scan_inactive" else vm.pq.ACTIVE
    obj = vm.object.allocate(OBJT_DEFAULT, len(vm.page_array))
    for q in vm.queues:
        q.head = q.tail = None
        q.lcnt = 0
    queue = vm.queues[base + COLOUR]
    pages = list(vm.page_array)
    if order == "shuffled":
        rng.shuffle(pages)
    before: Page | None = None
    for pindex, m in enumerate(pages):
        m.pc, m.queue, m.object, m.pindex = COLOUR, queue.number, obj, pindex
        m.valid, m.dirty, m.act_count, m.flags, m.hold_count = 0xFF, 0, 0, 0, 0
        if mix == "mixed":
            _mix(m, rng.random())
        m.q_prev, m.q_next = before, None
        if before is None:
            queue.head = m
        else:
            before.q_next = m
        before = m
    queue.tail = before
    queue.lcnt = len(pages)
    stats = vm.stats
    stats.v_free_count = stats.v_cache_count = stats.v_active_count = stats.v_inactive_count = 0
    setattr(stats, queue.counter, len(pages))
    stats.v_free_target = stats.v_cache_min = len(pages)


def _mix(m: Page, chance: float) -> None:
    """Leave half of the pages clean; make the others referenced, dirty or held."""
    if chance < 0.2:
        m.flags = PG_REFERENCED
    elif chance < 0.4:
        m.dirty = 0xFF
        m.flags = 0
        m.act_count = 20
    elif chance < 0.5:
        m.hold_count = 1
    m.flags &= ~PG_WINATCFLS


def scan_once(vm: Vm, scan: str) -> None:
    """One scan over the whole queue."""
    pages = len(vm.page_array)
    if scan == "scan_inactive":
        vm.pageout.scan_inactive(0, COLOUR, 10 * pages, Tally())
    else:
        vm.pageout.scan_active(0, COLOUR, 0, 10 * pages, Tally())


def best(pages: int, rounds: int, scan: str, mix: str, order: str) -> float:
    """Seconds of the fastest of *rounds* scans."""
    found = float("inf")
    for _ in range(rounds):
        vm = machine(pages)
        fill(vm, scan, mix, order)
        gc.collect()
        start = time.process_time()
        scan_once(vm, scan)
        found = min(found, time.process_time() - start)
    return found


class _Plain:
    __slots__ = ("field",)

    def __init__(self) -> None:
        self.field = 0

    def touch(self) -> None:
        self.field += 1


def reference(pages: int, rounds: int) -> float:
    """Seconds of the plain loop over the same number of objects."""
    found = float("inf")
    objects = [_Plain() for _ in range(pages)]
    for _ in range(rounds):
        start = time.process_time()
        for each in objects:
            each.touch()
        found = min(found, time.process_time() - start)
    return found


def rows(pages: int, rounds: int, report: Callable[[str], None] = print) -> None:
    """Measure everything and print the table."""
    plain = reference(pages, rounds)
    report(f"plain loop: {pages / plain / 1e6:.2f} million objects a second")
    report(
        f"{'scan':<14} {'pages':<6} {'order':<11} {'pages/s':>10} {'loop/scan':>10} "
        f"{'C, M/s':>7} {'C/ours':>7}"
    )
    for (scan, mix, order), c in C_MILLIONS.items():
        rate = pages / best(pages, rounds, scan, mix, order)
        report(
            f"{scan:<14} {mix:<6} {order:<11} {rate:>10,.0f} {pages / plain / rate:>10.1f} "
            f"{c:>7.1f} {c * 1e6 / rate:>7.0f}"
        )


def profile(pages: int) -> None:
    """Profile each scan."""
    for scan in ("scan_inactive", "scan_active"):
        vm = machine(pages)
        fill(vm, scan, "mixed", "shuffled")
        profiler = cProfile.Profile()
        profiler.runcall(scan_once, vm, scan)
        print(scan)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(argv)
    if args.profile:
        profile(args.pages)
    else:
        rows(args.pages, args.rounds)


if __name__ == "__main__":
    main()
