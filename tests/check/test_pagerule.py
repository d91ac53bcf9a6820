"""Page rules: each broken once, beside the twin that keeps it."""

import pytest

from smpvm.check.pagerule import RULES
from smpvm.check.suite import CheckSuite, parse_checks
from smpvm.config import PAGE_SIZE, Config
from smpvm.kern.cname import c
from smpvm.machine import Machine
from smpvm.vm.map.mmap import MAP_FIXED, MAP_SHARED, PROT_RW
from smpvm.vm.page.struct import PG_BUSY, PG_MAPPED, PG_WRITEABLE
from smpvm.vm.param import OBJT_SWAP, VM_PAGE_BITS_ALL, VM_PROT_READ

VA = 0x100000


class Bench:
    """A machine that only the test's own threads use."""

    def __init__(self):
        self.suite = CheckSuite(parse_checks("page"))
        config = Config(pages=128, swap_pages=64, pq_l2_size=4)
        self.machine = Machine(config, observers=self.suite.observers)
        self.vm, self.k = self.machine.vm, self.machine.k

    def go(self, *bodies):
        """Each body in a thread of its own, one after the other."""
        for n, body in enumerate(bodies):
            self.k.spawn(f"t{n}", body)
            assert self.k.carrier.join(10.0) == []
            assert not self.k.errors, self.k.errors
            assert not self.k.panics, self.k.panics

    def page(self, words=None, dirty=False):
        """A busied page of a swap object, as a fault leaves it."""
        vm = self.vm
        obj = vm.object.allocate(OBJT_SWAP, 8)
        vm.object.hold(obj)
        m = vm.page.alloc(obj, 0, 1)
        vm.object.drop(obj)
        m.valid = VM_PAGE_BITS_ALL
        vm.pmap.write_contents(m, words)
        if dirty:
            vm.page.dirty(m)
        return m

    def mapped_file(self):
        """A process with a page of a file mapped by a read fault: writeable, not written."""
        vm = self.vm
        vp = vm.vnode_pager.new_file(PAGE_SIZE)
        vm.vnode_pager.file(vp).blocks[0] = {0: 1}
        obj = vp.v_object
        vm.object.hold(obj)
        m = vm.page.alloc(obj, 0, 1)
        vm.object.drop(obj)
        m.valid = VM_PAGE_BITS_ALL
        vm.pmap.write_contents(m, {0: 1})
        vm.page.deactivate(m)
        vm.page.wakeup(m)
        p = vm.process.create()
        args = (p, VA, PAGE_SIZE, PROT_RW, MAP_FIXED | MAP_SHARED, vp)
        assert vm.process.sys.mmap(*args) == (0, VA)
        assert vm.process.user_read(p, VA, 0) == 1
        return p, vp, m

    @property
    def rules(self):
        return [f.identity[0] for f in self.suite.log.findings]


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.machine.halt()


@c("vm_test_give_up", "test.c:1")
def give_up(bench, m):
    """In place of kernel code."""
    bench.vm.page.wakeup(m)


def test_every_rule_has_its_reason():
    assert all(says and ".c:" in reason for says, reason in RULES.values())


def test_a_clean_page_that_differs(bench):
    bench.go(lambda: give_up(bench, bench.page({0: 7})))
    (found,) = bench.suite.log.findings
    assert found.kind == "page-rule"
    assert found.title.endswith("but word 0 is 7, and 0 in no block")
    assert found.sites[0].thread == "t0"


@pytest.mark.parametrize(("words", "dirty"), [({0: 7}, True), ({0: 0}, False), (None, False)])
def test_its_twins(bench, words, dirty):
    bench.go(lambda: give_up(bench, bench.page(words, dirty)))
    bench.suite.at_rest()
    assert bench.rules == []


def test_a_clean_page_with_its_block(bench):
    def paged_out(words):
        vm = bench.vm
        m = bench.page({0: 7})
        vm.object.hold(m.object)
        block = vm.swap.getswapspace(m.object, 1)
        vm.swap.meta_build(m.object, 0, block)
        vm.object.drop(m.object)
        vm.swap.store[block] = words
        give_up(bench, m)

    bench.go(lambda: paged_out({0: 7}))
    assert bench.rules == []
    bench.go(lambda: paged_out({0: 6}))
    assert bench.rules == ["clean-differs"]


def test_what_a_set_up_stores_is_no_fault(bench):
    bench.vm.page.wakeup(bench.page({0: 7}))
    bench.suite.at_rest()
    assert bench.rules == []


def test_a_dirty_page_on_the_cache_queue(bench):
    def cached(dirty):
        m = bench.page()
        bench.vm.page.cache(m)
        assert not bench.vm.page.busy_try(m, False)
        m.dirty = dirty
        give_up(bench, m)

    bench.go(lambda: cached(0))
    assert bench.rules == []
    bench.go(lambda: cached(1))
    assert bench.rules == ["cache-dirty"]


def test_a_free_page_keeps_nothing(bench):
    def freed(valid):
        m = bench.page()
        bench.vm.page.free(m)
        assert not bench.vm.page.busy_try(m, False)
        m.valid = valid
        give_up(bench, m)

    bench.go(lambda: freed(0))
    assert bench.rules == []
    bench.go(lambda: freed(1))
    assert bench.rules == ["free-page"]


@pytest.mark.parametrize(
    ("flag", "rule"), [(PG_MAPPED, "mapped-flag"), (PG_WRITEABLE, "writeable-flag")]
)
def test_flags_never_say_less_than_the_mappings(bench, flag, rule):
    _, _, m = bench.mapped_file()
    bench.go(lambda: touch(bench, m))
    assert bench.rules == []
    bench.vm.page.flag_clear(m, flag)
    bench.go(lambda: touch(bench, m))
    assert bench.rules == [rule]


def touch(bench, m):
    """Busy a page and let it go."""
    assert not bench.vm.page.busy_try(m, False)
    give_up(bench, m)


class TestDirtyRecord:
    def test_a_writeable_mapping_is_on_it(self, bench):
        _, _, m = bench.mapped_file()
        bench.go(lambda: touch(bench, m))
        bench.suite.at_rest()
        assert bench.rules == []

    def test_a_file_taken_off_with_a_mapping_left(self, bench):
        _, vp, m = bench.mapped_file()
        bench.vm.object.off_record(vp.v_object)
        bench.go(lambda: touch(bench, m))
        assert bench.rules == ["dirty-record"]

    def test_its_twin_makes_the_mapping_read_only_first(self, bench):
        _, vp, m = bench.mapped_file()
        assert not bench.vm.page.busy_try(m, False)
        bench.vm.page.protect(m, VM_PROT_READ)
        bench.vm.object.off_record(vp.v_object)
        bench.vm.page.wakeup(m)
        bench.suite.at_rest()
        assert bench.rules == []


def test_a_mapping_wider_than_its_entry(bench):
    p, _, _ = bench.mapped_file()
    bench.suite.at_rest()
    assert bench.rules == []
    entry = p.p_vmspace.vm_map.at_or_before(VA)
    entry.protection = VM_PROT_READ
    bench.suite.at_rest()
    assert bench.rules == ["protection"]


def test_a_modified_bit_that_is_lost(bench):
    p, _, m = bench.mapped_file()
    bench.vm.process.user_write(p, VA, 0, 5)
    pv = m.pv_first
    bench.vm.pmap.mmu.update(pv, 0x0A)  # RW and M go, and nobody hears of it
    m.dirty = 0
    bench.go(lambda: touch(bench, m))
    assert bench.rules == ["clean-differs"]


def test_its_twin_tells_the_page(bench):
    p, _, m = bench.mapped_file()
    bench.vm.process.user_write(p, VA, 0, 5)
    m.dirty = 0
    assert not bench.vm.page.busy_try(m, False)
    bench.vm.page.protect(m, VM_PROT_READ)
    bench.vm.page.wakeup(m)
    assert m.dirty
    bench.suite.at_rest()
    assert bench.rules == []


def test_who_gives_up_anothers_page(bench):
    taken = []
    bench.go(lambda: taken.append(bench.page()), lambda: give_up(bench, taken[0]))
    assert bench.rules == ["unbusied-others"]


def test_who_takes_anothers_page(bench):
    taken = []

    def again():
        m = taken[0]
        m.flags &= ~PG_BUSY
        assert not bench.vm.page.busy_try(m, False)

    bench.go(lambda: taken.append(bench.page()), again)
    assert bench.rules == ["busied-twice"]


class TestPageOut:
    def flush(self, bench, dirty):
        def body():
            bench.vm.pageout.pagethread = bench.k.curthread()
            m = bench.page({0: 1} if dirty else None, dirty)
            bench.vm.page.deactivate(m)
            bench.vm.pageout.clean(m)

        bench.machine.boot(())
        bench.k.spawn("t0", body)
        for disk in bench.vm.pager.disks():
            disk.start()
        bench.k.carrier.join(0.3)

    def test_of_a_dirty_page(self, bench):
        self.flush(bench, True)
        assert bench.rules == []

    def test_of_a_clean_page(self, bench):
        self.flush(bench, False)
        assert "paged-out" in bench.rules
