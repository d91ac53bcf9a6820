import pytest

from smpvm.host.carrier import Stopped
from smpvm.kern.errno import EWOULDBLOCK
from smpvm.kern.probe import Probe
from smpvm.kern.shared import peek, poke, shared
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.thread import Misuse, Panic
from smpvm.kern.tsleep import Ident


@shared("n", benign={"n": "test"})
class Box:
    __slots__ = ("n", "plain")

    def __init__(self):
        self.n = 0
        self.plain = 0


def test_a_panic_stops_the_run_and_is_kept(bench, recorder):
    k = bench.kernel(recorder)
    told = []
    k.on_panic = lambda td, panic: told.append((str(td), panic.code))
    k.spawn("sleeper", lambda: k.sleep.tsleep(Ident("x"), 0, "x", 0))
    bad = k.spawn("bad", lambda: k.panic("free-wired", "page 12"))
    assert k.carrier.join(10) == []
    assert told == [("bad", "free-wired")]
    assert [(td, p.code) for td, p in k.panics] == [(bad, "free-wired")]
    assert recorder.of("panic")[0][1][1:] == ("free-wired", "page 12")
    with pytest.raises(Panic, match="free-wired: page 12"):
        k.check()


def test_an_unexpected_exception_stops_the_run_and_is_kept(bench):
    k = bench.kernel()
    told = []
    k.on_error = lambda td, error: told.append((str(td), repr(error)))
    k.spawn("sleeper", lambda: k.sleep.tsleep(Ident("x"), 0, "x", 0))
    k.spawn("broken", lambda: [][1])
    assert k.carrier.join(10) == []
    assert told == [("broken", "IndexError('list index out of range')")]
    assert k.panics == []
    with pytest.raises(IndexError):
        k.check()


def test_kassert(k):
    k.kassert(1, "never")
    with pytest.raises(Panic) as e:
        k.kassert(0, "flush-invalid", "page 3")
    assert (e.value.code, e.value.kind) == ("flush-invalid", "panic")


def test_a_thread_that_ends_with_a_lock_is_a_misuse(bench, k):
    s = Spinlock(k, "page", "12")
    k.spawn("t", s.lock)
    with pytest.raises(Misuse, match="exit-with-lock: t ends with spinlock page 12"):
        bench.finish(k)


def test_join_and_thread_events(bench, recorder):
    k = bench.kernel(recorder)
    go, seen = [], []
    child = k.spawn("child", lambda: bench.until(lambda: go), role="faulter", cpu=3)
    waiter = k.spawn("waiter", lambda: (k.join(child), seen.append(child.exited)))
    bench.until(lambda: waiter.sleeper is not None and waiter.sleeper.asleep)
    assert (child.role, child.cpu, str(child)) == ("faulter", 3, "child")
    go.append(True)
    bench.finish(k)
    assert seen == [True]
    assert [a[:2] for _, a, _ in recorder.of("thread_join")] == [(waiter, child)]
    assert {a for _, a, _ in recorder.of("thread_exit")} == {(child,), (waiter,)}
    assert [str(td) for td in k.live_threads()] == ["boot"]


def test_a_join_gives_up_after_its_time(bench, recorder):
    k = bench.kernel(recorder)
    go, seen = [], []
    child = k.spawn("child", lambda: bench.until(lambda: go))
    bench.run(
        k, lambda: (seen.append(k.join(child, 2)), go.append(True), seen.append(k.join(child)))
    )
    assert seen == [EWOULDBLOCK, 0]
    assert len(recorder.of("thread_join")) == 1


def test_counters_outlive_their_threads(bench, k):
    s = Spinlock(k, "page")

    def body():
        k.curthread().hit("v_dfree")
        s.lock()
        s.unlock()

    bench.run(k, body, body)
    k.boot.hit("v_dfree")
    assert k.counts()["v_dfree"] == 3
    assert k.lock_acquires()["page"] == 2
    assert len(k.threads) == 1


def test_numbers_count_up_by_kind(k):
    assert [k.next_id("page"), k.next_id("page"), k.next_id("vnode")] == [0, 1, 0]


def test_parts_can_be_replaced_and_unknown_ones_cannot(bench):
    with pytest.raises(TypeError, match="nonsense"):
        bench.kernel(parts={"nonsense": object})


def test_yield_can_be_scripted(bench):
    from smpvm.kern.lwkt import Sched

    class Script(Sched):
        def lwkt_yield(self):
            self.k.boot.hit("yield")

    k = bench.kernel(parts={"sched": Script})
    k.lwkt_yield()
    k.lwkt_user_yield()
    assert k.counts()["yield"] == 2


def test_unwatched_objects_are_bare(k):
    box = k.new(Box)
    assert type(box) is Box


def test_watched_objects_tell_of_each_access_before_it(bench):
    seen = []

    class Watch(Probe):
        def read(self, td, obj, field):
            seen.append(("read", field, peek(obj, field)))

        def write(self, td, obj, field, new):
            seen.append(("write", field, peek(obj, field), new))

        def atomic(self, td, obj, field, old, new):
            seen.append(("atomic", field, old, new))

    k = bench.kernel(Watch())
    box = k.new(Box)
    assert seen == []
    assert isinstance(box, Box)
    box.n = box.n + 1
    box.plain = 5
    k.atomic.add_int(box, "n", 2)
    poke(box, "n", 9)
    with k.quietly():
        assert box.n == 9
    assert seen == [("read", "n", 0), ("write", "n", 0, 1), ("atomic", "n", 1, 3)]


@pytest.mark.parametrize("watched", [False, True])
def test_atomics(bench, recorder, watched):
    k = bench.kernel(*([recorder] if watched else []))
    box = k.new(Box)
    a = k.atomic
    a.set_int(box, "n", 0b110)
    a.clear_int(box, "n", 0b010)
    assert box.n == 0b100
    assert a.fetchadd_int(box, "n", 3) == 4
    assert a.cmpset_int(box, "n", 7, 1)
    assert not a.cmpset_int(box, "n", 7, 2)
    assert a.swap_int(box, "n", 5) == 1
    a.add_int(box, "n", -5)
    assert box.n == 0


def test_atomics_lose_nothing(bench, k):
    box = k.new(Box)

    def body():
        for _ in range(5000):
            k.atomic.add_int(box, "n", 1)

    bench.run(k, *[body] * 4)
    assert box.n == 20000


def test_two_kernels_in_one_process_do_not_meet(bench):
    a, b = bench.kernel(), bench.kernel()
    box = []
    a.spawn("a", lambda: box.append(a.curthread().name))
    b.spawn("b", lambda: box.append(b.curthread().name))
    bench.finish(a)
    bench.finish(b)
    assert sorted(box) == ["a", "b"]
    assert a.curthread() is a.boot
    assert b.curthread() is b.boot


def test_stopped_is_not_an_exception():
    assert not issubclass(Stopped, Exception)
