"""The page layer under a scheduler: faults, page-out and reclaim of one page, step by step."""

import pytest

from smpvm.config import Config
from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.host.serial import SerialCarrier
from smpvm.kern.kernel import Kernel
from smpvm.vm.param import OBJT_DEFAULT, VM_PROT_READ
from smpvm.vm.pmap.pmaps import MISS
from smpvm.vm.vm import Vm

VA = 0x1000
RW = 3


class Backed:
    """One page of one object, its backing store, two writers and two pagers."""

    def __init__(self, stubs, seed, access_points):
        self.carrier = SerialCarrier(RandomWalk(seed).start(0), access_points=access_points)
        k = self.k = Kernel(self.carrier, spin_pool=1 if seed % 2 else 8192)
        vm = self.vm = Vm(k, Config(pages=64, pq_l2_size=4), stubs)
        self.obj = vm.object.allocate(OBJT_DEFAULT, 10)
        self.pmaps = [vm.pmap.pinit() for _ in range(2)]
        self.store = None
        for body in (lambda: self.writer(0), lambda: self.writer(1), self.pager, self.pager):
            k.spawn(f"t{len(k.threads)}", body, cpu=len(k.threads) % 2)

    def writer(self, n):
        """Stores 1, 2, 3 and reads each back."""
        pmap = self.pmaps[n]
        for i in range(1, 4):
            self.use(pmap, True, n, i)
            assert self.use(pmap, False, n, 0) == i

    def use(self, pmap, write, word, value):
        while (got := self.vm.pmap.access(pmap, VA, write, word, value)) == MISS:
            self.fault(pmap)
        return got

    def fault(self, pmap):
        page, objects, obj = self.vm.page, self.vm.object, self.obj
        objects.hold(obj)
        m = page.lookup_busy_wait(obj, 0, True, "fault")
        if m is None:
            m = page.alloc(obj, 0, 1)
            self.vm.pmap.write_contents(m, self.store)
            m.valid = 255
        page.activate(m)
        self.vm.pmap.enter(pmap, VA, m, RW, False)
        page.wakeup(m)
        objects.drop(obj)

    def pager(self):
        """Clean the page and cache it, or free it when it is clean."""
        page, obj = self.vm.page, self.obj
        for _ in range(3):
            self.vm.object.hold(obj)
            m, error = page.lookup_busy_try(obj, 0, True)
            self.vm.object.drop(obj)
            if m is None or error:
                continue
            page.test_dirty(m)
            if m.dirty:
                page.protect(m, VM_PROT_READ)
                page.undirty(m)
                self.store = self.vm.pmap.read_contents(m)
                page.wakeup(m)
                page.try_to_cache(m)
            else:
                page.wakeup(m)
                page.try_to_free(m)


@pytest.mark.parametrize("access_points", [True, False])
def test_no_store_is_lost_and_nothing_is_left_over(stubs, audit, access_points):
    for seed in range(60):
        run = Backed(stubs, seed, access_points)
        left = run.carrier.join(20)
        run.k.check()
        assert left == [], (seed, run.carrier.stuck)
        audit(run.vm)
        m = run.obj.rb_memq.lookup(0)
        contents = run.store if m is None else m.contents
        assert contents == {0: 3, 1: 3}, seed
        assert m is None or m.flags & 1 == 0
