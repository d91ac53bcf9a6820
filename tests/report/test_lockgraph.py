"""Reading lock logs, and the graph against the documented order."""

import json
import xml.etree.ElementTree as ET

import pytest

from smpvm.report.lockgraph import compare, dot, lock_report, svg
from smpvm.report.locklog import LogError, read_log


def edge(first, then, binding=True):
    return {
        "v": 1,
        "ev": "edge",
        "first": first,
        "then": then,
        "binding": binding,
        "td": "t0",
        "held": "",
        "first_stack": ["vm_page_lock (vm/page.py:1)"],
        "then_stack": ["vm_page_queue_lock (vm/page.py:2)"],
    }


def event(ev, ns, td="t0", cls="page", lock="spinlock page 1"):
    return {
        "v": 1,
        "ev": ev,
        "tick": 0,
        "ns": ns,
        "td": td,
        "cls": cls,
        "lock": lock,
        "mode": "excl",
        "held": [],
    }


END = {"v": 1, "ev": "end", "written": 4, "dropped": 0, "acquired": {}, "contended": {}}


@pytest.fixture
def log(tmp_path):
    def make(*lines, tail=""):
        path = tmp_path / "lockorder.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in lines) + tail)
        return path

    return make


class TestReading:
    def test_hold_and_wait_times(self, log):
        path = log(
            event("block", 1000, td="t1"),
            event("acquire", 3000, td="t1"),
            event("release", 8000, td="t1"),
            END,
        )
        found = read_log(path.parent)
        assert found.wait["page"].total == 2000
        assert found.hold["page"].total == 5000
        assert found.ended

    def test_a_torn_last_line_is_what_a_killed_run_leaves(self, log):
        found = read_log(log(event("acquire", 1), tail='{"v":1,"ev":"rel'))
        assert found.torn
        assert found.events == 1

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("nonsense", ": line 1: damaged: not JSON"),
            ("[]", ": line 1: not a line of a lock log"),
            ('{"ev": "edge", "v": 7}', ": line 1: format version 7"),
            ('{"ev": "edge", "v": 1}', ": line 1: damaged"),
        ],
    )
    def test_a_damaged_line_is_one_clear_line(self, tmp_path, line, says):
        path = tmp_path / "x.jsonl"
        path.write_text(line + "\n")
        with pytest.raises(LogError) as caught:
            read_log(path)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_no_log_at_all(self, tmp_path):
        with pytest.raises(LogError, match="No such file"):
            read_log(tmp_path)


class TestGraph:
    def test_observed_against_documented(self):
        c = compare([("page", "queue"), ("foo", "bar"), ("queue", "page")])
        assert [(e.first, e.then) for e in c.agreeing] == [("page", "queue")]
        assert c.undocumented == [("foo", "bar")]
        assert [pair for pair, _ in c.forbidden] == [("queue", "page")]
        assert ("vnode", "busy") in [(e.first, e.then) for e in c.never_seen]

    def test_every_documented_edge_says_where(self):
        for e in compare([]).never_seen:
            assert ".c:" in e.source
            assert e.why

    def test_the_report_says_all_of_it(self, log):
        end = {**END, "acquired": {"page": 200, "queue": 100}, "contended": {"page": 10}}
        text = lock_report(
            read_log(log(edge("page", "queue"), edge("object", "foo", False), end)), stacks=True
        )
        assert "lock order: 2 edges observed" in text
        assert "page → queue   vm_page.c:550" in text
        assert "object → foo   (through a token: cannot deadlock)" in text
        assert "documented, never seen:" in text
        assert "vm_page_queue_lock (vm/page.py:2)" in text
        page = next(line for line in text.splitlines() if line.startswith("page "))
        assert page.split() == ["page", "200", "10", "5.00%"]

    def test_a_killed_run_and_drops_are_said(self, log):
        assert "no end" in lock_report(read_log(log(edge("page", "queue"))))
        assert "7 dropped" in lock_report(read_log(log({**END, "dropped": 7})))

    def test_dot(self):
        text = dot({("page", "queue"): edge("page", "queue"), ("x", "y"): edge("x", "y", False)})
        assert text.startswith("digraph lockorder {")
        assert '"page" -> "queue" [color="#2e7d32"' in text
        assert 'arrowhead=empty, tooltip="undocumented"' in text

    def test_svg_is_a_picture_with_every_class_in_it(self):
        pairs = [("page", "queue"), ("queue", "page"), ("x<y", "page"), ("map", "map")]
        root = ET.fromstring(svg({p: edge(*p) for p in pairs}))
        texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {"page", "queue", "x<y", "map", "vnode"} <= set(texts)

    def test_svg_of_a_cycle_ends(self):
        pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]
        ET.fromstring(svg({p: edge(*p) for p in pairs}))
