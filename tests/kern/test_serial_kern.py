"""The primitives on a serial carrier: no thread hangs, nothing is lost."""

import random

import pytest

from smpvm.kern.kernel import Kernel
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import (
    LK_DOWNGRADE,
    LK_EXCLUSIVE,
    LK_RELEASE,
    LK_SHARED,
    LK_TIMELOCK,
    LK_UPGRADE,
)
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token
from smpvm.kern.tsleep import PINTERLOCKED, Ident

serial = pytest.importorskip("smpvm.host.serial")


class Chance:
    every = False

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def choose(self, runnable, current):
        return self.rng.choice(runnable)


def execute(seed, build):
    carrier = serial.SerialCarrier(Chance(seed))
    k = Kernel(carrier)
    for i, body in enumerate(build(k)):
        k.spawn(f"t{i}", body)
    left = carrier.join()
    k.check()
    return k, carrier, left


def everything(k, box):
    s = Spinlock(k, "s")
    a, b = Token(k, "a"), Token(k, "b")
    lock = Lock(k, "l", timo=3)
    ident = Ident("i")
    flag = []

    def forwards():
        for _ in range(2):
            a.get()
            b.get()
            box[0] += 1
            k.lwkt_yield()
            assert a.held_excl()
            assert b.held_excl()
            b.release()
            a.release()
            s.lock()
            s.unlock()
            s.lock_shared()
            s.unlock_shared()
            if lock.lockmgr(LK_EXCLUSIVE | LK_TIMELOCK) == 0:
                lock.lockmgr(LK_DOWNGRADE)
                lock.lockmgr(LK_RELEASE)

    def backwards():
        for _ in range(2):
            b.get()
            a.get_shared()
            box[0] += 1
            k.token.swap()
            b.release()
            a.release()
            s.lock_shared()
            s.unlock_shared()
            lock.lockmgr(LK_SHARED)
            assert lock.lockmgr(LK_UPGRADE) == 0
            lock.lockmgr(LK_RELEASE)

    def sleeper():
        a.get()
        while not flag:
            k.sleep.tsleep_interlock(ident)
            if not flag:
                k.sleep.tsleep(ident, PINTERLOCKED, "z", 0)
                assert a.held_excl()
        a.release()

    def waker():
        flag.append(True)
        k.sleep.wakeup(ident)

    return [forwards, backwards, backwards, sleeper, waker]


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_all_primitives_together(first):
    for seed in range(first, first + 30):
        box = [0]
        _, carrier, left = execute(seed, lambda k, box=box: everything(k, box))
        assert (left, carrier.stuck, box) == ([], "", [6]), seed


def test_the_same_seed_gives_the_same_execution():
    def log(seed):
        _, carrier, _ = execute(seed, lambda k: everything(k, [0]))
        return [(tid, kind, str(obj), field) for tid, kind, obj, field in carrier.log]

    assert log(5) == log(5)
    assert log(5) != log(6)


def test_spinlocks_in_opposite_order_deadlock_in_some_schedule_only():
    def build(k):
        x, y = Spinlock(k, "x"), Spinlock(k, "y")

        def body(first, second):
            def run():
                first.lock()
                second.lock()
                second.unlock()
                first.unlock()

            return run

        return [body(x, y), body(y, x)]

    stuck = {bool(execute(seed, build)[1].stuck) for seed in range(30)}
    assert stuck == {True, False}


def test_a_wakeup_in_the_gap_is_lost_in_some_schedule_without_the_interlock():
    def build_with(interlock):
        def build(k):
            ident, flag = Ident("i"), []

            def sleeper():
                while not flag:
                    if interlock:
                        k.sleep.tsleep_interlock(ident)
                        if flag:
                            break
                    k.sleep.tsleep(ident, PINTERLOCKED if interlock else 0, "z", 0)

            def waker():
                k.lwkt_yield()
                flag.append(True)
                k.sleep.wakeup(ident)

            return [sleeper, waker]

        return build

    def stuck(interlock):
        return sum(bool(execute(seed, build_with(interlock))[1].stuck) for seed in range(60))

    assert stuck(True) == 0
    assert stuck(False) > 0
