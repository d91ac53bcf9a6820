import sys
import threading
import time

import pytest
from waiting import until

from smpvm.host.carrier import Carried, Carrier, Stopped
from smpvm.host.native import NativeCarrier


@pytest.fixture
def c():
    carrier = NativeCarrier(tick_scale=0.1)
    carrier.adopt(Carried(0, "boot", lambda: None))
    yield carrier
    carrier.stop()
    assert carrier.join(5) == []


def spawn(c, main, tid=1):
    td = Carried(tid, f"t{tid}", main)
    c.spawn(td)
    return td


def test_it_is_a_carrier(c):
    typed: Carrier = c
    assert not typed.serial
    assert not typed.access_points


def test_current_is_the_thread_that_the_host_thread_carries(c):
    seen = []
    td = spawn(c, lambda: seen.append(c.current()))
    assert c.join(5) == []
    assert seen == [td]
    assert c.current().name == "boot"


def test_host_threads_are_not_daemons_and_bear_the_name(c):
    seen = []
    spawn(c, lambda: seen.append(threading.current_thread()))
    c.join(5)
    assert seen[0].name == "t1"
    assert not seen[0].daemon


def test_an_unpark_is_remembered_once(c):
    me = c.current()
    c.unpark(me)
    c.unpark(me)
    assert c.park(None)
    assert not c.park(2)  # the second one added nothing


def test_park_ends_by_unpark_or_by_its_timer(c):
    seen = []
    td = spawn(c, lambda: seen.append(c.park(None)))
    c.unpark(td)
    assert c.join(5) == []
    start = c.ticks()
    seen.append(c.park(10))
    assert seen == [True, False]
    assert c.ticks() - start >= 9
    assert not c.park(0)


def test_ticks_follow_the_scale():
    c = NativeCarrier(hz=1000, tick_scale=0.5)
    start, host = c.ticks(), time.monotonic()
    time.sleep(0.02)
    took = time.monotonic() - host
    assert 39 <= c.ticks() - start <= took / 0.0005 + 2


def test_stop_wakes_every_kind_of_wait(c):
    started, ended = [], []

    def wait(how):
        def main():
            started.append(how)
            try:
                while True:
                    how()
            except Stopped:
                ended.append(how)
                raise

        return main

    waits = [
        lambda: c.park(None),
        lambda: c.park(10**6),
        lambda: c.relax(c),
        c.yield_,
        c.slice_over,
    ]
    for i, how in enumerate(waits):
        spawn(c, wait(how), i + 1)
    until(lambda: len(started) == len(waits))
    assert len(c.join(0.01)) == len(waits)
    c.stop()
    assert c.join(5) == []
    assert len(ended) == len(waits)
    with pytest.raises(Stopped):
        c.park(None)


def test_join_names_the_threads_that_have_not_ended(c):
    go = threading.Event()
    td = spawn(c, go.wait)
    quick = spawn(c, lambda: None, 2)
    assert c.join(0.05) == [td]
    assert quick not in c.live()
    go.set()
    assert c.join(5) == []


def test_join_waits_for_threads_that_threads_spawn(c):
    ended = []

    def main():
        spawn(c, lambda: (time.sleep(0.02), ended.append(True)), 2)

    spawn(c, main)
    assert c.join(5) == []
    assert ended == [True]


def test_a_spinner_does_not_starve_the_owner(c):
    """While others spin, the owner still gets through a stretch of pure Python work."""
    flag, spins = [], [0]

    def spinner():
        while not flag:
            c.relax(flag)
            spins[0] += 1

    for tid in (1, 2, 3):
        spawn(c, spinner, tid)
    until(lambda: spins[0] > 50)
    old = sys.getswitchinterval()
    start = time.process_time(), time.monotonic()
    total = sum(i for i in range(200_000))
    flag.append(total)
    assert time.monotonic() - start[1] < 2.0
    assert c.join(5) == []
    assert old == sys.getswitchinterval()  # the carrier does not touch the process's settings


def test_an_adopted_thread_can_be_disowned(c):
    seen = []

    def monitor():
        td = Carried(9, "monitor", lambda: None)
        c.adopt(td)
        seen.append(c.current())
        c.disown()
        with pytest.raises(AttributeError):
            c.current()

    t = threading.Thread(target=monitor)
    t.start()
    t.join()
    assert seen[0].name == "monitor"
