"""The model behaves like the kernel's C, and a model that does not is detected."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from smpvm.conform import VectorError, conform, read_vectors, run_vector
from smpvm.conform.calls import CALLS
from smpvm.conform.shapes import ARGUMENTS
from smpvm.vm.meter import Meter
from smpvm.vm.page import move
from smpvm.vm.page.pages import Pages
from smpvm.vm.pageout import clean, deactivate, page_stats, scan_active, scan_cache, scan_inactive
from smpvm.vm.pageout.coverage import missed
from smpvm.vm.pageout.daemon import Pageout
from smpvm.vm.pageout.vmdaemon import VmDaemon
from smpvm.vm.pmap.pmaps import Pmaps

PART = Path(__file__).parents[1] / "data" / "vectors.jsonl.gz"
ALL = Path(__file__).parents[3] / "shared" / "conformance" / "vectors.jsonl.gz"


def explain(report):
    return "\n".join(line for r in report.failed[:5] for line in r.lines())


def test_the_model_agrees_on_a_representative_part():
    """And the part runs every branch of the seed that the C can reach, and none that it cannot."""
    kernels = []

    class Seen(Pageout):
        def __init__(self, vm):
            super().__init__(vm)
            kernels.append(self.k)

    report = conform([PART], [Seen])
    assert not report.failed, explain(report)
    assert len(report.results) > 500
    assert len(report.by_function()) == 46
    assert report.exit_code == 0
    counts = Counter()
    for k in kernels:
        counts.update(k.counts())
    assert [row.name for row in missed(counts, branches=True)] == []
    assert counts["vm_pageout_clean:forward"] == 0


@pytest.mark.skipif(not ALL.exists(), reason="the shared vectors are not here")
def test_the_model_agrees_on_every_vector():
    report = conform([ALL])
    assert not report.failed, explain(report)
    assert len(report.results) == 1845


# -- a wrong model is noticed


class ForwardCluster(Pageout):
    function = "vm_pageout_clean"

    def cluster_forward_special(self, p):
        return self.cluster_special(p)


class AnyQueueInCluster(Pageout):
    function = "vm_pageout_clean"

    def cluster_dirty(self, p):
        self.vm.page.test_dirty(p)
        return bool(p.dirty & p.valid) and not p.wire_count and not p.hold_count


class PendIsNoProgress(Pageout):
    function = "vm_pageout_flush"

    def flush(self, mc, flags):
        return max(0, super().flush(mc, flags) - 1)


class BadKeepsItsDirt(Pageout):
    function = "vm_pageout_flush"

    def flush_bad(self, m):
        pass


class FinishedStaysActive(Pageout):
    function = "vm_pageout_flush"

    def flush_done(self, obj, m):
        self.vm.page.busy_wait(m, False, "pgouw")
        self.vm.page.io_finish(m)
        self.vm.page.wakeup(m)
        self.vm.object.pip_wakeup(obj)


class NoRecheck(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_moved(self, s, m, obj, vp):
        return False


class NoSecondChance(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_second_chance(self, s, m):
        return False


class SwappedDefer(Pageout):
    function = "vm_pageout_scan_inactive"

    def swap_pageouts_ok(self, obj):
        return not super().swap_pageouts_ok(obj)


class ActCountSaturates(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_activate(self, m, more):
        self.vm.page.activate(m)
        m.act_count = min(m.act_count + more, 64)
        self.vm.page.wakeup(m)


class HeldStaysInPlace(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_requeue(self, s, m):
        self.vm.page.wakeup(m)


class NoEarlyStop(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_enough(self):
        return False


class LaunderWithoutLimit(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_maxlaunder(self, pass_):
        return 10000


class SkipNotCounted(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_skip_vnode(self, s, obj):
        pass


class ReferencesIgnored(Pageout):
    function = "vm_pageout_scan_inactive"

    def inactive_reactivated(self, s, m):
        return False


class NullObjectTolerated(Pageout):
    function = "vm_pageout_scan_active"

    def active_decline(self, m):
        if m.object is None:
            self.active_age(m, anonymous=False)
        else:
            super().active_decline(m)


class DeclinesSwapped(Pageout):
    function = "vm_pageout_scan_active"

    def active_age(self, m, *, anonymous):
        super().active_age(m, anonymous=not anonymous)


class PassIgnored(Pageout):
    function = "vm_pageout_scan_active"

    def active_idle(self, s, m):
        obj = m.object
        return (
            bool(self.vm.sysctl.pageout_algorithm)
            or obj is None
            or obj.ref_count == 0
            or m.act_count < 1
        )


class CacheRoverStands(Pageout):
    function = "vm_pageout_scan_cache"

    def cache_page(self, m):
        super().cache_page(m)
        self.cache_rover = 0


class WakeBeforeRequest(Pageout):
    function = "vm_pageout_scan_cache"

    def cache_request_swapout(self):
        self.vm.glob.vm_pageout_req_swapout |= 1


class KillInit(Pageout):
    function = "vm_pageout_scan_callback"

    def never_kill(self, p):
        return False


class KillAtFirstPass(Pageout):
    function = "vm_pageout_thread"

    def cache_out_of_swap(self, avail_shortage, pass_):
        return super().cache_out_of_swap(avail_shortage, pass_ + 1)


class StatsWholeQueue(Pageout):
    function = "vm_pageout_thread"

    def stats_length(self, q, pcount):
        super().stats_length(q, pcount)
        return pcount


class BackingNotRechecked(Pageout):
    function = "vm_pageout_object_deactivate_pages"

    def hold_backing(self, lobject, first):
        tobject = lobject.backing_object
        if tobject is not None:
            self.vm.object.hold(tobject)
        return tobject


class WiredIgnored(Pageout):
    function = "vm_pageout_map_deactivate_pages"

    def map_biggest_object(self, map_):
        return super().map_biggest_object(map_)[0], True


class WaitersForgotten(Pageout):
    function = "vm_pageout_thread"

    def waiters_may_go(self):
        return False


class OneBackOff(Pageout):
    function = "vm_pageout_thread"

    def thread_back_off(self, pass_):
        self.pdelay(self.k.hz)


class SharesWithoutSlop(Pageout):
    function = "vm_pageout_thread"

    def pqaverage(self, n):
        return n // self.vm.pq.L2_SIZE


class DaemonAlwaysWoken(VmDaemon):
    function = "vm_req_vmdaemon"

    def req_vmdaemon(self):
        self.lastrun = self.k.clock.ticks() - self.k.hz - 1
        super().req_vmdaemon()


class LimitOfSwappedOut(VmDaemon):
    function = "vm_daemon_callback"

    def rss_limit(self, p):
        return min(p.p_rlimit_rss_cur, p.p_rlimit_rss_max) >> 12


class RequestKept(VmDaemon):
    function = "vm_daemon"

    def daemon_swapout(self):
        if request := self.vm.glob.vm_pageout_req_swapout:
            self.vm.glue.swapout_procs(request)


class TargetOffByOne(Meter):
    function = "vm_page_counts"

    def paging_target(self):
        return super().paging_target() + 1


class AllReferences(Pmaps):
    function = "vm_pageout_scan_inactive"

    def ts_referenced(self, m):
        return len([pv for pv in m.mappings() if pv.bits & 4]) + super().ts_referenced(m) * 0


class HoldFreesAtOnce(Pages):
    function = "vm_page_unhold"

    def unhold(self, m):
        self.pool.lock(m)
        self.atomic.add_int(m, "hold_count", -1)
        self.pool.unlock(m)


MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type)
    and cls.__module__ == __name__
    and issubclass(cls, (Pageout, VmDaemon, Meter, Pmaps, Pages))
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda cls: cls.__name__)
def test_a_swapped_branch_is_caught(mutant):
    assert conform([PART], [mutant], functions=[mutant.function], stop_after=1).failed


@pytest.mark.parametrize(
    ("module", "constant", "value", "function"),
    [
        (scan_inactive, "ACT_ADVANCE", 2, "vm_pageout_scan_inactive"),
        (scan_active, "ACT_ADVANCE", 4, "vm_pageout_scan_active"),
        (scan_active, "ACT_MAX", 63, "vm_pageout_scan_active"),
        (deactivate, "ACT_ADVANCE", 2, "vm_pageout_object_deactivate_pages"),
        (deactivate, "ACT_DECLINE", 2, "vm_pageout_object_deactivate_pages"),
        (page_stats, "ACT_DECLINE", 2, "vm_pageout_page_stats"),
        (move, "ACT_INIT", 6, "vm_page_activate"),
        (clean, "BLIST_MAX_ALLOC", 16, "vm_pageout_clean"),
        (scan_cache, "PQ_PRIME2", 31, "vm_pageout_scan_cache"),
        (scan_cache, "PRIO_MIN", -19, "vm_pageout_scan_cache"),
    ],
)
def test_a_changed_constant_is_caught(monkeypatch, module, constant, value, function):
    monkeypatch.setattr(module, constant, value)
    assert conform([PART], functions=[function], stop_after=1).failed


# -- the report


def first(function):
    return next(v for v in read_vectors(PART) if v["function"] == function)


def test_a_difference_names_field_values_vector_and_lines():
    vector = first("vm_page_activate")
    vector["after"]["pages"][0]["act_count"] = 77
    result = run_vector(vector)
    (difference,) = result.differences
    assert difference.field == "page 0 act_count"
    assert difference.kernel == 77
    text = "\n".join(result.lines())
    assert vector["name"] in text
    assert "vm_page.c:" in text
    assert "page 0 act_count: kernel 77, ours" in text


def test_the_lines_of_the_seed_are_named():
    vector = first("vm_pageout_page_stats")
    vector["after"]["counters"]["v_pdpages"] += 1
    assert "vm_pageout.c:1603-1756" in run_vector(vector).lines()[0]


def test_events_and_returns_are_compared():
    vector = next(v for v in read_vectors(PART) if v["events"] and "value" in v["returns"])
    vector["events"] = vector["events"][:-1]
    vector["returns"]["value"] = "other"
    fields = [d.field for d in run_vector(vector).differences]
    assert any(f.startswith("event") for f in fields)
    assert "returns value" in fields


def test_json_report(tmp_path):
    good, bad = first("vm_page_hold"), first("vm_page_unhold")
    bad["after"]["pages"][0]["hold_count"] = 99
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    report = conform([path])
    data = json.loads(json.dumps(report.as_json()))
    assert (data["vectors"], data["agree"]) == (2, 1)
    assert data["differences"][0]["vector"] == bad["name"]
    assert report.exit_code == 1
    assert any("vm_page_unhold" in line and "0.00 %" in line for line in report.summary())


# -- files that cannot be used


def damaged(tmp_path, data):
    path = tmp_path / "bad.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(VectorError) as caught:
        conform([path])
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_damaged_files_are_named(tmp_path):
    assert "truncated" in damaged(tmp_path, PART.read_bytes()[:5000])
    assert "not JSON" in damaged(tmp_path, b"hello\n")
    assert "no vectors" in damaged(tmp_path, b"")
    assert "name is missing" in damaged(tmp_path, b"{}\n")
    assert "not a vector" in damaged(tmp_path, b"[1]\n")
    assert "not JSON" in damaged(tmp_path, b"\xff\xfe\x00x\n")
    missing = tmp_path / "nowhere"
    with pytest.raises(VectorError, match="nowhere"):
        conform([missing])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(function="vm_nothing"), "function: unknown 'vm_nothing'; known are"),
        (lambda v: v["before"]["pages"][0].update(flags=["BUSI"]), "flags: unknown flag 'BUSI'"),
        (lambda v: v["before"].pop("globals"), "before: globals is missing"),
        (lambda v: v["before"]["pages"][0].update(pc=999), "before: page 0: colour 999"),
        (lambda v: v["config"].pop("hz"), "config: hz is missing"),
        (lambda v: v["config"].update(hz=-1), "config hz: negative (-1), allowed 1 to 100000"),
        (lambda v: v["args"].pop("page"), "args: page is missing"),
        (lambda v: v["args"].update(page=999), "args page: 999, but before has"),
        (lambda v: v["after"].pop("globals"), "after: globals is missing"),
        (lambda v: v.pop("after"), ": after is missing"),
        (lambda v: v.update(after=[]), "after: [] is not an object"),
        (lambda v: v["after"]["pages"][0].update(flags=7), "after page 0 flags: 7 is not a list"),
        (lambda v: v["after"]["pages"].append(None), "None is not an object"),
        (lambda v: v["after"]["queues"].update(free=[]), "after queue free: [] is not an object"),
        (lambda v: v["after"].update(vmstats={}), "after vmstats: v_"),
        (lambda v: v["after"].update(extra="x" * 9999), "after: unknown key 'extra'"),
        (lambda v: v["events"].append("x" * 9999), "event"),
        (lambda v: v["returns"].update(stopped=True), "returns: allowed is exactly one of"),
        (lambda v: v.update(yields="none"), "yields: 'none' is not a number"),
        (lambda v: v.update(pager_statuses=["GOOD"]), "pager_statuses 0: unknown 'GOOD'; known"),
        (
            lambda v: v.update(script=[{"at": "vget", "n": 0, "mutations": [{"op": "page_mow"}]}]),
            "script 0 mutation 0: {'op': 'page_mow'} is no mutation; known are",
        ),
        (
            lambda v: v.update(
                script=[{"at": "vget", "n": 0, "mutations": [{"op": "page_free", "page": 99}]}]
            ),
            "script 0 mutation 0 page: 99, but before has",
        ),
    ],
)
def test_damaged_vectors_are_named(tmp_path, change, words):
    vector = first("vm_page_activate")
    change(vector)
    text = damaged(tmp_path, gzip.compress(json.dumps(vector).encode()))
    assert vector["name"] in text
    assert words in text
    assert len(text) < 350


def test_every_function_that_can_be_called_has_its_arguments_listed():
    assert set(ARGUMENTS) == set(CALLS)
