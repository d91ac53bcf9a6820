"""The documented order is whole: a new edge is a finding, unless a baseline has it."""

import re
from collections import Counter

import pytest

from smpvm.check.baseline import Baseline, write_baseline
from smpvm.check.documented import LOCKS, TOKENS, TRIES, undocumented
from smpvm.check.finding import Finding, FindingLog
from smpvm.check.held import BUSY
from smpvm.config import ConfigError
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token

TOKEN_CLASSES = {"object", "vm", "vmobjlst", "map_token", "p_token", "lwp_token", "allproc"} | {
    "pmap",
    "mp_token",
    "v_token",
}


def nest(*locks):
    for lock in locks:
        lock.lock()
    for lock in reversed(locks):
        lock.unlock()


class TestTable:
    def test_each_pair_has_one_row_with_its_line(self):
        rows = [*LOCKS, *TOKENS]
        for part, what in ((LOCKS, "of locks"), (TOKENS, "with a token"), (TRIES, "only tried")):
            print(f"{len(part)} orders {what}")
            for order in part:
                print(f"  {order.first} → {order.then}   {order.source}: {order.why}")
        pairs = Counter((order.first, order.then) for order in rows)
        assert [pair for pair, n in pairs.items() if n > 1] == []
        for order in (*rows, *TRIES):
            assert re.fullmatch(r"\w+\.[ch]:\d+", order.source)
            assert order.why

    def test_the_parts_are_kept_apart(self):
        assert [o for o in LOCKS if {o.first, o.then} & TOKEN_CLASSES] == []
        assert [o for o in TOKENS if not {o.first, o.then} & TOKEN_CLASSES] == []

    def test_a_try_is_no_order(self):
        assert undocumented("queue", BUSY)
        assert undocumented(BUSY, "vnode")

    def test_a_level_is_of_its_class(self):
        assert not undocumented("vnode/1", "map_token")
        assert not undocumented("vnode/1", "vnode")
        assert undocumented("vm", "vm")

    def test_locks_of_a_program_have_no_documented_order(self):
        assert not undocumented("mine", "queue")


class TestFinding:
    def test_an_order_that_the_source_has_not(self, watch):
        w = watch("documented")
        queue, disk = Spinlock(w.k, "queue", "q"), Spinlock(w.k, "disk", "d")
        w.go(lambda: nest(queue, disk))
        found = w.one("undocumented-order")
        assert found.title == "disk taken with queue held: the source has no such order"
        assert found.objects == ["queue", "disk"]
        assert len(found.sites) == 2

    def test_its_twin_takes_them_one_after_the_other(self, watch):
        w = watch("documented")
        queue, disk = Spinlock(w.k, "queue", "q"), Spinlock(w.k, "disk", "d")
        w.go(lambda: (nest(queue), nest(disk)))
        assert w.findings == []

    def test_what_is_documented_and_what_is_tried(self, watch):
        w = watch("documented")
        page, queue = Spinlock(w.k, "page", "p"), Spinlock(w.k, "queue", "q")
        disk = Spinlock(w.k, "disk", "d")

        def tries():
            queue.lock()
            assert disk.trylock()
            disk.unlock()
            queue.unlock()

        w.go(lambda: nest(page, queue), tries)
        assert w.findings == []

    def test_tokens_cannot_deadlock_but_are_told(self, watch):
        w = watch("documented")
        vm, objects = Token(w.k, "vm", "vm_token"), Token(w.k, "vmobjlst", "0")

        def body():
            vm.get()
            objects.get()
            objects.release()
            vm.release()

        w.go(body)
        assert "it cannot deadlock" in w.one("undocumented-order").evidence[0]


class TestBaseline:
    def found(self):
        return [
            Finding("audit", "a page is lost", identity=("lost",)),
            Finding(
                "undocumented-order", "x", objects=["queue", "disk"], identity=("queue", "disk")
            ),
        ]

    def test_what_is_written_is_known(self, tmp_path):
        path = tmp_path / "known.json"
        write_baseline(None, path, self.found())
        assert Baseline(path).edges == {("queue", "disk")}
        log = FindingLog(baseline=Baseline(path).known)
        for finding in self.found():
            log.add(finding)
        log.add(Finding("audit", "another", identity=("other",)))
        assert [f.title for f in log.findings] == ["another"]

    def test_it_grows(self, tmp_path):
        first, second = tmp_path / "a.json", tmp_path / "b.json"
        write_baseline(None, first, self.found()[:1])
        write_baseline(first, second, self.found()[1:])
        assert Baseline(second).known == {f.fingerprint for f in self.found()}

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "smpvm-baseline"}'])
    def test_another_file_is_one_line(self, tmp_path, text):
        path = tmp_path / "x.json"
        path.write_text(text)
        with pytest.raises(ConfigError) as why:
            Baseline(path)
        assert "\n" not in str(why.value)
        assert "x.json" in str(why.value)
