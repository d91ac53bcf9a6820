"""A fingerprint depends on what was found, never on its wording."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

import smpvm
from smpvm.check import audit
from smpvm.check.finding import Finding, FindingError
from smpvm.config import Config
from smpvm.explore.engine import Settings, execute
from smpvm.explore.scenario import Scenario
from smpvm.explore.strategy.roundrobin import RoundRobin
from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel
from smpvm.vm.build import build_vm

ROOT = Path(smpvm.__file__).parent


def finding(**changes):
    return Finding(
        **{"kind": "race", "title": "Page.queue", "identity": ("Page", "queue")} | changes
    )


def test_titles_evidence_and_objects_do_not_enter():
    other = finding(title="a page's queue", objects=["page 3"], evidence=["0 → 1"])
    assert other.fingerprint == finding().fingerprint
    assert replace(other, identity=("Page", "flags"), fingerprint="").fingerprint != (
        finding().fingerprint
    )


def calls(name):
    """Every call of *name* in smpvm, with its place."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_whoever_makes_a_finding_says_what_it_is_about():
    found = dict(calls("Finding"))
    assert len(found) > 10
    assert [
        at for at, call in found.items() if "identity" not in {k.arg for k in call.keywords}
    ] == []
    assert [
        at for at, call in found.items() if "fingerprint" in {k.arg for k in call.keywords}
    ] == []


def test_a_rule_of_the_audit_may_be_worded_anew(monkeypatch):
    vm = build_vm(Kernel(NativeCarrier()), Config(pages=64))
    vm.page_array[0].busy = 1
    (before,) = audit.audit(vm)
    monkeypatch.setattr(audit, "RULES", dict.fromkeys(audit.RULES, "other words"))
    (after,) = audit.audit(vm)
    assert "other words" in after.title
    assert after.title != before.title
    assert after.fingerprint == before.fingerprint


class Worded(Scenario):
    """What its check says is the test's."""

    words = ("a", "b")
    wrong = 0

    def setup(self):
        self.thread("a", lambda: None)

    def check(self):
        assert self.wrong != 0, self.words[0]
        assert self.wrong != 1, self.words[1]


class Body(Worded):
    """The same in a thread."""

    def setup(self):
        self.thread("a", super().check)

    def check(self):
        pass


def judged(cls, **said):
    scenario = type(cls.__name__, (cls,), said)
    (found,) = execute(scenario, RoundRobin(), Settings()).findings
    return found


@pytest.mark.parametrize("cls", [Worded, Body])
class TestAssertionsOfScenarios:
    def test_the_message_does_not_enter(self, cls):
        one, other = judged(cls), judged(cls, words=("other", "words"))
        assert (one.title, other.title) == ("a", "other")
        assert one.fingerprint == other.fingerprint

    def test_two_assertions_are_two_findings_even_with_one_message(self, cls):
        one, other = judged(cls, words=("x", "x")), judged(cls, words=("x", "x"), wrong=1)
        assert one.title == other.title
        assert one.fingerprint != other.fingerprint


def version_1(**fields):
    doc = {
        "format": "smpvm-finding",
        "version": 1,
        "kind": "audit",
        "title": "page 3: no page is left busy (by t0), and 1 more",
        "sites": [],
        "objects": ["page 3", "page 4"],
        "evidence": [
            "page 3: no page is left busy (by t0)",
            "page 4: no page is left busy (by t0)",
        ],
        "threads": [],
        "schedule": "s1/access/0.1.0/-/1x1~00/tests/toys.py:Lost",
        "fingerprint": "0" * 12,
        "command": "smpvm stress --profile tight",
        "count": 2,
    }
    return {**doc, **fields}


def site(thread, what, *frames):
    return {
        "thread": thread,
        "role": thread,
        "what": what,
        "stack": [{"name": n, "file": f, "line": 7, "c": c} for n, f, c in frames],
    }


OLD_SCAN = ("ScanInactive.inactive_requeue", "vm/scan_inactive.py", "")
OLD_SLEEP = ("Sleep.tsleep", "kern/tsleep.py", "tsleep")
OLD_SWAP = ("VmSpaces.vmspace_swap_count", "vm/vmspace.py", "vmspace_swap_count")


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ({}, ("page-busy",)),
        (
            {
                "kind": "lost-wakeup",
                "title": "t0 sleeps on page 2 (vmpfw) for what is already so",
                "sites": [site("t0", "sleeps on page 2 (vmpfw)", OLD_SLEEP, OLD_SCAN, OLD_SWAP)],
            },
            ("vmpfw", "vm_pageout_scan_inactive", "vmspace_swap_count"),
        ),
        (
            {
                "kind": "assertion",
                "title": "null-object: page 5 has none",
                "sites": [site("t0", "panics with null-object", OLD_SCAN)],
            },
            ("null-object", "vm_pageout_scan_inactive"),
        ),
        (
            {"kind": "assertion", "title": "12 updates are lost", "sites": []},
            ("Lost", "# updates are lost"),
        ),
        (
            {"kind": "stall", "title": "the machine stopped making progress: x", "sites": []},
            ("tight",),
        ),
        (
            {
                "kind": "deadlock",
                "title": "threads wait for locks that nobody will release",
                "sites": [site("t1", "is at acquire"), site("t0", "is at sleep")],
            },
            ("Lost", "t# acquire", "t# sleep"),
        ),
        (
            {
                "kind": "stale-data",
                "title": "file f1 word 3 reads as 0 (never written)",
                "evidence": ["read:     0 (never written)", "expected: 7"],
            },
            ("file", "zero"),
        ),
        (
            {
                "kind": "marker",
                "title": "a marker belongs to object 3",
                "sites": [site("t0", "the marker belongs to object 3", OLD_SCAN)],
            },
            ("misplaced", "owned", "vm_pageout_scan_inactive"),
        ),
    ],
)
def test_files_of_version_1_are_read_and_their_fingerprints_made_anew(fields, identity):
    found = Finding.from_json(version_1(**fields))
    assert found.identity == identity
    assert found.fingerprint == Finding(found.kind, "other words", identity=identity).fingerprint


def test_a_file_of_version_1_that_does_not_tell_has_its_place():
    doc = version_1(kind="race", title="damaged", sites=[site("t0", "writes", OLD_SCAN)])
    assert Finding.from_json(doc).identity == ()


def test_a_damaged_identity_is_refused():
    with pytest.raises(FindingError, match="identity"):
        Finding.from_json({**finding().to_json(), "identity": [1]})
