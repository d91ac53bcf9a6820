"""Lock discipline: one access without the lock is the defect, in whatever run."""

import pytest

from smpvm.check.suite import CheckSuite
from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.host.serial import SerialCarrier
from smpvm.kern.guard import FREE, Guard, guarded
from smpvm.kern.kernel import Kernel
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RELEASE, LK_SHARED
from smpvm.kern.shared import Site, peek
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token
from smpvm.vm.object.memq import PageTree


@guarded(
    Guard("first", "spin", "a.c:1", sites=(Site("first", "peep", "a.c:7", "only a guess"),)),
    Guard("count", "token", "a.c:2", read=FREE),
    Guard("size", "lock", "a.c:3"),
    Guard("members", "token", "a.c:4", container=True),
    Guard("tree", "token", "a.c:5", container=True),
)
class Box:
    __slots__ = ("count", "first", "lock", "members", "size", "spin", "token", "tree")

    def __init__(self, k):
        self.spin = Spinlock(k, "spin", "box")
        self.token = Token(k, "token", "box")
        self.lock = Lock(k, "lock", "box")
        self.first = None
        self.count = self.size = 0
        self.members = k.container(dict, self, "members")
        self.tree = k.container(PageTree, self, "tree")

    def __str__(self):
        return "box"


def peep(box):
    return box.first


@pytest.fixture
def w(watch):
    return watch("discipline")


@pytest.fixture
def box(w):
    return w.k.new(Box, w.k)


class TestFields:
    def test_a_store_without_the_lock(self, w, box, frames):
        def body():
            box.first = 1

        w.go(body)
        found = w.one("unguarded-access")
        assert found.title == "t0 changes Box.first of box without spinlock spin box"
        assert found.evidence[0].startswith("a.c:1: only with spinlock spin box held")
        assert frames(found)[0] == "body"
        assert box.members is peek(box, "members")

    def test_its_twin_takes_the_lock(self, w, box):
        def body():
            box.spin.lock()
            box.first = 1
            assert box.first == 1
            box.spin.unlock()

        w.go(body)
        assert w.findings == []

    def test_reads_may_be_free(self, w, box):
        w.go(lambda: box.count)
        assert w.findings == []

        def body():
            box.count += 1

        w.go(body)
        w.one("unguarded-access")

    def test_a_shared_lock_is_for_reading(self, w, box):
        def reads():
            box.lock.lockmgr(LK_SHARED)
            assert box.size == 0
            box.lock.lockmgr(LK_RELEASE)

        def writes():
            box.lock.lockmgr(LK_SHARED)
            box.size = 1
            box.lock.lockmgr(LK_RELEASE)

        def well():
            box.lock.lockmgr(LK_EXCLUSIVE)
            box.size = 2
            box.lock.lockmgr(LK_RELEASE)

        w.go(reads, well)
        assert w.findings == []
        w.go(writes)
        assert "held exclusively" in w.one("unguarded-access").evidence[0]

    def test_the_lock_of_another_object_does_not_count(self, w, box):
        other = w.k.new(Box, w.k)

        def body():
            other.spin.lock()
            box.first = 1
            other.spin.unlock()

        w.go(body)
        w.one("unguarded-access")

    def test_each_place_is_told_once_and_counted(self, w, box):
        def body():
            for _ in range(5):
                box.first = 1

        w.go(body)
        assert w.one("unguarded-access").count == 5

    def test_set_up_and_checkers_may_look(self, w, box):
        def body():
            with w.k.quietly():
                assert box.first is None

        box.first = None
        w.go(body)
        assert w.findings == []

    def test_what_the_source_does_knowingly_is_counted(self, w, box):
        w.go(lambda: peep(box), lambda: peep(box))
        assert w.findings == []
        assert [d.at for d in w.suite.accepted.counts()] == ["a.c:7"]
        assert sum(w.suite.accepted.counts().values()) == 2

    def test_unless_nothing_is_to_be_accepted(self, watch):
        w = watch("discipline", benign=False)
        box = w.k.new(Box, w.k)
        w.go(lambda: peep(box))
        w.one("unguarded-access")


class TestContainers:
    def test_what_changes_it_needs_the_lock_exclusively(self, w, box):
        def body():
            box.token.get_shared()
            assert 1 not in box.members
            box.members[1] = "one"
            box.token.release()

        w.go(body)
        assert "changes Box.members" in w.one("unguarded-access").title

    @pytest.mark.parametrize("use", [len, list, bool, lambda d: d.get(1), lambda d: 1 in d])
    def test_every_look_is_one(self, w, box, use):
        w.go(lambda: use(box.members))
        assert "reads Box.members" in w.one("unguarded-access").title

    def test_its_twin(self, w, box):
        def body():
            box.token.get()
            box.members[1] = "one"
            assert box.members.pop(1) == "one"
            box.token.release()

        w.go(body)
        assert w.findings == []

    def test_a_scan_looks_again_after_each_callback(self, w, box):
        def body():
            box.token.get()
            box.tree.insert(1, object())
            box.tree.insert(2, object())

            def callback(m):
                if box.token.held():
                    box.token.release()
                return 0

            box.tree.scan(callback)

        w.go(body)
        assert "reads Box.tree" in w.one("unguarded-access").title

    def test_nobody_pays_who_does_not_ask(self, watch):
        w = watch("marker")
        box = w.k.new(Box, w.k)
        assert type(box) is Box
        assert type(box.members) is dict
        assert type(box.tree) is PageTree


def test_no_schedule_point_comes_with_it():
    """Digests and classes of executions are the same with and without the checker."""
    steps = []
    for which in ({"discipline"}, {"marker"}):
        carrier = SerialCarrier(RandomWalk(3).start(0))
        k = Kernel(carrier, CheckSuite(which).observers)
        box = k.new(Box, k)

        def body(box=box):
            box.spin.lock()
            box.first = 1
            box.spin.unlock()

        k.spawn("one", body)
        k.spawn("two", body)
        assert carrier.join() == []
        steps.append([(tid, kind) for tid, kind, *_ in carrier.log])
    assert steps[0] == steps[1]
    assert len(steps[0]) > 4
