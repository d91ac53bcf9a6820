"""A deadlock is reported when its cycle closes, with who holds what, and where."""

import threading

import pytest

from smpvm.check.waitfor import WaitFor
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RELEASE, LK_SHARED, LK_TIMELOCK
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token


class FakePage:
    """Stands for a page: the probe is told what the page layer would tell it."""

    def __init__(self, idx):
        self.idx = idx
        self.object = None
        self.pindex = idx

    def __str__(self):
        return f"page {self.idx}"


def crossing(w, take_first, take_second, n=2):
    """Bodies that each take their first, wait until all have, then want the next one's."""
    met = threading.Barrier(n)

    def body(i):
        def run():
            take_first(i)
            met.wait(5)
            take_second((i + 1) % n)

        return run

    return [body(i) for i in range(n)]


def start(w, bodies):
    for i, body in enumerate(bodies):
        w.k.spawn(f"t{i}", body, role=f"role{i}")


class TestDeadlocks:
    def test_two_spinlocks(self, watch):
        w = watch("waitfor")
        locks = [Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")]
        start(w, crossing(w, lambda i: locks[i].lock(), lambda i: locks[i].lock()))
        w.until(lambda: w.findings)
        found = w.one("deadlock")
        assert found.threads == [("t0", "role0"), ("t1", "role1")]
        assert [s.what for s in found.sites] == [
            "took spinlock alpha",
            "waits for spinlock beta",
            "took spinlock beta",
            "waits for spinlock alpha",
        ]
        assert found.objects == ["spinlock beta", "spinlock alpha"]
        assert all(any(f.name.endswith("run") for f in s.stack) for s in found.sites)

    def test_three_lockmgr_locks(self, watch):
        w = watch("waitfor")
        locks = [Lock(w.k, name) for name in ("alpha", "beta", "gamma")]

        def take(i):
            locks[i].lockmgr(LK_EXCLUSIVE)

        start(w, crossing(w, take, take, n=3))
        w.until(lambda: w.findings)
        assert len(w.one("deadlock").threads) == 3

    def test_a_shared_holder_blocks_an_exclusive_request(self, watch):
        w = watch("waitfor")
        locks = [Lock(w.k, "alpha"), Lock(w.k, "beta")]
        start(
            w,
            crossing(
                w,
                lambda i: locks[i].lockmgr(LK_SHARED),
                lambda i: locks[i].lockmgr(LK_EXCLUSIVE),
            ),
        )
        w.until(lambda: w.findings)
        w.one("deadlock")

    def test_a_shared_request_waits_behind_an_exclusive_one(self, watch):
        w = watch("waitfor")
        a, b = Lock(w.k, "alpha"), Lock(w.k, "beta")
        step = threading.Event()

        def reader():
            a.lockmgr(LK_SHARED)
            step.wait(5)
            w.until(lambda: a.count & 0x80000000 and b.owners())  # the writer's request stands
            b.lockmgr(LK_EXCLUSIVE)

        def writer():
            w.until(lambda: a.owners())
            step.set()
            a.lockmgr(LK_EXCLUSIVE)

        def second_reader():
            b.lockmgr(LK_EXCLUSIVE)
            w.until(lambda: a.count & 0x80000000)
            a.lockmgr(LK_SHARED)

        start(w, [reader, writer, second_reader])
        w.until(lambda: w.findings)
        assert len(w.one("deadlock").threads) == 3

    def test_a_busy_page_against_a_vnode_lock(self, watch):
        w = watch("waitfor", "order")
        vnode, page = Lock(w.k, "vnode", "2"), FakePage(12)
        met = threading.Barrier(2)
        probe = w.k.probe

        def has_the_page():
            probe.page_busied(w.k.curthread(), page)
            met.wait(5)
            vnode.lockmgr(LK_EXCLUSIVE)

        def has_the_vnode():
            vnode.lockmgr(LK_EXCLUSIVE)
            met.wait(5)
            td = w.k.curthread()
            probe.page_block(td, page, False)
            w.k.sleep.tsleep(page, 0, "pgbusy", 0)

        start(w, [has_the_page, has_the_vnode])
        w.until(lambda: "deadlock" in w.kinds)
        assert sorted(w.kinds)[:2] == ["deadlock", "lock-order"]
        rule = next(f for f in w.findings if f.title.startswith("busy-then-vnode"))
        assert rule.objects == ["busy page 12", "lock vnode 2"]
        dead = next(f for f in w.findings if f.kind == "deadlock")
        assert "page 12" in dead.objects

    def test_paging_in_progress(self, watch):
        w = watch("waitfor")
        lock, obj = Lock(w.k, "alpha"), FakePage(3)
        met = threading.Barrier(2)
        probe = w.k.probe

        def pages():
            probe.pip_add(w.k.curthread(), obj, 1)
            met.wait(5)
            lock.lockmgr(LK_EXCLUSIVE)

        def waits_for_paging():
            lock.lockmgr(LK_EXCLUSIVE)
            met.wait(5)
            probe.pip_block(w.k.curthread(), obj)
            w.k.sleep.tsleep(obj, 0, "objpip", 0)

        start(w, [pages, waits_for_paging])
        w.until(lambda: w.findings)
        assert "paging_in_progress of page 3" in w.one("deadlock").title

    def test_io_slots_are_resources_with_owners(self, watch):
        w = watch("waitfor")
        lock = Lock(w.k, "alpha")
        met = threading.Barrier(2)

        class Slots:
            def __init__(self):
                self.users = []

            def owners(self):
                return self.users

        slots = Slots()

        def has_the_slot():
            slots.users = [w.k.curthread()]
            met.wait(5)
            lock.lockmgr(LK_EXCLUSIVE)

        def wants_a_slot():
            lock.lockmgr(LK_EXCLUSIVE)
            met.wait(5)
            w.k.sleep.tsleep(slots, 0, "swslot", 0)

        start(w, [has_the_slot, wants_a_slot])
        w.until(lambda: w.findings)
        w.one("deadlock")


class TestNone:
    def test_a_sleep_on_what_is_ones_own_waits_for_something_else(self, watch):
        """A page that its reader has busy is no cycle, and must not hold the reader up."""
        w = watch("waitfor")

        class Busy(FakePage):
            def owners(self):
                return [w.k.curthread()]

        page = Busy(3)

        def reader():
            w.k.probe.page_busied(w.k.curthread(), page)
            w.k.sleep.tsleep(page, 0, "swread", 1)
            w.k.probe.page_unbusied(w.k.curthread(), page)

        w.together(reader)
        assert w.findings == []

    def test_waiting_in_one_order_is_no_deadlock(self, watch):
        w = watch("waitfor")
        locks = [Lock(w.k, "alpha"), Lock(w.k, "beta")]

        def both():
            for _ in range(200):
                locks[0].lockmgr(LK_EXCLUSIVE)
                locks[1].lockmgr(LK_EXCLUSIVE)
                locks[1].lockmgr(LK_RELEASE)
                locks[0].lockmgr(LK_RELEASE)

        w.together(both, both, both)
        assert w.findings == []

    def test_tokens_the_wrong_way_round_go_on(self, watch):
        w = watch("waitfor")
        a, b = Token(w.k, "alpha"), Token(w.k, "beta")

        def pair(x, y):
            for _ in range(200):
                x.get()
                y.get()
                y.release()
                x.release()

        w.together(lambda: pair(a, b), lambda: pair(b, a))
        assert w.findings == []

    def test_mixed_readers_and_writers(self, watch):
        w = watch("waitfor")
        lock, spin = Lock(w.k, "alpha"), Spinlock(w.k, "beta")

        def reader():
            for _ in range(200):
                lock.lockmgr(LK_SHARED)
                spin.lock_shared()
                spin.unlock_shared()
                lock.lockmgr(LK_RELEASE)

        def writer():
            for _ in range(200):
                lock.lockmgr(LK_EXCLUSIVE)
                spin.lock()
                spin.unlock()
                lock.lockmgr(LK_RELEASE)

        w.together(reader, reader, writer)
        assert w.findings == []

    @pytest.mark.parametrize("meant", ["", "the timer sees to it"])
    def test_a_timed_wait_masks_the_deadlock(self, watch, meant):
        w = watch("waitfor", tick=0.02)
        a, b = Lock(w.k, "alpha", timo=10, meant=meant), Lock(w.k, "beta")
        met = threading.Barrier(2)
        errors = []

        def times_out():
            b.lockmgr(LK_EXCLUSIVE)
            met.wait(5)
            errors.append(a.lockmgr(LK_EXCLUSIVE | LK_TIMELOCK))
            b.lockmgr(LK_RELEASE)

        def waits():
            a.lockmgr(LK_EXCLUSIVE)
            met.wait(5)
            b.lockmgr(LK_EXCLUSIVE)
            b.lockmgr(LK_RELEASE)
            a.lockmgr(LK_RELEASE)

        w.together(times_out, waits)
        assert errors[0] != 0
        told = [(d["what"], d["why"], d["count"]) for d in w.suite.summary()["accepted"]]
        if meant:
            assert w.findings == []
            assert told == [("alpha", meant, 1)]
        else:
            found = w.one("masked-deadlock")
            assert any("will break" in line for line in found.evidence)
            assert told == []

    def test_paging_handed_to_the_device_is_lowered_by_the_device(self, watch):
        w = watch("waitfor")
        lock, obj, io = Lock(w.k, "alpha"), FakePage(3), object()
        met = threading.Barrier(2)
        probe = w.k.probe

        def pages():
            td = w.k.curthread()
            probe.pip_add(td, obj, 1)
            probe.io_submit(td, io)
            met.wait(5)
            lock.lockmgr(LK_EXCLUSIVE)
            lock.lockmgr(LK_RELEASE)

        def waits_for_paging():
            lock.lockmgr(LK_EXCLUSIVE)
            met.wait(5)
            probe.pip_block(w.k.curthread(), obj)
            w.k.sleep.tsleep(obj, 0, "objpip", 20)
            lock.lockmgr(LK_RELEASE)

        w.together(pages, waits_for_paging)
        assert w.findings == []


class TestAnalysis:
    def test_a_standing_deadlock_is_found_from_the_threads_themselves(self, watch):
        """As in serial mode, where waiting for a spinlock is not an event."""
        w = watch("waitfor")
        a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")
        tds = [w.k.make_thread(f"t{i}", lambda: None) for i in range(2)]
        for td, mine, want in ((tds[0], a, b), (tds[1], b, a)):
            w.suite.tracker.state(td)
            mine.owner = td
            td.waiting = want
        assert w.suite.stalled()
        w.one("deadlock")

    def test_it_says_who_waits_for_what(self, watch):
        w = watch("waitfor")
        lock = Lock(w.k, "alpha", "4")
        go = threading.Event()

        def holder():
            lock.lockmgr(LK_EXCLUSIVE)
            go.wait(5)
            lock.lockmgr(LK_RELEASE)

        def waiter():
            w.until(lambda: lock.owners())
            lock.lockmgr(LK_EXCLUSIVE)
            lock.lockmgr(LK_RELEASE)

        start(w, [holder, waiter])
        w.until(lambda: w.suite.find(WaitFor).describe())
        assert w.suite.find(WaitFor).describe() == [
            "t1 waits for lock alpha 4, held by t0; holds nothing"
        ]
        go.set()
        w.k.carrier.join(5)
        assert w.suite.find(WaitFor).describe() == []
