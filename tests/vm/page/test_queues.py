"""The queues: an intrusive list with markers, and the two moves that keep the counts right."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import PG_BUSY, PG_FICTITIOUS, PG_MARKER, Page
from smpvm.vm.page.queues import PageQueue


def order(q):
    return [m.idx for m in q.pages()]


def test_boot_puts_every_page_on_the_free_list_of_its_twisted_colour(vm, audit):
    assert audit(vm) == {"FREE": 64, "INACTIVE": 0, "ACTIVE": 0, "CACHE": 0, "HOLD": 0}
    for m in vm.page_array:
        pc = (m.idx & 3) ^ (m.idx // 4 & 3) ^ (m.idx // 16 & 3)
        assert (m.pc, m.queue) == (pc, vm.pq.FREE + pc)


def test_boot_leaves_high_pages_first(vm):
    for q in vm.queues[vm.pq.FREE : vm.pq.FREE + 4]:
        assert order(q) == sorted(order(q), reverse=True)


def test_marker_looks_like_the_kernels(vm):
    marker = vm.page.make_marker(vm.pq.ACTIVE + 3)
    assert marker.flags == PG_BUSY | PG_FICTITIOUS | PG_MARKER
    assert (marker.queue, marker.pc, marker.wire_count) == (vm.pq.ACTIVE + 3, 3, 1)
    assert str(marker).startswith("marker")


def test_marker_is_not_counted_and_keeps_its_place(vm, audit):
    q = vm.queues[vm.pq.FREE]
    before = order(q)
    marker = vm.page.make_marker(q.number)
    q.insert_head(marker)
    assert q.lcnt == len(before)
    audit(vm)
    m = q.next(marker)
    q.remove(marker)
    q.insert_after(m, marker)
    assert order(q) == [before[0], marker.idx, *before[1:]]
    q.remove(marker)
    assert order(q) == before
    audit(vm)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("HTARQ"), st.integers(0, 9), st.integers(0, 9))))
def test_list_does_what_a_python_list_does(ops):
    class K:
        class probe:
            queue_insert = queue_remove = queue_requeue = None

        point = None

    from smpvm.vm.param import QueueNumbers

    q = PageQueue(K, QueueNumbers(4, 4), 1)
    pages = [Page(i) for i in range(10)]
    want = []
    for op, i, j in ops:
        m = pages[i]
        if op == "H" and i not in want:
            q.insert_head(m)
            want.insert(0, i)
        elif op == "T" and i not in want:
            q.insert_tail(m)
            want.append(i)
        elif op == "A" and i not in want and j in want:
            q.insert_after(pages[j], m)
            want.insert(want.index(j) + 1, i)
        elif op == "R" and i in want:
            q.remove(m)
            want.remove(i)
        elif op == "Q" and i in want:
            q.requeue(m)
            want.remove(i)
            want.append(i)
        assert order(q) == want
        tail = [q.tail.idx] if q.tail is not None else []
        assert tail == want[-1:]


def test_rem_tells_the_base_of_free_and_cache_only(vm):
    pq, page = vm.pq, vm.page
    for base, told in ((pq.FREE, True), (pq.CACHE, True), (pq.ACTIVE, False), (pq.HOLD, False)):
        m = next(m for m in vm.page_array if m.pc == 1 and m.queue == pq.FREE + 1)
        page.unqueue_nowakeup(m)
        page.spin_lock(m)
        page.add_queue_spinlocked(m, base + 1)
        page.queue_spin_unlock(m)
        page.queue_spin_lock(m)
        assert page.rem_queue_spinlocked(m) == (base if told else base + 1)
        assert m.queue == 0
        assert page.rem_queue_spinlocked(m) == 0
        page.spin_unlock(m)


def test_enqueueing_a_queued_page_panics(vm):
    m = vm.page_array[0]
    vm.page.spin_lock(m)
    with pytest.raises(Panic) as got:
        vm.page.add_queue_spinlocked(m, vm.pq.ACTIVE + m.pc)
    assert got.value.code == "enqueue-queued"


def test_free_is_filled_at_its_head_always(vm):
    pq, page = vm.pq, vm.page
    m = vm.queues[pq.FREE].tail
    page.unqueue_nowakeup(m)
    page.spin_lock(m)
    page.add_queue_spinlocked(m, pq.FREE, False)
    page.and_queue_spin_unlock(m)
    assert vm.queues[pq.FREE].head is m


def test_locks_are_taken_page_first_then_queue(vms, recorder):
    vm = vms.make(recorder)
    m = vm.page_array[9]
    recorder.log.clear()
    vm.page.and_queue_spin_lock(m)
    vm.page.and_queue_spin_unlock(m)
    assert [a[1].cls for _, a, _ in recorder.of("lock_acquired")] == ["page", "queue"]
    assert [a[1].cls for _, a, _ in recorder.of("lock_release")] == ["queue", "page"]


def test_queue_probes(vms, recorder):
    vm = vms.make(recorder)
    q, m = vm.queues[vm.pq.FREE], vm.queues[vm.pq.FREE].head
    vm.page.unqueue_nowakeup(m)
    vm.page.spin_lock(m)
    vm.page.add_queue_spinlocked(m, vm.pq.ACTIVE + m.pc)
    vm.page.and_queue_spin_unlock(m)
    vm.page.and_queue_spin_lock(m)
    vm.queues[vm.pq.ACTIVE + m.pc].requeue(m)
    vm.page.and_queue_spin_unlock(m)
    seen = [(n, a[1], a[2]) for n, a, _ in recorder.of("queue_remove", "queue_insert")]
    active = vm.queues[vm.pq.ACTIVE + m.pc]
    assert seen == [("queue_remove", q, m), ("queue_insert", active, m)]
    assert [a[1:] for _, a, _ in recorder.of("queue_requeue")] == [(active, m)]


def test_one_pool_lock_for_all_pages_makes_two_page_locks_a_self_deadlock(vms):
    vm = vms.make(spin_pool=1)
    a, b = vm.page_array[:2]
    vm.page.spin_lock(a)
    with pytest.raises(Panic) as got:
        vm.page.spin_lock(b)
    assert got.value.code == "spin-recursion"
