"""A map's entries against an oracle: for each page of a small window, what it must be."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpvm.config import PAGE_SIZE as P
from smpvm.config import Config
from smpvm.host.native import NativeCarrier
from smpvm.kern.errno import EBUSY
from smpvm.kern.kernel import Kernel
from smpvm.vm.build import build_vm
from smpvm.vm.map.entry import (
    KERN_INVALID_ADDRESS,
    KERN_NO_SPACE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_NOSYNC,
    VM_INHERIT_COPY,
    VM_INHERIT_NONE,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_SUBMAP,
    VM_PROT_OVERRIDE_WRITE,
    off_to_idx,
)
from smpvm.vm.param import MAP_COPY_ON_WRITE, VM_PROT_ALL, VM_PROT_READ, VM_PROT_WRITE

RW = VM_PROT_READ | VM_PROT_WRITE
PAGES = 24
BASE = 0x1000_0000


def make_vm(pages=64):
    k = Kernel(NativeCarrier(hz=100, tick_scale=0.05))
    return build_vm(k, Config(pages=pages, pq_l2_size=4))


def insert(vm, map, start, pages, prot=RW, max_prot=VM_PROT_ALL, cow=0):
    rv, _ = vm.map.find(
        map, None, None, 0, start, pages * P, P, False, VM_MAPTYPE_NORMAL, prot, max_prot, cow
    )
    return rv


def check_links(vm, map):
    """The ring, the tree and the sums agree."""
    entries = list(map.entries())
    assert entries == map.tree
    assert len(entries) == map.nentries
    assert sum(e.end - e.start for e in entries) == map.size
    before = map.header
    for e in entries:
        assert e.prev is before
        assert e.start < e.end
        assert before is map.header or before.end <= e.start
        before = e
    assert map.header.prev is before
    assert map.hint is map.header or map.hint in entries
    assert map.first_free is map.header or map.first_free in entries


@pytest.fixture
def vm():
    return make_vm()


@pytest.fixture
def map(vm):
    return vm.vmspace.alloc().vm_map


class TestInsert:
    def test_neighbours_without_object_become_one_entry(self, vm, map):
        assert insert(vm, map, BASE, 2) == KERN_SUCCESS
        assert insert(vm, map, BASE + 2 * P, 3) == KERN_SUCCESS
        assert [(e.start, e.end) for e in map.entries()] == [(BASE, BASE + 5 * P)]

    def test_an_object_grows_with_the_entry_that_it_backs(self, vm, map):
        insert(vm, map, BASE, 2)
        (entry,) = map.entries()
        vm.map.lock(map)
        vm.map.entry_allocate_object(entry)
        vm.map.unlock(map)
        insert(vm, map, BASE + 2 * P, 3)
        assert map.nentries == 1
        assert entry.object.size == 5
        assert entry.object.ref_count == 1

    def test_different_protection_makes_a_second_entry_on_the_same_object(self, vm, map):
        insert(vm, map, BASE, 2)
        (first,) = map.entries()
        vm.map.lock(map)
        vm.map.entry_allocate_object(first)
        vm.map.unlock(map)
        insert(vm, map, BASE + 2 * P, 3, prot=VM_PROT_READ)
        first, second = map.entries()
        assert second.object is first.object
        assert first.object.ref_count == 2
        assert off_to_idx(second.offset) == 2
        assert second.object.hold_count == 0

    @pytest.mark.parametrize(("start", "pages"), [(0, 4), (1, 1), (-1, 2), (3, 2)])
    def test_overlap_is_refused(self, vm, map, start, pages):
        insert(vm, map, BASE, 4)
        assert insert(vm, map, BASE + start * P, pages) == KERN_NO_SPACE
        assert map.nentries == 1

    def test_outside_the_map_is_refused(self, vm, map):
        assert insert(vm, map, map.max_offset - P, 2) == KERN_INVALID_ADDRESS
        assert insert(vm, map, BASE, 0) == KERN_INVALID_ADDRESS

    def test_findspace_takes_the_first_gap_that_is_wide_enough(self, vm, map):
        insert(vm, map, BASE, 1, prot=VM_PROT_READ)
        insert(vm, map, BASE + 2 * P, 1)
        insert(vm, map, BASE + 5 * P, 1)
        vm.map.lock(map)
        assert vm.map.findspace(map, BASE, P, P) == BASE + P
        assert vm.map.findspace(map, BASE, 2 * P, P) == BASE + 3 * P
        assert vm.map.findspace(map, BASE, 3 * P, P) == BASE + 6 * P
        assert vm.map.findspace(map, BASE, P, 16 * P) == BASE + 16 * P
        assert vm.map.findspace(map, map.max_offset - P, 2 * P, P) is None
        vm.map.unlock(map)


def test_clip_shares_one_object_between_the_pieces(vm, map):
    insert(vm, map, BASE, 6)
    vm.map.lock(map)
    (entry,) = map.entries()
    vm.map.clip_start(map, entry, BASE + 2 * P)
    vm.map.clip_end(map, entry, BASE + 4 * P)
    vm.map.unlock(map)
    a, b, c = map.entries()
    assert b is entry
    assert a.object is b.object is c.object
    assert a.object.ref_count == 3
    assert [off_to_idx(e.offset) for e in (a, b, c)] == [0, 2, 4]


def test_protect_more_than_the_maximum_changes_nothing(vm, map):
    insert(vm, map, BASE, 2, prot=VM_PROT_READ, max_prot=RW)
    insert(vm, map, BASE + 2 * P, 2, prot=VM_PROT_READ, max_prot=VM_PROT_READ)
    rv = vm.map.protect(map, BASE, BASE + 4 * P, RW, False)
    assert rv == KERN_PROTECTION_FAILURE
    assert [e.protection for e in map.entries()] == [VM_PROT_READ] * 2


def test_every_exclusive_lock_moves_the_timestamp_and_a_shared_one_does_not(vm, map):
    before = map.timestamp
    vm.map.lock(map)
    vm.map.unlock(map)
    assert map.timestamp == before + 1
    vm.map.lock_read(map)
    vm.map.unlock_read(map)
    assert map.timestamp == before + 1
    vm.map.lock_read(map)
    assert vm.map.lock_upgrade(map) == 0
    vm.map.lock_downgrade(map)
    vm.map.unlock_read(map)
    assert map.timestamp == before + 2


def test_an_unlocked_map_may_not_be_looked_into(vm, map):
    with pytest.raises(Exception, match="map-not-locked"):
        vm.map.lookup_entry(map, BASE)


def test_a_submap_answers_for_its_range(vm, map):
    sub = vm.vmspace.alloc().vm_map
    insert(vm, map, BASE, 4)
    insert(vm, sub, BASE, 4)
    assert vm.map.submap(map, BASE, BASE + 4 * P, sub) == KERN_SUCCESS
    (entry,) = map.entries()
    assert entry.maptype == VM_MAPTYPE_SUBMAP
    found = vm.map.lookup(map, BASE + P, VM_PROT_READ)
    assert found.map is sub
    assert found.pindex == 1
    vm.map.lookup_done(found.map, found.entry)


spans = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 8)).map(
    lambda t: (t[0], min(PAGES, t[0] + t[1]))
)
ops = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), spans, st.sampled_from([RW, VM_PROT_READ])),
        st.tuples(st.just("delete"), spans, st.none()),
        st.tuples(st.just("protect"), spans, st.sampled_from([RW, VM_PROT_READ, 0])),
        st.tuples(
            st.just("inherit"),
            spans,
            st.sampled_from([VM_INHERIT_COPY, VM_INHERIT_SHARE, VM_INHERIT_NONE]),
        ),
        st.tuples(st.just("madvise"), spans, st.sampled_from([6, 7])),
        st.tuples(st.just("clip"), spans, st.none()),
        st.tuples(st.just("object"), spans, st.none()),
    ),
    max_size=30,
)


def at(page):
    return BASE + page * P


def apply(vm, map, op, span, arg, oracle):
    """One operation on the map and on the oracle, a dict page → [prot, inheritance, nosync]."""
    low, high = span
    inside = [i for i in range(low, high) if i in oracle]
    if op == "insert":
        rv = insert(vm, map, at(low), high - low, prot=arg)
        assert rv == (KERN_NO_SPACE if inside else KERN_SUCCESS)
        if not inside:
            oracle.update((i, [arg, VM_INHERIT_COPY, False]) for i in range(low, high))
    elif op == "delete":
        assert vm.map.remove(map, at(low), at(high)) == KERN_SUCCESS
        for i in inside:
            del oracle[i]
    elif op == "protect":
        assert vm.map.protect(map, at(low), at(high), arg, False) == KERN_SUCCESS
        for i in inside:
            oracle[i][0] = arg
    elif op == "inherit":
        assert vm.map.inherit(map, at(low), at(high), arg) == KERN_SUCCESS
        for i in inside:
            oracle[i][1] = arg
    elif op == "madvise":
        assert vm.map.madvise(map, at(low), at(high), arg) == 0
        for i in inside:
            oracle[i][2] = arg == 6
    elif op == "clip":
        vm.map.lock(map)
        first = vm.map.clip_range(map, at(low), at(high), no_holes=False)
        if first is not None:
            vm.map.unclip_range(map, first, at(low), at(high))
        vm.map.unlock(map)
    else:
        vm.map.lock(map)
        found, entry = vm.map.lookup_entry(map, at(low))
        if found and entry.object is None:
            vm.map.entry_allocate_object(entry)
        vm.map.unlock(map)


def seen(map):
    """What the map says of each page, in the oracle's form."""
    result = {}
    for e in map.entries():
        for i in range((e.start - BASE) // P, (e.end - BASE) // P):
            nosync = bool(e.eflags & MAP_ENTRY_NOSYNC)
            result[i] = [e.protection, e.inheritance, nosync]
    return result


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ops)
def test_entries_say_of_every_page_what_was_last_asked_for(todo):
    vm = make_vm()
    space = vm.vmspace.alloc()
    map = space.vm_map
    oracle = {}
    for op, span, arg in todo:
        apply(vm, map, op, span, arg, oracle)
        assert seen(map) == oracle
        check_links(vm, map)
    refs = {}
    for e in map.entries():
        if e.object is not None:
            refs[e.object] = refs.get(e.object, 0) + 1
            assert off_to_idx(e.offset) + e.pages <= e.object.size
    for obj, n in refs.items():
        assert obj.ref_count == n
    made = set(vm.object.all_objects()) - {vm.kernel_object}
    assert made == set(refs)
    vm.vmspace.rel(space)
    assert set(vm.object.all_objects()) == {vm.kernel_object}


@pytest.mark.parametrize("lost", [False, True])
def test_a_lost_upgrade_loses_the_override_of_a_debugger(lost, monkeypatch):
    """vm_map_lookup cuts VM_PROT_OVERRIDE_WRITE off before it starts over (vm_map.c:4056)."""
    vm = make_vm()
    map = vm.vmspace.alloc().vm_map
    assert insert(vm, map, BASE, 2, prot=VM_PROT_READ, cow=MAP_COPY_ON_WRITE) == KERN_SUCCESS
    upgrade, tries = vm.map.lock_upgrade, []

    def lose(map):
        tries.append(map)
        if lost and len(tries) == 1:
            vm.map.unlock_read(map)
            return EBUSY
        return upgrade(map)

    monkeypatch.setattr(vm.map, "lock_upgrade", lose)
    found = vm.map.lookup(map, BASE, RW | VM_PROT_OVERRIDE_WRITE)
    assert found.rv == (KERN_PROTECTION_FAILURE if lost else KERN_SUCCESS)
    assert tries
    if not lost:
        vm.map.lookup_done(map)
    assert map.lock.lockstatus() == 0
