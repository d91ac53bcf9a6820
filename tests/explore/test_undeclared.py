"""Undeclared sharing: what no schedule point names voids a proof; what is not shared does not."""

import heapq
import itertools

import pytest

from smpvm import Scenario
from smpvm.explore.search import Search, SearchPlan

HITS = 0


def bump():
    global HITS
    HITS = HITS + 1


class Base(Scenario):
    def setup(self):
        self.make()
        for i in range(2):
            self.thread("ab"[i], self.body, i)

    def make(self):
        pass


class PlainAttribute(Base):
    "PlainAttribute.n"

    def make(self):
        self.n = 0

    def body(self, i):
        value = self.n
        self.yield_()
        self.n = value + 1


class ClosureDict(Scenario):
    "counts['n']"

    def setup(self):
        counts = {"n": 0}

        def body():
            value = counts["n"]
            self.yield_()
            counts["n"] = value + 1

        for name in "ab":
            self.thread(name, body)


class ClosureVariable(Scenario):
    "variable n"

    def setup(self):
        n = 0

        def body():
            nonlocal n
            value = n
            self.yield_()
            n = value + 1

        for name in "ab":
            self.thread(name, body)


class GlobalCounter(Base):
    "global HITS"

    def make(self):
        global HITS
        HITS = 0

    def body(self, i):
        bump()


class ClassAttribute(Base):
    "ClassAttribute.total"

    total = 0

    def make(self):
        ClassAttribute.total = 0

    def body(self, i):
        ClassAttribute.total += 1


class ListElement(Base):
    "row[0]"

    def make(self):
        self.row = [0, 0]

    def body(self, i):
        row = self.row
        row[0] += 1


class Append(Base):
    "self.log"

    def make(self):
        self.log = []

    def body(self, i):
        self.log.append(i)


class Helper(Base):
    "Counter.n"

    def make(self):
        self.counter = Counter()

    def body(self, i):
        self.counter.add()


class Counter:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += 1


class Drawn(Base):
    "self.ids"

    def make(self):
        self.ids = itertools.count()

    def body(self, i):
        next(self.ids)


class Heap(Base):
    "self.heap"

    def make(self):
        self.heap = []

    def body(self, i):
        heapq.heappush(self.heap, i)


class ByName(Base):
    "ByName.n"

    def make(self):
        self.n = 0

    def body(self, i):
        setattr(self, "n", getattr(self, "n") + 1)  # noqa: B009, B010


class OneReads(Base):
    "OneReads.ready"

    def make(self):
        self.ready = False

    def body(self, i):
        if i:
            self.ready = True
        elif self.ready:
            self.yield_()


class OnlySometimes(Base):
    "OnlySometimes.late"

    def make(self):
        self.late = 0
        self.c = self.shared(n=0, benign={"n": "a test"})

    def body(self, i):
        if i:
            self.c.n = 1
            self.late = 1
        elif self.c.n == 0:
            self.c.n = 2
        else:
            self.late = 2


class Whole(Base):
    "self.row"

    def make(self):
        self.row = [0, 0]
        self.sum = self.shared(n=0)

    def body(self, i):
        if i:
            self.row[1] = 5
        else:
            self.sum.n = sum(self.row)


WRONG = [
    PlainAttribute, ClosureDict, ClosureVariable, GlobalCounter, ClassAttribute, ListElement,
    Append, Helper, Drawn, Heap, ByName, OneReads, OnlySometimes, Whole,
]  # fmt: skip


def searched(scenario, strategy="dpor", **plan):
    return Search(scenario, SearchPlan(strategy, 500, **plan)).run()


@pytest.mark.parametrize("scenario", WRONG, ids=lambda s: s.__name__)
@pytest.mark.parametrize("strategy", ["dpor", "all", "portfolio"])
def test_undeclared_sharing_voids_the_proof(scenario, strategy):
    report = searched(scenario, strategy)
    assert report.findings == []
    assert report.verdict == "inconclusive"
    (note,) = [n for n in report.notes if n.startswith("no proof: ")]
    assert note.startswith(f"no proof: {scenario.title} is shared and not declared: ")
    assert " a " in note
    assert " b " in note
    assert "shared()" in note


class Results(Base):
    def make(self):
        self.seen = [0, 0]
        self.by = {}
        self.got = set()

    def body(self, i):
        self.seen[i] = 1
        self.yield_()
        self.seen[i] += 1
        self.by[i] = self.by.get(i, 0) + 1
        self.got.add(i)
        setattr(self, "ab"[i], i)

    def check(self):
        assert self.seen == [2, 2]
        assert self.by == {0: 1, 1: 1}
        assert self.got == {0, 1}
        assert self.b == 1


class UnderLock(Base):
    def make(self):
        self.lk = self.spinlock("l")
        self.n = 0

    def body(self, i):
        self.lk.lock()
        self.n += 1
        self.lk.unlock()

    def check(self):
        assert self.n == 2


class AfterJoin(Scenario):
    def setup(self):
        self.result = 0
        self.thread("main", self.main)

    def main(self):
        given = [1, 2]
        child = self.spawn("child", self.child, given)
        self.join(child)
        assert self.result == 3

    def child(self, given):
        self.result = sum(given)


class ReadOnly(Base):
    limits = (1, 2)

    def make(self):
        self.table = {0: "x", 1: "y"}
        self.c = self.shared(n=0)
        self.mine = self.local(n=0)
        top = 3
        self.f = lambda: top

    def body(self, i):
        self.mine.n = self.f() + len(self.table) + sum(self.limits)
        self.atomic.add_int(self.c, "n", len(self.table[i]))
        for _ in self.table:
            self.mine.n += 1


@pytest.mark.parametrize("scenario", [Results, UnderLock, AfterJoin, ReadOnly])
def test_what_is_not_shared_or_is_ordered_is_no_alarm(scenario):
    report = searched(scenario)
    assert report.findings == []
    assert report.verdict == "proven", report.lines()


def test_without_the_race_check_it_is_noticed_all_the_same():
    from smpvm.explore.engine import Settings

    report = searched(PlainAttribute, settings=Settings(checks=frozenset({"order"})))
    assert report.verdict == "inconclusive"
    assert searched(UnderLock, settings=Settings(checks=frozenset())).verdict == "proven"


def test_the_code_is_as_it_was_afterwards():
    before = PlainAttribute.body.__code__, bump.__code__
    searched(PlainAttribute)
    searched(GlobalCounter)
    assert (PlainAttribute.body.__code__, bump.__code__) == before


def test_a_finding_is_where_it_was():
    class Wrong(Base):
        def make(self):
            self.s = self.shared(n=0)

        def body(self, i):
            self.s.n = self.s.n + 1

    def sites(strategy):
        found = Search(Wrong, SearchPlan(strategy, 30, shrink=False)).run().findings
        return {f.fingerprint: sorted(map(str, f.sites[0].stack)) for f in found}

    assert sites("dpor") == sites("random")
