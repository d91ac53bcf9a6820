"""Valid and dirty blocks, copies and zeroing."""

import pytest

from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import PG_NEED_COMMIT, PG_NOSYNC, PG_UNMANAGED
from smpvm.vm.param import OBJ_MIGHTBEDIRTY, OBJ_WRITEABLE, OBJT_DEFAULT

BOTH = OBJ_WRITEABLE | OBJ_MIGHTBEDIRTY


@pytest.fixture
def obj(vm):
    return vm.object.allocate_hold(OBJT_DEFAULT, 100)


@pytest.fixture
def m(vm, obj):
    return vm.page.alloc(obj, 5, 1)


@pytest.mark.parametrize(
    ("base", "size", "bits"),
    [
        (0, 4096, 0xFF),
        (0, 0, 0),
        (4096, 0, 0),
        (0, 1, 1),
        (511, 1, 1),
        (511, 2, 3),
        (512, 512, 2),
        (3584, 512, 0x80),
        (1000, 2000, 0b111110),
    ],
)
def test_bits_include_every_block_touched(vm, base, size, bits):
    assert vm.page.bits(base, size) == bits


def test_bits_beyond_the_page_panic(vm):
    with pytest.raises(Panic):
        vm.page.bits(4000, 97)


def test_set_valid_zeroes_only_the_invalid_rest_of_cut_blocks(vm, m):
    m.contents = dict.fromkeys(range(512), 7)
    m.valid = 0b10
    vm.page.set_valid(m, 256, 1024)  # bytes 256..1280: block 0 cut, block 2 cut
    assert m.valid == 0b111
    zeroed = [w for w in range(512) if w not in m.contents]
    assert zeroed == [*range(32), *range(160, 192)]


def test_validclean_and_clear_dirty(vm, m):
    m.dirty, m.flags = 0xFF, m.flags | PG_NOSYNC
    vm.page.set_validclean(m, 0, 1024)
    assert (m.valid, m.dirty) == (0b11, 0b11111100)
    assert m.flags & PG_NOSYNC
    vm.page.clear_dirty(m, 1024, 512)
    assert m.dirty == 0b11111000
    vm.page.set_validclean(m, 0, 4096)
    assert (m.valid, m.dirty, m.flags & PG_NOSYNC) == (0xFF, 0, 0)


def test_validdirty_marks_the_object(vm, m, obj):
    vm.page.set_validdirty(m, 512, 512)
    assert (m.valid, m.dirty, obj.flags & BOTH) == (2, 2, BOTH)


def test_nonincl_clears_spare_the_cut_block(vm, m):
    m.dirty = 0xFF
    vm.page.clear_dirty_end_nonincl(m, 0, 1300)
    assert m.dirty == 0b11111100
    m.dirty = 0xFF
    vm.page.clear_dirty_beg_nonincl(m, 1300, 4096 - 1300)
    assert m.dirty == 0b00000111
    m.dirty = 0xFF
    vm.page.clear_dirty_end_nonincl(m, 0, 100)
    assert m.dirty == 0xFF


def test_dirty_marks_the_object_once(vm, m, obj):
    m.dirty = 1
    vm.page.dirty(m)
    assert (m.dirty, obj.flags & BOTH) == (0xFF, BOTH)
    obj.flags &= ~BOTH
    vm.page.dirty(m)
    assert not obj.flags & BOTH
    vm.page.undirty(m)
    assert m.dirty == 0


@pytest.mark.parametrize("queue", ["FREE", "CACHE"])
def test_dirty_on_free_or_cache_queue_panics(vm, m, queue):
    (vm.page.free if queue == "FREE" else vm.page.cache)(m)
    with pytest.raises(Panic) as got:
        vm.page.dirty(m)
    assert got.value.code == "dirty-free-or-cache"


def test_test_dirty_takes_over_modified_mappings(vm, m):
    pmap = vm.pmap.pinit()
    vm.pmap.enter(pmap, 0, m, 3, False)
    vm.page.test_dirty(m)
    assert m.dirty == 0
    vm.pmap.access(pmap, 0, True, 0, 1)
    vm.page.test_dirty(m)
    assert m.dirty == 0xFF


def test_set_invalid(vm, m, obj):
    m.valid = m.dirty = 0xFF
    generation = obj.generation
    vm.page.set_invalid(m, 0, 512)
    assert (m.valid, m.dirty, obj.generation) == (0xFE, 0xFE, generation + 1)
    m.object = None
    with pytest.raises(Panic) as got:
        vm.page.set_invalid(m, 0, 512)
    assert got.value.kind == "fault"


def test_zero_invalid_zeroes_exactly_the_invalid_blocks(vm, m):
    m.contents = dict.fromkeys(range(512), 7)
    m.valid = 0b01011010
    vm.page.zero_invalid(m, False)
    kept = {w // 64 for w in m.contents}
    assert kept == {1, 3, 4, 6}
    assert len(m.contents) == 4 * 64
    assert m.valid == 0b01011010
    vm.page.zero_invalid(m, True)
    assert m.valid == 0xFF


def test_is_valid(vm, m):
    assert not vm.page.is_valid(m, 0, 0)
    m.valid = 0b110
    assert vm.page.is_valid(m, 0, 0)
    assert vm.page.is_valid(m, 512, 1024)
    assert not vm.page.is_valid(m, 512, 1025)


def test_commit(vm, m, obj):
    vm.page.need_commit(m)
    assert m.flags & PG_NEED_COMMIT
    assert obj.flags & BOTH == BOTH
    vm.page.clear_commit(m)
    assert not m.flags & (PG_NEED_COMMIT | PG_UNMANAGED)


def test_copy_and_zero(vm, m, obj):
    other = vm.page.alloc(obj, 6, 1)
    m.contents = {1: 11, 2: 22}
    vm.page.copy(m, other)
    assert (other.contents, other.valid, other.dirty) == ({1: 11, 2: 22}, 0xFF, 0xFF)
    m.contents[1] = 99
    assert other.contents[1] == 11
    assert vm.page.zero_fill(m)
    assert m.contents is None
    vm.page.copy(m, other)
    assert other.contents is None
