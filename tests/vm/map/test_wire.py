"""mlock, munlock, kernel wiring: counts, entries, pages, and what a failure leaves behind."""

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.kern.errno import EAGAIN, EINVAL, ENOMEM
from smpvm.kern.thread import Panic
from smpvm.vm.map.entry import KERN_SUCCESS, MAP_ENTRY_USER_WIRED
from smpvm.vm.map.mmap import MAP_SHARED
from smpvm.vm.map.wire import KM_PAGEABLE
from smpvm.vm.param import VM_PROT_READ


def wired_pages(vm, p, va, pages):
    return [
        i
        for i in range(pages)
        if (m := vm.pmap.extract(p.p_vmspace.vm_pmap, va + i * P)) is not None and m.wire_count
    ]


def test_mlock_faults_in_and_wires_what_was_asked_for(procs):
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 10)
        assert procs.sys.mlock(p, va + 2 * P, 4 * P) == 0
        assert wired_pages(procs.vm, p, va, 10) == [2, 3, 4, 5]
        assert procs.vm.stats.v_wire_count == 4
        flags = [bool(e.eflags & MAP_ENTRY_USER_WIRED) for e in p.p_vmspace.vm_map.entries()]
        assert flags == [False, True, False, False]
        procs.fill(p, va, 10)
        assert procs.sys.munlock(p, va + 2 * P, 4 * P) == 0
        assert wired_pages(procs.vm, p, va, 10) == []
        assert procs.vm.stats.v_wire_count == 0
        procs.check(p, va, 10)
        assert p.p_vmspace.vm_map.nentries == 2

    procs.run(body)


def test_exit_unwires(procs):
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 10)
        procs.fill(p, va, 10)
        assert procs.sys.mlock(p, va, 10 * P) == 0

    procs.run(body)
    assert procs.vm.stats.v_wire_count == 0


def test_wired_pages_stay_while_everything_else_is_paged_out(procs):
    procs.boot(pages=160)

    def body(p):
        locked = procs.anonymous(p, 10)
        procs.fill(p, locked, 10)
        procs.sys.mlock(p, locked, 10 * P)
        pages = [procs.vm.pmap.extract(p.p_vmspace.vm_pmap, locked + i * P) for i in range(10)]
        va = procs.anonymous(p, 300)
        procs.fill(p, va, 300)
        now = [procs.vm.pmap.extract(p.p_vmspace.vm_pmap, locked + i * P) for i in range(10)]
        assert now == pages
        procs.check(p, locked, 10)

    procs.run(body)


def test_more_than_the_machine_allows_is_refused(procs):
    procs.boot()
    procs.vm.sysctl.page_max_wired = 20

    def body(p):
        va = procs.anonymous(p, 40)
        assert procs.sys.mlock(p, va, 21 * P) == EAGAIN
        assert procs.sys.mlock(p, va, 20 * P) == 0
        assert procs.sys.mlock(p, va + 30 * P, P) == EAGAIN

    procs.run(body)


def test_holes_and_unwired_ranges_are_refused_without_a_trace(procs):
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 10)
        procs.sys.munmap(p, va + 5 * P, P)
        assert procs.sys.mlock(p, va, 10 * P) == ENOMEM
        assert procs.vm.stats.v_wire_count == 0
        assert procs.sys.munlock(p, va, 3 * P) == ENOMEM
        for e in p.p_vmspace.vm_map.entries():
            assert (e.wired_count, e.eflags & ~2) == (0, 0)

    procs.run(body)


def test_a_failure_in_the_middle_unwires_what_had_been_wired(procs):
    procs.boot()
    vp = procs.vm.vnode_pager.new_file(4 * P)

    def body(p):
        va = procs.anonymous(p, 4)
        beyond = procs.sys.mmap(p, va + 4 * P, 8 * P, flags=MAP_SHARED | 0x10, vp=vp)
        assert beyond == (0, va + 4 * P)
        assert procs.sys.mlock(p, va, 12 * P) == ENOMEM
        assert wired_pages(procs.vm, p, va, 12) == []
        assert procs.vm.stats.v_wire_count == 0
        assert all(e.wired_count == 0 for e in p.p_vmspace.vm_map.entries())

    procs.run(body)


def test_kernel_wiring_counts_on_top_of_user_wiring(procs):
    procs.boot()

    def body(p):
        glue = procs.vm.glue
        va = procs.anonymous(p, 4)
        procs.sys.mlock(p, va, 4 * P)
        assert glue.vslock(p, va, 4 * P) == KERN_SUCCESS
        (entry, _stack) = p.p_vmspace.vm_map.entries()
        assert entry.wired_count == 2
        assert procs.sys.munlock(p, va, 4 * P) == 0
        assert len(wired_pages(procs.vm, p, va, 4)) == 4
        assert glue.vsunlock(p, va, 4 * P) == KERN_SUCCESS
        assert wired_pages(procs.vm, p, va, 4) == []

    procs.run(body)


def test_a_failed_kernel_wiring_leaves_later_entries_counted_and_then_panics(procs):
    """vm_map_wire takes its counts back for the failing entry only (vm_map.c:2483-2493)."""
    procs.boot()
    vp = procs.vm.vnode_pager.new_file(4 * P)

    def body(p):
        beyond = procs.anonymous(p, 8, flags=MAP_SHARED, vp=vp)
        _, va = procs.sys.mmap(p, beyond + 8 * P, 4 * P, flags=0x1012)
        map = p.p_vmspace.vm_map
        procs.fill(p, va, 4)
        assert procs.vm.map.wire(map, beyond, va + 4 * P, 0) != KERN_SUCCESS
        leaked = [e for e in map.entries() if e.wired_count]
        assert [(e.start, e.end) for e in leaked] == [(va, va + 4 * P)]
        assert wired_pages(procs.vm, p, va, 4) == []
        procs.sys.munmap(p, va, 4 * P)

    with pytest.raises(Panic, match="unwire"):
        procs.run(body)


def test_pageable_without_wiring_is_an_error(procs):
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 4)
        map = p.p_vmspace.vm_map
        assert procs.vm.map.wire(map, va, va + 4 * P, KM_PAGEABLE) != KERN_SUCCESS

    procs.run(body)


def test_two_threads_wire_the_same_range_one_after_the_other(procs):
    """A range in transition is waited for: RFMEM processes lock overlapping ranges."""
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 30)

        def other(c):
            for _ in range(20):
                procs.sys.mlock(c, va + 10 * P, 20 * P)
                procs.sys.munlock(c, va + 10 * P, 20 * P)

        procs.process.fork1(p, procs.guarded(other), share=True)
        for _ in range(20):
            procs.sys.mlock(p, va, 20 * P)
            procs.sys.munlock(p, va, 20 * P)
        procs.process.wait(p)

    procs.run(body)


class TestMsync:
    def test_dirty_file_pages_go_to_disk(self, procs):
        procs.boot(daemons=("pagedaemon",))
        vp = procs.vm.vnode_pager.new_file(10 * P)

        def body(p):
            va = procs.anonymous(p, 10, flags=MAP_SHARED, vp=vp)
            procs.fill(p, va, 10)
            assert procs.sys.msync(p, va, 10 * P) == 0

        procs.run(body)

    def test_holes_are_an_error(self, procs):
        procs.boot()

        def body(p):
            va = procs.anonymous(p, 10)
            procs.sys.munmap(p, va + 5 * P, P)
            assert procs.sys.msync(p, va, 10 * P) == EINVAL
            assert procs.sys.msync(p, va + 5 * P, P) == EINVAL
            assert procs.sys.msync(p, va, 5 * P) == 0

        procs.run(body)

    def test_with_the_last_entry_of_the_map_the_check_goes_round_the_ring(self, procs):
        """vm_map.c:2645 never asks for the header: a hole further up is reported as one here."""
        procs.boot()

        def body(p):
            procs.anonymous(p, 2)
            stack = p.p_vmspace.vm_map.header.prev
            assert procs.sys.msync(p, stack.start, stack.end - stack.start) == EINVAL

        procs.run(body)


def test_mprotect_of_wired_memory_keeps_it_wired(procs):
    procs.boot()

    def body(p):
        va = procs.anonymous(p, 4)
        procs.fill(p, va, 4)
        procs.sys.mlock(p, va, 4 * P)
        procs.sys.mprotect(p, va, 4 * P, VM_PROT_READ)
        procs.check(p, va, 4)
        assert len(wired_pages(procs.vm, p, va, 4)) == 4
        assert procs.sys.munlock(p, va, 4 * P) == 0

    procs.run(body)
