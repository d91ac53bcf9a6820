"""The audit: a consistent machine passes, and each inconsistency is reported with its rule."""

from collections.abc import Callable

import pytest

from smpvm.check.audit import RULES, Breach, audit, breaches
from smpvm.config import Config
from smpvm.machine import Machine
from smpvm.vm.page.struct import PG_BUSY, PG_SBUSY, PG_WANTED, PG_WRITEABLE, Page
from smpvm.vm.param import OBJT_SWAP
from smpvm.vm.vm import Vm


@pytest.fixture
def vm() -> Vm:
    """A VM with an object of four pages: two active, one inactive, one cached."""
    machine = Machine(Config(pages=128, swap_pages=64, pq_l2_size=4))
    vm = machine.vm
    obj = vm.object.allocate(OBJT_SWAP, 8)
    vm.object.hold(obj)
    for index in range(4):
        m = vm.page.alloc(obj, index, 1)
        assert m is not None
        m.valid = 0xFF
        if index == 2:
            vm.page.deactivate(m)
        elif index == 3:
            vm.page.cache(m)
            continue
        else:
            vm.page.activate(m)
        vm.page.wakeup(m)
    vm.object.drop(obj)
    return vm


def obj_of(vm: Vm):  # type: ignore[no-untyped-def]
    return vm.object.all_objects()[-1]


def page(vm: Vm, index: int) -> Page:
    m = obj_of(vm).rb_memq.lookup(index)
    assert m is not None
    return m


def found(vm: Vm) -> list[Breach]:
    return breaches(vm, processes=True)


def test_a_sound_machine_is_clean(vm: Vm) -> None:
    assert found(vm) == []
    assert audit(vm, processes=True) == []


def flag(bit: int) -> Callable[[Vm], None]:
    def set_(vm: Vm) -> None:
        page(vm, 0).flags |= bit

    return set_


def off_its_queue(vm: Vm) -> None:
    m = page(vm, 0)
    q = vm.queues[m.queue]
    q._unlink(m)
    q.lcnt -= 1


def names_another(vm: Vm) -> None:
    m = page(vm, 0)
    m.queue = vm.pq.INACTIVE + m.pc


def on_two_queues(vm: Vm) -> None:
    m = page(vm, 0)
    other = vm.queues[vm.pq.HOLD + (m.pc + 1) % 4]
    other.head = other.tail = m
    other.lcnt = 1


def lost(vm: Vm) -> None:
    m = page(vm, 0)
    vm.page.unqueue(m)


def wrong_count(vm: Vm) -> None:
    vm.queues[vm.pq.ACTIVE].lcnt += 1


def wrong_stats(vm: Vm) -> None:
    vm.stats.v_free_count -= 1


def marker_left(vm: Vm) -> None:
    vm.queues[vm.pq.ACTIVE].insert_tail(vm.page.make_marker(vm.pq.ACTIVE))


def set_page(**fields: object) -> Callable[[Vm], None]:
    def set_(vm: Vm) -> None:
        for name, value in fields.items():
            setattr(page(vm, 0), name, value)

    return set_


def dirty_cache(vm: Vm) -> None:
    page(vm, 3).dirty = 0xFF


def not_in_object(vm: Vm) -> None:
    page(vm, 0).pindex = 7


def resident_wrong(vm: Vm) -> None:
    obj_of(vm).resident_page_count += 1


def paging_left(vm: Vm) -> None:
    obj_of(vm).paging_in_progress = 1


def held_object(vm: Vm) -> None:
    obj_of(vm).hold_count = 1


def leaked_block(vm: Vm) -> None:
    vm.swap.blist.alloc(1)


def shared_block(vm: Vm) -> None:
    obj = obj_of(vm)
    vm.object.hold(obj)
    block = vm.swap.getswapspace(obj, 2)
    vm.swap.meta_build(obj, 4, block)
    vm.swap.meta_build(obj, 5, block)
    vm.object.drop(obj)


def free_page_owned(vm: Vm) -> None:
    m = next(m for m in vm.page_array if vm.pq.base(m.queue) == vm.pq.FREE)
    m.object = obj_of(vm)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (flag(PG_BUSY), "page-busy"),
        (flag(PG_SBUSY), "page-in-io"),
        (flag(PG_WANTED), "page-wanted"),
        (flag(PG_WRITEABLE), "writeable-unmapped"),
        (off_its_queue, "page-off-queue"),
        (names_another, "queue-name"),
        (on_two_queues, "page-on-two-queues"),
        (lost, "page-lost"),
        (wrong_count, "queue-count"),
        (wrong_stats, "vmstats"),
        (marker_left, "marker-left"),
        (set_page(hold_count=1), "page-held"),
        (set_page(busy=1), "page-in-io"),
        (dirty_cache, "cached-dirty"),
        (not_in_object, "page-index"),
        (resident_wrong, "resident-count"),
        (paging_left, "paging-in-progress"),
        (held_object, "object-held"),
        (leaked_block, "swap-leaked"),
        (shared_block, "swap-shared"),
        (free_page_owned, "free-page-owned"),
    ],
)
def test_what_does_not_add_up_is_named(vm: Vm, spoil: Callable[[Vm], None], rule: str) -> None:
    spoil(vm)
    rules = {b.rule for b in found(vm)}
    assert rule in rules
    (finding,) = (f for f in audit(vm, processes=True) if f.identity == (rule,))
    assert RULES[rule] in finding.title
    assert RULES[rule] in finding.evidence[0]


def test_wired_and_anonymous_memory_must_go_with_the_processes(vm: Vm) -> None:
    m = page(vm, 0)
    assert not vm.page.busy_try(m, False)
    vm.page.wire(m)
    vm.page.wakeup(m)
    rules = {b.rule for b in breaches(vm)}
    assert "page-wired" in rules
    assert "memory-left" in rules


def test_one_finding_for_each_rule_however_many_pages(vm: Vm) -> None:
    for index in range(3):
        page(vm, index).flags |= PG_BUSY
    findings = audit(vm, processes=True)
    assert len(findings) == 1
    assert "and 2 more" in findings[0].title
    assert len(findings[0].evidence) == 3
    again = audit(vm, processes=True)
    assert again[0].fingerprint == findings[0].fingerprint
