"""Page tables: mappings in order, what their bits do to the page, and the hardware's access."""

import time

import pytest

from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import (
    PG_BUSY,
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_REFERENCED,
    PG_UNMANAGED,
    PG_WRITEABLE,
    flag_names,
)
from smpvm.vm.param import OBJT_DEFAULT, OBJT_VNODE, VM_PROT_NONE, VM_PROT_READ, VM_PROT_WRITE
from smpvm.vm.pmap.pmaps import MISS, PTE_A, PTE_M

RO = VM_PROT_READ
RW = VM_PROT_READ | VM_PROT_WRITE
PAGE = 4096


@pytest.fixture
def obj(vm):
    return vm.object.allocate_hold(OBJT_DEFAULT, 100)


@pytest.fixture
def m(vm, obj):
    return vm.page.alloc(obj, 5, 1)


@pytest.fixture
def pmap(vm):
    return vm.pmap.pinit()


def chain(vm, m, n, prot=RW):
    """*m* mapped by *n* page tables, in order; returns them."""
    pmaps = [vm.pmap.pinit() for _ in range(n)]
    for p in pmaps:
        vm.pmap.enter(p, PAGE, m, prot, False)
    return pmaps


def bits(m):
    return ["r" * p.referenced + "m" * p.modified + "w" * p.writeable for p in m.mappings()]


def test_enter(vm, m, pmap):
    vm.pmap.enter(pmap, 3 * PAGE + 17, m, RO, False)
    (pv,) = m.mappings()
    assert (pv.pmap, pv.va, pv.m) == (pmap, 3 * PAGE, m)
    assert (pv.referenced, pv.modified, pv.writeable, pv.wired) == (True, False, False, False)
    assert flag_names(m.flags) == ["BUSY", "MAPPED"]
    assert (pmap.resident_count, pmap.wired_count) == (1, 0)
    assert vm.pmap.extract(pmap, 3 * PAGE) is m
    assert vm.pmap.extract(pmap, 4 * PAGE) is None
    assert not vm.pmap.prefault_ok(pmap, 3 * PAGE)
    assert vm.pmap.prefault_ok(pmap, 4 * PAGE)


def test_enter_writeable_and_wired(vm, m, pmap):
    vm.pmap.enter(pmap, PAGE, m, RW, True)
    assert flag_names(m.flags) == ["BUSY", "MAPPED", "WRITEABLE"]
    assert (pmap.resident_count, pmap.wired_count) == (1, 1)


def test_entering_the_same_again_changes_nothing(vm, m, pmap):
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    vm.pmap.access(pmap, PAGE, True, 0, 1)
    vm.pmap.ts_referenced(m)
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    assert bits(m) == ["mw"]
    assert m.dirty == 0
    assert pmap.resident_count == 1


def test_entering_with_other_protection_moves_it_to_the_tail_and_keeps_the_news(vm, m):
    a, b = chain(vm, m, 2)
    vm.pmap.access(a, PAGE, True, 0, 1)
    vm.pmap.enter(a, PAGE, m, RO, False)
    assert [p.pmap for p in m.mappings()] == [b, a]
    assert bits(m) == ["rw", "r"]
    assert m.dirty == 255
    assert m.flags & PG_REFERENCED
    assert a.resident_count == 1


def test_entering_another_page_replaces_the_old_one(vm, obj, m, pmap):
    other = vm.page.alloc(obj, 6, 1)
    vm.pmap.enter(pmap, PAGE, m, RW, True)
    vm.pmap.access(pmap, PAGE, True, 0, 1)
    vm.pmap.enter(pmap, PAGE, other, RO, False)
    assert vm.pmap.extract(pmap, PAGE) is other
    assert list(m.mappings()) == []
    assert m.dirty == 255
    assert not m.flags & (PG_MAPPED | PG_WRITEABLE)
    assert (pmap.resident_count, pmap.wired_count) == (1, 0)


# -- the hardware


def test_access_needs_an_entry_and_for_writing_a_writeable_one(vm, m, pmap):
    assert vm.pmap.access(pmap, PAGE, False, 0) == MISS
    vm.pmap.enter(pmap, PAGE, m, RO, False)
    assert vm.pmap.access(pmap, PAGE + 100, False, 0) == 0
    assert vm.pmap.access(pmap, PAGE, True, 0, 5) == MISS
    assert bits(m) == ["r"]
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    assert vm.pmap.access(pmap, PAGE, True, 0, 5) == 5
    assert vm.pmap.access(pmap, PAGE, False, 0) == 5
    assert vm.pmap.access(pmap, PAGE, False, 1) == 0
    assert bits(m) == ["rmw"]
    vm.pmap.remove_all(m)
    assert vm.pmap.access(pmap, PAGE, False, 0) == MISS


def test_reading_sets_referenced_only(vm, m, pmap):
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    vm.pmap.clear_reference(m)
    assert bits(m) == ["w"]
    vm.pmap.access(pmap, PAGE, False, 0)
    assert bits(m) == ["rw"]


# -- referenced and modified


def test_ts_referenced_stops_after_the_fifth(vm, m):
    chain(vm, m, 8)
    assert vm.pmap.ts_referenced(m) == 5
    assert bits(m) == ["w"] * 5 + ["rw"] * 3
    assert vm.pmap.ts_referenced(m) == 3
    assert vm.pmap.ts_referenced(m) == 0


def test_clear_reference_and_modify_have_no_limit(vm, m):
    for p in chain(vm, m, 8):
        vm.pmap.access(p, PAGE, True, 0, 1)
    vm.pmap.clear_reference(m)
    assert bits(m) == ["mw"] * 8
    assert vm.pmap.is_modified(m)
    vm.pmap.clear_modify(m)
    assert bits(m) == ["w"] * 8
    assert not vm.pmap.is_modified(m)
    assert m.dirty == 0


def test_fictitious_pages_have_no_news(vm, m, pmap):
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    vm.pmap.access(pmap, PAGE, True, 0, 1)
    m.flags |= PG_FICTITIOUS
    assert vm.pmap.ts_referenced(m) == 0
    assert not vm.pmap.is_modified(m)
    assert not vm.pmap.page_exists_quick(pmap, m)
    vm.pmap.clear_reference(m)
    vm.pmap.clear_modify(m)
    vm.page.protect(m, VM_PROT_READ)
    assert bits(m) == ["rmw"]
    assert not m.flags & PG_WRITEABLE


def test_page_exists_quick_looks_at_the_first_sixteen(vm, m):
    pmaps = chain(vm, m, 18)
    found = [vm.pmap.page_exists_quick(p, m) for p in pmaps]
    assert found == [True] * 16 + [False] * 2


# -- lowering protection


def test_protect_to_none(vm, m):
    a, b, c = chain(vm, m, 3)
    vm.pmap.clear_reference(m)
    vm.pmap.access(b, PAGE, True, 0, 1)
    vm.page.protect(m, VM_PROT_NONE)
    assert list(m.mappings()) == []
    assert (m.dirty, flag_names(m.flags)) == (255, ["BUSY", "REFERENCED"])
    assert [p.resident_count for p in (a, b, c)] == [0, 0, 0]
    assert not a.ptes


def test_protect_to_read_looks_at_writeable_mappings_only(vm, m):
    a, b, c = chain(vm, m, 3)
    vm.pmap.protect(b, PAGE, 2 * PAGE, RO)
    next(p for p in m.mappings() if p.pmap is b).bits |= PTE_M
    assert m.dirty == 0
    vm.pmap.access(c, PAGE, False, 0)
    vm.page.protect(m, VM_PROT_READ)
    assert bits(m) == ["r", "m", "r"]
    assert (m.dirty, flag_names(m.flags)) == (0, ["BUSY", "MAPPED", "REFERENCED"])
    vm.pmap.enter(a, PAGE, m, RW, False)
    vm.pmap.access(a, PAGE, True, 0, 1)
    vm.page.protect(m, VM_PROT_READ)
    assert m.dirty == 255
    assert "w" not in "".join(bits(m))


def test_protect_does_nothing_without_cause(vms, recorder):
    vm = vms.make(recorder)
    m = vm.page.alloc(None, 0, 1)
    pmap = vm.pmap.pinit()
    vm.pmap.enter(pmap, PAGE, m, RO, False)
    recorder.log.clear()
    vm.page.protect(m, VM_PROT_READ)
    vm.page.protect(m, RW)
    assert recorder.of("write", "atomic", "lock_acquired") == []
    vm.page.wakeup(m)
    with pytest.raises(Panic) as got:
        vm.page.protect(m, VM_PROT_NONE)
    assert got.value.code == "protect-unbusied"


def test_flags_stay_until_the_last_mapping_is_gone(vm, m):
    a, b = chain(vm, m, 2)
    vm.pmap.remove(a, 0, 2 * PAGE)
    assert m.flags & (PG_MAPPED | PG_WRITEABLE) == PG_MAPPED | PG_WRITEABLE
    assert [p.pmap for p in m.mappings()] == [b]
    vm.pmap.remove(b, 0, 2 * PAGE)
    assert not m.flags & (PG_MAPPED | PG_WRITEABLE)


# -- ranges


def test_remove_range_in_address_order_for_pages_in_any_state(vms, recorder):
    vm = vms.make(recorder)
    pmap = vm.pmap.pinit()
    pages = [vm.page.alloc(None, i, 1) for i in range(6)]
    for i in (3, 0, 5, 1, 4, 2):
        vm.pmap.enter(pmap, i * PAGE, pages[i], RW, i == 2)
    vm.page.wakeup(pages[2])
    gone = []
    real = vm.pmap.pv_free
    vm.pmap.pv_free = lambda pv: (gone.append(pv.va // PAGE), real(pv))
    pmap.map = "the map"
    vm.pmap.remove(pmap, PAGE, 5 * PAGE)
    assert gone == [1, 2, 3, 4]
    assert (pmap.resident_count, pmap.wired_count) == (2, 0)
    facts = [f for _, a, f in recorder.of("call") if a[1] == "pmap_remove"]
    assert facts == [{"map": "the map", "start": PAGE, "end": 5 * PAGE}]
    vm.pmap.remove(pmap, 0, 1 << 47)
    assert gone[4:] == [0, 5]
    vm.pmap.release(pmap)


def test_protect_range_moves_the_news_to_the_page(vm, m, pmap):
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    vm.pmap.access(pmap, PAGE, True, 0, 1)
    vm.pmap.protect(pmap, 0, PAGE, RO)
    assert bits(m) == ["rmw"]
    vm.pmap.protect(pmap, 0, 2 * PAGE, RW)
    assert bits(m) == ["rmw"]
    vm.pmap.protect(pmap, 0, 2 * PAGE, RO)
    assert bits(m) == [""]
    assert (m.dirty, m.flags & PG_REFERENCED) == (255, PG_REFERENCED)
    assert m.flags & PG_WRITEABLE, "only a page-wide protect takes this flag away"
    vm.pmap.protect(pmap, 0, 2 * PAGE, VM_PROT_NONE)
    assert bits(m) == []


def test_wiring_bit(vm, m, pmap):
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    for wired, count in ((True, 1), (True, 1), (False, 0), (False, 0)):
        vm.pmap.change_wiring(pmap, PAGE, wired)
        assert pmap.wired_count == count
    vm.pmap.change_wiring(pmap, 9 * PAGE, False)  # gone meanwhile: the C clears an empty word
    assert (pmap.wired_count, pmap.pm_token.held()) == (0, False)
    with pytest.raises(Panic):
        vm.pmap.change_wiring(pmap, 9 * PAGE, True)


def test_release_drops_everything_and_checks(vm, m, pmap):
    vm.pmap.enter(pmap, PAGE, m, RW, True)
    vm.pmap.release(pmap)
    assert bits(m) == []
    pmap.wired_count = 1
    with pytest.raises(Panic) as got:
        vm.pmap.release(pmap)
    assert got.value.code == "pmap-release-wired"


def test_unmanaged_pages_are_mapped_but_not_listed(vm, m, pmap):
    vm.page.unmanage(m)
    vm.pmap.enter(pmap, PAGE, m, RO, True)
    assert list(m.mappings()) == []
    assert not m.flags & PG_MAPPED
    assert (pmap.resident_count, pmap.wired_count) == (1, 1)
    assert vm.pmap.access(pmap, PAGE, False, 0) == 0
    vm.pmap.remove(pmap, 0, 2 * PAGE)
    assert (pmap.resident_count, pmap.wired_count) == (0, 0)
    assert not m.flags & PG_REFERENCED


def test_managed_over_unmanaged_panics(vm, obj, m, pmap):
    vm.page.unmanage(m)
    vm.pmap.enter(pmap, PAGE, m, RO, False)
    with pytest.raises(Panic) as got:
        vm.pmap.enter(pmap, PAGE, vm.page.alloc(obj, 6, 1), RO, False)
    assert got.value.code == "pte-managed"


def test_fault_page_quick_holds_what_it_returns(vm, m, pmap):
    assert vm.pmap.fault_page_quick(pmap, PAGE, RO) is None
    vm.pmap.enter(pmap, PAGE, m, RO, False)
    assert vm.pmap.fault_page_quick(pmap, PAGE, RW) is None
    assert vm.pmap.fault_page_quick(pmap, PAGE, RO) is m
    assert (m.hold_count, m.dirty) == (1, 0)
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    assert vm.pmap.fault_page_quick(pmap, PAGE, RW) is m
    assert (m.hold_count, m.dirty) == (2, 255)


# -- prefault at mmap


class Proc:
    killed = False

    class p_vmspace:
        vm_pmap = None


@pytest.fixture
def running(vm, pmap):
    td = vm.k.curthread()
    Proc.p_vmspace.vm_pmap = pmap
    td.proc = Proc
    yield td
    td.proc = None


def test_object_init_pt_maps_what_is_resident_and_valid(vm, obj, pmap, running):
    obj.type = OBJT_VNODE
    pages = {i: vm.page.alloc(obj, i, 1) for i in (2, 3, 5, 6)}
    for i, m in pages.items():
        m.valid = 255 if i != 3 else 1
        if i != 5:
            vm.page.wakeup(m)
    vm.pmap.object_init_pt(pmap, 64 * PAGE, RO, obj, 2, 5 * PAGE, 0)
    assert sorted(va // PAGE for va in pmap.ptes) == [64, 68]
    assert not pages[2].flags & (PG_BUSY | PG_WRITEABLE)


def test_object_init_pt_is_for_files_of_the_running_process(vm, obj, pmap, running):
    m = vm.page.alloc(obj, 2, 1)
    m.valid = 255
    vm.page.wakeup(m)
    vm.pmap.object_init_pt(pmap, 64 * PAGE, RO, obj, 2, PAGE, 0)
    assert not pmap.ptes
    obj.type = OBJT_VNODE
    other = vm.pmap.pinit()
    vm.pmap.object_init_pt(other, 64 * PAGE, RO, obj, 2, PAGE, 0)
    vm.pmap.object_init_pt(pmap, 64 * PAGE, VM_PROT_NONE, obj, 2, PAGE, 0)
    assert not pmap.ptes
    assert not other.ptes


# -- on several threads


def test_access_follows_an_entry_that_changes_its_page_at_the_last_moment(vm, obj, m, pmap):
    other = vm.page.alloc(obj, 6, 1)
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    mmu = vm.pmap.mmu
    stripe = m.idx % mmu.STRIPES
    assert stripe != other.idx % mmu.STRIPES
    real = mmu._locks[stripe]

    class Late:
        """Stands for another thread that replaces the page just before we get the lock."""

        def __enter__(self):
            mmu._locks[stripe] = real
            vm.pmap.enter(pmap, PAGE, other, RW, False)
            real.acquire()

        def __exit__(self, *_):
            real.release()

    mmu._locks[stripe] = Late()
    assert vm.pmap.access(pmap, PAGE, True, 0, 7) == 7
    assert (m.contents, other.contents) == (None, {0: 7})


def test_who_waited_for_an_entry_that_is_freed_finds_none(vms):
    vm = vms.make()
    m, pmap = vm.page.alloc(None, 0, 1), vm.pmap.pinit()
    vm.pmap.enter(pmap, PAGE, m, RW, False)
    pv = vm.pmap.pv_get(pmap, PAGE)
    got = []
    td = vm.k.spawn("waiter", lambda: got.append(vm.pmap.pv_get(pmap, PAGE)))
    deadline = time.monotonic() + 10
    while td.wmesg != "pvwait":
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    vm.pmap.remove_pv_pte(pv)
    vm.pmap.remove_pv_page(pv)
    vm.pmap.pv_free(pv)
    assert vm.k.carrier.join(10) == []
    assert got == [None]
    assert pv.hold == 0


@pytest.mark.parametrize("spin_pool", [8192, 1])
def test_no_store_is_lost_when_mappings_come_and_go(vms, spin_pool):
    """Writers fault their page back in; a reaper takes it away: each store is seen as dirty."""
    vm = vms.make(spin_pool=spin_pool)
    obj = vm.object.allocate(OBJT_DEFAULT, 10)
    vm.object.hold(obj)
    m = vm.page.alloc(obj, 0, 1)
    vm.object.drop(obj)
    vm.page.wakeup(m)
    pmaps = [vm.pmap.pinit() for _ in range(3)]
    done = []

    def writer(n):
        def body():
            for i in range(1, 120):
                while vm.pmap.access(pmaps[n], PAGE, True, n, i) == MISS:
                    vm.page.busy_wait(m, False, "fault")
                    vm.pmap.enter(pmaps[n], PAGE, m, RW, False)
                    vm.page.wakeup(m)
            done.append(n)

        return body

    def reaper():
        while len(done) < 3:
            vm.page.busy_wait(m, False, "reap")
            vm.page.undirty(m)
            vm.page.protect(m, VM_PROT_NONE)
            snapshot = vm.pmap.read_contents(m)
            vm.page.wakeup(m)
            vm.k.carrier.yield_()
            vm.page.busy_wait(m, False, "reap")
            vm.page.test_dirty(m)
            changed = vm.pmap.read_contents(m) != snapshot
            assert m.dirty or vm.pmap.is_modified(m) or not changed
            vm.page.wakeup(m)

    def leaver():
        while len(done) < 3:
            vm.pmap.remove(pmaps[1], 0, 4 * PAGE)
            vm.k.carrier.yield_()

    vms.run(vm, *[writer(n) for n in range(3)], reaper, leaver)
    assert m.contents == {0: 119, 1: 119, 2: 119}
    for p in pmaps:
        vm.pmap.release(p)
    assert not m.flags & (PG_MAPPED | PG_WRITEABLE | PG_UNMANAGED)


def test_two_threads_entering_the_same_address_leave_one_mapping(vms):
    vm = vms.make()
    pmap = vm.pmap.pinit()
    pages = [vm.page.alloc(None, i, 1) for i in range(2)]

    def body(m):
        def run():
            for i in range(60):
                vm.pmap.enter(pmap, PAGE, m, RW if i % 2 else RO, False)

        return run

    vms.run(vm, body(pages[0]), body(pages[1]))
    assert sum(len(list(m.mappings())) for m in pages) == 1
    assert (pmap.resident_count, len(pmap.ptes)) == (1, 1)
    mapped = vm.pmap.extract(pmap, PAGE)
    assert [bool(m.flags & PG_MAPPED) for m in pages] == [m is mapped for m in pages]


def test_probed_and_bare_hardware_agree(vms, recorder):
    for observers in ((), (recorder,)):
        vm = vms.make(*observers)
        m, pmap = vm.page.alloc(None, 0, 1), vm.pmap.pinit()
        vm.pmap.enter(pmap, PAGE, m, RW, False)
        vm.pmap.clear_reference(m)
        assert vm.pmap.access(pmap, PAGE, True, 4, 7) == 7
        assert vm.pmap.access(pmap, PAGE, False, 4) == 7
        assert bits(m) == ["rmw"]
        vm.pmap.protect(pmap, 0, 2 * PAGE, RO)
        assert bits(m) == [""]
        assert vm.pmap.access(pmap, PAGE, True, 4, 8) == MISS
    seen = [(a[2], a[3], a[4]) for _, a, _ in recorder.of("atomic") if a[2] == "bits"]
    assert any(new & PTE_A and not old & PTE_A for _, old, new in seen)
