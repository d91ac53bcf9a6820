"""Waiting for memory: who sleeps on what, and which freed page wakes whom."""

import pytest
from waiting import until

from smpvm.kern.proc import P_LOWMEMKILL


@pytest.fixture
def poor(vms, recorder):
    """A machine with 8 free pages of 64, below every limit; the rest are held by the test."""
    vm = vms.make(recorder)
    s = vm.stats
    vm.taken = [vm.page.alloc(None, 0, 4) for _ in range(56)]
    s.v_free_reserved, s.v_free_severe, s.v_free_min, s.v_free_target = 4, 10, 16, 24
    s.v_pageout_free_min = 12
    vm.sysctl.page_free_hysteresis = 2
    recorder.log.clear()
    return vm


def give(vm, upto):
    """Free pages until *upto* are free."""
    while vm.stats.v_free_count < upto:
        vm.page.free(vm.taken.pop())


def sleeps(recorder):
    return [(str(a[1]), a[2], a[3]) for _, a, _ in recorder.of("sleep")]


def wakeups(recorder):
    return [str(a[1]) for _, a, _ in recorder.of("wakeup")]


def test_vm_wait_wakes_the_daemon_and_sleeps_until_the_minimum_and_a_bit(poor, recorder):
    td = poor.k.spawn("waiter", lambda: poor.page.vm_wait(100_000))
    until(lambda: td.wmesg == "vmwait")
    assert sleeps(recorder) == [("vmstats.v_free_count", "vmwait", 100_000)]
    assert wakeups(recorder) == ["vm_pages_needed"]
    assert (poor.glob.vm_pages_needed, poor.glob.vm_pages_waiting) == (1, 1)
    cond = recorder.of("sleep")[0][1][4]
    give(poor, 17)
    assert (poor.glob.vm_pages_waiting, cond()) == (1, False)
    give(poor, 18)
    assert cond()
    assert poor.k.carrier.join(10) == []
    assert poor.glob.vm_pages_waiting == 0
    assert poor.k.curthread().cnt["v_ppwakeups"] == 1


def test_vm_wait_waits_a_second_by_default(poor, recorder):
    poor.k.spawn("waiter", lambda: poor.page.vm_wait(0))
    assert poor.k.carrier.join(10) == []
    assert sleeps(recorder) == [("vmstats.v_free_count", "vmwait", 100)]


def test_second_waiter_does_not_wake_the_daemon_again(poor, recorder):
    poor.glob.vm_pages_needed = 1
    poor.k.spawn("waiter", lambda: poor.page.vm_wait(1))
    assert poor.k.carrier.join(10) == []
    assert "vm_pages_needed" not in wakeups(recorder)


def test_nobody_waits_above_the_target(poor, recorder):
    give(poor, 24)
    poor.page.vm_wait(0)
    poor.page.vm_wait_pfault()
    poor.page.vm_wait_nominal()
    assert not poor.page.vm_test_nominal()
    assert sleeps(recorder) == []


def test_daemon_waits_for_its_own_reserve(poor, recorder):
    td = poor.k.make_thread("pagedaemon", lambda: poor.page.vm_wait(100_000))
    poor.pageout.pagethread = td
    poor.k.start(td)
    until(lambda: td.wmesg == "VMWait")
    assert poor.glob.vm_pageout_pages_needed == 1
    give(poor, 11)
    assert td.wmesg == "VMWait"
    give(poor, 12)
    assert poor.k.carrier.join(10) == []
    assert poor.glob.vm_pageout_pages_needed == 0
    assert sleeps(recorder) == [("vm_pageout_pages_needed", "VMWait", 100_000)]


def test_pfault_waits_while_memory_is_severely_short(poor):
    poor.k.hz = 100_000
    td = poor.k.spawn("waiter", poor.page.vm_wait_pfault)
    until(lambda: td.wmesg == "pfault")
    give(poor, 18)
    assert poor.k.carrier.join(10) == []


def test_pfault_gives_way_to_the_kill(poor):
    class Victim:
        p_flags = P_LOWMEMKILL
        killed = False

    td = poor.k.make_thread("waiter", poor.page.vm_wait_pfault)
    td.proc = Victim
    poor.k.start(td)
    assert poor.k.carrier.join(10) == []
    assert td.cnt["vm_wait_pfault:lowmemkill"] == 1
    assert poor.meter.count_severe()


def test_waiting_gives_no_lock_away_that_it_keeps(poor):
    poor.k.spawn("waiter", lambda: poor.page.vm_wait(1))
    assert poor.k.carrier.join(10) == []
    assert not poor.page.vm_token.held()


def test_caching_a_page_wakes_waiters_too(poor, recorder):
    poor.glob.vm_pages_waiting = 3
    give(poor, 17)
    poor.page.cache(poor.taken.pop())
    assert wakeups(recorder) == ["vmstats.v_free_count"]
    assert poor.glob.vm_pages_waiting == 0
