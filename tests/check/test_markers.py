"""Marker scans of one queue: every page is visited, and no marker is left behind."""

import pytest

from smpvm.config import Config
from smpvm.vm.page.queues import PageQueue
from smpvm.vm.page.struct import PG_BUSY, PG_FICTITIOUS, PG_MARKER, Page
from smpvm.vm.pageout.marker import ScanBase
from smpvm.vm.param import QueueNumbers


class Pages:
    """As much of the page layer as a marker needs."""

    def __init__(self, vm):
        self.vm = vm
        self.k = vm.k

    def make_marker(self, number):
        flags = PG_BUSY | PG_FICTITIOUS | PG_MARKER
        return self.k.new(Page, -1 - self.k.next_id("marker"), number, 0, flags, 1)


class TinyVm:
    def __init__(self, k):
        self.k = k
        self.config = Config()
        self.pq = QueueNumbers(4, 4)
        self.page = Pages(self)


@pytest.fixture
def queue(watch):
    """(watch, scanner, queue of n pages, pages)."""

    def make(n=6):
        w = watch("marker")
        vm = TinyVm(w.k)
        q = w.k.new(PageQueue, w.k, vm.pq, vm.pq.INACTIVE + 1)
        pages = [w.k.new(Page, i, q.number, 1, 0, 0) for i in range(n)]
        q.spin.lock()
        for m in pages:
            q.insert_tail(m)
            q.lcnt += 1
        q.spin.unlock()
        return w, ScanBase(vm), q, pages

    return make


def scan_all(scan, q, each=lambda m: None):
    """A right scan: the marker moves past each page in turn; the queue stays locked."""
    marker, maxscan = scan.scan_open(q)
    steps = 0
    while steps < maxscan and (m := q.next(marker)) is not None:
        steps += 1
        scan.scan_hop(q, marker, m)
        each(m)
    scan.scan_close(q, marker, "queue" if q.next(marker) is None else "maxscan")


class TestRight:
    def test_a_full_scan_is_clean(self, queue):
        w, scan, q, _ = queue()
        met = []
        w.go(lambda: scan_all(scan, q, met.append))
        assert [m.idx for m in met] == list(range(6))
        assert w.findings == []
        assert w.suite.summary()["scans_followed"] == 1

    def test_pages_that_move_or_leave_or_join_are_no_loss(self, queue):
        w, scan, q, pages = queue()

        def each(m):
            if m is pages[1]:
                q.remove(pages[3])  # leaves before it is met
                q.lcnt -= 1
                q.requeue(pages[4])  # moves behind
            if m is pages[2]:
                q.requeue(m)

        w.go(lambda: scan_all(scan, q, each))
        assert w.findings == []

    def test_a_scan_that_stops_early_need_not_meet_all(self, queue):
        w, scan, q, _ = queue()

        def early():
            marker, _ = scan.scan_open(q)
            scan.scan_hop(q, marker, q.next(marker))
            scan.scan_close(q, marker, "target")

        w.go(early)
        assert w.findings == []

    def test_several_scanners_on_one_queue(self, queue):
        w, scan, q, _ = queue(40)

        def scans():
            for _ in range(20):
                marker, maxscan = scan.scan_open(q)
                while maxscan > 0 and (m := q.next(marker)) is not None:
                    maxscan -= 1
                    scan.scan_hop(q, marker, m)
                    q.spin.unlock()
                    q.spin.lock()
                ended = q.next(marker) is None
                scan.scan_close(q, marker, "queue" if ended else "maxscan")

        w.together(scans, scans, scans)
        assert w.findings == []
        assert w.suite.summary()["scans_followed"] == 60


class TestWrong:
    def test_next_kept_over_the_unlock(self, queue):
        w, scan, q, pages = queue()

        def keeps_next():
            marker, _ = scan.scan_open(q)
            m = q.next(marker)
            scan.scan_hop(q, marker, m)
            after = q.next(marker)
            q.spin.unlock()
            q.spin.lock()  # meanwhile, the other thread's work:
            q.requeue(after)
            scan.scan_hop(q, marker, after)
            scan.scan_close(q, marker, "queue")

        w.go(keeps_next)
        hop = next(f for f in w.findings if "skips pages" in f.title)
        assert (
            hop.title == f"the marker of t0 on queue INACTIVE+1 skips pages: it moves to {pages[1]}"
        )
        assert str(pages[2]) in hop.evidence[0]
        lost = next(f for f in w.findings if "without visiting" in f.title)
        assert all(str(m) in lost.title for m in pages[2:6]), lost.lines()
        assert any(f.name.endswith("keeps_next") for s in hop.sites for f in s.stack)

    def test_its_twin_that_asks_again(self, queue):
        w, scan, q, _ = queue()

        def asks_again():
            marker, _ = scan.scan_open(q)
            scan.scan_hop(q, marker, q.next(marker))
            q.spin.unlock()
            q.spin.lock()
            q.requeue(q.next(marker))
            while (m := q.next(marker)) is not None:
                scan.scan_hop(q, marker, m)
            scan.scan_close(q, marker, "queue")

        w.go(asks_again)
        assert w.findings == []

    def test_two_scanners_hopping_over_each_other(self, queue):
        """The second takes the first's marker for its own page and moves it along."""
        w, scan, q, _ = queue()
        first = []

        def scanner():
            marker, _ = scan.scan_open(q)
            first.append(marker)
            scan.scan_hop(q, marker, q.next(marker))
            q.spin.unlock()
            w.until(lambda: len(first) == 2)
            q.spin.lock()
            while (m := q.next(marker)) is not None:
                scan.scan_hop(q, marker, m)
            scan.scan_close(q, marker, "queue")

        def hops_over():
            w.until(lambda: first and q.spin.owner is None)
            q.spin.lock()
            q.remove(first[0])
            q.insert_tail(first[0])
            q.spin.unlock()
            first.append(None)

        w.together(scanner, hops_over)
        assert set(w.kinds) == {"marker"}
        assert any("which does not own it" in f.title for f in w.findings)
        assert any("without visiting" in f.title for f in w.findings)

    def test_a_marker_left_on_the_queue(self, queue):
        w, scan, q, _ = queue()

        def forgets():
            scan.scan_open(q)
            q.spin.unlock()

        w.go(forgets)
        assert w.one("marker").title == "t0 exits with its marker still on queue INACTIVE+1"

    def test_a_marker_that_is_freed(self, queue):
        w, scan, q, _ = queue()

        def frees():
            marker, _ = scan.scan_open(q)
            w.k.probe.page_free(w.k.curthread(), marker)
            scan.scan_close(q, marker, "stop")

        w.go(frees)
        assert "is freed" in w.one("marker").title

    def test_a_marker_in_an_object(self, queue):
        w, scan, q, _ = queue()

        def inserts():
            marker, _ = scan.scan_open(q)
            marker.object = "object 4"
            scan.scan_close(q, marker, "stop")

        w.go(inserts)
        assert "belongs to object 4" in w.one("marker").title

    def test_at_rest_no_scan_may_be_open(self, queue):
        w, scan, q, _ = queue()
        w.k.spawn("t0", lambda: _stay(w, scan, q))
        w.until(lambda: w.k.sleep.sleepers())
        w.suite.at_rest()
        assert "is at rest with its marker" in w.one("marker").title


def _stay(w, scan, q):
    scan.scan_open(q)
    q.spin.unlock()
    w.k.sleep.tsleep(q, 0, "stay", 0)
