"""Lifetime: what was freed and is touched, or freed in use or twice; each fault beside its twin."""

import pytest

from smpvm.check.suite import CheckSuite, parse_checks
from smpvm.config import Config
from smpvm.kern.shared import shared
from smpvm.machine import Machine
from smpvm.vm.page.struct import PG_SWAPINPROG


@shared("size", "refs")
class Thing:
    __slots__ = ("name", "refs", "size")

    def __init__(self):
        self.name = "thing 1"
        self.size = 0
        self.refs = 0

    def __str__(self):
        return self.name


@pytest.fixture(params=[("lifetime",), ("lifetime", "race")], ids=["plain", "instrumented"])
def thing(watch, request):
    w = watch(*request.param)
    return w, w.k.new(Thing)


def free(w, obj):
    w.k.probe.freed(w.k.curthread(), obj)


class TestAccess:
    def read(self, obj):
        return obj.size

    def write(self, obj):
        obj.size = 3

    def test_read_after_free(self, thing, frames):
        w, obj = thing
        w.go(lambda: free(w, obj), lambda: self.read(obj))
        found = w.one("lifetime")
        assert found.title == "t1 reads Thing.size of thing 1 after it was freed"
        assert [site.what for site in found.sites] == ["reads Thing.size", "freed thing 1"]
        assert [site.thread for site in found.sites] == ["t1", "t0"]
        assert frames(found)[0] == "read"
        assert "free" in frames(found)

    def test_write_after_free_still_writes(self, thing):
        w, obj = thing
        w.go(lambda: free(w, obj), lambda: self.write(obj))
        assert w.one("lifetime").title.startswith("t1 writes Thing.size")
        with w.k.quietly():
            assert obj.size == 3

    def test_atomic_after_free(self, thing):
        w, obj = thing
        w.go(lambda: free(w, obj), lambda: w.k.atomic.add_int(obj, "refs", 1))
        assert "Thing.refs of thing 1 after it was freed" in w.findings[0].title
        assert set(w.kinds) == {"lifetime"}
        with w.k.quietly():
            assert obj.refs == 1

    def test_before_the_free_is_right(self, thing):
        w, obj = thing
        w.go(lambda: (self.write(obj), self.read(obj), free(w, obj)))
        assert w.findings == []
        assert w.suite.summary()["freed"] == 1

    def test_a_checker_may_look(self, thing):
        w, obj = thing

        def look():
            with w.k.quietly():
                return obj.size

        w.go(lambda: free(w, obj), look)
        assert w.findings == []

    def test_freed_twice(self, thing):
        w, obj = thing
        w.go(lambda: free(w, obj), lambda: free(w, obj))
        found = w.one("lifetime")
        assert found.title == "thing 1 is freed twice"
        assert len(found.sites) == 2


# -- on the model


@pytest.fixture
def machine():
    suite = CheckSuite(parse_checks("lifetime"))
    made = Machine(Config(pages=128, swap_pages=64, pq_l2_size=4), observers=suite.observers)
    yield made, made.vm, suite
    made.halt()


def titles(suite):
    return [f.title for f in suite.log.findings]


def test_an_object_freed_by_its_last_drop(machine):
    _, vm, suite = machine
    obj = vm.object.allocate(0, 4)
    vm.object.deallocate(obj)
    assert titles(suite) == []
    assert obj.size == 4
    assert titles(suite) == [f"boot reads VmObject.size of {obj} after it was freed"]


def test_an_object_freed_while_held(machine):
    _, vm, suite = machine
    obj = vm.object.allocate(0, 4)
    vm.object.hold(obj)
    vm.object.zfree(obj)
    assert titles(suite) == [f"{obj} is freed held", f"{obj} is freed referenced"]


def test_a_process_and_its_space(machine):
    _, vm, suite = machine
    p = vm.process.create()
    space, map = p.p_vmspace, p.p_vmspace.vm_map
    entry = map.header.next
    vm.process.exit1(p, 0)
    assert titles(suite) == []
    assert vm.vmspace.getrefs(space) == -1
    assert map.timestamp
    assert entry.next
    assert p.p_stat
    touched = " ".join(titles(suite))
    for field in ("VmSpace.vm_refcnt", "VmMap.timestamp", "VmMapEntry.next", "Proc.p_stat"):
        assert field in touched


def test_a_process_freed_while_held(machine):
    m, vm, suite = machine
    p = vm.process.create()
    m.k.proc.phold(p)
    m.k.probe.freed(m.k.boot, p)
    assert titles(suite) == [f"{p} is freed held"]


def test_a_reclaimed_vnode_goes_with_its_last_reference(machine):
    m, vm, suite = machine
    vp = vm.vnode_pager.new_file(4096)
    vm.vnode_pager.reclaim(vp)
    assert vp.v_refcnt
    assert titles(suite) == []
    m.k.vnode.vrele(vp)
    assert titles(suite) == []
    assert vp.v_refcnt
    assert titles(suite) == [f"boot reads Vnode.v_refcnt of {vp} after it was freed"]


def busy_page(vm):
    obj = vm.object.allocate(0, 4)
    vm.object.hold(obj)
    m = vm.page.alloc(obj, 0, 1)
    vm.object.drop(obj)
    return m


def test_a_page_of_the_one_who_has_it_busy(machine):
    _, vm, suite = machine
    vm.page.free(busy_page(vm))
    assert titles(suite) == []


def test_a_page_that_another_has_busy(machine):
    made, vm, suite = machine
    m = busy_page(vm)
    m.busy_owner = made.k.make_thread("other", lambda: None)
    vm.page.free(m)
    assert titles(suite) == [f"{m} is freed while other has it busy"]


def test_a_page_in_swap_io(machine):
    _, vm, suite = machine
    m = busy_page(vm)
    vm.page.flag_set(m, PG_SWAPINPROG)
    vm.page.free(m)
    assert titles(suite) == [f"{m} is freed while swap I/O is in progress"]


def test_a_page_taken_with_an_owner(machine):
    made, vm, suite = machine
    m = busy_page(vm)
    made.k.probe.page_alloc(made.k.boot, m)
    assert titles(suite) == [f"{m} is reused while it belongs to {m.object}"]
