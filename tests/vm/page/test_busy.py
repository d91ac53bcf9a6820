"""The busy states: who gets the page, who waits, who is woken."""

import sys

import pytest
from waiting import until

from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import PG_BUSY, PG_REFERENCED, PG_SBUSY, PG_WANTED, flag_names


@pytest.fixture
def m(vm):
    return vm.page_array[7]


def test_page_is_small(m):
    assert sys.getsizeof(m) < 400
    assert not hasattr(m, "__dict__")


def test_try_fails_on_a_busy_page_and_tells_true(vm, m):
    assert not vm.page.busy_try(m, False)
    assert m.flags & PG_BUSY
    assert m.busy_owner is vm.k.curthread()
    assert m.owners() == [vm.k.curthread()]
    assert vm.page.busy_try(m, False)
    vm.page.wakeup(m)
    assert m.flags == 0
    assert m.owners() == []


def test_soft_busy_refuses_only_those_who_ask(vm, m):
    vm.page.busy_try(m, True)
    vm.page.io_start(m)
    vm.page.wakeup(m)
    assert flag_names(m.flags) == ["SBUSY"]
    assert vm.page.busy_try(m, True)
    assert not vm.page.busy_try(m, False)
    vm.page.io_finish(m)
    assert m.flags == PG_BUSY


def test_soft_busy_counts_in_eight_bits(vm, m):
    vm.page.busy_try(m, True)
    for _ in range(256):
        vm.page.io_start(m)
    assert (m.busy, m.flags & PG_SBUSY) == (0, PG_SBUSY)
    vm.page.io_finish(m)
    assert (m.busy, m.flags & PG_SBUSY) == (255, PG_SBUSY)
    for _ in range(255):
        vm.page.io_finish(m)
    assert (m.busy, m.flags & PG_SBUSY) == (0, 0)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("wakeup", "wakeup-unbusied"),
        ("io_start", "io-start-unbusied"),
        ("io_finish", "io-finish-unbusied"),
        ("wire", "wire-unbusied"),
        ("unmanage", "unmanage-unbusied"),
        ("free", "free-unbusied"),
    ],
)
def test_unbusied_page_panics(vm, m, what, code):
    with pytest.raises(Panic) as got:
        getattr(vm.page, what)(m)
    assert got.value.code == code


def test_busy_wait_sleeps_until_the_owner_wakes(vms, recorder):
    vm = vms.make(recorder)
    m = vm.page_array[7]
    got = []

    def waiter():
        vm.page.busy_wait(m, False, "testwt")
        got.append(m.busy_owner)
        vm.page.wakeup(m)

    vm.page.busy_try(m, False)
    td = vm.k.spawn("waiter", waiter)
    until(lambda: td.wmesg == "testwt")
    assert m.flags == PG_BUSY | PG_WANTED | PG_REFERENCED
    assert not got
    vm.page.wakeup(m)
    assert vm.k.carrier.join(10) == []
    assert got == [td]
    assert m.flags == PG_REFERENCED
    assert [a[1:] for _, a, _ in recorder.of("page_block")] == [(m, False)]


def test_interlock_comes_before_wanted_and_the_sleep_after(vms, recorder):
    vm = vms.make(recorder)
    m = vm.page_array[7]
    vm.page.busy_try(m, False)
    td = vm.k.spawn("waiter", lambda: vm.page.sleep_busy(m, False, "testwt"))
    until(lambda: td.wmesg == "testwt")
    seen = recorder.of("sleep_interlock", "atomic", "sleep")
    mine = [n for n, a, _ in seen if a[0] is td]
    assert mine == ["sleep_interlock", "atomic", "sleep"]
    vm.page.wakeup(m)
    assert vm.k.carrier.join(10) == []


def test_sleepers_condition_tells_whether_the_page_is_free(vms, recorder):
    vm = vms.make(recorder)
    m = vm.page_array[7]
    vm.page.busy_try(m, False)
    vm.page.io_start(m)
    td = vm.k.spawn("waiter", lambda: vm.page.sleep_busy(m, True, "testwt"))
    until(lambda: td.wmesg == "testwt")
    cond = recorder.of("sleep")[0][1][4]
    assert not cond()
    vm.page.io_finish(m)
    assert not cond()
    vm.page.wakeup(m)
    assert cond()
    assert vm.k.carrier.join(10) == []


def test_sleep_busy_does_not_sleep_on_a_free_page(vm, m):
    assert vm.page.sleep_busy(m, True, "testwt") is False
    assert m.flags == 0


def test_waiting_for_soft_busy_ends_with_the_unbusy_after_the_last_io(vms):
    vm = vms.make()
    m = vm.page_array[7]
    vm.page.busy_try(m, True)
    vm.page.io_start(m)
    vm.page.wakeup(m)
    td = vm.k.spawn("waiter", lambda: vm.page.busy_wait(m, True, "testwt"))
    until(lambda: td.wmesg == "testwt")
    assert not vm.page.busy_try(m, False)
    vm.page.io_finish(m)
    vm.page.wakeup(m)
    assert vm.k.carrier.join(10) == []
    assert m.flags & PG_BUSY


def test_flash_wakes_without_unbusying(vms):
    vm = vms.make()
    m = vm.page_array[7]
    vm.page.busy_try(m, False)
    td = vm.k.spawn("waiter", lambda: vm.page.sleep_busy(m, False, "testwt"))
    until(lambda: td.wmesg == "testwt")
    vm.page.flash(m)
    assert vm.k.carrier.join(10) == []
    assert m.flags == PG_BUSY | PG_REFERENCED
    vm.page.flash(m)


def test_exactly_one_of_many_owns_it_at_a_time(vms):
    vm = vms.make(spin_pool=1)
    m = vm.page_array[7]
    inside, most = [0], [0]

    def body():
        for _ in range(50):
            vm.page.busy_wait(m, True, "testwt")
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            assert m.busy_owner is vm.k.curthread()
            inside[0] -= 1
            vm.page.wakeup(m)

    vms.run(vm, *[body] * 4)
    assert most == [1]
    assert not m.flags & (PG_BUSY | PG_WANTED)


def test_unlocked_cmpset_loser_tries_again(vm, m):
    """The flags change between the look and the compare-and-set: the try still gets the page."""
    real = vm.k.atomic.cmpset_int
    calls = []

    def racing(obj, field, old, new):
        calls.append(new)
        if len(calls) == 1:
            obj.flags |= PG_REFERENCED
        return real(obj, field, old, new)

    vm.k.atomic.cmpset_int = racing
    assert not vm.page.busy_try(m, True)
    assert m.flags == PG_BUSY | PG_REFERENCED
    assert len(calls) == 2
