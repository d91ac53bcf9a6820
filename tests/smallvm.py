"""Small VMs: real pages, pmaps and objects on real threads; the daemon and the pagers are stubs."""

import time

import pytest

from smpvm.config import Config
from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel
from smpvm.vm.meter import Meter
from smpvm.vm.object.objects import Objects
from smpvm.vm.page.pages import PG_MARKER, VM_ALLOC_NORMAL, Pages
from smpvm.vm.pageout.daemon import Pageout
from smpvm.vm.pager.pagers import Pagers
from smpvm.vm.pager.swap import SwapPager
from smpvm.vm.pager.syncer import Syncer
from smpvm.vm.pager.vnode import VnodePager
from smpvm.vm.pmap.pmaps import Pmaps
from smpvm.vm.vm import Vm


class StubPageout:
    def __init__(self, vm):
        self.vm = vm
        self.pagethread = None
        self.wakeups = 0

    def pagedaemon_wakeup(self):
        self.wakeups += 1

    def add_deficit(self):
        self.vm.glob.vm_pageout_deficit += 1


class StubSwap:
    def __init__(self, vm):
        pass

    def page_inserted(self, m):
        pass


class StubSyncer:
    def __init__(self, vm):
        self.dirtied = []

    def vsetobjdirty(self, vp):
        self.dirtied.append(vp)


STUBS = {
    "meter": Meter,
    "page": Pages,
    "pmap": Pmaps,
    "object": Objects,
    "swap": StubSwap,
    "pageout": StubPageout,
    "syncer": StubSyncer,
}


class Vms:
    """Makes VMs; stops and joins their threads when the test ends."""

    def __init__(self):
        self.kernels = []

    def make(self, *observers, spin_pool=8192, classes=None, **config):
        config.setdefault("pages", 64)
        config.setdefault("pq_l2_size", 4)
        k = Kernel(NativeCarrier(hz=100, tick_scale=0.05), observers, spin_pool=spin_pool)
        self.kernels.append(k)
        return Vm(k, Config(**config), {**STUBS, **(classes or {})})

    def run(self, vm, *bodies, timeout=20.0):
        k = vm.k
        for i, body in enumerate(bodies):
            k.spawn(f"t{i}", body, cpu=i)
        left = k.carrier.join(timeout)
        k.check()
        assert left == [], [str(td) for td in left]

    def close(self):
        for k in self.kernels:
            k.carrier.stop()
            assert k.carrier.join(5.0) == []


@pytest.fixture
def vms():
    made = Vms()
    yield made
    made.close()


@pytest.fixture
def vm(vms):
    return vms.make()


@pytest.fixture
def stubs():
    """Attribute → class for a VM that has only what these tests need."""
    return STUBS


def _audit(vm):
    """Every page on the queue it names, every count equal to what is there."""
    pq, s = vm.pq, vm.stats
    lengths = dict.fromkeys(("FREE", "INACTIVE", "ACTIVE", "CACHE", "HOLD"), 0)
    seen = {}
    for number, q in enumerate(vm.queues):
        forward = list(q.pages())
        backward = []
        m = q.tail
        while m is not None:
            backward.append(m)
            m = m.q_prev
        assert backward[::-1] == forward
        pages = [m for m in forward if not m.flags & PG_MARKER]
        assert q.lcnt == len(pages)
        if number:
            lengths[pq.name(number).split("+")[0]] += len(pages)
        else:
            assert not forward
        for m in pages:
            assert m.queue == number
            assert number - m.pc in (pq.FREE, pq.INACTIVE, pq.ACTIVE, pq.CACHE, pq.HOLD)
            assert m.idx not in seen
            seen[m.idx] = number
    for m in vm.page_array:
        assert seen.get(m.idx, 0) == m.queue
    assert s.v_free_count == lengths["FREE"]
    assert s.v_cache_count == lengths["CACHE"]
    assert s.v_inactive_count == lengths["INACTIVE"]
    assert s.v_active_count == lengths["ACTIVE"] + lengths["HOLD"]
    assert s.v_wire_count == sum(m.wire_count > 0 for m in vm.page_array)
    return lengths


@pytest.fixture
def audit():
    return _audit


# -- a VM with the real pagers and disks (objects, swap, files, syncer)


class Paging:
    """A VM with pagers, and shorthands for what tests of them do again and again."""

    def __init__(self, vm):
        self.vm = vm
        self.k = vm.k

    def run(self, *bodies, timeout=20.0):
        """Run *bodies* each in a thread of its own; device threads may go on."""
        done = []

        def wrap(body):
            def main():
                body()
                done.append(body)

            return main

        for i, body in enumerate(bodies):
            self.k.spawn(f"t{len(self.k.threads)}", wrap(body), cpu=i)
        end = time.monotonic() + timeout
        while len(done) < len(bodies) and not self.k.carrier.stopping and time.monotonic() < end:
            time.sleep(0.001)
        self.k.check()
        assert len(done) == len(bodies), [str(td) for td in self.k.live_threads()]

    def page(self, obj, pindex, words=None, dirty=True):
        """A resident, valid page of *obj*, on the inactive queue; *obj* may be held already."""
        vm = self.vm
        vm.object.hold(obj)
        m = vm.page.alloc(obj, pindex, VM_ALLOC_NORMAL)
        m.valid = 0xFF
        m.contents = dict(words) if words else None
        if dirty:
            vm.page.dirty(m)
        else:
            vm.page.undirty(m)
        vm.page.deactivate(m)
        vm.page.wakeup(m)
        vm.object.drop(obj)
        return m

    def busy(self, obj, pindexes):
        vm = self.vm
        vm.object.hold(obj)
        found = [vm.page.lookup_busy_wait(obj, p, True, "test") for p in pindexes]
        vm.object.drop(obj)
        return found

    def flush(self, obj, pindexes, flags=0):
        """vm_pageout_flush of those pages; returns how many count as written."""
        pages = self.busy(obj, pindexes)
        self.vm.object.hold(obj)
        n = self.vm.pageout.flush(pages, flags)
        self.vm.object.drop(obj)
        return n

    def evict(self, obj, pindex):
        """Free a clean resident page."""
        vm = self.vm
        (m,) = self.busy(obj, [pindex])
        assert not m.dirty
        vm.page.protect(m, 0)
        vm.page.free(m)

    def read(self, obj, pindex):
        """Page *pindex* in from backing store; returns (status, words)."""
        vm = self.vm
        vm.object.hold(obj)
        m = vm.page.lookup_busy_wait(obj, pindex, True, "test")
        if m is None:
            m = vm.page.alloc(obj, pindex, VM_ALLOC_NORMAL)
        vm.object.pip_add(obj, 1)
        status = vm.pager.get_page(obj, m, 0)
        vm.object.pip_wakeup(obj)
        words = dict(m.contents or {})
        if m.valid:
            vm.page.activate(m)
            vm.page.wakeup(m)
        else:
            vm.vnode_pager.freepage(m)
        vm.object.drop(obj)
        return status, words

    def quiet(self, obj):
        """Wait until no I/O is in progress on *obj*."""
        self.vm.object.pip_wait(obj, "test")


PAGING = {
    **STUBS,
    "swap": SwapPager,
    "vnode_pager": VnodePager,
    "pager": Pagers,
    "pageout": Pageout,
    "syncer": Syncer,
}


@pytest.fixture
def paging(vms):
    def make(*observers, classes=None, **config):
        vm = vms.make(*observers, classes={**PAGING, **(classes or {})}, **config)
        vm.pageout.free_page_calc(vm.stats.v_page_count)
        return Paging(vm)

    return make
