"""The allocator: colours, reserve levels, recycling of the cache queue."""

import pytest

from smpvm.kern.thread import TDF_SYSTHREAD, Panic
from smpvm.vm.page.pages import (
    PG_BUSY,
    PG_NEED_COMMIT,
    PG_REFERENCED,
    VM_ALLOC_FORCE_ZERO,
    VM_ALLOC_INTERRUPT,
    VM_ALLOC_NORMAL,
    VM_ALLOC_NULL_OK,
    VM_ALLOC_QUICK,
    VM_ALLOC_RETRY,
    VM_ALLOC_SYSTEM,
    VM_ALLOC_ZERO,
)
from smpvm.vm.param import OBJT_DEFAULT


@pytest.fixture
def obj(vm):
    return vm.object.allocate_hold(OBJT_DEFAULT, 1000)


def drain(vm, keep=0):
    """Take all but *keep* free pages."""
    taken = []
    while vm.stats.v_free_count > keep:
        taken.append(vm.page.alloc(None, 0, VM_ALLOC_INTERRUPT))
    return taken


# -- the colour search


def test_first_choice_is_the_head_of_the_asked_colour_and_prefer_zero_its_tail(vm):
    q = vm.queues[vm.pq.FREE + 2]
    head, tail = q.head, q.tail
    a = vm.page.list_find(vm.pq.FREE, 2, False)
    vm.page.spin_unlock(a)
    b = vm.page.list_find(vm.pq.FREE, 2, True)
    assert (a, b) == (head, tail)
    assert (a.queue, a.flags) == (0, 0)
    assert vm.page.pool.held_by(b, vm.k.curthread())


def test_search_widens_in_sets(vms):
    """16 colours, windows of 4: from colour 5 first 5 6 7 4, then the eight 0..7, then all."""
    vm = vms.make(pages=256, pq_l2_size=16)
    vm.pq = type(vm.pq)(16, 4)
    order = []
    for q in vm.queues[vm.pq.FREE : vm.pq.FREE + 16]:
        while q.lcnt > 1:
            vm.page.unqueue(q.head)
    while (m := vm.page.list_find(vm.pq.FREE, 5, False)) is not None:
        vm.page.spin_unlock(m)
        order.append(m.pc)
    assert order == [5, 6, 7, 4, 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("colours", [1, 2, 4, 16, 256])
def test_every_page_is_found_with_any_number_of_colours(vms, colours):
    vm = vms.make(pages=300, pq_l2_size=colours)
    assert len({m.idx for m in drain(vm)}) == 300
    assert vm.page.list_find(vm.pq.FREE, 0, False) is None


def test_page_that_moved_between_look_and_lock_is_passed_over(vm):
    q = vm.queues[vm.pq.FREE + 1]
    first, second = q.head, q.head.q_next
    real, raced = vm.page.and_queue_spin_lock, []

    def racing(m):
        if not raced:
            raced.append(m)
            vm.page.unqueue_nowakeup(m)
        real(m)

    vm.page.and_queue_spin_lock = racing
    # The race comes before the locks: unqueue takes them itself, so go through the real ones.
    vm.page.unqueue_nowakeup = lambda m: (
        real(m),
        vm.page.rem_queue_spinlocked(m),
        vm.page.spin_unlock(m),
    )
    assert vm.page.list_find(vm.pq.FREE, 1, False) is second
    assert raced == [first]


def test_unknown_topology_spreads_colours_over_cpus(vms):
    vm = vms.make(pq_l2_size=16, ncpus=4)
    assert [vm.page.get_pg_color(c, None, 3) for c in range(4)] == [3, 7, 11, 15]


def test_topology_gives_each_core_its_own_set(vms):
    vm = vms.make(pages=64, pq_l2_size=256, ncpus=8, phys_ids=2, core_ids=4)
    color = vm.page.get_pg_color
    assert [color(c, None, 0) for c in range(8)] == [0, 32, 64, 96, 128, 160, 192, 224]
    assert color(1, None, 33) == 33
    vm = vms.make(pages=64, pq_l2_size=64, ncpus=8, phys_ids=2, core_ids=4)
    color = vm.page.get_pg_color
    assert [color(c, None, 1) for c in range(8)] == [1, 17, 1, 17, 33, 49, 33, 49]


# -- selecting


def test_select_free_moves_a_busy_page_out_of_the_way(vm, audit):
    head = vm.queues[vm.pq.FREE + 1].head
    vm.page.busy_try(head, False)
    m = vm.page.select_free(1, False)
    assert m is not head
    assert m.flags & PG_BUSY
    assert vm.pq.base(head.queue) == vm.pq.INACTIVE
    audit(vm)


@pytest.mark.parametrize("what", ["hold_count", "wire_count"])
def test_held_or_wired_page_on_the_free_queue_panics(vm, what):
    setattr(vm.queues[vm.pq.FREE + 1].head, what, 1)
    with pytest.raises(Panic) as got:
        vm.page.select_free(1, False)
    assert got.value.code == "alloc-held-or-wired"


def test_select_cache_deactivates_what_it_cannot_use(vm, audit):
    pages = [m for m in vm.page_array if m.pc == 1][:5]
    for m in pages:
        vm.page.busy_try(m, True)
        vm.page.unqueue(m)
        vm.page.cache(m)
    vm.page.busy_try(pages[0], True)
    pages[1].hold_count = 1
    pages[2].flags |= PG_NEED_COMMIT
    pages[3].valid = pages[3].dirty = 4
    assert vm.page.select_cache(1) is pages[4]
    assert [m.flags & PG_BUSY for m in pages] == [1, 0, 0, 0, 1]
    assert [vm.pq.base(m.queue) for m in pages] == [vm.pq.INACTIVE] * 4 + [0]
    audit(vm)
    assert vm.page.select_cache(1) is None


# -- allocating


def test_alloc_gives_a_busied_fresh_page_at_its_place(vm, obj, audit):
    head = vm.queues[vm.pq.FREE + (obj.pg_color + 7) % 4].head
    head.act_count, head.flags = 9, PG_REFERENCED
    m = vm.page.alloc(obj, 7, VM_ALLOC_NORMAL)
    assert m is head
    assert (m.object, m.pindex, m.flags, m.act_count, m.valid, m.queue) == (
        obj,
        7,
        PG_BUSY,
        0,
        0,
        0,
    )
    audit(vm)


def test_zero_requests_take_the_tail(vm):
    for bit in (VM_ALLOC_ZERO, VM_ALLOC_FORCE_ZERO):
        tail = vm.queues[vm.pq.FREE + 3].tail
        assert vm.page.alloc(None, 3, VM_ALLOC_NORMAL | bit) is tail


@pytest.mark.parametrize(
    ("request_", "stops_at"),
    [
        (VM_ALLOC_NORMAL, 19),
        (VM_ALLOC_QUICK, 19),
        (VM_ALLOC_SYSTEM, 4),
        (VM_ALLOC_INTERRUPT, 0),
    ],
)
def test_reserve_levels(vm, request_, stops_at):
    vm.stats.v_free_reserved, vm.stats.v_interrupt_free_min = 20, 4
    while vm.page.alloc(None, 0, request_) is not None:
        pass
    assert vm.stats.v_free_count == stops_at
    assert vm.glob.vm_pageout_deficit == 1


def test_a_system_thread_digs_as_deep_as_system(vm):
    vm.stats.v_free_reserved, vm.stats.v_interrupt_free_min = 20, 4
    vm.k.curthread().flags |= TDF_SYSTHREAD
    while vm.page.alloc(None, 0, VM_ALLOC_NORMAL) is not None:
        pass
    assert vm.stats.v_free_count == 4


def test_request_must_name_a_source(vm):
    with pytest.raises(Panic):
        vm.page.alloc(None, 0, VM_ALLOC_ZERO)


def cached(vm, obj, pindex, n=1):
    m = vm.page.alloc(obj, pindex, VM_ALLOC_NORMAL)
    vm.page.cache(m)
    return m


def test_normal_recycles_the_cache_and_quick_does_not(vm, obj, audit):
    m = cached(vm, obj, 7)
    vm.stats.v_free_reserved = vm.stats.v_free_count + 1
    assert vm.page.alloc(None, 0, VM_ALLOC_QUICK) is None
    assert m.object is obj
    got = vm.page.alloc(None, m.pc, VM_ALLOC_NORMAL)
    assert got is m
    assert (m.object, obj.resident_page_count) == (None, 0)
    audit(vm)


def test_system_may_not_dig_while_there_is_cache(vm, obj):
    cached(vm, obj, 7)
    vm.stats.v_free_reserved = vm.stats.v_free_count + 1
    assert vm.page.alloc(None, 0, VM_ALLOC_SYSTEM) is None


def test_cache_page_of_a_locked_object_is_deactivated_instead(vms, audit):
    vm = vms.make()
    obj = vm.object.allocate_hold(OBJT_DEFAULT, 10)
    m = cached(vm, obj, 7)
    vm.stats.v_free_reserved = vm.stats.v_free_count + 1
    got = []
    vms.run(vm, lambda: got.append(vm.page.alloc(None, 0, VM_ALLOC_NORMAL)))
    assert got == [None]
    assert vm.pq.base(m.queue) == vm.pq.INACTIVE
    assert (m.object, m.flags & PG_BUSY) == (obj, 0)
    audit(vm)


def test_dirty_page_on_the_cache_queue_panics(vm, obj):
    m = cached(vm, obj, 7)
    m.dirty = 1
    vm.stats.v_free_reserved = vm.stats.v_free_count + 1
    with pytest.raises(Panic) as got:
        vm.page.alloc(None, 0, VM_ALLOC_NORMAL)
    assert got.value.code == "cache-dirty"


def test_collision(vm, obj, audit):
    vm.page.alloc(obj, 7, VM_ALLOC_NORMAL)
    free = vm.stats.v_free_count
    assert vm.page.alloc(obj, 7, VM_ALLOC_NORMAL | VM_ALLOC_NULL_OK) is None
    assert vm.stats.v_free_count == free
    audit(vm)
    with pytest.raises(Panic) as got:
        vm.page.alloc(obj, 7, VM_ALLOC_NORMAL)
    assert got.value.code == "alloc-collision"


def test_dirty_free_page_panics(vm):
    vm.queues[vm.pq.FREE + 1].head.dirty = 1
    with pytest.raises(Panic) as got:
        vm.page.alloc(None, 1, VM_ALLOC_NORMAL)
    assert got.value.code == "alloc-dirty"


def test_contents_outlive_free_and_alloc_like_any_memory(vm):
    m = vm.page.alloc(None, 0, VM_ALLOC_NORMAL)
    m.contents = {3: 99}
    vm.page.free(m)
    assert vm.page.alloc(None, m.pc, VM_ALLOC_NORMAL) is m
    assert m.contents == {3: 99}


# -- grab


def test_grab_finds_or_makes(vm, obj):
    vm.object.drop(obj)
    m = vm.page.grab(obj, 7, VM_ALLOC_NORMAL)
    assert (m.object, m.valid, m.flags & PG_BUSY) == (obj, 0, 1)
    m.contents = {0: 1}
    vm.page.wakeup(m)
    assert vm.page.grab(obj, 7, VM_ALLOC_NORMAL | VM_ALLOC_ZERO) is m
    assert (m.valid, m.contents) == (255, None)
    m.contents = {0: 1}
    vm.page.wakeup(m)
    assert vm.page.grab(obj, 7, VM_ALLOC_NORMAL | VM_ALLOC_ZERO) is m
    assert m.contents == {0: 1}
    vm.page.wakeup(m)
    assert vm.page.grab(obj, 7, VM_ALLOC_NORMAL | VM_ALLOC_FORCE_ZERO) is m
    assert m.contents is None
    assert obj.hold_count == 0


def test_grab_with_retry_waits_for_a_busy_page(vms):
    vm = vms.make()
    obj = vm.object.allocate(OBJT_DEFAULT, 10)
    m = vm.page.grab(obj, 7, VM_ALLOC_NORMAL)
    got = []

    def grabber():
        got.append(vm.page.grab(obj, 7, VM_ALLOC_NORMAL | VM_ALLOC_RETRY))

    def owner():
        while not m.flags & PG_REFERENCED:
            vm.k.carrier.yield_()
        vm.page.wakeup(m)

    vms.run(vm, grabber, owner)
    assert got == [m]


def test_grab_without_retry_uses_a_null_page_after_a_busy_one_as_the_c_does(vms):
    vm = vms.make()
    obj = vm.object.allocate(OBJT_DEFAULT, 10)
    m = vm.page.grab(obj, 7, VM_ALLOC_NORMAL)
    got = []

    def grabber():
        with pytest.raises(Panic) as panic:
            vm.page.grab(obj, 7, VM_ALLOC_NORMAL)
        got.append((panic.value.code, panic.value.kind))
        vm.object.drop(obj)

    def owner():
        while not m.flags & PG_REFERENCED:
            vm.k.carrier.yield_()
        vm.page.wakeup(m)

    vms.run(vm, grabber, owner)
    assert got == [("null-page", "fault")]


# -- repurpose


def test_repurpose_moves_a_simple_wired_page(vm, obj):
    other = vm.object.allocate_hold(OBJT_DEFAULT, 10)
    m = vm.page.alloc(other, 1, VM_ALLOC_NORMAL)
    vm.page.wire(m)
    vm.page.wakeup(m)
    assert vm.page.repurpose(obj, 5, False, m) == (m, False, False, True)
    assert (m.object, m.pindex, m.wire_count) == (obj, 5, 1)


def test_repurpose_lets_go_of_what_it_cannot_use(vm, obj):
    m = vm.page.alloc(None, 1, VM_ALLOC_NORMAL)
    vm.page.wire(m)
    m.dirty = 1
    vm.page.wakeup(m)
    assert vm.page.repurpose(obj, 5, False, m) == (None, False, True, False)
    assert (m.wire_count, m.flags & PG_BUSY) == (0, 0)
    assert vm.pq.base(m.queue) == vm.pq.INACTIVE
