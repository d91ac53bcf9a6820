"""Counts: each leak beside the twin that has none, with the place of the raise."""

import pytest

from smpvm.check.suite import CheckSuite, parse_checks
from smpvm.config import PAGE_SIZE, Config
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT
from smpvm.machine import Machine
from smpvm.vm.param import OBJT_SWAP


class Bench:
    """A machine that only the test's own threads use."""

    def __init__(self):
        self.suite = CheckSuite(parse_checks("count"))
        config = Config(pages=128, swap_pages=64, pq_l2_size=4)
        self.machine = Machine(config, observers=self.suite.observers)
        self.vm, self.k = self.machine.vm, self.machine.k

    def go(self, *bodies):
        """Each body in a thread of its own, one after the other; then the machine is at rest."""
        for n, body in enumerate(bodies):
            self.k.spawn(f"t{n}", body)
            assert self.k.carrier.join(10.0) == []
            assert not self.k.errors, self.k.errors
        self.suite.at_rest()

    @property
    def titles(self):
        return [f.title for f in self.suite.log.findings]


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.machine.halt()


def test_a_process_held_and_let_go(bench):
    p = bench.vm.process.create()
    proc = bench.k.proc
    bench.go(lambda: (proc.phold(p), proc.prele(p)))
    assert bench.titles == []


def test_a_process_held_for_ever(bench, frames):
    p = bench.vm.process.create()

    def holds():
        bench.k.proc.phold(p)

    bench.go(holds)
    found = bench.suite.log.findings[0]
    assert found.kind == "count"
    assert found.title == f"t0 ends with 1 of Proc.p_lock of {p} not lowered"
    assert "holds" in frames(found)
    assert found.count == 2, "at the end and at rest: the same leak, told once"


def test_an_object_held(bench):
    obj = bench.vm.object.allocate(OBJT_SWAP, 4)

    def drops():
        bench.vm.object.hold(obj)
        bench.vm.object.drop(obj)

    bench.go(drops)
    assert bench.titles == []
    bench.go(lambda: bench.k.atomic.add_int(obj, "hold_count", 1))
    assert bench.titles == [f"t0 ends with 1 of VmObject.hold_count of {obj} not lowered"]


def test_a_page_held(bench):
    vm = bench.vm
    obj = vm.object.allocate(OBJT_SWAP, 4)
    vm.object.hold(obj)
    m = vm.page.alloc(obj, 0, 1)
    vm.object.drop(obj)
    vm.page.wakeup(m)
    bench.go(lambda: (vm.page.hold(m), vm.page.unhold(m)))
    assert bench.titles == []
    bench.go(lambda: vm.page.hold(m))
    assert bench.titles == [f"t0 ends with 1 of Page.hold_count of {m} not lowered"]


class TestVnode:
    def test_a_vget_that_is_put(self, bench):
        vp = bench.vm.vnode_pager.new_file(PAGE_SIZE)
        vnode = bench.k.vnode
        bench.go(lambda: (vnode.vget(vp, LK_EXCLUSIVE), vnode.vput(vp)))
        assert bench.titles == []

    def test_a_vget_that_fails_keeps_nothing(self, bench):
        vp = bench.vm.vnode_pager.new_file(PAGE_SIZE)
        vnode = bench.k.vnode
        assert vnode.vn_lock(vp, LK_EXCLUSIVE) == 0
        bench.go(lambda: vnode.vget(vp, LK_EXCLUSIVE | LK_NOWAIT))
        assert bench.titles == []

    def test_a_reference_that_stays(self, bench):
        vp = bench.vm.vnode_pager.new_file(PAGE_SIZE)

        def forgets():
            bench.k.vnode.vref(vp)

        bench.go(lambda: None, forgets)
        assert bench.titles == [f"Vnode.v_refcnt of {vp} is 2: 1 more than its holders add up to"]
        assert "TestVnode.test_a_reference_that_stays.<locals>.forgets" in [
            frame.name for frame in bench.suite.log.findings[0].sites[0].stack
        ]

    def test_one_too_few(self, bench):
        vp = bench.vm.vnode_pager.new_file(PAGE_SIZE)
        obj = bench.vm.vnode_pager.reference(vp)
        bench.go(lambda: None, lambda: [bench.k.vnode.vrele(vp) for _ in range(2)])
        assert obj.ref_count == 1
        assert "1 less than its holders add up to" in bench.titles[0]


def test_a_set_up_keeps_its_references(bench):
    obj = bench.vm.object.allocate(OBJT_SWAP, 4)
    bench.vm.object.hold(obj)
    bench.vm.object.reference_locked(obj)
    bench.vm.object.drop(obj)
    bench.go(lambda: bench.vm.object.deallocate(obj))
    assert bench.titles == []


def test_a_reference_more_than_there_are_entries(bench):
    vm = bench.vm
    p = vm.process.create()
    _, va = vm.process.sys.mmap(p, 0, PAGE_SIZE)
    vm.process.user_write(p, va, 0, 1)
    obj = p.p_vmspace.vm_map.at_or_before(va).object
    bench.go(lambda: None)
    assert bench.titles == []
    bench.go(lambda: bench.k.atomic.add_int(obj, "ref_count", 1))
    assert bench.titles == [f"VmObject.ref_count of {obj} is 2: 1 more than its holders add up to"]


def test_a_wiring_without_a_wired_mapping(bench):
    vm = bench.vm
    p = vm.process.create()
    _, va = vm.process.sys.mmap(p, 0, PAGE_SIZE)
    vm.process.user_write(p, va, 0, 1)
    m = vm.pmap.extract(p.p_vmspace.vm_pmap, va)

    def wires():
        assert not vm.page.busy_try(m, False)
        vm.page.wire(m)
        vm.page.wakeup(m)

    bench.go(lambda: None)
    assert bench.titles == []
    bench.go(wires)
    assert bench.titles == [f"Page.wire_count of {m} is 1: 1 more than its holders add up to"]


def test_a_space_held_for_ever(bench):
    vm = bench.vm
    p = vm.process.create()
    bench.go(lambda: (vm.vmspace.hold(p.p_vmspace), vm.vmspace.drop(p.p_vmspace)))
    assert bench.titles == []
    bench.go(lambda: vm.vmspace.hold_notoken(p.p_vmspace))
    assert "vm_holdcnt" in bench.titles[0]
