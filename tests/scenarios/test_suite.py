"""The built-in suite: each scenario is clean with its repairs and shows its defects without."""

import pytest

from smpvm import scenarios
from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.registry import builtin
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.trace.happens_before import covers
from smpvm.host.carrier import HOLDING, WAKEUP
from smpvm.host.runnable import is_token
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_TIMELOCK
from smpvm.kern.thread import End
from smpvm.scenarios.fault_pageout import StorePageout
from smpvm.scenarios.hold_alloc import HoldAlloc
from smpvm.scenarios.terminate_scan import TerminateScan
from smpvm.scenarios.vnode_pageout import VnodeMapper, VnodePageout
from smpvm.vm.object.objects import Objects
from smpvm.vm.page.pages import Pages
from smpvm.vm.pageout.daemon import Pageout
from smpvm.vm.pager.swap import SwapPager
from smpvm.vm.param import OBJT_VNODE, VM_PROT_READ

ALL = builtin(scenarios)


def explore(cls, schedules, *, strategy="portfolio", seed=0, until="", **settings):
    """The kinds of finding of up to *schedules* executions, ending at the first *until*."""
    chosen = make_strategy(strategy, seed=seed)
    kinds = {}
    with collected() as collector:
        for n in range(schedules):
            outcome = execute(cls, chosen, Settings(digest=False, **settings), n)
            if outcome is None:
                break  # all has been tried
            for finding in outcome.findings:
                kinds.setdefault(finding.kind, finding.title)
            assert outcome.findings or outcome.stuck in ("", "cut")
            outcome.forget()
            collector.after()
            if until in kinds:
                break
    return kinds


ISSUE = {
    "scan-moves",
    "two-scanners",
    "fault-pageout",
    "vnode-pageout",
    "low-memory",
    "swapout-request",
    "terminate-scan",
    "fork-pageout",
    "hold-alloc",
    "exec-deactivate",
    "exit-deactivate",
    "exit-kill",
    "swap-fault",
    "collapse-pageout",
    "cache-lookup",
    "wire-scan",
    "msync-pageout",
}


FIRST = ISSUE | {
    "two-scanners-active",
    "store-pageout",
    "vnode-mapper",
    "vnode-slow",
    "swap-write-fault",
    "swap-error-fault",
    "swap-buffers",
    "protect-kill",
    "mlock-scan",
    "wire-terminate",
    "busy-reuse",
}

WISHED = {  # situation of issue 16 -> the scenario of its own
    "read fault, store, reclaim": "read-store",
    "fsync beside stores": "fsync-mapped",
    "the syncer beside stores": "syncer-store",
    "truncate beside page-out and msync": "truncate-pageout",
    "invalidate beside page-out": "invalidate-pageout",
    "reclaim beside page-out": "reclaim-pageout",
    "munmap beside a fault that pages in": "munmap-fault",
    "mprotect beside a fault that pages in": "mprotect-fault",
    "fork beside a fault that pages in": "fork-fault",
    "chains of three": "chain-three",
    "clusters of dirty pages on swap": "cluster-pageout",
    "clusters of dirty pages of a file": "cluster-file",
    "severe shortage": "severe-fault",
    "the daemon's own vm_wait": "daemon-waits",
    "a vnode owner that waits for memory": "vnode-memory",
    "hold beside free": "hold-munmap",
    "two mlocks and a munmap": "mlock-two",
    "the swapper": "swapper",
    "exec beside vmdaemon": "exec-shared",
    "terminate against the allocator": "terminate-alloc",
    "collapse with swap full": "collapse-full",
    "mprotect against the copy-on-write move": "mprotect-move",
    "kill against swap-in": "kill-swapin",
    "two vgets of an inactive vnode": "vget-inactive",
    "lockmgr upgrades": "vnode-upgrade",
    "two colors": "colors-two",
    "four colors": "colors-four",
    "madvise": "madvise-free",
    "page_remove": "munmap-part",
    "many references": "shared-many",
    "fork of a wired mapping": "fork-wired",
}


def test_every_situation_of_the_issues_is_there():
    assert set(ALL) >= ISSUE | set(WISHED.values())


@pytest.mark.parametrize("name", ALL)
def test_documented(name):
    cls = ALL[name]
    module = __import__(cls.__module__, fromlist=["x"])
    for part in ("Situation:", "Threads:", "What must hold:", "C:"):
        assert part in module.__doc__
    assert cls.title
    assert cls.__doc__


MANY, FEW = 16, 3
"""Schedules: of the first situations many, of those that came later few (thousands were run)."""


def schedules(name):
    return MANY if name in FIRST else FEW


@pytest.mark.parametrize("granularity", ["access", "sync"])
@pytest.mark.parametrize("name", ALL)
def test_clean_with_its_repairs(name, granularity):
    cls = ALL[name]
    assert explore(cls, schedules(name), granularity=granularity, repairs=cls.repairs) == {}


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("protect-kill", 10),
        ("swapout-request", 50),
        ("cache-lookup", 60),
        ("two-scanners-active", 100),
        ("vget-inactive", 40),
    ],
)
def test_proven_clean_with_its_repairs(name, least):
    """Those that DPOR exhausts within seconds."""
    cls = ALL[name]
    settings = Settings(repairs=cls.repairs, digest=False)
    report = Search(cls, SearchPlan(strategy="dpor", schedules=None, settings=settings)).run()
    assert report.findings == []
    assert "every class" in report.proven
    assert report.executions >= least
    assert report.limited == 0


@pytest.mark.parametrize("name", [name for name, cls in ALL.items() if cls.sizes])
def test_clean_at_its_smallest(name):
    cls = ALL[name]
    small = type(cls.__name__, (cls,), {**cls.sizes, "name": name})
    assert explore(small, schedules(name) // 2, granularity="sync", repairs=cls.repairs) == {}


SHOWS = {
    "low-memory": "masked-lost-wakeup",
    "kill-wait": "masked-lost-wakeup",
    "hold-alloc": "masked-lost-wakeup",
    "terminate-scan": "assertion",
    "swapout-request": "lost-wakeup",
    "swap-error-fault": "assertion",
    "swap-buffers": "lost-wakeup",
    "msync-pageout": "assertion",
    "protect-kill": "race",
    "exit-kill": "race",
    "wire-terminate": "assertion",
    "busy-reuse": "lost-wakeup",
    "read-store-fork": "assertion",
    "read-store-protect": "assertion",
    "reclaim-pageout": "race",
    "mprotect-move": "race",
    "cluster-error": "assertion",
    "kill-swapin": "race",
    "swapper-kill": "race",
    "severe-fault": "race",
    "vnode-memory": "race",
    "colors-two": "race",
}
RARELY = {
    "fork-pageout",
    "fork-fault",
    "fork-wired",
    "chain-three",
    "chain-deactivate",
    "chain-pageout",
    "chain-reader",
    "collapse-full",
    "colors-four",
    "daemon-waits",
    "exec-kill",
    "file-fault",
    "file-fault-error",
    "file-wire-error",
    "invalidate-pageout",
    "terminate-alloc",
    "truncate-pageout",
    "fsync-pageout",
    "cluster-file",
}
"""These show it in one of very many schedules (stress/portfolio.py); another does at once."""
HOW = {
    "busy-reuse": ("dpor", 0),
    "read-store-fork": ("pos", 11),
    "read-store-protect": ("pos", 11),
    "reclaim-pageout": ("pos", 0),
}
"""Strategy and seed, where the portfolio would need hundreds of schedules."""


def test_every_scenario_with_a_repair_is_among_those_that_show_a_defect():
    assert {name for name, cls in ALL.items() if cls.repairs} == set(SHOWS) | RARELY
    assert {r for name in RARELY for r in ALL[name].repairs} <= {
        r for name in SHOWS for r in ALL[name].repairs
    }


@pytest.mark.parametrize("name", SHOWS)
def test_the_seed_s_defect_shows_without_the_repair(name):
    strategy, seed = HOW.get(name, ("portfolio", 0))
    kinds = explore(ALL[name], 600, strategy=strategy, seed=seed, until=SHOWS[name])
    assert SHOWS[name] in kinds


# -- broken kernels: the suite must notice


class Untreated(VnodeMapper):
    """uiomove does not set TDF_DEADLKTREAT."""

    treat = 0


class WaitWithBusyPage(Pageout):
    """The daemon waits for the vnode with the page busy."""

    def inactive_vnode_lock(self, s, m, obj):
        self.k.vnode.vget(obj.handle, 2)
        return obj.handle


class WaitABitWithBusyPage(Pageout):
    """The daemon waits for the vnode with the page busy, but not for ever."""

    def inactive_vnode_lock(self, s, m, obj):
        if self.k.vnode.vget(obj.handle, LK_EXCLUSIVE | LK_TIMELOCK):
            s.vpfailed = obj.handle
            self.vm.page.wakeup(m)
            return None
        return obj.handle


class WaitForVnode(Pageout):
    """The daemon waits for the vnode as long as it takes."""

    def inactive_vnode_lock(self, s, m, obj):
        self.vm.page.hold(m)
        self.vm.page.wakeup(m)
        self.k.vnode.vget(obj.handle, LK_EXCLUSIVE)
        self.k.vnode.vput(obj.handle)
        self.vm.page.unhold(m)


class NoWait(Objects):
    """Terminate does not wait for I/O."""

    def pip_wait(self, obj, wmesg):
        if wmesg not in ("objtrm1", "objtrm2", "swpdea"):
            super().pip_wait(obj, wmesg)


class CleanBehindWriter(SwapPager):
    """The completion forgets what was stored while the write was in flight."""

    def write_done(self, m):
        super().write_done(m)
        if m.object is not None and m.object.type != OBJT_VNODE:
            self.vm.pmap.clear_modify(m)
            self.vm.page.undirty(m)


class NeverReadOnly(Pages):
    """A page that is being written stays writeable."""

    def protect(self, m, prot):
        if prot != VM_PROT_READ:
            super().protect(m, prot)


class FreeWhileHeld(Pages):
    """A page that is held goes to the free queue."""

    def free_toq(self, m):
        held, m.hold_count = m.hold_count, 0
        super().free_toq(m)
        m.hold_count = held


def broken(cls, *changes):
    return type(cls.__name__, (cls,), {"changes": changes, "name": cls.name})


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (Untreated, "deadlock"),
        (broken(VnodePageout, WaitWithBusyPage), "deadlock"),
        (broken(VnodePageout, WaitABitWithBusyPage), "masked-deadlock"),
        (broken(TerminateScan, NoWait), "assertion"),
        (broken(StorePageout, NeverReadOnly, CleanBehindWriter), "assertion"),
        (broken(HoldAlloc, FreeWhileHeld), "assertion"),
    ],
    ids=["untreated", "vnode", "vnode-timed", "terminate", "store", "hold"],
)
def test_a_broken_kernel_is_noticed(cls, kind):
    assert kind in explore(cls, 2000, until=kind, checks=frozenset({"waitfor"}))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (WaitABitWithBusyPage, "busy-then-vnode"),
        (WaitForVnode, "daemon-waits-for-vnode"),
    ],
)
def test_a_wait_for_a_vnode_that_the_rules_forbid(change, rule):
    cls = broken(VnodePageout, change)
    found = explore(cls, 60, until="lock-order", checks=frozenset({"order"}))
    assert found["lock-order"].startswith(rule)


@pytest.mark.parametrize("name", ["fork-pageout", "exit-kill", "low-memory", "vnode-pageout"])
def test_what_a_step_changes_is_what_it_names(name):
    """Or tokens in hand, and it says so, or the end of the thread: DPOR rests on that."""
    cls = ALL[name]
    strategy = make_strategy("portfolio", seed=2)
    given_up = 0
    with collected() as collector:
        for n in range(6):
            outcome = execute(cls, strategy, Settings(checks=frozenset(), digest=False), n)
            log = outcome.carrier.log
            for at, obj in outcome.carrier.touches:
                if not covers(log[at], obj):
                    if isinstance(obj, End):
                        assert log[at][1:3] == (WAKEUP, obj.td)
                        continue
                    assert log[at][3] == HOLDING
                    assert is_token(obj)
                    given_up += 1
            outcome.forget()
            collector.after()
    assert given_up > 0
