"""The tree of an object's pages, against a sorted dict; scans survive what happens meanwhile."""

from hypothesis import given, settings
from hypothesis import strategies as st

from smpvm.vm.object.memq import PageTree
from smpvm.vm.page.struct import Page


def tree_of(*indexes):
    tree = PageTree()
    for i in indexes:
        assert tree.insert(i, Page(i))
    return tree


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 15), st.integers(0, 16))))
def test_is_a_sorted_map(ops):
    tree, want = PageTree(), {}
    for put, i, probe in ops:
        if put:
            m = Page(i)
            assert tree.insert(i, m) == (i not in want)
            want.setdefault(i, m)
        else:
            assert tree.remove(i) is want.pop(i, None)
        assert tree.lookup(probe) is want.get(probe)
        later = [p for p in sorted(want) if p >= probe]
        assert tree.first(probe) is (want[later[0]] if later else None)
        assert tree.next(probe - 1) is tree.first(probe)
        assert [m.idx for m in tree] == sorted(want)
        assert len(tree) == len(want)
        assert tree.last() is (want[max(want)] if want else None)


def test_scan_is_ascending_within_bounds_and_sums():
    seen = []

    def callback(m):
        seen.append(m.idx)
        return 2

    assert tree_of(9, 1, 5, 7, 3).scan(callback, 2, 7) == 6
    assert seen == [3, 5, 7]


def test_negative_return_ends_the_scan_and_is_its_result():
    seen = []

    def callback(m):
        seen.append(m.idx)
        return -3 if m.idx == 3 else 1

    assert tree_of(1, 3, 5).scan(callback) == -3
    assert seen == [1, 3]


def test_empty_range():
    assert tree_of(1, 9).scan(lambda m: 1, 2, 8) == 0


def scan_with(tree, actions):
    seen = []

    def callback(m):
        seen.append(m.idx)
        if m.idx in actions:
            actions[m.idx]()
        return 0

    tree.scan(callback)
    return seen


def test_scan_survives_removal_of_the_page_it_is_at():
    tree = tree_of(1, 2, 3)
    assert scan_with(tree, {2: lambda: tree.remove(2)}) == [1, 2, 3]


def test_removal_of_the_next_page_moves_the_scan_on():
    tree = tree_of(1, 2, 3, 4)

    def drop():
        tree.remove(2)
        tree.remove(3)

    assert scan_with(tree, {1: drop}) == [1, 4]


def test_removal_of_all_that_follows_ends_the_scan():
    tree = tree_of(1, 2)
    assert scan_with(tree, {1: lambda: tree.remove(2)}) == [1]


def test_a_page_put_between_this_one_and_the_next_is_not_seen():
    tree = tree_of(1, 5)
    assert scan_with(tree, {1: lambda: tree.insert(3, Page(3))}) == [1, 5]


def test_a_page_put_behind_the_next_one_is_seen():
    tree = tree_of(1, 5)
    assert scan_with(tree, {1: lambda: tree.insert(7, Page(7))}) == [1, 5, 7]


def test_nested_scans_are_kept_apart():
    tree = tree_of(1, 2, 3)
    inner = []

    def go():
        inner.extend(scan_with(tree, {1: lambda: tree.remove(2)}))

    assert scan_with(tree, {1: go}) == [1, 3]
    assert inner == [1, 3]
