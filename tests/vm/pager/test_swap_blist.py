"""The swap block allocator against a set of free blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smpvm.vm.pager.swap_blist import Blist, first_run, longest_run
from smpvm.vm.param import SWAPBLK_NONE


def lowest_fit(free, blocks, count):
    """The lowest run of *count* free blocks that crosses no multiple of 32."""
    for start in range(blocks - count + 1):
        same = start // 32 == (start + count - 1) // 32
        if same and all(b in free for b in range(start, start + count)):
            return start
    return SWAPBLK_NONE


@given(
    st.integers(0, 150),
    st.lists(st.tuples(st.booleans(), st.integers(1, 32), st.integers(0, 999)), max_size=60),
)
def test_like_a_set(blocks, steps):
    blist, free, held = Blist(blocks), set(range(blocks)), []
    for wants, count, pick in steps:
        if wants or not held:
            got = blist.alloc(count)
            assert got == lowest_fit(free, blocks, count)
            if got != SWAPBLK_NONE:
                free -= set(range(got, got + count))
                held.append((got, count))
        else:
            start, count = held.pop(pick % len(held))
            blist.free(start, count)
            free |= set(range(start, start + count))
        assert blist.free_count == len(free)
        assert [b for b in range(blocks) if blist.is_free(b)] == sorted(free)


@given(st.integers(0, (1 << 32) - 1), st.integers(1, 32))
def test_runs_in_a_word(bits, count):
    runs = [i for i in range(33 - count) if all(bits >> j & 1 for j in range(i, i + count))]
    assert first_run(bits, count) == (runs[0] if runs else -1)
    assert (longest_run(bits) >= count) == bool(runs)


def test_freeing_twice_is_refused():
    blist = Blist(10)
    start = blist.alloc(4)
    blist.free(start, 4)
    with pytest.raises(ValueError, match="freed twice"):
        blist.free(start, 1)
    assert blist.free_count == 10


def test_freeing_outside_is_refused():
    with pytest.raises(ValueError, match="of 10"):
        Blist(10).free(8, 4)


def test_part_of_a_cluster_can_be_freed():
    blist = Blist(32)
    assert blist.alloc(32) == 0
    blist.free(5, 3)
    assert blist.alloc(4) == SWAPBLK_NONE
    assert blist.alloc(3) == 5


def test_nothing_to_allocate_from():
    assert Blist(0).alloc(1) == SWAPBLK_NONE
