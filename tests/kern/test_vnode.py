import pytest

from smpvm.kern.errno import EBUSY, ENOENT, EWOULDBLOCK
from smpvm.kern.lockreq import (
    LK_EXCLUSIVE,
    LK_EXTFLG_MASK,
    LK_NOWAIT,
    LK_RELEASE,
    LK_RETRY,
    LK_SHARED,
    LK_TIMELOCK,
    LKC_MASK,
)
from smpvm.kern.proc import P_LOWMEMKILL, P_SWAPPEDOUT, P_SWAPWAIT, P_SYSTEM, P_WEXIT
from smpvm.kern.thread import TDF_SYSTHREAD, Misuse, Panic
from smpvm.kern.vnode import (
    VINACTIVE,
    VOBJBUF,
    VOBJDIRTY,
    VRECLAIMED,
    VREF_FINALIZE,
    VREF_MASK,
    VREF_TERMINATE,
    VS_ACTIVE,
    VS_INACTIVE,
)


@pytest.fixture
def vp(k):
    return k.vnode.new()


def test_vget_references_and_locks(k, vp):
    assert k.vnode.vget(vp, LK_EXCLUSIVE) == 0
    assert vp.v_refcnt == 2
    assert vp.v_lock.lockstatus(k.boot) == LK_EXCLUSIVE
    k.vnode.vput(vp)
    assert vp.v_refcnt == 1
    assert vp.v_lock.lockstatus() == 0
    assert str(vp) == "vnode 0"
    assert str(vp.v_lock) == "lock vnode vnode 0"


def test_the_locks_timo_is_a_twentieth_of_a_second_and_one_tick(bench):
    assert bench.kernel(hz=100).vnode.new().v_lock.timo == 6
    assert bench.kernel(hz=1000).vnode.new().v_lock.timo == 51


def test_vget_fails_busy_timed_out_or_gone_and_keeps_no_reference(bench):
    k = bench.kernel(tick=0.001)
    vp = k.vnode.new()
    k.vnode.vn_lock(vp, LK_EXCLUSIVE)
    seen = []

    def body():
        seen.append(k.vnode.vget(vp, LK_EXCLUSIVE | LK_NOWAIT))
        seen.append(k.vnode.vget(vp, LK_EXCLUSIVE | LK_TIMELOCK))

    bench.run(k, body)
    assert seen == [EBUSY, EWOULDBLOCK] == [16, 35]
    assert vp.v_refcnt == 1
    k.vnode.reclaim(vp)
    k.vnode.vn_unlock(vp)
    assert k.vnode.vget(vp, LK_EXCLUSIVE) == ENOENT == 2
    assert k.vnode.vget(vp, LK_SHARED) == ENOENT
    assert vp.v_refcnt == VREF_FINALIZE | 1
    assert vp.v_lock.lockstatus() == 0
    assert k.vnode.all() == []
    k.vnode.vrele(vp)
    assert (vp.v_state, vp.v_refcnt) == (VS_INACTIVE, VREF_TERMINATE)


def test_vget_without_a_lock_type(k, vp):
    with pytest.raises(Panic, match="vget-no-lock-type"):
        k.vnode.vget(vp, LK_NOWAIT)


def test_vget_with_a_spinlock_held(k, vp):
    vp.v_spin.lock()
    with pytest.raises(Misuse, match="sleep-with-spinlock"):
        k.vnode.vget(vp, LK_EXCLUSIVE)


def test_the_last_reference_leaves_it_cached(k, vp):
    k.vnode.vref(vp)
    k.vnode.vrele(vp)
    k.vnode.vrele(vp)
    assert vp.v_refcnt == 0
    assert vp.v_state == VS_ACTIVE
    with pytest.raises(Panic, match="vrele-unreferenced"):
        k.vnode.vrele(vp)
    with pytest.raises(Panic, match="vref-bad"):
        k.vnode.vref(vp)
    assert k.vnode.vget(vp, LK_EXCLUSIVE) == 0
    assert vp.v_refcnt == 1
    k.vnode.vput(vp)


def test_finalize_makes_it_inactive_and_vget_brings_it_back(k, vp):
    k.atomic.set_int(vp, "v_refcnt", VREF_FINALIZE)
    k.vnode.vrele(vp)
    assert (vp.v_state, vp.v_refcnt) == (VS_INACTIVE, VREF_TERMINATE)
    assert vp.v_flag & VINACTIVE
    assert k.vnode.vget(vp, LK_EXCLUSIVE) == 0
    assert (vp.v_state, vp.v_refcnt) == (VS_ACTIVE, 1)
    assert not vp.v_flag & VINACTIVE
    assert vp.v_refcnt & VREF_MASK == 1
    k.vnode.vput(vp)


def test_vn_lock_retries_when_asked(bench, k, vp):
    """LK_RETRY goes on after a time-out, until the lock is there."""
    k.vnode.vn_lock(vp, LK_EXCLUSIVE)
    seen = []

    def body():
        seen.append(k.vnode.vn_lock(vp, LK_EXCLUSIVE | LK_TIMELOCK | LK_RETRY))
        k.vnode.vn_unlock(vp)

    td = k.spawn("t", body)
    start = k.carrier.ticks()
    bench.until(lambda: k.carrier.ticks() - start > 3 * vp.v_lock.timo)
    assert not td.exited
    vp.v_lock.lockmgr(LK_RELEASE)
    bench.finish(k)
    assert seen == [0]


def test_dirty_object_flag(k, vp):
    k.vnode.vsetflags(vp, VOBJDIRTY)
    assert vp.v_flag & VOBJDIRTY
    k.vnode.vclrobjdirty(vp)
    assert not vp.v_flag & VOBJDIRTY


def test_calls_are_told(bench, recorder):
    k = bench.kernel(recorder)
    vp = k.vnode.new()
    k.vnode.vget(vp, LK_EXCLUSIVE | LK_NOWAIT)
    k.vnode.vput(vp)
    calls = [(a[1], facts) for _, a, facts in recorder.of("call")]
    assert calls == [
        ("vget", {"vnode": vp, "flags": LK_EXCLUSIVE | LK_NOWAIT, "result": 0}),
        ("vput", {"vnode": vp}),
    ]


def test_references_under_contention(bench, k, vp):
    def body():
        for i in range(300):
            assert k.vnode.vget(vp, LK_EXCLUSIVE if i % 3 else LK_SHARED) == 0
            k.vnode.vput(vp)

    bench.run(k, *[body] * 4, timeout=30)
    assert vp.v_refcnt == 1
    assert vp.v_lock.lockstatus() == 0


def test_a_failed_vget_leaves_an_inactive_vnode_inactive(bench, k, vp):
    """VREF_TERMINATE counts as a reference: giving the other one back ends nothing."""
    k.atomic.set_int(vp, "v_refcnt", VREF_FINALIZE)
    k.vnode.vrele(vp)
    vp.v_lock.lockmgr(LK_EXCLUSIVE)
    seen = []
    bench.run(k, lambda: seen.append(k.vnode.vget(vp, LK_EXCLUSIVE | LK_NOWAIT)))
    vp.v_lock.lockmgr(LK_RELEASE)
    assert seen == [EBUSY]
    assert (vp.v_state, vp.v_refcnt) == (VS_INACTIVE, VREF_TERMINATE)
    with pytest.raises(Panic, match="vref-bad"):
        k.vnode.vref(vp)


def test_flags_have_the_values_of_the_headers():
    """sys/vnode.h:220-257, sys/proc.h:354-375, sys/lock.h:134-172, sys/thread.h:350-370."""
    assert (VOBJBUF, VINACTIVE, VRECLAIMED, VOBJDIRTY) == (0x2000, 0x4000, 0x40000, 0x800000)
    assert VREF_MASK == 0xBFFFFFFF
    flags = (P_SWAPPEDOUT, P_SYSTEM, P_WEXIT, P_LOWMEMKILL, P_SWAPWAIT)
    assert flags == (0x4, 0x200, 0x2000, 0x10000, 0x40000)
    assert (LK_EXTFLG_MASK, LKC_MASK, TDF_SYSTHREAD) == (0x07000070, 0x03FFFFFF, 0x100)
