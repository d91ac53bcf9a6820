"""Processes under random schedules: contents hold, nothing is left over, and what goes wrong."""

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.config import Config, DiskConfig
from smpvm.explore.strategy.pct import Pct
from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.host.serial import SerialCarrier
from smpvm.kern.kernel import Kernel
from smpvm.kern.thread import Panic
from smpvm.repairs.catalogue import REPAIRS
from smpvm.vm.build import build_vm
from smpvm.vm.map.mmap import MAP_SHARED
from smpvm.vm.param import VM_PROT_READ

RW = 3


class Run:
    """One execution of some processes, chosen by *seed*."""

    def __init__(self, seed, *, access_points, changes=(), scheduler=None):
        chooser = scheduler or RandomWalk(seed).start(0)
        self.carrier = SerialCarrier(chooser, access_points=access_points, limit=1_000_000)
        self.k = k = Kernel(self.carrier, hz=100, ncpus=2)
        disk = DiskConfig(latency=1)
        config = Config(pages=64, swap_pages=256, pq_l2_size=4, swap_disk=disk, file_disk=disk)
        self.vm = build_vm(k, config, changes)
        self.process, self.sys = self.vm.process, self.vm.process.sys
        self.errors = []

    def start(self, *bodies):
        for body in bodies:
            self.process.start(self.process.create(), self.guarded(body))
        return self

    def guarded(self, body):
        def main(p):
            try:
                body(p)
            except AssertionError as error:
                self.errors.append(error)
                raise

        return main

    def finish(self):
        left = [td for td in self.carrier.join() if td.proc is not None]
        for error in self.errors:
            raise error
        self.k.check()
        assert left == [], [str(td) for td in left]
        s = self.vm.stats
        queued = s.v_free_count + s.v_cache_count + s.v_inactive_count + s.v_active_count
        assert queued == s.v_page_count
        assert s.v_wire_count == 0
        assert self.k.proc.nprocs == 1

    def fill(self, p, va, pages, base):
        for i in range(pages):
            self.process.user_write(p, va + i * P, 0, base + i)

    def check(self, p, va, pages, base):
        for i in range(pages):
            assert self.process.user_read(p, va + i * P, 0) == base + i


def family(run, vp):
    """Fork, copy-on-write, wiring and a shared file, with two children at once."""

    def child(c, va):
        run.check(c, va, 1, 100)
        run.fill(c, va, 4, c.p_pid * 10)
        run.check(c, va, 4, c.p_pid * 10)

    def body(p):
        _, va = run.sys.mmap(p, 0, 4 * P)
        run.fill(p, va, 4, 100)
        _, shared = run.sys.mmap(p, 0, 4 * P, flags=MAP_SHARED, vp=vp)
        run.process.user_write(p, shared, p.p_pid, 77)
        for _ in range(2):
            run.process.fork1(p, run.guarded(lambda c: child(c, va)))
        run.process.user_write(p, va + P, 0, 1000)
        run.sys.mlock(p, va, 2 * P)
        for _ in range(2):
            assert run.process.wait(p)[0] == 0
        values = [run.process.user_read(p, va + i * P, 0) for i in range(4)]
        assert values == [100, 1000, 102, 103]
        assert run.process.user_read(p, shared, p.p_pid) == 77

    return body


@pytest.mark.parametrize("access_points", [False, True])
def test_contents_hold_on_every_schedule(access_points):
    for seed in range(6):
        run = Run(seed, access_points=access_points)
        vp = run.vm.vnode_pager.new_file(4 * P)
        run.start(family(run, vp), family(run, vp)).finish()


def one_space_two_threads(run):
    """Threads of one space that fault, protect and unmap beside each other."""

    def body(p):
        _, va = run.sys.mmap(p, 0, 6 * P)
        run.fill(p, va, 6, 100)

        def other(c):
            for _ in range(2):
                run.sys.mprotect(c, va + 2 * P, 2 * P, VM_PROT_READ)
                run.check(c, va, 6, 100)
                run.sys.mprotect(c, va + 2 * P, 2 * P, RW)
                run.sys.mlock(c, va + P, 2 * P)
                run.sys.munlock(c, va + P, 2 * P)

        run.process.fork1(p, run.guarded(other), share=True)
        for _ in range(3):
            run.check(p, va, 6, 100)
            _, more = run.sys.mmap(p, 0, 3 * P)
            run.fill(p, more, 3, 500)
            run.check(p, more, 3, 500)
            run.sys.munmap(p, more, 3 * P)
        assert run.process.wait(p)[0] == 0

    return body


def test_threads_of_one_space():
    for seed in range(10):
        run = Run(seed, access_points=seed % 2 == 0)
        run.start(one_space_two_threads(run)).finish()


def kill_scan_beside_mprotect(run):
    """The kill scan counts a space whose owner merges entries."""

    def body(p):
        _, va = run.sys.mmap(p, 0, 6 * P)
        run.fill(p, va, 1, 1)

        def scan():
            for _ in range(6):
                run.vm.vmspace.swap_count(p.p_vmspace)
                run.vm.vmspace.anonymous_count(p.p_vmspace)

        run.k.spawn("scan", scan)
        for prot in (VM_PROT_READ, RW, VM_PROT_READ, RW):
            run.sys.mprotect(p, va + 2 * P, 2 * P, prot)
        run.k.sleep.tsleep(p, 0, "test", 100)

    return body


def outcomes(seeds, changes=()):
    seen = set()
    pct = Pct(1, depth=3)
    for n in range(seeds):
        run = Run(n, access_points=True, changes=changes, scheduler=pct.start(n))
        try:
            run.start(kill_scan_beside_mprotect(run)).finish()
            seen.add("clean")
        except Panic as panic:
            seen.add(panic.code)
        pct.done(run.carrier)
    return seen


def test_the_kill_scan_can_stand_on_an_entry_that_is_freed():
    """vm_map_protect merges entries without the token that vmspace_swap_count walks under."""
    assert "map-entry-freed" in outcomes(300)


def test_with_the_token_it_cannot():
    assert outcomes(300, [REPAIRS["map-token"].change]) == {"clean"}
