"""Tiny kernels with checkers, and a helper for the frames of a finding."""

import json

import pytest
from waiting import until

from smpvm.check.finding import Finding, FindingLog
from smpvm.check.markers import SITES
from smpvm.check.suite import CHECKS, CheckSuite
from smpvm.check.waitfor import WaitFor
from smpvm.check.wakeup import LostWakeups
from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel
from smpvm.kern.thread import Panic


class Watched:
    """A kernel on real threads with checkers attached."""

    def __init__(self, *which, tick=0.001, hz=100, run=None, traces=(), benign=True):
        self.suite = CheckSuite(which or CHECKS, FindingLog(run), traces=traces, benign=benign)
        if (waitfor := self.suite.find(WaitFor)) is not None:
            waitfor.confirm = 0.01
        if (wakeup := self.suite.find(LostWakeups)) is not None:
            wakeup.grace = 0.02
        carrier = NativeCarrier(hz=hz, tick_scale=tick * hz)
        self.k = Kernel(carrier, self.suite.observers, hz=hz)

    def go(self, *bodies, timeout=10.0):
        """Run each body to its end on a thread of its own, one after the other."""
        for n, body in enumerate(bodies):
            td = self.k.spawn(f"t{n}", body, role=f"role{n}")
            left = self.k.carrier.join(timeout)
            assert left == [], [str(td) for td in left]
            assert not self.k.errors, self.k.errors
            if self.k.panics:
                return
            assert td.exited

    def together(self, *bodies, timeout=10.0):
        """Run the bodies at the same time."""
        for n, body in enumerate(bodies):
            self.k.spawn(f"t{n}", body, role=f"role{n}")
        left = self.k.carrier.join(timeout)
        assert left == [], [str(td) for td in left]
        assert not self.k.errors, self.k.errors

    until = staticmethod(until)

    @property
    def findings(self):
        return self.suite.log.findings

    @property
    def kinds(self):
        return self.suite.log.kinds()

    def one(self, kind):
        """The only finding, which must be of *kind*."""
        assert self.kinds == [kind], [f.lines() for f in self.findings]
        return self.findings[0]

    def close(self):
        self.k.carrier.stop()
        self.k.carrier.join(5.0)


@pytest.fixture
def watch():
    made = []

    def make(*which, **kw):
        w = Watched(*which, **kw)
        made.append(w)
        return w

    yield make
    for w in made:
        w.close()
        for finding in filter(in_version_1, w.findings):
            old = Finding.from_json(as_version_1(finding))
            assert old.identity == finding.identity, "read from a file of version 1"


NEWER = {
    "masked-deadlock",
    "unguarded-access",
    "undocumented-order",
    "policy",
    "lifetime",
    "page-rule",
    "count",
    "request",
    "progress",
}
"""Kinds that version 1 had not."""


def in_version_1(finding):
    """Could version 1 find that?  It saw no races of atomic operations, and fewer kinds."""
    atomic = any(part.split()[:1] == ["atomic"] for part in finding.identity)
    return finding.kind not in NEWER and not atomic


def as_version_1(finding):
    """The document that version 1 would have written, with its wording where that was read."""
    doc = json.loads(json.dumps(finding.to_json()))
    if finding.kind == "marker" and finding.identity[0] in SITES:
        doc["sites"][1]["what"] = finding.identity[0]
    del doc["identity"]
    for site in doc["sites"]:
        for frame in site["stack"]:
            del frame["where"]
    return {**doc, "version": 1, "fingerprint": "0" * 12}


def functions_of(finding):
    """Names of the functions in the finding's stacks, innermost of each site first."""
    return [frame.name.split(".")[-1] for site in finding.sites for frame in site.stack]


@pytest.fixture
def frames():
    return functions_of


@pytest.fixture
def panic():
    return Panic
