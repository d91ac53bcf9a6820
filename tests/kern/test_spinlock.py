import sys

import pytest

from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT, LK_RELEASE
from smpvm.kern.spinlock import Spinlock, SpinPool
from smpvm.kern.thread import Misuse
from smpvm.kern.token import Token
from smpvm.kern.tsleep import Ident


class P:
    def __init__(self, idx):
        self.idx = idx


def test_exclusive_keeps_everybody_else_out(k):
    s = Spinlock(k, "queue", "INACTIVE+3")
    s.lock()
    assert s.owner is k.boot
    assert s.held()
    assert k.boot.spins == [s]
    assert str(s) == "spinlock queue INACTIVE+3"
    s.unlock()
    assert not s.held()
    assert k.boot.spins == []


def test_try_fails_while_another_thread_holds_it(bench, k):
    s = Spinlock(k, "page")
    s.lock()
    seen = []
    bench.run(k, lambda: seen.append((s.trylock(), s.trylock_shared())))
    assert seen == [(False, False)]
    s.unlock()
    bench.run(k, lambda: (seen.append(s.trylock()), s.unlock()))
    assert seen[-1] is True


def test_mutual_exclusion_under_contention(bench, k):
    """A counter changed in two steps under the lock loses nothing, though threads do collide."""
    s = Spinlock(k, "queue")
    box = [0]
    inside = [0]
    rounds, threads = 4000, 4

    def body():
        for i in range(rounds):
            s.lock()
            inside[0] += 1
            assert inside[0] == 1
            value = box[0]
            if i % 64 == 0:
                k.carrier.yield_()  # a host switch in the middle of the critical section
            box[0] = value + 1
            inside[0] -= 1
            s.unlock()

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        bench.collide(k, s.lock, s.unlock, *[body] * threads)
    finally:
        sys.setswitchinterval(old)
    assert box[0] == rounds * threads
    assert k.lock_acquires()["queue"] == rounds * threads + 1
    assert k.lock_contention()["queue"] >= threads


def test_shared_holders_share(bench, k):
    s = Spinlock(k, "object")
    s.lock_shared()
    seen = []
    bench.run(k, lambda: (s.lock_shared(), seen.append(s.shared), s.unlock_shared()))
    assert seen == [2]
    s.unlock_shared()
    assert s.shared == 0


def test_a_waiting_exclusive_request_keeps_new_shared_ones_out(bench, k):
    s = Spinlock(k, "object")
    order = []
    s.lock_shared()
    writer = k.spawn("writer", lambda: (s.lock(), order.append("excl"), s.unlock()))
    bench.until(lambda: s.exclwait == 1)
    assert writer.waiting is s
    tried = []
    probe = k.spawn("try", lambda: tried.append(s.trylock_shared()))
    bench.until(lambda: probe.exited)
    assert tried == [False]
    reader = k.spawn("reader", lambda: (s.lock_shared(), order.append("shared"), s.unlock_shared()))
    bench.until(lambda: reader.waiting is s)
    assert order == []
    s.unlock_shared()
    bench.finish(k)
    assert order == ["excl", "shared"]
    assert s.exclwait == 0
    assert k.lock_contention()["object"] >= 3


def test_between_a_release_and_its_grant_only_an_exclusive_request_gets_in(k):
    s = Spinlock(k, "object")
    s.exclwait = 1  # somebody waits, and has not been quick enough yet
    assert not s.trylock()
    assert not s.trylock_shared()
    s.lock()
    s.unlock()
    assert s.exclwait == 1


@pytest.mark.parametrize(
    ("misuse", "code"),
    [
        (lambda s, k: (s.lock(), s.lock()), "spin-recursion"),
        (lambda s, k: (s.lock(), s.lock_shared()), "spin-recursion"),
        (lambda s, k: (s.lock_shared(), s.lock()), "spin-recursion"),
        (lambda s, k: s.unlock(), "wrong-release"),
        (lambda s, k: s.unlock_shared(), "wrong-release"),
        (lambda s, k: (s.lock(), s.unlock_shared()), "wrong-release"),
        (lambda s, k: (s.lock_shared(), s.unlock()), "wrong-release"),
        (lambda s, k: (s.lock(), k.lwkt_yield()), "sleep-with-spinlock"),
        (lambda s, k: (s.lock(), k.sleep.tsleep(Ident("x"), 0, "x", 1)), "sleep-with-spinlock"),
        (lambda s, k: (s.lock(), Token(k, "t").get()), "sleep-with-spinlock"),
        (lambda s, k: (s.lock(), Token(k, "t").get_shared()), "sleep-with-spinlock"),
        (lambda s, k: (s.lock(), Lock(k, "l").lockmgr(LK_EXCLUSIVE)), "sleep-with-spinlock"),
    ],
)
def test_misuse_is_raised_at_the_site(k, misuse, code):
    with pytest.raises(Misuse) as e:
        misuse(Spinlock(k, "page"), k)
    assert e.value.code == code


def test_tries_are_allowed_with_a_spinlock_held(k):
    s, t, lock = Spinlock(k, "page"), Token(k, "object"), Lock(k, "map")
    s.lock()
    assert t.try_()
    assert lock.lockmgr(LK_EXCLUSIVE | LK_NOWAIT) == 0
    assert lock.lockmgr(LK_RELEASE) == 0
    t.release()
    s.unlock()


def test_release_by_a_stranger_names_the_holder(bench, k):
    s = Spinlock(k, "page")
    s.lock()
    k.spawn("stranger", s.unlock)
    with pytest.raises(Misuse, match="boot holds"):
        bench.finish(k)


def test_out_of_order_release_is_allowed(k):
    a, b = Spinlock(k, "page"), Spinlock(k, "queue")
    a.lock()
    b.lock()
    a.unlock()
    assert k.boot.spins == [b]
    b.unlock()


def test_events(bench, recorder):
    k = bench.kernel(recorder)
    s = Spinlock(k, "queue")
    s.lock()
    s.unlock()
    assert s.trylock()
    s.unlock()
    kinds = [(n, a[2]) for n, a, _ in recorder.log]
    assert kinds == [
        ("lock_want", "excl"),
        ("lock_acquired", "excl"),
        ("lock_release", "excl"),
        ("lock_acquired", "excl"),
        ("lock_release", "excl"),
    ]
    assert [a[3] for n, a, _ in recorder.of("lock_acquired")] == [False, True]


def test_pages_hash_into_the_pool(k):
    pool = SpinPool(k, 4)
    assert pool.lock_of(1) is pool.lock_of(5)
    assert pool.lock_of(1) is not pool.lock_of(2)
    pool.lock(P(1))
    assert pool.held_by(P(5), k.boot)
    assert pool.trylock(P(2))
    pool.unlock(P(2))
    with pytest.raises(Misuse, match="spin-recursion"):
        pool.lock(P(9))  # another page, the same lock
    pool.unlock(P(1))


def test_owners(bench, k):
    s = Spinlock(k, "page")
    assert s.owners() == []
    s.lock_shared()
    assert s.owners() == [k.boot]
    s.unlock_shared()
    s.lock()
    assert s.owners() == [k.boot]
    s.unlock()
