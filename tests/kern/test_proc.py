import pytest

from smpvm.kern.proc import (
    PLOCK_WAITING,
    RLIM_INFINITY,
    SACTIVE,
    SIDL,
    SZOMB,
)
from smpvm.kern.thread import Panic
from smpvm.kern.tsleep import Ident


def active(k, *pids):
    procs = []
    for pid in pids:
        p = k.proc.new(pid)
        p.p_stat = SACTIVE
        procs.append(p)
    return procs


def scan(k, stop_at=None):
    seen = []

    def callback(p, data):
        assert data == "data"
        assert p.p_lock == 1  # held for us
        assert k.proc.bucket(p.p_pid).proc_token.held_excl()
        seen.append(p.p_pid)
        return -1 if p.p_pid == stop_at else 0

    k.proc.allproc_scan(callback, "data")
    return seen


def test_a_new_process(k):
    p = k.proc.new(3, "vmspace")
    assert (p.p_stat, p.p_flags, p.p_lock, p.p_vmspace) == (SIDL, 0, 0, "vmspace")
    assert p.p_rlimit_rss_cur == RLIM_INFINITY == 2**63 - 1
    assert str(p) == "proc 3"
    assert str(p.p_token) == "token p_token proc 3"
    assert k.proc.new_pid() == 1
    assert k.proc.new_pid() == 2


def test_scan_goes_by_bucket_newest_first_and_skips_zombies(k):
    procs = active(k, 300, 1, 2, 44)  # 300 and 44 share a bucket
    assert scan(k) == [1, 2, 44, 300]
    assert [p.p_pid for p in k.proc.all()] == [1, 2, 44, 300]
    procs[3].p_stat = SZOMB
    assert scan(k) == [1, 2, 300]
    assert scan(k, stop_at=2) == [1, 2]
    assert all(p.p_lock == 0 for p in procs)


def test_scan_is_bounded_by_the_processes_at_its_start(k):
    active(k, 1, 2)
    seen = []

    def callback(p, data):
        seen.append(p.p_pid)
        active(k, 10 + len(seen))  # always one more ahead
        return 0

    k.proc.allproc_scan(callback, None)
    assert len(seen) == 1 + 2 + k.ncpus + 1  # nprocs counts process 0; one call of slop


def test_a_held_process_cannot_leave_the_list_and_the_scan_goes_on_behind_it(bench, k):
    first, second = active(k, 258, 2)  # one bucket: the scan meets 2, then 258
    seen, inside, go_on = [], [], []

    def callback(p, data):
        seen.append(p.p_pid)
        if p is second:
            inside.append(True)
            # The callback sleeps, and with that gives the bucket's token up.
            while not go_on:
                k.sleep.tsleep(p, 0, "cb", 1)
        return 0

    def leave(p):
        p.p_token.get()
        k.proc.move_allproc_zombie(p)
        k.proc.remove_zombie(p)
        p.p_token.release()

    k.spawn("scan", lambda: k.proc.allproc_scan(callback, None))
    bench.until(lambda: inside)
    held = k.spawn("exit2", lambda: leave(second))
    gone = k.spawn("exit258", lambda: leave(first))
    bench.until(lambda: gone.exited)  # nobody holds that one
    bench.until(lambda: held.wmesg == "reap1")
    assert second.p_lock == PLOCK_WAITING | 1
    assert second in k.proc.all()
    go_on.append(True)
    bench.finish(k)
    assert seen == [2]
    assert k.proc.all() == []
    assert k.proc.nprocs == 1
    assert second.p_stat == SZOMB


def test_a_process_may_leave_ahead_of_the_scan_between_two_callbacks(bench, k):
    """The link is read after the callback, so that the scan does not follow one that has left."""
    _, doomed, here = active(k, 514, 258, 2)
    seen = []

    def callback(p, data):
        seen.append(p.p_pid)
        if p is here:
            k.proc.move_allproc_zombie(doomed)
            k.proc.remove_zombie(doomed)
        return 0

    k.proc.allproc_scan(callback, None)
    assert seen == [2, 514]


def test_release_wakes_who_drains_the_holds(bench, k):
    (p,) = active(k, 5)
    k.proc.phold(p)
    k.proc.phold(p)
    td = k.spawn("stall", lambda: k.proc.pstall(p, "stall", 1))
    bench.until(lambda: td.sleeper is not None and td.sleeper.asleep)
    assert p.p_lock == PLOCK_WAITING | 2
    k.proc.prele(p)
    bench.finish(k)
    assert p.p_lock == 1
    k.proc.prele(p)
    assert p.p_lock == 0
    with pytest.raises(Panic, match="prele-unheld"):
        k.proc.prele(p)


def test_pfind_shares_its_token_and_knows_the_caller(bench):
    k = bench.kernel()
    p, q = k.proc.new(9), k.proc.new(10)
    p.p_stat = q.p_stat = SACTIVE
    token = k.proc.bucket(9).proc_token
    token.get_shared()
    seen = []

    def body():
        seen.append(k.proc.pfind(9))
        k.curthread().proc = q
        k.proc.bucket(10).proc_token.get()
        seen.append(k.proc.pfind(10))
        k.proc.bucket(10).proc_token.release()
        k.curthread().proc = None

    bench.run(k, body)
    token.release()
    assert seen == [p, q]
    assert (p.p_lock, q.p_lock) == (1, 1)


def test_pfind_holds(k):
    (p,) = active(k, 9)
    assert k.proc.pfind(9) is p
    assert p.p_lock == 1
    k.proc.prele(p)
    p.p_stat = SZOMB
    assert k.proc.pfind(9) is None
    assert k.proc.pfind(265) is None


def test_killproc_and_resetpriority_are_told(bench, recorder):
    k = bench.kernel(recorder)
    (p,) = active(k, 9)
    recorder.log.clear()
    p.p_nice = -20
    k.proc.resetpriority(p)
    k.proc.killproc(p, "out of swap space")
    assert p.killed
    calls = [(a[1], facts) for _, a, facts in recorder.of("call")]
    assert calls == [
        ("resetpriority", {"pid": 9, "nice": -20}),
        ("killproc", {"pid": 9, "why": "out of swap space"}),
    ]


def test_scans_against_processes_that_come_and_go(bench, k):
    done = []

    def churn(base):
        def run():
            i = 0
            while i < 40 or scans[0] < 10:
                i += 1
                (p,) = active(k, base + 256 * i)
                p.p_token.get()
                k.proc.move_allproc_zombie(p)
                k.proc.remove_zombie(p)
                p.p_token.release()
            done.append(base)

        return run

    scans = [0]
    pause = Ident("pause")

    def scanner():
        while len(done) < 2:
            k.proc.allproc_scan(lambda p, d: (k.lwkt_yield(), 0)[1], None)
            scans[0] += 1
            k.sleep.tsleep(pause, 0, "scan", 1)  # or nobody whom it holds could ever leave

    bench.run(k, churn(1), churn(1 + 256 * 1000), scanner, timeout=30)
    assert k.proc.all() == []
    assert k.proc.nprocs == 1
    assert scans[0] > 0
