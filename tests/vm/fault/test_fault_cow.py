"""Copy-on-write: forks of forks, told apart by their contents; wired copies; shadow chains."""

import random

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.kern.thread import Panic
from smpvm.vm.build import SUBSYSTEMS
from smpvm.vm.map.entry import VM_INHERIT_NONE, VM_INHERIT_SHARE
from smpvm.vm.map.mmap import MAP_PRIVATE, MAP_SHARED
from smpvm.vm.param import OBJ_ONEMAPPING, VM_PROT_READ
from smpvm.vm.proc.process import SegFault


def tree(procs, pages, depth, width, turns, seed):
    """A process that forks *width* children, *depth* deep; all write and all check what they know.

    Each remembers what it must see: a copy of what its parent saw at the fork, and its own writes.
    """

    def node(p, va, known, level, rng):
        children = []
        for turn in range(turns):
            for _ in range(pages // 2):
                page = rng.randrange(pages)
                value = p.p_pid * 100_000 + turn * 1000 + page
                procs.write(p, va, page, value)
                known[page] = value
            if level < depth and turn < width:
                children.append(fork(p, va, dict(known), level + 1, rng.random()))
            for page in range(pages):
                assert procs.read(p, va, page) == known.get(page, 0)
        for _ in children:
            assert procs.process.wait(p)[0] == 0
        for page in range(pages):
            assert procs.read(p, va, page) == known.get(page, 0)

    def fork(p, va, known, level, seed):
        rng = random.Random(seed)
        return procs.process.fork1(p, procs.guarded(lambda c: node(c, va, known, level, rng)))

    def body(p):
        node(p, procs.anonymous(p, pages), {}, 0, random.Random(seed))

    return body


@pytest.mark.parametrize("seed", range(3))
def test_a_tree_of_forks_keeps_every_branch_apart(procs, seed):
    procs.boot(pages=512)
    procs.run(tree(procs, pages=20, depth=3, width=2, turns=3, seed=seed))
    assert procs.hits()["v_cow_faults"] > 20


def test_a_tree_of_forks_with_too_little_memory(procs):
    procs.boot(pages=160)
    procs.run(tree(procs, pages=60, depth=2, width=2, turns=3, seed=7), timeout=60)
    hits = procs.hits()
    assert hits["v_cow_faults"] > 0
    assert hits["v_swapin"] > 0


def test_the_last_owner_gets_the_page_moved_not_copied(procs):
    procs.boot()

    def child(c, va):
        procs.check(c, va, 10)

    def body(p):
        va = procs.anonymous(p, 10)
        procs.fill(p, va, 10)
        procs.process.fork1(p, procs.guarded(lambda c: child(c, va)))
        procs.process.wait(p)
        procs.fill(p, va, 10, base=200)
        procs.check(p, va, 10, base=200)

    procs.run(body)


def test_shared_memory_stays_shared_over_fork(procs):
    procs.boot()

    def child(c, va):
        procs.check(c, va, 10)
        procs.fill(c, va, 10, base=300)

    def body(p):
        va = procs.anonymous(p, 10)
        procs.fill(p, va, 10)
        assert procs.sys.minherit(p, va, 10 * P, VM_INHERIT_SHARE) == 0
        procs.process.fork1(p, procs.guarded(lambda c: child(c, va)))
        procs.process.wait(p)
        procs.check(p, va, 10, base=300)

    procs.run(body)


def test_memory_that_is_not_inherited_is_not_there(procs):
    procs.boot()

    def child(c, va):
        with pytest.raises(SegFault):
            procs.read(c, va, 0)

    def body(p):
        va = procs.anonymous(p, 10)
        procs.fill(p, va, 10)
        procs.sys.minherit(p, va, 10 * P, VM_INHERIT_NONE)
        procs.process.fork1(p, procs.guarded(lambda c: child(c, va)))
        procs.process.wait(p)
        procs.check(p, va, 10)

    procs.run(body)


def test_a_private_file_mapping_over_fork(procs):
    procs.boot()
    vp = procs.vm.vnode_pager.new_file(16 * P)

    def child(c, va):
        procs.check(c, va, 8, base=500)
        procs.check(c, va + 8 * P, 8, base=108)
        procs.fill(c, va, 16, base=700)
        procs.check(c, va, 16, base=700)

    def body(p):
        shared = procs.anonymous(p, 16, flags=MAP_SHARED, vp=vp)
        procs.fill(p, shared, 16)
        va = procs.anonymous(p, 16, flags=MAP_PRIVATE, vp=vp)
        procs.fill(p, va, 8, base=500)
        procs.process.fork1(p, procs.guarded(lambda c: child(c, va)))
        procs.process.wait(p)
        procs.check(p, va, 8, base=500)
        procs.check(p, shared, 16)

    procs.run(body)


def test_one_space_for_two(procs):
    """RFMEM: parent and child run in the same space."""
    procs.boot()

    def child(c, va):
        procs.fill(c, va, 10, base=900)

    def body(p):
        va = procs.anonymous(p, 10)
        procs.fill(p, va, 10)
        procs.process.fork1(p, procs.guarded(lambda c: child(c, va)), share=True)
        procs.process.wait(p)
        procs.check(p, va, 10, base=900)
        assert p.p_vmspace.vm_refcnt == 1

    procs.run(body)


class TestWired:
    def test_wired_memory_is_copied_at_the_fork(self, procs):
        procs.boot()

        def child(c, va):
            procs.check(c, va, 10)
            procs.fill(c, va, 10, base=600)
            procs.check(c, va, 10, base=600)

        def body(p):
            va = procs.anonymous(p, 10)
            procs.fill(p, va, 10)
            assert procs.sys.mlock(p, va, 10 * P) == 0
            procs.process.fork1(p, procs.guarded(lambda c: child(c, va)))
            procs.process.wait(p)
            procs.check(p, va, 10)
            assert procs.sys.munlock(p, va, 10 * P) == 0

        procs.run(body)

    def test_the_kernel_dies_of_a_fork_with_a_read_only_wired_private_file(self, procs):
        """vm_fault_copy_entry looks in the first object only (vm_fault.c:2290-2293)."""
        procs.boot()
        vp = procs.vm.vnode_pager.new_file(4 * P)

        def body(p):
            va = procs.anonymous(p, 4, flags=MAP_PRIVATE, vp=vp)
            procs.write(p, va, 0, 1)
            procs.sys.mprotect(p, va, 4 * P, VM_PROT_READ)
            assert procs.sys.mlock(p, va, 4 * P) == 0
            procs.process.fork1(p, lambda c: None)

        with pytest.raises(Panic, match="copy-wired-missing"):
            procs.run(body)


class TestSplit:
    def test_a_fork_never_splits_an_object(self, procs):
        """The condition at vm_map.c:3089 lets only objects with a handle pass: none has one."""
        procs.boot()

        def body(p):
            va = procs.anonymous(p, 10)
            procs.fill(p, va, 10)
            procs.sys.mprotect(p, va + 5 * P, 5 * P, VM_PROT_READ)
            first, second = list(p.p_vmspace.vm_map.entries())[:2]
            assert first.object is second.object
            assert first.object.flags & OBJ_ONEMAPPING
            child = procs.process.fork1(p, lambda c: None)
            assert child.p_pid
            assert first.object is second.object
            assert not first.object.flags & OBJ_ONEMAPPING
            procs.process.wait(p)

        procs.run(body)

    def test_the_other_way_round_the_split_panics(self, procs):
        """vm_map.c:3135 asserts that an object is its own backing object."""
        maps = SUBSYSTEMS["map"]

        class SplitTried(maps):
            def cannot_split(self, obj):
                return False

        procs.boot(changes=[SplitTried])

        def body(p):
            va = procs.anonymous(p, 10)
            procs.fill(p, va, 10)
            procs.process.fork1(p, lambda c: procs.k.sleep.tsleep(c, 0, "test", 0))
            procs.write(p, va, 0, 1)
            procs.sys.mprotect(p, va + 5 * P, 5 * P, VM_PROT_READ)
            procs.process.fork1(p, lambda c: None)

        with pytest.raises(Panic, match="split-backing"):
            procs.run(body)
