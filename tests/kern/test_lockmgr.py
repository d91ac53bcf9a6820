import pytest

from smpvm.kern.errno import EBUSY, ENOLCK, EWOULDBLOCK
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import (
    LK_CANRECURSE,
    LK_DOWNGRADE,
    LK_EXCLOTHER,
    LK_EXCLUPGRADE,
    LK_EXCLUSIVE,
    LK_NOWAIT,
    LK_RELEASE,
    LK_SHARED,
    LK_SLEEPFAIL,
    LK_TIMELOCK,
    LK_UPGRADE,
    LKC_EXREQ,
    LKC_UPREQ,
)
from smpvm.kern.thread import Misuse, Panic
from smpvm.kern.token import Token


def asleep_on(td, lock):
    return lambda: td.sleeper is not None and td.sleeper.asleep and td.sleeper.ident is lock


def test_exclusive(bench, k):
    lock = Lock(k, "map", "map 3")
    assert lock.lockmgr(LK_EXCLUSIVE) == 0
    assert lock.lockstatus(k.boot) == LK_EXCLUSIVE
    assert lock.lockowned()
    assert lock.owners() == [k.boot]
    assert str(lock) == "lock map map 3"
    seen = []

    def other():
        seen.append(lock.lockstatus(k.curthread()))
        seen.append(lock.lockmgr(LK_EXCLUSIVE | LK_NOWAIT))
        seen.append(lock.lockmgr(LK_SHARED | LK_NOWAIT))
        seen.append(lock.lockowned())

    bench.run(k, other)
    assert seen == [LK_EXCLOTHER, EBUSY, EBUSY, False]
    assert lock.lockmgr(LK_RELEASE) == 0
    assert lock.lockstatus() == 0
    assert k.boot.locks == []


def test_shared_holders_share(bench, k):
    lock = Lock(k, "map")
    lock.lockmgr(LK_SHARED)
    seen = []
    bench.run(k, lambda: (lock.lockmgr(LK_SHARED), seen.append(lock.lockcount()), drop(lock)))
    assert seen == [2]
    assert lock.lockstatus() == LK_SHARED
    assert lock.owners() == [k.boot]
    drop(lock)


def drop(lock):
    assert lock.lockmgr(LK_RELEASE) == 0


def test_mutual_exclusion_under_contention(bench, k):
    lock = Lock(k, "map")
    box = [0]
    rounds = 400

    def body():
        for _ in range(rounds):
            assert lock.lockmgr(LK_EXCLUSIVE) == 0
            value = box[0]
            k.carrier.yield_()
            box[0] = value + 1
            drop(lock)

    bench.collide(k, lambda: lock.lockmgr(LK_EXCLUSIVE), lambda: drop(lock), *[body] * 4)
    assert box[0] == 4 * rounds
    assert k.lock_contention()["map"] >= 4
    assert lock.count == 0


def test_a_waiting_exclusive_request_keeps_new_shared_ones_out(bench, k):
    lock = Lock(k, "map")
    order = []
    lock.lockmgr(LK_SHARED)
    writer = k.spawn("w", lambda: (lock.lockmgr(LK_EXCLUSIVE), order.append("excl"), drop(lock)))
    bench.until(asleep_on(writer, lock))
    assert lock.count & LKC_EXREQ
    reader = k.spawn("r", lambda: (lock.lockmgr(LK_SHARED), order.append("shared"), drop(lock)))
    bench.until(asleep_on(reader, lock))
    assert order == []
    drop(lock)
    bench.finish(k)
    assert sorted(order) == ["excl", "shared"]  # both are woken; the C promises no order


def test_tokens_are_given_up_while_blocked(bench, k):
    lock, t = Lock(k, "map"), Token(k, "object")
    lock.lockmgr(LK_EXCLUSIVE)
    seen = []

    def waiter():
        t.get()
        lock.lockmgr(LK_EXCLUSIVE)
        seen.append(t.owner)
        drop(lock)
        t.release()

    td = k.spawn("waiter", waiter)
    bench.until(asleep_on(td, lock))
    bench.until(t.try_)
    t.release()
    drop(lock)
    bench.finish(k)
    assert seen == [td]


def test_timelock_gives_up_after_the_locks_timo(bench):
    k = bench.kernel(tick=0.002)
    lock = Lock(k, "vnode", timo=6)
    lock.lockmgr(LK_EXCLUSIVE)
    seen = []

    def body(flags):
        def run():
            start = k.carrier.ticks()
            seen.append((lock.lockmgr(flags | LK_TIMELOCK), k.carrier.ticks() - start))

        return run

    bench.run(k, body(LK_EXCLUSIVE))
    bench.run(k, body(LK_SHARED))
    assert [error for error, _ in seen] == [EWOULDBLOCK, EWOULDBLOCK]
    assert all(6 <= waited < 60 for _, waited in seen)
    drop(lock)
    assert lock.lockmgr(LK_EXCLUSIVE | LK_TIMELOCK) == 0
    drop(lock)


def test_sleepfail(bench, k):
    lock = Lock(k, "map")
    lock.lockmgr(LK_EXCLUSIVE)
    seen = []
    td = k.spawn("w", lambda: seen.append(lock.lockmgr(LK_EXCLUSIVE | LK_SLEEPFAIL)))
    bench.until(asleep_on(td, lock))
    drop(lock)
    bench.finish(k)
    assert seen == [ENOLCK]
    assert lock.lockstatus() == 0


def test_recursion_only_where_allowed(k):
    lock = Lock(k, "map")
    lock.lockmgr(LK_EXCLUSIVE)
    assert lock.lockmgr(LK_EXCLUSIVE | LK_NOWAIT) == EBUSY
    with pytest.raises(Misuse) as e:
        lock.lockmgr(LK_EXCLUSIVE)
    assert e.value.code == "lock-recursion"
    with pytest.raises(Misuse):
        lock.lockmgr(LK_SHARED)
    assert lock.lockmgr(LK_EXCLUSIVE | LK_CANRECURSE) == 0
    assert lock.lockmgr(LK_SHARED | LK_CANRECURSE) == 0  # one count more of the exclusive lock
    assert lock.lockcount() == 3
    for _ in range(2):
        drop(lock)
        assert lock.lockstatus(k.boot) == LK_EXCLUSIVE
    drop(lock)
    assert Lock(k, "map", canrecurse=True).canrecurse


def test_downgrade_lets_shared_requests_in(bench, k):
    lock = Lock(k, "map")
    lock.lockmgr(LK_EXCLUSIVE)
    seen = []
    td = k.spawn("r", lambda: (lock.lockmgr(LK_SHARED), seen.append(lock.lockcount()), drop(lock)))
    bench.until(asleep_on(td, lock))
    assert lock.lockmgr(LK_DOWNGRADE) == 0
    bench.finish(k)
    assert seen == [2]
    assert lock.lockstatus(k.boot) == LK_SHARED
    drop(lock)


def test_upgrade_of_the_only_holder(k):
    lock = Lock(k, "map")
    for request in (LK_UPGRADE, LK_EXCLUPGRADE):
        lock.lockmgr(LK_SHARED)
        assert lock.lockmgr(request) == 0
        assert lock.lockstatus(k.boot) == LK_EXCLUSIVE
        assert lock.lockmgr(LK_UPGRADE) == 0  # nothing to do
        drop(lock)


def test_upgrade_with_nowait_releases_when_it_fails(bench, k):
    lock = Lock(k, "map")
    lock.lockmgr(LK_SHARED)
    bench.run(k, lambda: (lock.lockmgr(LK_SHARED), busy(lock.lockmgr(LK_UPGRADE | LK_NOWAIT))))
    assert lock.lockcount() == 1
    drop(lock)


def busy(error):
    assert error == EBUSY


@pytest.mark.parametrize("request_", [LK_UPGRADE, LK_EXCLUPGRADE])
def test_upgrade_waits_for_the_other_holders(bench, k, request_):
    lock = Lock(k, "map")
    lock.lockmgr(LK_SHARED)
    seen = []

    def body():
        lock.lockmgr(LK_SHARED)
        seen.append(lock.lockmgr(request_))
        seen.append(lock.lockstatus(k.curthread()))
        drop(lock)

    td = k.spawn("u", body)
    bench.until(asleep_on(td, lock))
    assert lock.count & LKC_UPREQ
    assert lock.lockmgr(LK_SHARED | LK_NOWAIT) == EBUSY
    assert lock.lockcount() == 1
    drop(lock)  # grants it
    bench.finish(k)
    assert seen == [0, LK_EXCLUSIVE]
    assert lock.count & ~LKC_EXREQ == 0


def test_the_second_upgrade_fails_exclusively_or_waits(bench, k):
    lock = Lock(k, "map")
    order = []

    def first():
        lock.lockmgr(LK_SHARED)
        assert lock.lockmgr(LK_UPGRADE) == 0
        order.append("first")
        drop(lock)

    def second():
        lock.lockmgr(LK_SHARED)
        bench.until(lambda: lock.count & LKC_UPREQ)
        assert lock.lockmgr(LK_UPGRADE) == 0
        order.append("second")
        drop(lock)

    lock.lockmgr(LK_SHARED)
    b = k.spawn("second", second)
    bench.until(lambda: lock.lockcount() == 2)
    a = k.spawn("first", first)
    bench.until(asleep_on(b, lock))
    bench.until(asleep_on(a, lock))
    assert lock.lockmgr(LK_EXCLUPGRADE) == EBUSY  # and our share is gone
    bench.finish(k)
    assert order == ["first", "second"]
    assert lock.lockstatus() == 0


def test_an_upgrade_that_times_out_leaves_the_lock_usable(bench):
    k = bench.kernel()
    lock = Lock(k, "map", timo=3)
    lock.lockmgr(LK_SHARED)
    seen = []
    bench.run(
        k, lambda: (lock.lockmgr(LK_SHARED), seen.append(lock.lockmgr(LK_UPGRADE | LK_TIMELOCK)))
    )
    assert seen == [EWOULDBLOCK]
    # As in the C, the request of an upgrade whose first sleep ran out stays behind; the release
    # grants it to a thread that is gone.
    assert lock.count & LKC_UPREQ


@pytest.mark.parametrize("request_", [LK_RELEASE, LK_DOWNGRADE, LK_UPGRADE])
def test_of_a_lock_that_is_not_held(k, request_):
    with pytest.raises(Misuse) as e:
        Lock(k, "map").lockmgr(request_)
    assert e.value.code == "wrong-release"


@pytest.mark.parametrize("mode", [LK_EXCLUSIVE, LK_SHARED])
def test_release_by_a_stranger(bench, k, mode):
    lock = Lock(k, "map")
    lock.lockmgr(mode)
    k.spawn("stranger", lambda: lock.lockmgr(LK_RELEASE))
    with pytest.raises(Misuse, match="wrong-release"):
        bench.finish(k)


def test_unknown_request(k):
    with pytest.raises(Panic, match="lockmgr-request"):
        Lock(k, "map").lockmgr(0)


def test_events(bench, recorder):
    k = bench.kernel(recorder)
    lock = Lock(k, "map", timo=3)
    lock.lockmgr(LK_SHARED)
    lock.lockmgr(LK_UPGRADE)
    bench.run(k, lambda: lock.lockmgr(LK_EXCLUSIVE | LK_TIMELOCK))
    lock.lockmgr(LK_DOWNGRADE)
    lock.lockmgr(LK_RELEASE)
    got = [(n, a[2]) for n, a, _ in recorder.log if n.startswith("lock")]
    assert got == [
        ("lock_want", "shared"),
        ("lock_acquired", "shared"),
        ("lock_converted", "excl"),
        ("lock_want", "excl"),
        ("lock_block", "excl"),
        ("lock_failed", "excl"),
        ("lock_converted", "shared"),
        ("lock_release", "shared"),
    ]
    assert recorder.of("lock_block")[0][1][3] == 3
    assert recorder.of("lock_failed")[0][1][3] == EWOULDBLOCK
