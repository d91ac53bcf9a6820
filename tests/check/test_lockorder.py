"""Lock order is checked by class, before anything hangs."""

import pytest

from smpvm.check.lockorder import LockEdge, LockOrder, OrderGraph
from smpvm.kern.cname import c
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT, LK_RELEASE, LK_SHARED, LK_TIMELOCK
from smpvm.kern.spinlock import Spinlock, SpinPool
from smpvm.kern.token import Token


class Item:
    def __init__(self, idx):
        self.idx = idx


class Page:
    """Stands for a page of *obj*."""

    def __init__(self, idx, obj):
        self.pindex = idx
        self.object = obj

    def __str__(self):
        return f"page {self.pindex}"


def edge(first, then, binding=True):
    return LockEdge(first, then, (), (), None, binding)


class TestGraph:
    def test_a_new_edge_that_closes_a_cycle_is_returned_with_the_way_back(self):
        g = OrderGraph()
        assert g.add(edge("a", "b")) == []
        assert g.add(edge("b", "c")) == []
        cycle = g.add(edge("c", "a"))
        assert [(e.first, e.then) for e in cycle] == [("c", "a"), ("a", "b"), ("b", "c")]

    def test_an_edge_is_new_once(self):
        g = OrderGraph()
        g.add(edge("a", "b"))
        assert len(g.add(edge("b", "a"))) == 2
        assert g.add(edge("b", "a")) == []

    def test_no_cycle_goes_through_an_edge_that_does_not_bind(self):
        g = OrderGraph()
        g.add(edge("a", "b", binding=False))
        assert g.add(edge("b", "a")) == []

    def test_an_edge_that_comes_to_bind_later_counts_from_then_on(self):
        g = OrderGraph()
        g.add(edge("a", "b", binding=False))
        g.add(edge("b", "a"))
        assert len(g.add(edge("a", "b"))) == 2


def locked(*locks):
    """Takes the spinlocks in order and lets go in reverse."""
    for lock in locks:
        lock.lock()
    for lock in reversed(locks):
        lock.unlock()


def take_a_then_b(a, b):
    a.lock()
    b.lock()
    b.unlock()
    a.unlock()


def take_b_then_a(a, b):
    b.lock()
    a.lock()
    a.unlock()
    b.unlock()


class TestCycles:
    def test_ab_ba_is_found_though_it_never_deadlocks(self, watch, frames):
        w = watch()
        a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")
        w.go(lambda: take_a_then_b(a, b), lambda: take_b_then_a(a, b))
        found = w.one("lock-order")
        assert found.title == "cycle alpha → beta → alpha"
        assert [s.what for s in found.sites] == [
            "took alpha",
            "then took beta",
            "took beta",
            "then took alpha",
        ]
        assert [s.thread for s in found.sites] == ["t0", "t0", "t1", "t1"]
        at = [next(f for f in s.stack if "kern/" not in f.file).name for s in found.sites]
        assert at == ["take_a_then_b", "take_a_then_b", "take_b_then_a", "take_b_then_a"]

    def test_the_scenario_comes_first_with_a_column_for_each_thread(self, watch):
        w = watch()
        a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")
        w.go(lambda: take_a_then_b(a, b), lambda: take_b_then_a(a, b))
        head, _, *rows = w.one("lock-order").evidence[:6]
        assert head.split("  ")[0] == "CPU 0 as t0"
        assert head.rstrip().endswith("CPU 1 as t1")
        assert [row.split() for row in rows] == [
            ["holds", "alpha"],
            ["holds", "beta"],
            ["wants", "beta"],
            ["wants", "alpha"],
        ]

    def test_the_same_order_everywhere_is_clean(self, watch):
        w = watch()
        a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")
        w.go(lambda: take_a_then_b(a, b), lambda: locked(a, b))
        assert w.findings == []

    def test_a_cycle_of_three(self, watch):
        w = watch()
        a, b, c = (Spinlock(w.k, name) for name in ("alpha", "beta", "gamma"))
        w.go(lambda: locked(a, b), lambda: locked(b, c), lambda: locked(c, a))
        assert w.one("lock-order").title == "cycle alpha → beta → gamma → alpha"

    def test_its_twin_with_the_last_pair_the_right_way_round(self, watch):
        w = watch()
        a, b, c = (Spinlock(w.k, name) for name in ("alpha", "beta", "gamma"))
        w.go(lambda: locked(a, b), lambda: locked(b, c), lambda: locked(a, c))
        assert w.findings == []

    def test_classes_count_not_instances(self, watch):
        w = watch()
        a0, a1 = Spinlock(w.k, "alpha", "0"), Spinlock(w.k, "alpha", "1")
        b0, b1 = Spinlock(w.k, "beta", "0"), Spinlock(w.k, "beta", "1")
        w.go(lambda: locked(a0, b0), lambda: locked(b1, a1))
        assert w.kinds == ["lock-order"]

    def test_the_fingerprint_does_not_depend_on_who_came_first(self, watch):
        prints = []
        for first in (0, 1):
            w = watch()
            a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")
            bodies = [lambda a=a, b=b: locked(a, b), lambda a=a, b=b: locked(b, a)]
            w.go(bodies[first], bodies[1 - first])
            prints.append(w.one("lock-order").fingerprint)
        assert prints[0] == prints[1]

    def test_found_once_and_counted_never(self, watch):
        w = watch()
        a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")

        def both():
            for _ in range(50):
                take_a_then_b(a, b)
                take_b_then_a(a, b)

        w.go(both)
        assert w.one("lock-order").count == 1

    def test_releasing_out_of_order_keeps_the_chain_right(self, watch):
        w = watch()
        a, b, c = (Spinlock(w.k, name) for name in ("alpha", "beta", "gamma"))

        def crossed():
            a.lock()
            b.lock()
            a.unlock()
            c.lock()  # under b alone
            c.unlock()
            b.unlock()

        w.go(crossed)
        assert w.findings == []
        assert ("alpha", "gamma") not in w.suite.find(LockOrder).graph.edges
        assert ("beta", "gamma") in w.suite.find(LockOrder).graph.edges


class TestTries:
    def test_a_try_adds_no_edge(self, watch):
        w = watch()
        a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")

        def tries():
            b.lock()
            assert a.trylock()
            a.unlock()
            b.unlock()

        w.go(lambda: locked(a, b), tries)
        assert w.findings == []

    def test_but_what_a_try_got_counts_as_held(self, watch):
        w = watch()
        a, b = Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")

        def tries():
            assert b.trylock()
            a.lock()
            a.unlock()
            b.unlock()

        w.go(lambda: locked(a, b), tries)
        assert w.kinds == ["lock-order"]

    @pytest.mark.parametrize(
        ("flag", "meant", "kinds"),
        [
            (LK_NOWAIT, "", []),
            (LK_TIMELOCK, "", ["lock-order"]),
            (LK_TIMELOCK, "the timer sees to it", []),
        ],
    )
    def test_nowait_lockmgr_requests_are_tries_and_timed_ones_are_not(
        self, watch, flag, meant, kinds
    ):
        w = watch()
        a, b = Lock(w.k, "alpha", timo=5, meant=meant), Lock(w.k, "beta", timo=5)

        def forwards():
            a.lockmgr(LK_EXCLUSIVE)
            b.lockmgr(LK_EXCLUSIVE)
            b.lockmgr(LK_RELEASE)
            a.lockmgr(LK_RELEASE)

        def backwards():
            b.lockmgr(LK_EXCLUSIVE)
            a.lockmgr(LK_EXCLUSIVE | flag)
            a.lockmgr(LK_RELEASE)
            b.lockmgr(LK_RELEASE)

        w.go(forwards, backwards)
        assert w.kinds == kinds
        told = [(d["kind"], d["what"], d["why"]) for d in w.suite.summary()["accepted"]]
        assert told == ([("lock-order", "alpha", meant)] if meant else [])

    def test_and_blocking_ones_are_not(self, watch):
        w = watch()
        a, b = Lock(w.k, "alpha"), Lock(w.k, "beta")

        def pair(x, y):
            x.lockmgr(LK_SHARED)
            y.lockmgr(LK_EXCLUSIVE)
            y.lockmgr(LK_RELEASE)
            x.lockmgr(LK_RELEASE)

        w.go(lambda: pair(a, b), lambda: pair(b, a))
        assert w.kinds == ["lock-order"]


def pair(first, then, flags=0):
    """Takes both lockmgr locks, and lets go."""
    first.lockmgr(LK_EXCLUSIVE)
    if then.lockmgr(LK_EXCLUSIVE | flags) == 0:
        then.lockmgr(LK_RELEASE)
    first.lockmgr(LK_RELEASE)


class TestWithinOneClass:
    def test_two_of_a_class(self, watch):
        w = watch()
        a, b = (Lock(w.k, "node", name) for name in "ab")
        w.go(lambda: pair(a, b))
        told = "two of class node: t0 takes lock node b while holding lock node a"
        assert w.one("lock-order").title == told

    def test_with_a_token_in_between(self, watch):
        w = watch()
        a, b = (Lock(w.k, "node", name) for name in "ab")
        token = Token(w.k, "other")

        def nested():
            a.lockmgr(LK_EXCLUSIVE)
            token.get()
            b.lockmgr(LK_EXCLUSIVE)
            b.lockmgr(LK_RELEASE)
            token.release()
            a.lockmgr(LK_RELEASE)

        w.go(nested)
        assert w.one("lock-order").title.startswith("two of class node")

    def test_a_page_waited_for_with_a_higher_one_busy_and_a_token_in_between(self, watch):
        w = watch()
        obj = object()
        low, high = (Page(n, obj) for n in (1, 2))
        tok = Token(w.k, "object")

        def waits():
            td, probe = w.k.curthread(), w.k.probe
            probe.page_want(td, high, False)
            probe.page_busied(td, high)
            tok.get()
            probe.page_want(td, low, False)
            probe.page_busied(td, low)
            for page in (low, high):
                probe.page_unbusied(td, page)
            tok.release()

        w.go(waits)
        assert w.one("lock-order").title.startswith("two of class busy")

    def test_levels_are_taken_in_one_order(self, watch):
        w = watch()
        directory = Lock(w.k, "vnode", "dir", subclass=1)
        files = [Lock(w.k, "vnode", f"file {n}") for n in range(2)]
        w.go(lambda: pair(directory, files[0]), lambda: pair(directory, files[1]))
        assert w.findings == []
        w.go(lambda: pair(files[0], directory))
        assert w.one("lock-order").title == "cycle vnode → vnode/1 → vnode"

    def test_two_of_one_level(self, watch):
        w = watch()
        w.go(lambda: pair(*(Lock(w.k, "vnode", f"dir {n}", subclass=1) for n in range(2))))
        assert w.one("lock-order").title.startswith("two of class vnode/1")

    def test_a_directory_then_its_file(self, watch):
        w = watch()
        directory, file = w.k.vnode.new(subclass=1), w.k.vnode.new()
        w.go(lambda: pair(directory.v_lock, file.v_lock))
        assert w.findings == []

    def test_what_holds_of_a_class_holds_of_each_level(self, watch):
        w = watch()
        vnode = Lock(w.k, "vnode", "dir", subclass=1)

        def busy():
            td, page = w.k.curthread(), Page(1, object())
            w.k.probe.page_busied(td, page)
            vnode.lockmgr(LK_EXCLUSIVE)
            vnode.lockmgr(LK_RELEASE)
            w.k.probe.page_unbusied(td, page)

        w.go(busy)
        assert w.one("lock-order").title.startswith("busy-then-vnode")


class TestGates:
    @pytest.mark.parametrize("classes", ["nn", "ab"])
    def test_any_order_by_who_holds_the_gate(self, watch, classes):
        w = watch()
        gate = Lock(w.k, "gate")
        a, b = (Lock(w.k, cls, str(n), under=gate) for n, cls in enumerate(classes))

        def through(first, then):
            gate.lockmgr(LK_EXCLUSIVE)
            pair(first, then)
            gate.lockmgr(LK_RELEASE)

        w.go(lambda: through(a, b), lambda: through(b, a))
        assert w.findings == []

    @pytest.mark.parametrize("shared", [False, True])
    def test_nobody_else_may(self, watch, shared):
        w = watch()
        gate = Lock(w.k, "gate")
        a, b = (Lock(w.k, cls, under=gate) for cls in "ab")

        def without():
            if shared:
                gate.lockmgr(LK_SHARED)
            pair(a, b)
            if shared:
                gate.lockmgr(LK_RELEASE)

        w.go(without)
        found = w.one("lock-order")
        assert found.title.startswith("outside-the-gate: t0 takes lock b while holding lock a")
        assert "lock gate" in found.evidence[0]

    def test_one_at_a_time_needs_no_gate(self, watch):
        w = watch()
        a, b = (Spinlock(w.k, "node", n, under=Lock(w.k, "gate")) for n in "ab")
        w.go(lambda: locked(a), lambda: locked(b))
        assert w.findings == []


class TestTokens:
    def test_tokens_cannot_deadlock_by_order(self, watch):
        w = watch()
        a, b = Token(w.k, "alpha"), Token(w.k, "beta")

        def pair(x, y):
            x.get()
            y.get()
            y.release()
            x.release()

        w.go(lambda: pair(a, b), lambda: pair(b, a))
        assert w.findings == []
        assert not w.suite.find(LockOrder).graph.edges["alpha", "beta"].binding

    def test_a_token_under_a_spinlock_is_a_sleep_with_a_spinlock(self, watch):
        w = watch()
        spin, tok = Spinlock(w.k, "alpha"), Token(w.k, "beta")

        def bad():
            spin.lock()
            tok.get()

        w.go(bad)
        assert set(w.kinds) == {"sleep-with-spinlock"}

    def test_a_spinlock_under_a_token_is_fine(self, watch):
        w = watch()
        spin, tok = Spinlock(w.k, "alpha"), Token(w.k, "beta")

        def good():
            tok.get()
            locked(spin)
            tok.release()

        w.go(good)
        assert w.findings == []

    def test_exclusive_after_shared_is_a_deadlock_with_oneself(self, watch):
        w = watch()
        tok = Token(w.k, "alpha", "7")

        def bad():
            tok.get_shared()
            tok.get()

        w.go(bad)
        found = w.one("recursion")
        assert "token-excl-after-shared" in found.title
        assert [s.what for s in found.sites] == [
            "took token alpha 7 (shared)",
            "panics with token-excl-after-shared",
        ]

    def test_shared_after_exclusive_and_recursion_are_fine(self, watch):
        w = watch()
        tok, spin = Token(w.k, "alpha"), Spinlock(w.k, "beta")

        def good():
            tok.get()
            tok.get_shared()
            tok.get()
            locked(spin)
            tok.release()
            tok.release()
            locked(spin)
            tok.release()
            locked(spin)

        w.go(good)
        assert w.findings == []
        assert list(w.suite.find(LockOrder).graph.edges) == [("alpha", "beta")]

    def test_swapped_tokens_are_followed(self, watch):
        w = watch()
        a, b, spin = Token(w.k, "alpha"), Token(w.k, "beta"), Spinlock(w.k, "gamma")

        def hand_over_hand():
            a.get()
            b.get()
            w.k.token.swap()
            a.release()
            locked(spin)
            b.release()

        w.go(hand_over_hand)
        assert w.findings == []
        assert ("alpha", "gamma") not in w.suite.find(LockOrder).graph.edges


class TestPool:
    def test_two_page_locks_at_once_may_alias(self, watch):
        w = watch()
        pool = SpinPool(w.k, 64)

        def both():
            pool.lock(Item(1))
            pool.lock(Item(2))
            pool.unlock(Item(2))
            pool.unlock(Item(1))

        w.go(both)
        found = w.one("lock-order")
        assert found.title.startswith("pool-alias")
        assert "kern_spinlock.c" in found.evidence[0]

    def test_with_a_pool_of_one_it_deadlocks_with_itself(self, watch):
        w = watch()
        pool = SpinPool(w.k, 1)

        def both():
            pool.lock(Item(1))
            pool.lock(Item(2))

        w.go(both)
        assert "recursion" in w.kinds

    def test_one_after_the_other_is_fine(self, watch):
        w = watch()
        pool = SpinPool(w.k, 1)

        def each():
            for n in range(4):
                pool.lock(Item(n))
                pool.unlock(Item(n))

        w.go(each)
        assert w.findings == []


class TestDeclaredRules:
    def test_the_queue_lock_then_the_page_lock(self, watch):
        w = watch()
        pool, queue = SpinPool(w.k, 64), Spinlock(w.k, "queue", "INACTIVE+3")

        def wrong():
            queue.lock()
            pool.lock(Item(5))
            pool.unlock(Item(5))
            queue.unlock()

        w.go(wrong)
        found = w.one("lock-order")
        assert found.title.startswith("queue-then-page")
        assert "vm_page.c:550" in found.evidence[0]

    def test_the_documented_order_is_clean(self, watch):
        w = watch()
        pool, queue = SpinPool(w.k, 64), Spinlock(w.k, "queue", "INACTIVE+3")

        def right():
            pool.lock(Item(5))
            locked(queue)
            pool.unlock(Item(5))

        w.go(right)
        assert w.findings == []

    def test_the_deactivation_scan_must_not_wait_for_the_map(self, watch):
        w = watch()
        map_lock = Lock(w.k, "map", "3")

        @c("vm_pageout_map_deactivate_pages", "vm_pageout.c:635-711")
        def deactivate(flags):
            if map_lock.lockmgr(LK_EXCLUSIVE | flags) == 0:
                map_lock.lockmgr(LK_RELEASE)

        w.go(lambda: deactivate(LK_NOWAIT))
        assert w.findings == []
        w.go(lambda: deactivate(0))
        assert w.one("lock-order").title.startswith("deactivate-waits-for-map")

    def test_a_vnode_waited_for_with_a_page_busy_even_with_a_limit(self, watch):
        w = watch()
        vnode = Lock(w.k, "vnode", "2", timo=5)

        def vget(flags):
            td, page = w.k.curthread(), Page(1, None)
            w.k.probe.page_busied(td, page)
            if vnode.lockmgr(LK_EXCLUSIVE | flags) == 0:
                vnode.lockmgr(LK_RELEASE)
            w.k.probe.page_unbusied(td, page)

        w.go(lambda: vget(LK_NOWAIT))
        assert w.findings == []
        w.go(lambda: vget(LK_TIMELOCK))
        assert w.one("lock-order").title.startswith("busy-then-vnode")

    @pytest.mark.parametrize(("flag", "found"), [(LK_NOWAIT, 0), (LK_TIMELOCK, 0), (0, 1)])
    def test_the_daemon_waits_for_a_vnode_only_with_a_limit(self, watch, flag, found):
        w = watch()
        vnode = Lock(w.k, "vnode", "2", timo=5)

        @c("vm_pageout_scan_inactive", "vm_pageout.c:741-1181")
        def scan_inactive():
            if vnode.lockmgr(LK_EXCLUSIVE | flag) == 0:
                vnode.lockmgr(LK_RELEASE)

        w.go(scan_inactive)
        assert [f.title.partition(":")[0] for f in w.findings] == ["daemon-waits-for-vnode"] * found

    def test_a_helper_that_was_first_called_from_elsewhere_is_judged_inside_too(self, watch):
        """Its two innermost places say nothing new: who called it does."""
        w = watch()
        map_lock = Lock(w.k, "map", "3")

        def take():
            map_lock.lockmgr(LK_EXCLUSIVE)
            map_lock.lockmgr(LK_RELEASE)

        def helper():
            take()

        @c("vm_pageout_map_deactivate_pages", "vm_pageout.c:635-711")
        def deactivate():
            helper()

        w.go(helper)
        assert w.findings == []
        w.go(deactivate)
        assert w.one("lock-order").title.startswith("deactivate-waits-for-map")


class TestMisuse:
    def test_sleep_with_a_spinlock(self, watch):
        w = watch()
        spin = Spinlock(w.k, "alpha")

        def bad():
            spin.lock()
            w.k.sleep.tsleep(spin, 0, "bad", 1)

        w.go(bad)
        assert w.one("sleep-with-spinlock").sites[0].thread == "t0"

    def test_recursion_shows_both_places(self, watch):
        w = watch()
        spin = Spinlock(w.k, "alpha")

        def again():
            spin.lock()

        def bad():
            spin.lock()
            again()

        w.go(bad)
        found = w.one("recursion")
        outer = [next(f for f in s.stack if "kern/" not in f.file).name for s in found.sites]
        assert [name.split(".")[-1] for name in outer] == ["bad", "again"]

    def test_release_by_a_stranger(self, watch):
        w = watch()
        spin = Spinlock(w.k, "alpha")
        w.go(lambda: spin.unlock())
        assert w.kinds == ["wrong-release"]

    def test_release_in_the_wrong_mode(self, watch):
        w = watch()
        spin = Spinlock(w.k, "alpha")

        def bad():
            spin.lock_shared()
            spin.unlock()

        w.go(bad)
        assert w.kinds == ["wrong-release"]

    def test_a_lock_held_by_a_thread_that_ends(self, watch):
        w = watch()
        lock = Lock(w.k, "alpha", "9")
        w.go(lambda: lock.lockmgr(LK_EXCLUSIVE))
        assert "lock alpha 9" in w.one("wrong-release").title
