"""The table of checkers, and the suite built from it."""

from collections import Counter

import pytest

from smpvm.check.checker import Checker
from smpvm.check.finding import Finding
from smpvm.check.suite import CHECKERS, CHECKS, DEFAULT, CheckSuite, Row, checks_text, parse_checks
from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel


class Asked(Checker):
    """Counts what it is asked, and says something at a stall."""

    def __init__(self, context):
        super().__init__(context)
        self.times = Counter()

    def idle(self):
        self.times["idle"] += 1

    def stalled(self):
        self.times["stalled"] += 1
        return ["nobody moves"]

    def at_rest(self):
        self.log.add(Finding("audit", "a quiet machine"))

    def finish(self):
        self.times["finish"] += 1

    def summary(self):
        return {"asked": sum(self.times.values())}


def test_a_new_checker_is_one_row(monkeypatch):
    monkeypatch.setattr("smpvm.check.suite.CHECKERS", (*CHECKERS, Row("asked", Asked)))
    suite = CheckSuite({"asked"})
    Kernel(NativeCarrier(), suite.observers)
    suite.idle()
    assert suite.stalled() == ["nobody moves"]
    suite.at_rest()
    suite.finish()
    assert suite.log.kinds() == ["audit"]
    assert suite.find(Asked).times == {"idle": 1, "stalled": 1, "finish": 1}
    assert suite.summary()["asked"] == 3


def test_only_those_asked_for_are_made():
    suite = CheckSuite({"marker"})
    kinds = {row.name: suite.find(row.cls) is not None for row in CHECKERS}
    assert kinds == {name: name == "marker" for name in CHECKS}


def test_each_checker_has_its_own_names_in_the_summary():
    suite = CheckSuite(CHECKS)
    names = Counter(name for checker in suite.checkers for name in checker.summary())
    assert names
    assert set(names.values()) == {1}


@pytest.mark.parametrize("text", ["all", "none", *CHECKS, ",".join(sorted(CHECKS)[:2])])
def test_what_is_said_of_checks_is_read_back(text):
    assert parse_checks(checks_text(parse_checks(text))) == parse_checks(text)


def test_the_default_set_is_in_the_table():
    assert parse_checks("default") == DEFAULT < set(CHECKS)
