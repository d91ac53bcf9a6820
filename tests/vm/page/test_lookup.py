"""Pages in objects: insert, remove, look up, rename."""

import pytest

from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import PG_BUSY, PG_NEED_COMMIT, PG_REFERENCED
from smpvm.vm.param import OBJ_MIGHTBEDIRTY, OBJ_WRITEABLE, OBJT_DEFAULT


@pytest.fixture
def obj(vm):
    return vm.object.allocate_hold(OBJT_DEFAULT, 100)


@pytest.fixture
def m(vm):
    m = vm.page_array[7]
    vm.page.unqueue(m)
    vm.page.busy_try(m, True)
    return m


def test_insert_and_remove(vm, obj, m):
    generation = obj.generation
    assert vm.page.insert(m, obj, 5)
    assert (m.object, m.pindex, obj.resident_page_count) == (obj, 5, 1)
    assert obj.generation == generation + 1
    assert vm.page.lookup(obj, 5) is m
    assert vm.k.curthread().cnt["t_rm"] == 1
    vm.page.remove(m)
    assert (m.object, obj.resident_page_count, obj.generation) == (None, 0, generation + 2)
    assert vm.page.lookup(obj, 5) is None
    assert vm.k.curthread().cnt["t_rm"] == 0
    vm.page.remove(m)
    assert obj.generation == generation + 2


def test_insert_at_a_taken_place_changes_nothing_but_the_generation(vm, obj, m):
    other = vm.page_array[8]
    vm.page.insert(m, obj, 5)
    generation = obj.generation
    assert not vm.page.insert(other, obj, 5)
    assert (other.object, other.pindex, obj.resident_page_count) == (None, 0, 1)
    assert obj.generation == generation + 1


@pytest.mark.parametrize(
    ("valid", "dirty", "flags", "marked"),
    [(255, 0, 0, 0), (255, 1, 0, 1), (1, 2, 0, 0), (0, 0, PG_NEED_COMMIT, 1)],
)
def test_insert_of_a_dirty_page_marks_the_object(vm, obj, m, valid, dirty, flags, marked):
    m.valid, m.dirty, m.flags = valid, dirty, m.flags | flags
    vm.page.insert(m, obj, 5)
    assert bool(obj.flags & (OBJ_WRITEABLE | OBJ_MIGHTBEDIRTY)) == bool(marked)


def test_changing_an_object_needs_its_token(vm, obj, m):
    vm.object.drop(obj)
    for call in (lambda: vm.page.insert(m, obj, 5), lambda: vm.page.lookup(obj, 5)):
        with pytest.raises(Panic) as got:
            call()
        assert got.value.code == "object-not-held"
    vm.object.hold_shared(obj)
    assert vm.page.lookup(obj, 5) is None
    with pytest.raises(Panic):
        vm.page.insert(m, obj, 5)


def test_double_insert_and_unbusied_remove_panic(vm, obj, m):
    vm.page.insert(m, obj, 5)
    with pytest.raises(Panic) as got:
        vm.page.insert(m, obj, 6)
    assert got.value.code == "insert-inserted"
    vm.page.wakeup(m)
    with pytest.raises(Panic) as got:
        vm.page.remove(m)
    assert got.value.code == "remove-unbusied"


def test_lookup_busy_try_tells_absent_from_busy(vm, obj, m):
    assert vm.page.lookup_busy_try(obj, 5, True) == (None, False)
    vm.page.insert(m, obj, 5)
    assert vm.page.lookup_busy_try(obj, 5, True) == (m, True)
    vm.page.io_start(m)
    vm.page.wakeup(m)
    assert vm.page.lookup_busy_try(obj, 5, True) == (m, True)
    assert vm.page.lookup_busy_try(obj, 5, False) == (m, False)
    assert m.flags & PG_BUSY


def test_lookup_busy_wait_looks_again_after_the_sleep(vms):
    vm = vms.make()
    obj = vm.object.allocate(OBJT_DEFAULT, 100)
    old, new = vm.page_array[7], vm.page_array[8]
    got = []
    vm.object.hold(obj)
    for m in (old, new):
        vm.page.unqueue(m)
        vm.page.busy_try(m, True)
    vm.page.insert(old, obj, 5)
    vm.object.drop(obj)

    def finder():
        vm.object.hold(obj)
        got.append(vm.page.lookup_busy_wait(obj, 5, True, "testwt"))
        vm.object.drop(obj)

    def swapper():
        while not old.flags & PG_REFERENCED:
            vm.k.carrier.yield_()
        vm.object.hold(obj)  # the sleeper has given its token up
        vm.page.remove(old)
        vm.page.insert(new, obj, 5)
        vm.page.wakeup(new)
        vm.page.wakeup(old)
        vm.object.drop(obj)

    vms.run(vm, finder, swapper)
    assert got == [new]
    assert new.flags & PG_BUSY
    assert not old.flags & PG_BUSY


def test_next_is_the_page_at_the_very_next_index(vm, obj):
    a, b, c = vm.page_array[:3]
    for m, index in ((a, 3), (b, 4), (c, 6)):
        vm.page.insert(m, obj, index)
    assert vm.page.next(a) is b
    assert vm.page.next(b) is None


def test_rename_moves_and_dirties_and_leaves_the_cache(vm, obj, m, audit):
    target = vm.object.allocate_hold(OBJT_DEFAULT, 100)
    vm.page.insert(m, obj, 5)
    vm.page.cache(m)
    vm.page.busy_try(m, True)
    vm.page.rename(m, target, 9)
    assert (m.object, m.pindex, m.dirty) == (target, 9, 255)
    assert vm.pq.base(m.queue) == vm.pq.INACTIVE
    assert target.flags & OBJ_MIGHTBEDIRTY
    assert (obj.resident_page_count, target.resident_page_count) == (0, 1)
    audit(vm)
    other = vm.page_array[8]
    vm.page.busy_try(other, True)
    with pytest.raises(Panic) as got:
        vm.page.rename(other, target, 9)
    assert got.value.code == "rename-exists"
