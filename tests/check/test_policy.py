"""Policy, requests and progress: the smallest programs, and their twins."""

from types import SimpleNamespace

import pytest

from smpvm.check.policy import Policy
from smpvm.check.progress import Progress
from smpvm.check.requests import Requests
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.tsleep import Ident
from smpvm.vm.page.queues import PageQueue
from smpvm.vm.page.struct import Page
from smpvm.vm.param import VM_PAGER_FAIL, VM_PAGER_OK, QueueNumbers


def call(w, what, **facts):
    w.k.probe.call(w.k.curthread(), what, **facts)


class TestPolicy:
    @pytest.fixture
    def w(self, watch):
        return watch("policy")

    def test_nobody_is_killed_twice(self, w):
        w.go(lambda: [call(w, "killproc", pid=7, why="x") for _ in range(2)])
        assert "kill-again: process 7" in w.one("policy").title

    def test_its_twin_kills_two(self, w):
        w.go(lambda: [call(w, "killproc", pid=pid, why="x") for pid in (7, 8)])
        assert w.findings == []

    def scan(self, w, flags, vnodes=("v", "v")):
        def body():
            td = w.k.curthread()
            w.k.probe.scan_begin(td, None, None, 9)
            for vp in vnodes:
                call(w, "vget", vnode=vp, flags=flags, result=35)
            w.k.probe.scan_end(td, None, None, "queue")

        w.go(body)

    def test_a_vnode_that_timed_out_is_not_waited_for_again(self, w):
        self.scan(w, LK_EXCLUSIVE)
        assert "wait-again" in w.one("policy").title

    def test_its_twin_only_tries(self, w):
        self.scan(w, LK_EXCLUSIVE | LK_NOWAIT)
        self.scan(w, LK_EXCLUSIVE, ("v", "other", "v"))
        assert w.findings == []

    def write(self, w, m, status=VM_PAGER_OK):
        call(w, "put_pages", object=None, pages=[m], flags=0, statuses=[status])

    def test_a_page_is_not_written_again_and_again(self, w):
        m = Page(3)
        w.go(lambda: [self.write(w, m) for _ in range(w.suite.find(Policy).unchanged)])
        assert "write-again: page 3" in w.one("policy").title

    def test_its_twin_stores_in_between(self, w):
        m = Page(3)

        def body():
            for n in range(9):
                m.contents = {0: n}
                self.write(w, m)
            for _ in range(9):
                self.write(w, m, VM_PAGER_FAIL)

        w.go(body)
        assert w.findings == []

    def test_no_kill_with_memory_enough(self, w):
        def machine(free):
            pq = QueueNumbers(4, 1)
            pages = [Page(n, queue=pq.FREE) for n in range(free)]
            stats = SimpleNamespace(v_free_target=5, v_cache_min=5)
            pageout = SimpleNamespace(pagethread=w.k.curthread())
            return SimpleNamespace(page_array=pages, pq=pq, stats=stats, pageout=pageout)

        def body(free, pid):
            w.suite.find(Policy).attach_vm(machine(free))
            call(w, "killproc", pid=pid, why="x")

        w.go(lambda: body(20, 1))
        assert w.findings == []
        w.go(lambda: body(21, 2))
        assert "kill-early: process 2" in w.one("policy").title


class TestRequests:
    @pytest.fixture
    def w(self, watch):
        return watch("request")

    def machine(self, w, daemon, waits, needed):
        return SimpleNamespace(
            pageout=SimpleNamespace(pagethread=daemon),
            glob=SimpleNamespace(vm_pages_needed=needed),
            idents=SimpleNamespace(v_free_count=waits),
            meter=SimpleNamespace(paging_needed=lambda: True, count_min=lambda n: True),
        )

    @pytest.mark.parametrize("needed", [0, 1])
    def test_a_request_stands_while_its_maker_waits(self, w, needed):
        needs, waits = Ident("needed"), Ident("free")
        daemon = w.k.spawn("daemon", lambda: w.k.sleep.tsleep(needs, 0, "psleep", 0, lambda: False))
        waiter = w.k.spawn("waiter", lambda: w.k.sleep.tsleep(waits, 0, "vmwait", 0, lambda: False))
        w.until(lambda: daemon.sleeper is not None and waiter.sleeper is not None)
        w.suite.find(Requests).attach_vm(self.machine(w, daemon, waits, needed))
        w.suite.at_rest()
        if needed:
            assert w.findings == []
        else:
            assert "unheard" in w.one("request").title
        w.k.sleep.wakeup(needs)
        w.k.sleep.wakeup(waits)

    @pytest.mark.parametrize("visits", [3, 4])
    def test_a_scan_is_as_long_as_its_queue(self, w, visits):
        def body():
            td, q = w.k.curthread(), SimpleNamespace(lcnt=3)
            w.k.probe.scan_begin(td, q, "marker", 3)
            for _ in range(visits):
                w.k.probe.marker_hop(td, q, "marker", None)
            w.k.probe.scan_end(td, q, "marker", "queue")

        w.go(body)
        assert w.kinds == (["request"] if visits > 3 else [])


class TestProgress:
    @pytest.fixture
    def w(self, watch):
        w = watch("progress")
        made = w.suite.find(Progress)
        made.scans, made.rounds, made.overtaken = 8, 20, 5
        return w

    def queues(self, w):
        pq = QueueNumbers(2, 1)
        queues = [PageQueue(w.k, pq, pq.INACTIVE + n) for n in range(2)]
        for n, q in enumerate(queues):
            q.insert_tail(Page(n))
            q.lcnt = 1
        return queues

    def scans(self, w, queues, times, ident=None):
        def body():
            for n in range(times):
                w.k.probe.scan_begin(w.k.curthread(), queues[n % len(queues)], None, 1)
                if ident is not None:
                    w.k.sleep.tsleep(ident, 0, "rest", 1, lambda: False)

        return body

    def test_a_colour_is_left_out(self, w):
        w.go(self.scans(w, self.queues(w)[:1], 8))
        assert "colour" in w.one("progress").title

    def test_its_twin_takes_each(self, w):
        w.go(self.scans(w, self.queues(w), 16))
        assert w.findings == []

    def test_rounds_without_sleep_and_change(self, w):
        w.go(self.scans(w, self.queues(w), 20))
        assert "busy-rounds" in w.one("progress").title

    def test_its_twin_sleeps(self, w):
        w.go(self.scans(w, self.queues(w), 24, Ident("rest")))
        assert w.findings == []

    @pytest.mark.parametrize("times", [4, 5])
    def test_a_waiter_is_overtaken(self, w, times):
        lock = Spinlock(w.k, "spin", "s")
        waiter = w.k.make_thread("waiter", lambda: None)

        def body():
            w.k.probe.lock_block(waiter, lock, "excl", 0)
            for _ in range(times):
                lock.lock()
                lock.unlock()

        w.go(body)
        assert w.kinds == (["progress"] if times == 5 else [])
