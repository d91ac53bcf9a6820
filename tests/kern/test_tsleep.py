import pytest

from smpvm.kern.errno import EINTR, EWOULDBLOCK
from smpvm.kern.thread import Misuse, Panic
from smpvm.kern.tsleep import PCATCH, PINTERLOCKED, Addr, Ident


def asleep(*tds):
    return lambda: all(td.sleeper is not None and td.sleeper.asleep for td in tds)


def test_wakeup_wakes_every_sleeper_on_the_identity_and_no_other(bench, recorder):
    k = bench.kernel(recorder)
    a, b = Ident("vm_pages_needed"), Ident("vm_daemon_needed")
    seen = []
    tds = [
        k.spawn(f"t{i}", lambda i=i: seen.append((i, k.sleep.tsleep(a, 0, "psleep", 0))))
        for i in range(3)
    ]
    other = k.spawn("other", lambda: seen.append(("other", k.sleep.tsleep(b, 0, "x", 0))))
    bench.until(asleep(*tds, other))
    assert [str(s.ident) for s in k.sleep.sleepers()] == ["vm_pages_needed"] * 3 + [
        "vm_daemon_needed"
    ]
    assert tds[0].wmesg == "psleep"
    assert tds[0].wchan is a
    k.sleep.wakeup(a)
    bench.until(lambda: len(seen) == 3)
    assert sorted(seen) == [(0, 0), (1, 0), (2, 0)]
    assert other.sleeper.ident is b
    k.sleep.wakeup(b)
    bench.finish(k)
    assert tds[0].wchan is None
    woken = recorder.of("wakeup")[0][1][2]
    assert sorted(map(str, woken)) == ["t0", "t1", "t2"]
    assert k.sleep.sleepers() == []


def test_wakeup_is_not_remembered(k):
    ident = Ident("x")
    k.sleep.wakeup(ident)
    start = k.carrier.ticks()
    assert k.sleep.tsleep(ident, 0, "x", 5) == EWOULDBLOCK
    assert k.carrier.ticks() - start >= 5


def test_without_interlock_a_wakeup_in_the_gap_is_lost(bench, k):
    ident = Ident("x")
    gap, woken, seen = [], [], []

    def sleeper():
        gap.append(True)
        bench.until(lambda: woken)  # checked the condition, not asleep yet
        seen.append(k.sleep.tsleep(ident, 0, "x", 5))

    k.spawn("sleeper", sleeper)
    bench.until(lambda: gap)
    k.sleep.wakeup(ident)
    woken.append(True)
    bench.finish(k)
    assert seen == [EWOULDBLOCK]


def test_with_interlock_a_wakeup_in_the_gap_is_not_lost(bench, k):
    ident = Ident("x")
    gap, woken, seen = [], [], []

    def sleeper():
        k.sleep.tsleep_interlock(ident)
        gap.append(True)
        bench.until(lambda: woken)
        seen.append(k.sleep.tsleep(ident, PINTERLOCKED, "x", 0))

    k.spawn("sleeper", sleeper)
    bench.until(lambda: gap)
    assert [str(td) for td in k.sleep.waiting_on(ident)] == ["sleeper"]
    k.sleep.wakeup(ident)
    woken.append(True)
    bench.finish(k)
    assert seen == [0]


def test_a_second_interlock_leaves_the_first_queue(k):
    a, b = Ident("a"), Ident("b")
    k.sleep.tsleep_interlock(a)
    k.sleep.tsleep_interlock(b)
    assert k.sleep.waiting_on(a) == []
    assert k.sleep.waiting_on(b) == [k.boot]
    with pytest.raises(Misuse) as e:
        k.sleep.tsleep(a, PINTERLOCKED, "a", 1)
    assert e.value.code == "sleep-interlock"


def test_timeout_in_ticks(bench):
    k = bench.kernel(tick=0.002)
    for timo in (1, 10):
        start = k.carrier.ticks()
        assert k.sleep.tsleep(Ident("x"), 0, "x", timo) == EWOULDBLOCK
        assert timo <= k.carrier.ticks() - start < timo + 50
    assert k.boot.sleeper is None


def test_a_stray_unpark_does_not_end_a_sleep(bench, k):
    ident, seen = Ident("x"), []
    td = k.spawn("t", lambda: seen.append(k.sleep.tsleep(ident, 0, "x", 0)))
    bench.until(asleep(td))
    for _ in range(5):
        k.carrier.unpark(td)
        bench.until(td.carrier_data.permit.locked)  # it has run, and sleeps again
    assert asleep(td)()
    assert seen == []
    k.sleep.wakeup(ident)
    bench.finish(k)
    assert seen == [0]


def test_events_and_condition(bench, recorder):
    k = bench.kernel(recorder)
    ident = Ident("x")
    k.sleep.tsleep(ident, 0, "wmsg", 1, lambda: True)
    k.sleep.tsleep_interlock(ident)
    k.sleep.wakeup(ident)
    k.sleep.tsleep(ident, PINTERLOCKED, "wmsg", 0)
    assert recorder.names() == [
        "sleep",
        "sleep_done",
        "sleep_interlock",
        "wakeup",
        "sleep_done",
    ]
    _, _, wmesg, timo, cond = recorder.log[0][1]
    assert (wmesg, timo, cond()) == ("wmsg", 1, True)
    assert recorder.log[1][1][3] is True  # timed out
    assert recorder.log[-1][1][3] is False


def test_wakeup_one_takes_the_first_on_this_cpu_or_one_on_each_other(bench, k):
    ident, seen = Ident("v_free_count"), []

    def start(name, cpu):
        td = k.spawn(name, lambda: seen.append((name, k.sleep.tsleep(ident, 0, "x", 0))), cpu=cpu)
        bench.until(asleep(td))
        return td

    for name, cpu in (("a0", 0), ("b1", 1), ("c0", 0), ("d1", 1), ("e2", 2)):
        start(name, cpu)
    k.sleep.wakeup_one(ident)  # the boot thread is on CPU 0
    bench.until(lambda: len(seen) == 1)
    k.sleep.wakeup_one(ident)
    bench.until(lambda: len(seen) == 2)
    assert [name for name, _ in seen] == ["a0", "c0"]
    k.sleep.wakeup_one(ident)
    bench.until(lambda: len(seen) == 4)
    assert sorted(name for name, _ in seen[2:]) == ["b1", "e2"]
    k.sleep.wakeup_one(ident)
    bench.finish(k)
    assert len(seen) == 5


def test_wakeup_one_goes_on_past_the_merely_interlocked(bench, k):
    ident, seen = Ident("x"), []
    k.sleep.tsleep_interlock(ident)
    td = k.spawn("t", lambda: seen.append(k.sleep.tsleep(ident, 0, "x", 0)))
    bench.until(asleep(td))
    k.sleep.wakeup_one(ident)
    bench.finish(k)
    assert seen == [0]
    assert k.boot.sleeper is None


def test_a_kill_ends_only_a_sleep_that_asked_for_it(bench, k):
    ident, seen = Ident("x"), []
    p = k.proc.new(7)

    def body(flags):
        def run():
            k.proc.lwp_fork(p, k.curthread())
            seen.append((flags, k.sleep.tsleep(ident, flags, "x", 0)))

        return run

    tds = [k.spawn("plain", body(0)), k.spawn("catch", body(PCATCH))]
    bench.until(asleep(*tds))
    k.proc.killproc(p, "test")
    bench.until(lambda: seen)
    assert seen == [(PCATCH, EINTR)]
    k.sleep.wakeup(ident)
    bench.finish(k)
    assert seen[1] == (0, 0)


def test_a_killed_process_does_not_begin_such_a_sleep(k):
    p = k.proc.new(7)
    k.proc.lwp_fork(p, k.boot)
    k.proc.killproc(p, "test")
    assert k.sleep.tsleep(Ident("x"), PCATCH, "x", 0) == EINTR
    assert k.boot.sleeper is None


def test_no_identity(k):
    with pytest.raises(Panic):
        k.sleep.tsleep(None, 0, "x", 1)


def test_an_address_in_an_object_is_an_identity(k):
    page = object()
    assert Addr(page, "f") == Addr(page, "f")
    assert Addr(page, "f") != Addr(page, "g")
    assert str(Addr("object 4", "pip")) == "object 4.pip"


def test_ping_pong_by_identity_loses_nothing(bench, k):
    """Two threads pass a token by interlocked sleeps, with no timer to save them."""
    box, rounds = [0], 1500
    idents = [Ident("even"), Ident("odd")]

    def player(me):
        def run():
            for turn in range(me, 2 * rounds, 2):
                while box[0] != turn:
                    k.sleep.tsleep_interlock(idents[me])
                    if box[0] != turn:
                        k.sleep.tsleep(idents[me], PINTERLOCKED, "turn", 0)
                box[0] = turn + 1
                k.sleep.wakeup(idents[1 - me])

        return run

    bench.run(k, player(0), player(1), timeout=30)
    assert box[0] == 2 * rounds


def test_a_kill_comes_before_the_wakeup_that_the_interlock_caught(k):
    """kern_synch.c:543-575 looks for signals before it looks whether it is still queued."""
    p = k.proc.new(7)
    k.proc.lwp_fork(p, k.curthread())
    x = Ident("x")
    for killed, answer in ((False, 0), (True, EINTR)):
        p.killed = killed
        k.sleep.tsleep_interlock(x)
        k.sleep.wakeup(x)
        assert k.sleep.tsleep(x, PCATCH | PINTERLOCKED, "x", 0) == answer
