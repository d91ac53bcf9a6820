"""The page-out daemon's scans, step by step, on a machine with one thread."""

import re
from pathlib import Path

import pytest

import smpvm.vm
from smpvm.config import Config
from smpvm.conform.carrier import ScriptCarrier
from smpvm.kern.kernel import Kernel
from smpvm.kern.lwkt import Sched
from smpvm.kern.probe import Probe
from smpvm.kern.proc import P_LOWMEMKILL
from smpvm.kern.thread import Panic
from smpvm.repairs.catalogue import choose
from smpvm.vm.build import build_vm
from smpvm.vm.page.struct import PG_BUSY, PG_REFERENCED, PG_WINATCFLS
from smpvm.vm.pageout.coverage import COVERAGE, FUNCTIONS, missed
from smpvm.vm.pageout.daemon import Pageout, Round
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.pager.pagers import Pagers
from smpvm.vm.param import OBJT_DEFAULT, OBJT_VNODE, VM_PAGER_OK

COLOUR = 1


class Written(Pagers):
    """A pager that writes at once, and remembers what."""

    def __init__(self, vm):
        super().__init__(vm)
        self.calls = []

    def put_pages(self, obj, pages, flags):
        self.calls.append([m.pindex for m in pages])
        for m in pages:
            self.vm.page.undirty(m)
        return [VM_PAGER_OK] * len(pages)


class Scans(Probe):
    """What the marker probes tell."""

    def __init__(self):
        self.hops = []
        self.begun = []
        self.ended = []

    def scan_begin(self, td, q, marker, maxscan):
        self.begun.append((str(q), maxscan))

    def scan_end(self, td, q, marker, why):
        self.ended.append(why)

    def marker_hop(self, td, q, marker, m):
        self.hops.append(m)


class Meanwhile(Sched):
    """Something happens at a yield."""

    def lwkt_yield(self):
        if actions := getattr(self.k, "meanwhile", None):
            actions.pop(0)()


def machine(*repairs, observers=(), colours=4):
    k = Kernel(ScriptCarrier(), observers, parts={"sched": Meanwhile})
    k.meanwhile = []
    changes = [Written, *(r.change for r in choose(repairs))]
    vm = build_vm(k, Config(pages=256, pq_l2_size=colours), changes)
    vm.stats.v_free_target = 10_000
    return vm


def take(vm, obj, pindex, queue="inactive", **fields):
    """A page of *obj* on a queue of colour 1, valid and clean unless *fields* say otherwise."""
    page = vm.page
    m = page.select_free(COLOUR, False)
    page.flag_clear(m, ~PG_BUSY)
    m.pc = COLOUR
    if obj is not None:
        vm.object.hold(obj)
        page.insert(m, obj, pindex)
        vm.object.drop(obj)
    m.valid = fields.pop("valid", 255)
    for name, value in fields.items():
        setattr(m, name, value)
    m.flags |= PG_BUSY
    if queue == "active":
        count = m.act_count
        page.activate(m)
        m.act_count = count
    elif queue == "inactive":
        winatcfls = m.flags & PG_WINATCFLS
        page.deactivate(m)
        m.flags |= winatcfls
    page.wakeup(m)
    return m


def pages_of(vm, base):
    return [m.pindex for m in vm.queues[base + COLOUR].pages()]


def anonymous(vm, size=64):
    return vm.object.allocate(OBJT_DEFAULT, size)


def file_object(vm):
    obj = vm.object.allocate(OBJT_VNODE, 64)
    vp = vm.k.vnode.new()
    vp.v_object = obj
    obj.handle = vp
    vm.object.set_writeable_dirty(obj)
    return obj


# -- the table of functions and branches


def test_the_coverage_table_names_every_hit_and_nothing_else():
    source = "".join(p.read_text() for p in Path(smpvm.vm.__file__).parent.rglob("*.py"))
    counted = set(
        re.findall(r'hit\(\s*"((?:vm_pageout|vm_daemon|vm_req|pagedaemon)[^"]*)"', source)
    )
    counted -= {"vm_pageout_scan_inactive:"}
    counted |= {f"vm_pageout_scan_inactive:vget-{end}" for end in ("timeout", "nowait")}
    assert counted == {row.name for row in COVERAGE}
    assert len(COVERAGE) == len({row.name for row in COVERAGE})


def test_what_was_missed_leaves_out_the_unreachable():
    assert [row.name for row in missed({})] == list(FUNCTIONS)
    names = {row.name for row in missed({}, branches=True)}
    assert "vm_pageout_scan_inactive:vget-timeout" in names
    assert "vm_pageout_clean:forward" not in names


# -- markers


def test_a_scan_takes_as_many_steps_as_the_queue_was_long():
    scans = Scans()
    vm = machine(observers=(scans,))
    obj = anonymous(vm)
    held = [take(vm, obj, n, hold_count=1) for n in range(5)]
    vm.pageout.scan_inactive(0, COLOUR, 100, Tally())
    assert scans.begun == [("queue INACTIVE+1", 5)]
    assert scans.hops == held
    assert scans.ended == ["maxscan"]
    assert pages_of(vm, vm.pq.INACTIVE) == [0, 1, 2, 3, 4]


def test_foreign_markers_are_hopped_and_use_up_steps():
    scans = Scans()
    vm = machine(observers=(scans,))
    obj = anonymous(vm)
    take(vm, obj, 0)
    queue = vm.queues[vm.pq.INACTIVE + COLOUR]
    other = vm.page.make_marker(queue.number)
    queue.insert_head(other)
    assert vm.pageout.scan_inactive(0, COLOUR, 100, Tally()) == 0
    assert scans.hops == [other]
    assert next(queue.pages()) is other
    assert vm.pageout.scan_inactive(0, COLOUR, 100, Tally()) == 0


def test_the_marker_keeps_the_place_when_others_change_the_queue():
    vm = machine()
    obj = anonymous(vm)
    first, second, third = (take(vm, obj, n) for n in range(3))
    vm.k.meanwhile = [lambda: vm.page.unqueue_nowakeup(second), lambda: None]
    assert vm.pageout.scan_inactive(0, COLOUR, 100, Tally()) == 2
    assert [m.queue - m.pc for m in (first, third)] == [vm.pq.CACHE] * 2
    assert second.queue == 0


def test_a_busy_page_is_passed_over_where_it_is():
    vm = machine()
    obj = anonymous(vm)
    busy = take(vm, obj, 0)
    busy.flags |= PG_BUSY
    take(vm, obj, 1)
    assert vm.pageout.scan_inactive(0, COLOUR, 100, Tally()) == 1
    assert pages_of(vm, vm.pq.INACTIVE) == [0]


@pytest.mark.parametrize("scan", ["inactive", "active"])
def test_the_scan_ends_at_its_target(scan):
    scans = Scans()
    vm = machine(observers=(scans,))
    obj = anonymous(vm)
    for n in range(4):
        take(vm, obj, n, scan)
    if scan == "inactive":
        assert vm.pageout.scan_inactive(0, COLOUR, 2, Tally()) == 2
    else:
        assert vm.pageout.scan_active(0, COLOUR, 0, 2, Tally()) == 2
    assert scans.ended == ["target"]


# -- laundering


def dirty_file_page(vm, obj, pindex=3):
    return take(vm, obj, pindex, dirty=255, flags=PG_WINATCFLS)


def test_a_page_that_moved_during_the_wait_for_its_vnode_is_not_written():
    vm = machine()
    obj = file_object(vm)
    m = dirty_file_page(vm, obj)
    vget = vm.k.vnode.vget

    def slow(vp, flags):
        vm.page.activate(m)
        return vget(vp, flags)

    vm.k.vnode.vget = slow
    tally = Tally()
    assert vm.pageout.scan_inactive(0, COLOUR, 1, tally) == 0
    assert vm.pager.calls == []
    assert m.hold_count == 0
    assert not m.flags & PG_BUSY
    assert tally.vnodes_skipped == 1
    assert obj.handle.v_lock.lockowned() is False


def test_a_vnode_that_failed_is_only_tried_the_second_time():
    vm = machine()
    obj = file_object(vm)
    for n in range(2):
        dirty_file_page(vm, obj, n)
    seen = []
    vm.k.vnode.vget = lambda vp, flags: seen.append(flags) or 35
    vm.pageout.scan_inactive(0, COLOUR, 5, Tally())
    assert [bool(flags & 0x10) for flags in seen] == [False, True]
    assert vm.glob.pageout_lock_miss == 2
    counts = vm.k.counts()
    assert counts["vm_pageout_scan_inactive:vget-timeout"] == 1
    assert counts["vm_pageout_scan_inactive:vget-nowait"] == 1


def test_pqaverage_is_exact_for_one_colour_too():
    assert machine(colours=1).pageout.pqaverage(5) == 6


# -- the seed's defects, and their repairs


@pytest.mark.parametrize(("repairs", "written"), [((), 8), (("cluster-forward",), 32)])
def test_a_cluster_grows_upwards_only_when_repaired(repairs, written):
    vm = machine(*repairs)
    obj = anonymous(vm)
    pages = [take(vm, obj, n, dirty=255) for n in range(32)]
    assert not vm.page.busy_try(pages[7], True)
    assert vm.pageout.clean(pages[7]) == written
    assert vm.pager.calls == [list(range(written))]


def test_a_page_without_object_kills_the_active_scan():
    vm = machine()
    take(vm, None, 0, "active")
    with pytest.raises(Panic) as panic:
        vm.pageout.scan_active(0, COLOUR, 1, 1, Tally())
    assert (panic.value.code, panic.value.kind) == ("null-object", "fault")
    vm = machine("active-null-object")
    m = take(vm, None, 0, "active")
    assert vm.pageout.scan_active(0, COLOUR, 0, 1, Tally()) == 1
    assert m.queue - m.pc == vm.pq.INACTIVE


@pytest.mark.parametrize(("repairs", "count"), [((), 3), (("act-count-cap",), 64)])
def test_act_count_wraps_unless_repaired(repairs, count):
    vm = machine(*repairs)
    m = take(vm, anonymous(vm), 0, act_count=255, flags=PG_REFERENCED)
    vm.pageout.scan_inactive(0, COLOUR, 1, Tally())
    assert m.act_count == count
    assert m.queue - m.pc == vm.pq.ACTIVE


class Colours(Pageout):
    """Notes which queues are scanned; the first one is always enough."""

    def scan_inactive(self, pass_, q, avail_shortage, tally):
        self.k.scanned.append(q)
        return 100


@pytest.mark.parametrize(
    ("repairs", "colours"), [((), [0, 1, 1, 1, 1]), (("queue-iterator",), [0, 1, 2, 3, 0])]
)
def test_rounds_begin_at_the_same_queue_unless_repaired(repairs, colours):
    k = Kernel(ScriptCarrier())
    k.scanned = []
    vm = build_vm(k, Config(pages=64, pq_l2_size=4), [Colours, *_changes(repairs)])
    r = Round()
    for _ in range(5):
        r.avail_shortage = 1
        vm.pageout.round_inactive(r, Tally())
    assert k.scanned == colours


def _changes(repairs):
    return [r.change for r in choose(repairs)]


@pytest.mark.parametrize(
    ("repairs", "full"),
    [((), [{3}, {3}, {3}, {3}]), (("stats-interval",), [set(), set(), set(), {0, 1, 2, 3}])],
)
def test_full_statistics_scans_go_by_queue_unless_repaired(repairs, full):
    vm = machine(*repairs)
    vm.stats.v_inactive_target = 100_000
    vm.sysctl.pageout_stats_interval = 5
    vm.sysctl.pageout_full_stats_interval = 20
    found = []
    for _ in range(4):
        found.append(set())
        for q in range(4):
            before = vm.k.counts()["vm_pageout_page_stats:full"]
            vm.pageout.page_stats(q)
            if vm.k.counts()["vm_pageout_page_stats:full"] > before:
                found[-1].add(q)
    assert found == full


@pytest.mark.parametrize(("repairs", "calls"), [((), [[3]]), (("launder-recheck",), [])])
def test_a_page_cleaned_during_the_wait_is_written_again_unless_repaired(repairs, calls):
    vm = machine(*repairs)
    obj = file_object(vm)
    m = dirty_file_page(vm, obj)
    vget = vm.k.vnode.vget

    def cleaned(vp, flags):
        vm.page.undirty(m)
        return vget(vp, flags)

    vm.k.vnode.vget = cleaned
    vm.pageout.scan_inactive(0, COLOUR, 1, Tally())
    assert vm.pager.calls == calls
    assert not m.flags & PG_BUSY
    assert m.hold_count == 0
    assert obj.handle.v_lock.lockowned() is False


def test_a_partly_valid_page_panics_unless_repaired():
    vm = machine()
    take(vm, anonymous(vm), 0, valid=1, dirty=1, flags=PG_WINATCFLS)
    with pytest.raises(Panic, match="flush-invalid"):
        vm.pageout.scan_inactive(0, COLOUR, 1, Tally())
    vm = machine("partial-page")
    obj = anonymous(vm)
    take(vm, obj, 0, valid=1, dirty=1, flags=PG_WINATCFLS)
    take(vm, obj, 1, dirty=255, flags=PG_WINATCFLS)
    assert vm.pageout.scan_inactive(0, COLOUR, 2, Tally()) == 1
    assert vm.pager.calls == [[1]]


@pytest.mark.parametrize(("repairs", "left"), [((), 0), (("paper-shortage",), 2)])
def test_deactivated_pages_count_as_available_unless_repaired(repairs, left):
    vm = machine(*repairs)
    obj = anonymous(vm)
    # Dirty pages: the active scan can only deactivate them.
    for n in range(2):
        take(vm, obj, n, "active", dirty=255)
    r = Round()
    r.avail_shortage = 2
    vm.pageout.round_active(r, 2, Tally())
    assert r.avail_shortage == left


@pytest.mark.parametrize(("repairs", "rests"), [((), []), (("short-rest",), [10])])
def test_a_shortage_met_on_paper_gives_no_rest_unless_repaired(repairs, rests):
    vm = machine(*repairs)
    seen = []
    vm.pageout.pdelay = seen.append
    vm.glob.vm_pages_needed = 1
    vm.stats.v_free_min = 10_000
    vm.pageout.thread_rest(Round())
    assert seen == rests
    assert vm.glob.vm_pages_needed == 1


@pytest.mark.parametrize(("repairs", "chosen"), [((), True), (("kill-once",), False)])
def test_a_process_is_killed_again_unless_repaired(repairs, chosen):
    vm = machine(*repairs)
    p = vm.k.proc.new(100)
    p.p_flags |= P_LOWMEMKILL
    assert vm.pageout.never_kill(p) is not chosen


@pytest.mark.parametrize(("repairs", "sleeps"), [((), 1), (("back-off-wait",), 0)])
def test_a_request_in_the_gap_before_the_rest_is_slept_over_unless_repaired(repairs, sleeps):
    vm = machine(*repairs)
    k = vm.k
    slept = []
    glob = vm.glob

    def interlock(ident, flags=0):
        glob.vm_pages_needed = 1

    def tsleep(ident, flags, wmesg, timo, cond=None):
        glob.vm_pages_needed = 1
        slept.append(cond())
        return 35

    k.sleep.tsleep_interlock = interlock
    k.sleep.tsleep = tsleep
    vm.pageout.delay_for_request(10)
    assert slept == [True] * sleeps


@pytest.mark.parametrize(("repairs", "woken"), [((), 0), (("request-hint",), 1)])
def test_a_hint_to_a_daemon_that_took_the_request_wakes_nobody_unless_repaired(repairs, woken):
    vm = machine(*repairs)
    glob, meter, wakes = vm.glob, vm.meter, []
    glob.vm_pages_needed = 1
    meter.paging_needed = lambda: True

    def count_min(n):
        glob.vm_pages_needed = 0  # the daemon, between the look and the store
        return True

    meter.count_min = count_min
    vm.k.sleep.wakeup = wakes.append
    vm.pageout.pagedaemon_wakeup()
    assert glob.vm_pages_needed == 1
    assert wakes == [vm.idents.vm_pages_needed] * woken
