"""Faults: zero fill, page-in from swap and from files, prefault, limits, and what may not be."""

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.kern.proc import RLIM_INFINITY
from smpvm.kern.thread import Panic
from smpvm.vm.fault.fault import VM_FAULT_NORMAL
from smpvm.vm.map.entry import KERN_NO_SPACE, KERN_PROTECTION_FAILURE, KERN_SUCCESS
from smpvm.vm.map.mmap import (
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_STACK,
    MMAP_BASE,
    PROT_RW,
)
from smpvm.vm.page.struct import PG_SWAPPED
from smpvm.vm.param import VM_PROT_READ, VM_PROT_WRITE
from smpvm.vm.proc.process import SegFault

RW = VM_PROT_READ | VM_PROT_WRITE


def test_untouched_memory_reads_as_zero_and_keeps_what_is_written(procs):
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 10)
        assert procs.read(p, va, 3) == 0
        procs.fill(p, va, 10)
        procs.check(p, va, 10)
        assert procs.read(p, va, 3, word=7) == 0

    procs.run(body)
    assert procs.hits()["v_zfod"] >= 10


def test_a_burst_fault_maps_the_resident_neighbours_too(procs):
    procs.boot()
    seen = []

    def body(p):
        pmap = p.p_vmspace.vm_pmap
        va = procs.anonymous(p, 40)
        procs.fill(p, va, 40)
        procs.vm.pmap.remove(pmap, va, va + 40 * P)
        procs.read(p, va, 20)
        seen.append(sorted((va_ - va) // P for va_ in pmap.ptes if va_ >= va))
        procs.check(p, va, 40)

    procs.run(body)
    assert seen == [[16, 17, 18, 19, 20, 21, 22, 23, 24]]


def test_zero_fill_in_bursts_happens_only_without_shared_faults(procs):
    """As the C stands: the burst that allocates wants ``shared`` off, which it hardly ever is."""
    procs.boot()
    seen = []

    def body(p):
        for shared in (True, False):
            procs.vm.fault.shared_fault = shared
            va = procs.anonymous(p, 40)
            before = p.p_vmspace.vm_pmap.resident_count
            procs.write(p, va, 20, 1)
            seen.append(p.p_vmspace.vm_pmap.resident_count - before)

    procs.run(body)
    assert seen == [1, 1 + procs.vm.fault.prefault_pages]


def test_without_prefault_one_fault_maps_one_page(procs):
    procs.boot()
    procs.vm.fault.prefault_pages = 0
    seen = []

    def body(p):
        va = procs.anonymous(p, 40)
        procs.write(p, va, 20, 1)
        seen.append(p.p_vmspace.vm_pmap.resident_count)

    procs.run(body)
    assert seen == [1]
    assert procs.hits()["v_vm_faults"] == 1


def test_more_memory_than_there_is_comes_back_from_swap(procs):
    procs.boot(pages=128)

    def body(p):
        va = procs.anonymous(p, 300)
        procs.fill(p, va, 300)
        procs.check(p, va, 300)

    procs.run(body)
    hits = procs.hits()
    assert hits["v_swapin"] > 0
    assert hits["v_swapout"] > 0
    assert hits["ru_majflt"] > 0


def test_a_page_that_is_dirtied_by_a_fault_gives_its_swap_block_back(procs):
    procs.boot(pages=128)

    def body(p):
        va = procs.anonymous(p, 300)
        procs.fill(p, va, 300)
        procs.fill(p, va, 300, base=1000)
        for page in procs.vm.page_array:
            if page.dirty and page.object is not None and not page.busy_owner:
                assert not (page.flags & PG_SWAPPED and page.object.type == 0)
        procs.check(p, va, 300, base=1000)

    procs.run(body)


def test_processes_in_parallel_keep_their_words_apart(procs):
    procs.boot(pages=192)

    def body(p):
        va = procs.anonymous(p, 120)
        for turn in range(3):
            procs.fill(p, va, 120, base=p.p_pid * 100_000 + turn * 1000)
            procs.check(p, va, 120, base=p.p_pid * 100_000 + turn * 1000)

    procs.run(*[body] * 4)


class TestFiles:
    def test_a_shared_mapping_shows_another_process_what_was_written(self, procs):
        procs.boot()
        vp = procs.vm.vnode_pager.new_file(20 * P)

        def body(p):
            va = procs.anonymous(p, 20, flags=MAP_SHARED, vp=vp)
            procs.fill(p, va, 20)

        def reader(p):
            va = procs.anonymous(p, 20, flags=MAP_SHARED, vp=vp)
            procs.check(p, va, 20)

        procs.run(body)
        procs.run(reader)
        assert vp.v_object.ref_count == 0

    def test_a_private_mapping_keeps_its_writes_to_itself(self, procs):
        procs.boot()
        vp = procs.vm.vnode_pager.new_file(20 * P)

        def body(p):
            shared = procs.anonymous(p, 20, flags=MAP_SHARED, vp=vp)
            procs.fill(p, shared, 20)
            private = procs.anonymous(p, 20, flags=MAP_PRIVATE, vp=vp)
            procs.check(p, private, 20)
            procs.fill(p, private, 20, base=5000)
            procs.check(p, private, 20, base=5000)
            procs.check(p, shared, 20)

        procs.run(body)
        assert procs.hits()["v_cow_faults"] >= 20

    def test_a_file_larger_than_memory_comes_back_from_disk(self, procs):
        procs.boot(pages=128)
        vp = procs.vm.vnode_pager.new_file(300 * P)

        def body(p):
            va = procs.anonymous(p, 300, flags=MAP_SHARED, vp=vp)
            procs.fill(p, va, 300)
            procs.check(p, va, 300)

        procs.run(body)
        assert procs.hits()["v_vnodein"] > 0

    def test_beyond_the_end_of_the_file_is_a_fault(self, procs):
        procs.boot()
        vp = procs.vm.vnode_pager.new_file(4 * P)

        def body(p):
            va = procs.anonymous(p, 8, flags=MAP_SHARED, vp=vp)
            procs.fill(p, va, 4)
            with pytest.raises(SegFault) as bad:
                procs.read(p, va, 6)
            assert bad.value.rv == KERN_PROTECTION_FAILURE

        procs.run(body)


class TestRefused:
    def test_unmapped(self, procs):
        procs.boot()

        def body(p):
            with pytest.raises(SegFault):
                procs.read(p, MMAP_BASE, 0)
            va = procs.anonymous(p, 2)
            with pytest.raises(SegFault):
                procs.write(p, va, 2, 1)

        procs.run(body)

    def test_writing_what_is_read_only(self, procs):
        procs.boot()

        def body(p):
            va = procs.anonymous(p, 2)
            procs.fill(p, va, 2)
            assert procs.sys.mprotect(p, va, 2 * P, VM_PROT_READ) == 0
            procs.check(p, va, 2)
            with pytest.raises(SegFault):
                procs.write(p, va, 0, 1)
            assert procs.sys.mprotect(p, va, 2 * P, RW) == 0
            procs.write(p, va, 0, 1)
            assert procs.read(p, va, 0) == 1

        procs.run(body)

    def test_an_unhandled_one_ends_the_process_and_its_memory_comes_back(self, procs):
        procs.boot()

        def body(p):
            va = procs.anonymous(p, 30)
            procs.fill(p, va, 30)
            procs.read(p, MMAP_BASE - P, 0)

        procs.run(body)
        assert procs.hits()["sigsegv"] == 1


def test_a_fault_below_the_stack_makes_it_grow(procs):
    procs.boot()

    def body(p):
        (stack,) = p.p_vmspace.vm_map.entries()
        low = stack.start - 40 * P
        procs.write(p, low, 0, 7)
        assert procs.read(p, low, 0) == 7
        assert p.p_vmspace.vm_map.header.next.start <= low
        with pytest.raises(SegFault):
            procs.read(p, p.p_vmspace.vm_maxsaddr - P, 0)

    procs.run(body)
    assert procs.hits()["vm_map_growstack:grown"] == 1


def test_a_mapping_made_with_map_stack_grows_down(procs):
    procs.boot()

    def body(p):
        error, low = procs.sys.mmap(p, 0, 100 * P, flags=MAP_STACK | MAP_ANON)
        assert error == 0
        procs.write(p, low, 99, 3)
        procs.write(p, low, 1, 4)
        assert (procs.read(p, low, 99), procs.read(p, low, 1)) == (3, 4)

    procs.run(body)


def test_vm_fault_page_returns_the_page_held_and_leaves_the_pmap_alone(procs):
    procs.boot()

    def body(p):
        vm = procs.vm
        va = procs.anonymous(p, 2)
        m, error = vm.fault.page(p.p_vmspace.vm_map, va, VM_PROT_WRITE, VM_FAULT_NORMAL)
        assert error == 0
        assert m.hold_count == 1
        assert m.dirty == 0xFF
        assert vm.pmap.extract(p.p_vmspace.vm_pmap, va) is None
        assert not m.busy
        vm.page.unhold(m)
        procs.write(p, va, 0, 9)
        assert vm.pmap.extract(p.p_vmspace.vm_pmap, va) is m
        quick, error = vm.fault.page_quick(va, VM_PROT_READ)
        assert quick is m
        vm.page.unhold(m)

    procs.run(body)


def test_fixed_mapping_replaces_what_was_there(procs):
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 10)
        procs.fill(p, va, 10)
        flags = MAP_ANON | MAP_PRIVATE | MAP_FIXED
        error, again = procs.sys.mmap(p, va + 2 * P, 3 * P, flags=flags)
        assert (error, again) == (0, va + 2 * P)
        values = [procs.read(p, va, i) for i in range(10)]
        assert values == [100, 101, 0, 0, 0, 105, 106, 107, 108, 109]

    procs.run(body)


def test_unmapped_memory_is_freed_at_once(procs):
    procs.boot()
    seen = []

    def body(p):
        va = procs.anonymous(p, 50)
        procs.fill(p, va, 50)
        before = procs.vm.stats.v_free_count
        assert procs.sys.munmap(p, va, 50 * P) == 0
        seen.append(procs.vm.stats.v_free_count - before)

    procs.run(body)
    assert seen == [50]


def test_the_stack_limit_counts_what_the_process_stack_has(procs):
    """vm_map_growstack (vm_map.c:3789-3807): vm_ssize, and only above vm_maxsaddr."""
    procs.boot()

    def body(p):
        maps, space = procs.vm.map, p.p_vmspace
        (stack,) = space.vm_map.entries()
        assert space.vm_ssize == 32
        grown = stack.start - P
        assert maps.growstack(space.vm_map, grown, 40 * P, RLIM_INFINITY) == KERN_SUCCESS
        assert space.vm_ssize == 40
        assert maps.growstack(space.vm_map, stack.start - 9 * P, 40 * P, RLIM_INFINITY) == (
            KERN_NO_SPACE
        )
        _, va = procs.sys.mmap(p, 0, 80 * P, PROT_RW, MAP_STACK | MAP_ANON | MAP_PRIVATE)
        low = va + 80 * P - 33 * P
        assert maps.growstack(space.vm_map, low, 0, RLIM_INFINITY) == KERN_SUCCESS
        assert space.vm_ssize == 40
        procs.write(p, low, 0, 1)

    procs.run(body)


def test_a_mapping_in_the_reserve_of_a_stack_cuts_it(procs):
    procs.boot()

    def body(p):
        map = p.p_vmspace.vm_map
        (stack,) = map.entries()
        flags = MAP_FIXED | MAP_ANON | MAP_PRIVATE
        assert procs.sys.mmap(p, stack.start - 4 * P, 2 * P, flags=flags)[0] == 0
        start = stack.start
        procs.write(p, start - P, 0, 1)
        grown = map.header.prev.prev
        assert (grown.start, grown.end, grown.aux) == (start - 2 * P, start, 0)

    procs.run(body)


def test_a_pager_error_for_a_kernel_thread_ends_the_machine(procs):
    """vm_fault prints curproc->p_comm where it has just seen that curproc is NULL."""
    procs.boot()
    vm = procs.vm
    vp = vm.vnode_pager.new_file(P)

    def body(p):
        vm.vnode_pager.disk.fail_next("read")
        vm.object.hold(vp.v_object)
        procs.k.curthread().proc = None
        vm.fault.object_page(vp.v_object, 0, VM_PROT_READ, VM_FAULT_NORMAL, False)

    with pytest.raises(Panic, match="null-curproc"):
        procs.run(body)


@pytest.mark.parametrize("size", [2 << 20, (32 << 20) + P, 3 << 20])
def test_large_mappings_begin_at_a_segment(procs, size):
    """vm_mmap (vm_mmap.c:1251-1256): multiples of 2 MB, and all above 32 MB."""
    procs.boot()

    def body(p):
        procs.anonymous(p, 3)
        error, va = procs.sys.mmap(p, 0, size)
        assert error == 0
        aligned = va % (2 << 20) == 0
        assert aligned == (size != 3 << 20)

    procs.run(body)


def test_shared_faults_are_one_sysctl(procs):
    procs.boot()
    procs.vm.fault.shared_fault = False
    assert procs.vm.object.vm_shared_fault is False
