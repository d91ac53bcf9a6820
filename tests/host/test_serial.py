"""The serial carrier: switches, waits, time, the end, with both switchers."""

import pytest

from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.explore.strategy.roundrobin import Fair, RoundRobin
from smpvm.host.carrier import Stopped
from smpvm.host.serial import SerialCarrier
from smpvm.host.serialthread import CLOCK
from smpvm.kern.kernel import Kernel
from smpvm.kern.shared import peek, shared
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token


@shared("n", "m")
class Box:
    __slots__ = ("m", "n")

    def __init__(self):
        self.n = self.m = 0


@pytest.fixture(params=["greenlet", "thread"])
def boot(request):
    def make(scheduler=None, **options):
        scheduler = scheduler or RandomWalk(1).start(0)
        carrier = SerialCarrier(scheduler, switcher=request.param, **options)
        return carrier, Kernel(carrier)

    return make


def test_every_thread_runs_to_its_end(boot):
    carrier, k = boot()
    box = k.new(Box)
    for name in "abc":
        k.spawn(name, lambda: setattr(box, "n", box.n + 1))
    assert carrier.join() == []
    assert peek(box, "n") in (1, 2, 3)
    assert carrier.stuck == ""


def test_the_log_has_each_operation_before_it_happens(boot):
    carrier, k = boot(Fair())
    box = k.new(Box)
    k.spawn("a", lambda: setattr(box, "n", 1))
    carrier.join()
    assert [(op[1], op[3]) for op in carrier.log[:2]] == [("start", ""), ("write", "n")]


def test_an_acquire_waits_until_the_lock_is_free(boot):
    for seed in range(30):
        carrier, k = boot(RandomWalk(seed).start(0))
        lock, inside = Spinlock(k, "l"), []

        def body(k=k, lock=lock, inside=inside):
            lock.lock()
            inside.append(1)
            k.carrier.yield_()
            assert len(inside) == 1
            inside.pop()
            lock.unlock()

        for name in "abc":
            k.spawn(name, body)
        carrier.join()
        assert not k.errors
        assert carrier.stuck == ""


def test_two_locks_in_two_orders_get_stuck(boot):
    carrier, k = boot(Fair())
    a, b = Spinlock(k, "a"), Spinlock(k, "b")

    def body(x, y):
        x.lock()
        y.lock()

    k.spawn("1", lambda: body(a, b))
    k.spawn("2", lambda: body(b, a))
    assert [td.name for td in carrier.join()] == ["1", "2"]
    assert carrier.stuck == "stuck"


def test_a_blocked_acquire_is_told_once_by_its_own_thread(boot):
    carrier, k = boot(Fair())
    told = []
    carrier.on_block = lambda td, lock, mode, timo: told.append(
        (td.name, k.curthread().name, str(lock), mode)
    )
    lock = Spinlock(k, "l")

    def body():
        lock.lock()
        for _ in range(3):
            carrier.yield_()
        lock.unlock()

    k.spawn("a", body)
    k.spawn("b", body)
    carrier.join()
    assert told == [("b", "b", "spinlock l", "excl")]


def test_a_spin_ends_with_the_write_of_what_was_read(boot):
    carrier, k = boot(Fair())
    box = k.new(Box)

    def reader():
        while not box.n:
            carrier.relax(box)

    def writer():
        box.m = 1  # not what the reader looks at
        box.n = 1

    k.spawn("r", reader)
    k.spawn("w", writer)
    carrier.join()
    assert carrier.stuck == ""
    assert sum(op[1] == "await" for op in carrier.log) == 1


def test_spinners_that_nobody_can_end_are_stuck(boot):
    carrier, k = boot()
    box = k.new(Box)

    def reader():
        while not box.n:
            carrier.relax(box)

    k.spawn("r", reader)
    carrier.join()
    assert carrier.stuck == "stuck"


def test_time_moves_only_when_nobody_can_run(boot):
    carrier, k = boot()
    seen = []

    def sleeper(ticks):
        k.sleep.tsleep(("never", ticks), 0, "nap", ticks)
        seen.append((ticks, carrier.ticks()))

    for ticks in (70, 5, 20):
        k.spawn(f"t{ticks}", lambda ticks=ticks: sleeper(ticks))
    carrier.join()
    assert seen == [(5, 5), (20, 20), (70, 70)]
    assert sum(op[0] == CLOCK for op in carrier.log) == 3


def test_unpark_before_park_is_remembered_once(boot):
    carrier, k = boot(Fair(1000))
    woken = []

    def sleeper():
        carrier.yield_()
        woken.append(carrier.park(None))
        woken.append(carrier.park(3))

    td = k.spawn("s", sleeper)
    k.spawn("w", lambda: carrier.unpark(td))
    carrier.join()
    assert woken == [True, False]


def test_the_boot_thread_can_wait_for_others(boot):
    carrier, k = boot()
    k.spawn("w", lambda: k.sleep.wakeup("go"))
    assert k.sleep.tsleep("go", 0, "boot", 50) in (0, 35)
    assert carrier.join() == []


def test_daemons_need_not_end(boot):
    carrier, k = boot()

    def forever():
        while True:
            k.sleep.tsleep("work", 0, "idle", 100)

    carrier.set_daemon(k.spawn("d", forever))
    k.spawn("a", lambda: k.sleep.wakeup("work"))
    assert carrier.join() == []
    assert carrier.stuck == ""


def test_stop_unwinds_every_thread(boot):
    carrier, k = boot()
    ended = []

    def body():
        try:
            k.sleep.tsleep("never", 0, "x", 0)
        except Stopped:
            ended.append(k.curthread().name)
            raise

    for name in "ab":
        k.spawn(name, body)
    k.spawn("c", carrier.stop)
    carrier.join()
    assert len(ended) in (0, 1, 2)
    assert not k.errors


def test_an_endless_thread_is_a_livelock_after_the_fair_suffix(boot):
    carrier, k = boot(limit=200, fair=RoundRobin().start(0))

    def body():
        while True:
            carrier.yield_()

    k.spawn("a", body)
    carrier.join()
    assert carrier.stuck == "livelock"
    assert carrier.steps_before_fair == 200


def test_tokens_are_given_up_while_asleep(boot):
    carrier, k = boot()
    tok, order = Token(k, "t"), []

    def sleeper():
        tok.get()
        k.sleep.tsleep("x", 0, "x", 10)
        order.append(tok.held())
        tok.release()

    def other():
        tok.get()
        k.sleep.wakeup("x")
        tok.release()

    k.spawn("s", sleeper)
    k.spawn("o", other)
    carrier.join()
    assert order == [True]
    assert carrier.stuck == ""


def test_the_set_up_is_not_scheduled(boot):
    carrier, k = boot()
    box = k.new(Box)
    box.n = 5
    assert carrier.log == []
    with pytest.raises(RuntimeError):
        carrier.relax(box)
    carrier.join()


def test_too_long_under_an_unfair_scheduler_is_no_verdict(boot):
    carrier, k = boot(limit=50)

    def body():
        while True:
            carrier.yield_()

    k.spawn("a", body)
    carrier.join()
    assert carrier.stuck == "limit"


def test_threads_that_wait_for_one_lock_are_not_asked_at_every_step(boot):
    asked = 0

    class Counted(Spinlock):
        __slots__ = ()

        def _not_exclusive(self):
            nonlocal asked
            asked += 1
            return super()._not_exclusive()

    carrier, k = boot()
    lock, box = Counted(k, "l"), k.new(Box)

    def body():
        lock.lock()
        for _ in range(10):
            box.n = 1
        lock.unlock()

    for i in range(30):
        k.spawn(f"t{i}", body)
    assert carrier.join() == []
    # 30 threads, 3 questions each (it comes, somebody takes the lock, gives it back), not 30 * 300.
    assert asked <= 5 * 30
