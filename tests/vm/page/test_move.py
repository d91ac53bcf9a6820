"""Pages between the queues, and the holds and wirings that keep them off."""

import pytest

from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import PG_BUSY, PG_FICTITIOUS, PG_NEED_COMMIT, PG_UNMANAGED, PG_WINATCFLS


@pytest.fixture
def m(vm):
    """A busied page on no queue."""
    m = vm.page_array[7]
    vm.page.unqueue(m)
    vm.page.busy_try(m, True)
    return m


def base(vm, m):
    return vm.pq.base(m.queue)


def test_activate_lifts_the_count_to_its_initial_value(vm, m, audit):
    m.act_count = 2
    vm.page.activate(m)
    assert (base(vm, m), m.act_count) == (vm.pq.ACTIVE, 5)
    m.act_count = 3
    vm.page.activate(m)
    assert m.act_count == 5
    m.act_count = 40
    vm.page.activate(m)
    assert m.act_count == 40
    audit(vm)


def test_activate_of_an_active_page_keeps_its_place(vm, audit):
    a, b = [m for m in vm.page_array if m.pc == 1][:2]
    vm.page.activate(a)
    vm.page.activate(b)
    vm.page.activate(a)
    assert list(vm.queues[vm.pq.ACTIVE + 1].pages()) == [a, b]
    audit(vm)


def test_a_page_taken_back_from_the_cache_is_a_reactivation(vm, m):
    vm.page.cache(m)
    before = vm.pageout.wakeups
    vm.page.activate(m)
    assert vm.k.curthread().cnt["v_reactivated"] == 1
    assert vm.pageout.wakeups == before + 1


def test_activate_leaves_wired_and_unmanaged_pages_off(vm, m):
    m.wire_count = 1
    vm.page.activate(m)
    assert (m.queue, m.act_count) == (0, 0)
    m.wire_count, m.flags = 0, PG_BUSY | PG_UNMANAGED
    vm.page.activate(m)
    assert m.queue == 0


def test_deactivate_goes_to_the_tail_and_at_head_to_the_head(vm, audit):
    a, b, c = [m for m in vm.page_array if m.pc == 1][:3]
    for m in (a, b):
        m.flags |= PG_WINATCFLS
        vm.page.deactivate(m)
        assert not m.flags & PG_WINATCFLS
    assert vm.glob.vm_swapcache_inactive_heuristic == 2
    vm.page.spin_lock(c)
    vm.page._deactivate_locked(c, True)
    vm.page.spin_unlock(c)
    assert vm.glob.vm_swapcache_inactive_heuristic == 2
    assert list(vm.queues[vm.pq.INACTIVE + 1].pages()) == [c, a, b]
    vm.page.deactivate(c)
    assert list(vm.queues[vm.pq.INACTIVE + 1].pages()) == [c, a, b]
    audit(vm)


def test_deactivating_a_wired_page_takes_it_off_its_queue(vm, m, audit):
    vm.page.activate(m)
    m.wire_count = 1
    vm.stats.v_wire_count = 1
    vm.page.deactivate(m)
    assert m.queue == 0
    audit(vm)


def test_unqueue_tells_the_daemon_only_of_free_and_cache(vm, m):
    vm.page.activate(m)
    vm.pageout.wakeups = 0
    vm.page.unqueue(m)
    vm.page.unqueue(m)
    assert vm.pageout.wakeups == 0
    vm.page.cache(m)
    vm.page.unqueue(m)
    assert vm.pageout.wakeups == 1
    vm.page.busy_try(m, True)
    vm.page.free(m)
    vm.page.unqueue_nowakeup(m)
    assert vm.pageout.wakeups == 1


def test_held_page_that_is_freed_waits_on_the_hold_queue(vm, m, audit):
    vm.page.hold(m)
    vm.page.hold(m)
    vm.page.free(m)
    assert base(vm, m) == vm.pq.HOLD
    audit(vm)
    vm.page.unhold(m)
    assert base(vm, m) == vm.pq.HOLD
    vm.page.unhold(m)
    assert base(vm, m) == vm.pq.FREE
    audit(vm)


def test_holding_a_free_page_takes_it_out_of_reach(vm, audit):
    m = vm.page_array[3]
    vm.page.hold(m)
    assert base(vm, m) == vm.pq.HOLD
    assert vm.stats.v_active_count == 1
    audit(vm)


@pytest.mark.parametrize("holds", [0, -1])
def test_unhold_of_an_unheld_page_panics(vm, m, holds):
    m.hold_count = holds
    with pytest.raises(Panic) as got:
        vm.page.unhold(m)
    assert got.value.code == "unhold-illegal"


def test_wire_counts_pages_not_wirings(vm, m, audit):
    vm.page.activate(m)
    vm.page.wire(m)
    vm.page.wire(m)
    assert (m.queue, m.wire_count, vm.stats.v_wire_count) == (0, 2, 1)
    vm.page.unwire(m, True)
    assert (m.queue, vm.stats.v_wire_count) == (0, 1)
    vm.page.unwire(m, True)
    assert (base(vm, m), vm.stats.v_wire_count) == (vm.pq.ACTIVE, 0)
    audit(vm)


def test_last_unwire_chooses_the_queue(vm, m):
    vm.page.wire(m)
    m.flags |= PG_WINATCFLS
    vm.page.unwire(m, False)
    assert base(vm, m) == vm.pq.INACTIVE
    assert not m.flags & PG_WINATCFLS
    vm.page.wire(m)
    m.flags |= PG_NEED_COMMIT
    vm.page.unwire(m, False)
    assert base(vm, m) == vm.pq.ACTIVE


def test_fictitious_pages_are_not_wired_and_unmanaged_ones_stay_off(vm, m):
    m.flags |= PG_FICTITIOUS
    vm.page.wire(m)
    vm.page.unwire(m, True)
    assert (m.wire_count, vm.stats.v_wire_count, m.queue) == (0, 0, 0)
    m.flags = PG_BUSY | PG_UNMANAGED
    vm.page.wire(m)
    vm.page.unwire(m, True)
    assert (m.wire_count, vm.stats.v_wire_count, m.queue) == (0, 0, 0)


def test_unwire_panics(vm, m):
    with pytest.raises(Panic) as got:
        vm.page.unwire(m, False)
    assert got.value.code == "unwire-unwired"
    m.wire_count = 1
    vm.page.activate(m)
    vm.page.spin_lock(m)
    vm.page.add_queue_spinlocked(m, vm.pq.ACTIVE + m.pc)
    vm.page.and_queue_spin_unlock(m)
    with pytest.raises(Panic) as got:
        vm.page.unwire(m, False)
    assert got.value.code == "enqueue-queued"


def test_quick_wirings_never_reach_zero(vm, m):
    with pytest.raises(Panic):
        vm.page.unwire_quick(m)
    vm.page.wire(m)
    vm.page.wire_quick(m)
    assert not vm.page.unwire_quick(m)
    assert vm.page.unwire_quick(m)
    assert m.wire_count == 1
    m.wire_count = 0
    with pytest.raises(Panic) as got:
        vm.page.wire_quick(m)
    assert got.value.code == "wire-quick-unwired"


def test_unmanage_leaves_the_queues(vm, m):
    vm.page.activate(m)
    vm.page.unmanage(m)
    assert m.queue == 0
    assert m.flags & PG_UNMANAGED
