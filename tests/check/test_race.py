"""Races by happens-before: what orders two accesses, and what does not."""

import threading

import pytest

from smpvm.check.clocks import VectorClock
from smpvm.check.race import KEPT
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RELEASE, LK_SHARED
from smpvm.kern.shared import Site, shared
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token
from smpvm.kern.tsleep import Ident


@shared(
    "value",
    "flag",
    "hint",
    "open",
    "looked",
    benign=[
        Site("looked", "", "a.c:1", "all may read it", "read"),
        Site("hint", "mark_hint", "a.c:4", "who reads it looks again", "write"),
        Site("hint", "peek_hint", "a.c:2", "off by one is fine"),
        Site("hint", "reset_hint", "a.c:3", "the last one wins", "both"),
    ],
    atomic={"flag": "changed by atomic operations"},
    lockless={"open": "polled"},
)
class Cell:
    __slots__ = ("flag", "hint", "looked", "name", "open", "value")

    def __init__(self, name="cell"):
        self.name = name
        self.value = 0
        self.flag = 0
        self.hint = 0
        self.open = 0
        self.looked = 0

    def __str__(self):
        return self.name


class TestClocks:
    def test_nobody_knows_anybody_at_first(self):
        a, b = VectorClock(1), VectorClock(2)
        assert not a.after(b.epoch)
        assert a.after(a.epoch)

    def test_a_release_orders_what_came_before_it_and_nothing_after(self):
        a, b = VectorClock(1), VectorClock(2)
        before = a.epoch
        handed = a.release()
        b.acquire(handed)
        assert b.after(before)
        assert not b.after(a.epoch)

    def test_order_is_handed_on(self):
        a, b, c = (VectorClock(n) for n in (1, 2, 3))
        first = a.epoch
        b.acquire(a.release())
        c.acquire(b.release())
        assert c.after(first)

    def test_what_was_handed_out_does_not_change_afterwards(self):
        a, b, c = (VectorClock(n) for n in (1, 2, 3))
        early = b.release()
        late = a.epoch
        b.acquire(a.release())
        c.acquire(early)
        assert not c.after(late)


def peek_hint(cell):
    return cell.hint


def set_hint(cell):
    cell.hint = 3


def mark_hint(cell):
    cell.hint = 9


def reset_hint(cell):
    cell.hint = 0


def bump(cell):
    cell.value = cell.value + 1


def look(cell):
    return cell.value


@pytest.fixture
def two(watch):
    """Run two bodies that touch one cell, at the same time, then give the watch back."""

    def run(make):
        w = watch("race")
        w.cell = w.k.new(Cell)
        w.together(*make(w))
        return w

    return run


class TestUnordered:
    def test_an_unlocked_counter(self, watch):
        w = watch("race")
        cell = w.k.new(Cell, "page 12")
        w.together(lambda: bump(cell), lambda: bump(cell))
        assert set(w.kinds) == {"race"}
        titles = " ".join(f.title for f in w.findings)
        assert "Cell.value of page 12" in titles
        found = w.findings[0]
        assert {s.thread for s in found.sites} == {"t0", "t1"}
        assert all(s.stack[0].name == "bump" for s in found.sites)
        assert "value: 1 → 2" in [f.evidence[0] for f in w.findings]

    def test_two_readers_are_no_race(self, two):
        w = two(lambda w: [lambda: look(w.cell)] * 3)
        assert w.findings == []

    def test_a_writer_against_readers(self, two):
        w = two(lambda w: [lambda: look(w.cell), lambda: look(w.cell), lambda: bump(w.cell)])
        assert set(w.kinds) == {"race"}

    def test_two_different_locks_order_nothing(self, watch):
        w = watch("race")
        cell, a, b = w.k.new(Cell), Spinlock(w.k, "alpha"), Spinlock(w.k, "beta")

        def under(lock):
            lock.lock()
            bump(cell)
            lock.unlock()

        w.together(lambda: under(a), lambda: under(b))
        assert set(w.kinds) == {"race"}

    def test_writes_under_a_shared_lock(self, watch):
        w = watch("race")
        cell, lock = w.k.new(Cell), Spinlock(w.k, "alpha")

        def under():
            lock.lock_shared()
            bump(cell)
            lock.unlock_shared()

        w.go(under, under)
        # One after the other in fact, but nothing that the lock guarantees.
        assert set(w.kinds) == {"race"}

    def test_found_whatever_the_threads_did_in_fact(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        done = threading.Event()

        def first():
            bump(cell)
            done.set()

        def second():
            done.wait(5)  # the host's event is no order of the model's
            bump(cell)

        w.together(first, second)
        assert set(w.kinds) == {"race"}


class TestOrdered:
    def lock_pairs(self, k):
        spin, lockm, tok = Spinlock(k, "alpha"), Lock(k, "beta"), Token(k, "gamma")
        return {
            "spinlock": (spin.lock, spin.unlock),
            "lockmgr": (
                lambda: lockm.lockmgr(LK_EXCLUSIVE),
                lambda: lockm.lockmgr(LK_RELEASE),
            ),
            "token": (tok.get, tok.release),
        }

    @pytest.mark.parametrize("which", ["spinlock", "lockmgr", "token"])
    def test_by_one_lock(self, watch, which):
        w = watch("race")
        cell = w.k.new(Cell)
        take, give = self.lock_pairs(w.k)[which]

        def under():
            for _ in range(20):
                take()
                bump(cell)
                give()

        w.together(under, under, under)
        assert w.findings == []
        assert cell.value == 60

    def test_readers_of_a_shared_lock_against_its_writer(self, watch):
        w = watch("race")
        cell, lock = w.k.new(Cell), Lock(w.k, "alpha")

        def reader():
            for _ in range(20):
                lock.lockmgr(LK_SHARED)
                look(cell)
                lock.lockmgr(LK_RELEASE)

        def writer():
            for _ in range(20):
                lock.lockmgr(LK_EXCLUSIVE)
                bump(cell)
                lock.lockmgr(LK_RELEASE)

        w.together(reader, reader, writer, writer)
        assert w.findings == []

    def test_a_publish_by_token_hand_over(self, watch):
        """The token is given up by sleeping with it, and had again: that orders, too."""
        w = watch("race")
        cell, tok, ident = w.k.new(Cell), Token(w.k, "alpha"), Ident("done")

        def publishes():
            tok.get()
            bump(cell)
            w.k.sleep.tsleep(ident, 0, "pub", 0)
            look(cell)
            tok.release()

        def consumes():
            w.until(lambda: w.k.sleep.sleepers())
            tok.get()
            bump(cell)
            w.k.sleep.wakeup(ident)
            tok.release()

        w.together(publishes, consumes)
        assert w.findings == []

    def test_what_a_token_protected_before_the_sleep_is_not_protected_in_it(self, watch):
        w = watch("race")
        cell, tok, ident = w.k.new(Cell), Token(w.k, "alpha"), Ident("done")

        def sleeps():
            tok.get()
            w.k.sleep.tsleep(ident, 0, "pub", 0)
            tok.release()
            bump(cell)

        def other():
            w.until(lambda: w.k.sleep.sleepers())
            w.k.sleep.wakeup(ident)
            bump(cell)

        w.together(sleeps, other)
        assert set(w.kinds) == {"race"}

    def test_wakeup_to_resume(self, watch):
        w = watch("race")
        cell, ident = w.k.new(Cell), Ident("done")

        def sleeps():
            w.k.sleep.tsleep(ident, 0, "wait", 0)
            bump(cell)

        def wakes():
            bump(cell)
            w.until(lambda: w.k.sleep.sleepers())
            w.k.sleep.wakeup(ident)

        w.together(sleeps, wakes)
        assert w.findings == []

    def test_an_atomic_flag_publishes(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)

        def publishes():
            bump(cell)
            w.k.atomic.set_int(cell, "flag", 1)

        def consumes():
            while not w.k.atomic.fetchadd_int(cell, "flag", 0):
                pass
            bump(cell)

        w.together(publishes, consumes)
        assert w.findings == []

    def test_atomics_do_not_race_with_each_other(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(*[lambda: w.k.atomic.add_int(cell, "value", 1)] * 3)
        assert w.findings == []

    @pytest.mark.parametrize("plain_first", [False, True])
    @pytest.mark.parametrize("field", ["value", "flag", "open"])
    def test_an_atomic_operation_against_a_plain_write(self, watch, plain_first, field):
        w = watch("race")
        cell = w.k.new(Cell)
        deeds = [
            lambda: w.k.atomic.set_int(cell, field, 6),
            lambda: setattr(cell, field, 3),
        ]
        w.together(*(deeds[::-1] if plain_first else deeds))
        assert w.kinds == ["race"]
        assert "atomic operation by t" in w.findings[0].title
        assert "write by t" in w.findings[0].title

    def test_a_failed_compare_and_set_against_a_plain_write(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(
            lambda: setattr(cell, "value", 3),
            lambda: w.k.atomic.cmpset_int(cell, "value", 7, 8),
        )
        assert w.kinds == ["race"]

    @pytest.mark.parametrize("read_first", [False, True])
    @pytest.mark.parametrize(("field", "found"), [("value", 1), ("flag", 0), ("open", 0)])
    def test_an_atomic_operation_against_a_plain_read(self, watch, read_first, field, found):
        w = watch("race")
        cell = w.k.new(Cell)
        deeds = [
            lambda: w.k.atomic.add_int(cell, field, 1),
            lambda: getattr(cell, field),
        ]
        w.together(*(deeds[::-1] if read_first else deeds))
        assert w.kinds == ["race"] * found

    def test_a_lock_orders_them(self, watch):
        w = watch("race")
        cell, lock = w.k.new(Cell), Spinlock(w.k, "alpha")

        def locked(deed):
            lock.lock()
            deed()
            lock.unlock()

        w.together(
            lambda: locked(lambda: w.k.atomic.add_int(cell, "value", 1)),
            lambda: locked(lambda: bump(cell)),
        )
        assert w.findings == []

    def test_start_and_join(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)

        def parent():
            bump(cell)
            child = w.k.spawn("child", lambda: bump(cell))
            w.k.join(child)
            bump(cell)

        w.together(parent)
        assert w.findings == []

    def test_its_twin_without_the_join(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)

        def parent():
            child = w.k.spawn("child", lambda: bump(cell))
            w.until(lambda: child.exited)
            bump(cell)

        w.together(parent)
        assert set(w.kinds) == {"race"}

    def test_io(self, watch):
        w = watch("race")
        cell, io = w.k.new(Cell), object()
        sent = threading.Event()

        def submits():
            bump(cell)
            w.k.probe.io_submit(w.k.curthread(), io)
            sent.set()

        def device():
            sent.wait(5)
            w.k.probe.io_complete(w.k.curthread(), io)
            bump(cell)

        w.together(submits, device)
        assert w.findings == []


class TestBenign:
    """What the source does knowingly is declared for the site, and counted."""

    @staticmethod
    def accepted(w):
        return [(d["what"], d["at"], d["count"]) for d in w.suite.summary()["accepted"]]

    def test_a_declared_site_is_counted_not_reported(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(lambda: peek_hint(cell), lambda: set_hint(cell))
        assert w.findings == []
        assert self.accepted(w) == [("Cell.hint", "a.c:2", 1)]

    def test_the_same_field_elsewhere_is_a_race(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(lambda: cell.hint, lambda: set_hint(cell))
        assert w.kinds == ["race"]
        assert self.accepted(w) == []

    def test_a_declared_read_is_no_declared_write(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(lambda: set_hint(cell), lambda: set_hint(cell))
        assert w.kinds == ["race"]

    def test_a_declared_write_against_reads_only(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(lambda: mark_hint(cell), lambda: cell.hint)
        assert w.findings == []
        w.together(lambda: mark_hint(cell))
        assert w.kinds == ["race"]
        assert self.accepted(w) == [("Cell.hint", "a.c:4", 2)]

    def test_a_site_that_may_do_anything(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(lambda: set_hint(cell), lambda: reset_hint(cell), lambda: cell.hint)
        assert w.findings == []
        assert self.accepted(w) == [("Cell.hint", "a.c:3", 2)]

    @pytest.mark.parametrize("field", ["open", "looked"])
    def test_reads_without_lock(self, watch, field):
        w = watch("race")
        cell = w.k.new(Cell)
        w.together(lambda: getattr(cell, field), lambda: setattr(cell, field, 1))
        assert w.findings == []
        w.together(lambda: setattr(cell, field, 2))
        assert w.kinds == ["race"]

    def test_nothing_is_accepted_where_all_are_wanted(self, watch):
        w = watch("race", benign=False)
        cell = w.k.new(Cell)
        w.together(lambda: peek_hint(cell), lambda: set_hint(cell))
        assert w.kinds == ["race"]
        assert self.accepted(w) == []

    def test_what_a_checker_reads_is_no_access(self, watch):
        w = watch("race")
        cell = w.k.new(Cell)

        def quiet():
            with w.k.quietly():
                look(cell)

        w.together(lambda: bump(cell), quiet)
        assert w.findings == []


class TestMany:
    def test_clocks_do_not_grow_with_threads_that_have_ended(self, watch):
        w = watch("race")
        cell, lock = w.k.new(Cell), Spinlock(w.k, "alpha")

        def under():
            lock.lock()
            bump(cell)
            lock.unlock()

        w.go(*[under] * (3 * KEPT))
        assert w.findings == []
        assert cell.value == 3 * KEPT
        assert len(lock.seen.excl[1]) <= KEPT + 3

    def test_an_ended_thread_is_named_by_its_own_name(self, watch):
        w = watch("race")
        cell, hold = w.k.new(Cell), threading.Event()
        early = w.k.spawn("early", lambda: bump(cell), role="first")
        w.until(lambda: early.exited)
        w.k.spawn("same-slot", lambda: hold.wait(5))
        w.k.spawn("late", lambda: bump(cell))
        w.until(lambda: w.findings)
        hold.set()
        assert w.findings[0].sites[0].thread == "early"
        assert w.findings[0].sites[1].thread == "late"


class TestReport:
    def test_one_record_for_one_pair_of_places(self, watch):
        w = watch("race")
        cells = [w.k.new(Cell, f"page {n}") for n in range(10)]

        def all_of_them():
            for cell in cells:
                cell.value = 1

        w.together(all_of_them, all_of_them)
        found = w.one("race")
        assert found.count == 10
