"""Freeing, caching, and the madvise hint."""

import pytest

from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import (
    PG_BUSY,
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_NEED_COMMIT,
    PG_REFERENCED,
    PG_UNMANAGED,
    PG_WANTED,
    flag_names,
)
from smpvm.vm.param import OBJT_DEFAULT, VM_PROT_READ, VM_PROT_WRITE

RW = VM_PROT_READ | VM_PROT_WRITE


@pytest.fixture
def obj(vm):
    return vm.object.allocate_hold(OBJT_DEFAULT, 100)


@pytest.fixture
def m(vm, obj):
    """A busied, valid page of an object, on no queue."""
    m = vm.page.alloc(obj, 5, 1)
    m.valid = 255
    return m


def base(vm, m):
    return vm.pq.base(m.queue)


def test_free_leaves_object_and_queue_and_forgets_the_state(vm, obj, m, audit):
    vm.page.activate(m)
    m.dirty = 255
    m.flags |= PG_UNMANAGED | PG_NEED_COMMIT
    vm.page.free(m)
    assert (m.object, m.valid, m.dirty, m.flags) == (None, 0, 0, 0)
    assert vm.queues[m.queue].head is m
    assert base(vm, m) == vm.pq.FREE
    assert vm.k.curthread().cnt["v_tfree"] == 1
    audit(vm)


def test_free_wakes_who_waits_for_the_page(vms, recorder):
    vm = vms.make(recorder)
    m = vm.page_array[7]
    vm.page.unqueue(m)
    vm.page.busy_try(m, True)
    m.flags |= PG_WANTED
    vm.page.free(m)
    assert [a[1] for _, a, _ in recorder.of("wakeup")] == [m]


def test_fictitious_page_is_only_let_go(vm, m):
    m.flags |= PG_FICTITIOUS
    vm.page.free(m)
    assert (m.object, m.queue, m.valid, m.flags) == (None, 0, 255, PG_FICTITIOUS)


def test_free_refuses(vms, recorder):
    vm = vms.make(recorder)

    def code(prepare):
        m = vm.page.alloc(None, 0, 1)
        prepare(m)
        with pytest.raises(Panic) as got:
            vm.page.free(m)
        return got.value.code

    def wire(m):
        m.wire_count = 1

    assert code(lambda m: vm.page.flag_set(m, PG_MAPPED)) == "free-mapped"
    assert code(lambda m: vm.page.io_start(m)) == "free-softbusy"
    assert code(wire) == "free-wired"

    def refree(m):
        vm.page.free(m)
        vm.page.busy_try(m, True)

    recorder.log.clear()
    assert code(refree) == "free-free"
    said = [f for _, a, f in recorder.of("call") if a[1] == "kprintf"]
    assert [(f["code"], f["busy"], f["pg_busy"], f["hold"]) for f in said] == [
        ("free-refused", 0, 1, 0)
    ]


def test_cache(vm, m, audit):
    vm.page.activate(m)
    vm.page.cache(m)
    assert base(vm, m) == vm.pq.CACHE
    assert m.flags == 0
    assert m.object is not None
    vm.page.busy_try(m, True)
    vm.page.cache(m)
    assert m.flags == 0
    audit(vm)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda vm, m: vm.page.hold(m),
        lambda vm, m: vm.page.wire(m),
        lambda vm, m: vm.page.io_start(m),
        lambda vm, m: vm.page.flag_set(m, PG_NEED_COMMIT),
        lambda vm, m: vm.page.flag_set(m, PG_UNMANAGED),
    ],
)
def test_cache_refuses_quietly_and_releases(vms, recorder, spoil):
    vm = vms.make(recorder)
    m = vm.page.alloc(None, 0, 1)
    vm.page.activate(m)
    spoil(vm, m)
    queue = m.queue
    vm.page.cache(m)
    assert m.queue == queue
    assert not m.flags & PG_BUSY
    assert [f["code"] for _, _, f in recorder.of("call")] == ["cache-busy-held"]


def test_page_that_proves_dirty_when_unmapped_is_deactivated(vm, m):
    pmap = vm.pmap.pinit()
    vm.pmap.enter(pmap, 0x4000, m, RW, False)
    vm.pmap.access(pmap, 0x4000, True, 0, 1)
    vm.page.activate(m)
    vm.page.cache(m)
    assert (base(vm, m), m.dirty, flag_names(m.flags)) == (vm.pq.INACTIVE, 255, ["REFERENCED"])


def test_dirty_or_mapped_pages_may_not_be_cached(vm, m):
    m.dirty = 1
    with pytest.raises(Panic) as got:
        vm.page.cache(m)
    assert got.value.code == "cache-dirty"
    m.dirty = 0
    vm.page.cache(m)
    vm.page.busy_try(m, True)
    m.flags |= PG_MAPPED
    with pytest.raises(Panic) as got:
        vm.page.cache(m)
    assert got.value.code == "cache-mapped"


@pytest.mark.parametrize("what", ["try_to_cache", "try_to_free"])
def test_tries(vm, m, what):
    attempt = getattr(vm.page, what)
    vm.page.activate(m)
    assert not attempt(m)
    vm.page.wakeup(m)
    for spoil in ({"dirty": 1}, {"hold_count": 1}, {"wire_count": 1}, {"flags": PG_NEED_COMMIT}):
        for name, value in spoil.items():
            old = getattr(m, name)
            setattr(m, name, value)
            assert not attempt(m)
            assert not m.flags & PG_BUSY
            setattr(m, name, old)
    m.flags = 0
    assert attempt(m)
    assert not m.flags & PG_BUSY
    assert base(vm, m) == (vm.pq.CACHE if what == "try_to_cache" else vm.pq.FREE)
    if what == "try_to_free":
        assert not attempt(m)


@pytest.mark.parametrize("what", ["try_to_cache", "try_to_free"])
def test_tries_find_modified_mappings(vm, m, what):
    pmap = vm.pmap.pinit()
    vm.pmap.enter(pmap, 0x4000, m, RW, False)
    vm.pmap.access(pmap, 0x4000, True, 0, 1)
    vm.page.wakeup(m)
    assert not getattr(vm.page, what)(m)
    assert m.dirty == 255
    assert not m.flags & PG_BUSY


@pytest.mark.parametrize("what", ["try_to_cache", "try_to_free"])
def test_a_store_between_the_dirty_test_and_the_unmapping_is_noticed(vm, m, what):
    pmap = vm.pmap.pinit()
    vm.pmap.enter(pmap, 0x4000, m, RW, False)
    vm.page.activate(m)
    vm.page.wakeup(m)
    real = vm.page.test_dirty

    def then_store(page):
        real(page)
        vm.pmap.access(pmap, 0x4000, True, 0, 1)

    vm.page.test_dirty = then_store
    getattr(vm.page, what)(m)
    assert m.object is not None
    assert (m.dirty, m.valid, m.flags & PG_BUSY) == (255, 255, 0)
    assert base(vm, m) == (vm.pq.INACTIVE if what == "try_to_cache" else vm.pq.ACTIVE)


def test_dontneed_mostly_goes_to_the_head(vm):
    page = vm.page
    heads = tails = left = 0
    m = vm.page_array[7]
    mark = next(p for p in vm.page_array if p.pc == m.pc and p is not m)
    page.deactivate(mark)
    page.busy_try(m, True)
    for _ in range(0x200):
        page.activate(m)
        m.flags |= PG_REFERENCED
        page.dontneed(m)
        if base(vm, m) == vm.pq.ACTIVE:
            left += 1
            assert m.act_count == 4
            assert m.flags & PG_REFERENCED
        else:
            assert not m.flags & PG_REFERENCED
            q = vm.queues[m.queue]
            heads += q.head is m
            tails += q.tail is m
    assert left == 16
    assert tails == 64 - 16
    assert heads == 0x200 - 64


def test_dontneed_leaves_inactive_pages_and_ages_them(vm, m):
    vm.page.deactivate(m)
    m.act_count = 5
    vm.page.dontneed(m)
    vm.page.dontneed(m)
    assert m.act_count == 4
    assert m.flags & PG_BUSY
