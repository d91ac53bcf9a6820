"""Birth and death of processes: fork, exec, exit, wait, kill; the two counts of a space."""

from functools import partial

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.config import Config
from smpvm.explore.strategy.roundrobin import Fair
from smpvm.host.serial import SerialCarrier
from smpvm.kern.errno import ECHILD
from smpvm.kern.proc import P_LOWMEMKILL, P_WEXIT, SACTIVE, SZOMB
from smpvm.kern.thread import Panic
from smpvm.machine import Machine
from smpvm.vm.build import SUBSYSTEMS
from smpvm.vm.map.mmap import MAP_SHARED
from smpvm.vm.map.vmspace import VMSPACE_EXIT1, VMSPACE_EXIT2
from smpvm.vm.proc.process import SIGKILL, ProcessKilled, SegFault


def test_a_process_that_ends_leaves_nothing(procs):
    procs.boot()
    spaces = []

    def body(p):
        assert p.p_stat == SACTIVE
        assert procs.k.curthread().proc is p
        spaces.append(p.p_vmspace)
        procs.fill(p, procs.anonymous(p, 20), 20)

    procs.run(body)
    (space,) = spaces
    assert space.vm_refcnt == -1
    assert space.vm_holdcnt == 0
    assert space.vm_flags == VMSPACE_EXIT1 | VMSPACE_EXIT2
    assert space.vm_map.nentries == 0
    assert space.vm_pmap.resident_count == 0
    assert procs.vm.process.families == {}
    assert procs.vm.stats.v_free_count == procs.vm.stats.v_page_count


def test_wait_reaps_each_child_once(procs):
    procs.boot()

    def body(p):
        pids = {procs.process.fork1(p, lambda c: None).p_pid for _ in range(5)}
        got = set()
        for _ in range(5):
            error, pid, _status = procs.process.wait(p)
            assert error == 0
            got.add(pid)
        assert got == pids
        assert procs.process.wait(p)[0] == ECHILD

    procs.run(body)


def test_wait_for_one_of_several_and_without_waiting(procs):
    procs.boot()

    def sleeper(c):
        procs.k.sleep.tsleep(c, 0, "test", 20)

    def body(p):
        first = procs.process.fork1(p, sleeper)
        second = procs.process.fork1(p, lambda c: None)
        assert procs.process.wait(p, second.p_pid) == (0, second.p_pid, 0)
        assert procs.process.wait(p, nohang=True)[:2] == (0, 0)
        assert procs.process.wait(p, first.p_pid)[1] == first.p_pid
        assert procs.process.wait(p, first.p_pid)[0] == ECHILD

    procs.run(body)


def test_a_zombie_keeps_its_space_held_until_it_is_reaped(procs):
    procs.boot()

    def body(p):
        child = procs.process.fork1(p, lambda c: None)
        space = child.p_vmspace
        while child.p_stat != SZOMB:
            procs.k.sched.lwkt_yield()
        assert (space.vm_refcnt, space.vm_holdcnt) == (-1, 1)
        assert not space.vm_flags & VMSPACE_EXIT2
        procs.process.wait(p)
        assert space.vm_flags & VMSPACE_EXIT2

    procs.run(body)


def test_orphans_pass_to_init(procs):
    procs.boot()

    def grandchild(c):
        procs.k.sleep.tsleep(c, 0, "test", 10)

    def child(c):
        for _ in range(3):
            procs.process.fork1(c, grandchild)
        procs.process.fork1(c, lambda g: None)

    def body(p):
        procs.process.fork1(p, procs.guarded(child))
        procs.process.wait(p)

    procs.run(body)
    assert procs.k.proc.nprocs == 1


def test_many_generations(procs):
    procs.boot(pages=256)

    def body(p):
        va = procs.anonymous(p, 10)
        procs.fill(p, va, 10)
        for base in range(100, 130):
            procs.process.fork1(p, procs.guarded(partial(procs.check, va=va, pages=10, base=base)))
            procs.process.wait(p)
            procs.fill(p, va, 10, base=base + 1)

    procs.run(body, body)


class TestExec:
    def test_it_leaves_a_blank_space_with_a_stack(self, procs):
        procs.boot()

        def body(p):
            va = procs.anonymous(p, 20)
            procs.fill(p, va, 20)
            space = p.p_vmspace
            procs.process.exec(p)
            assert p.p_vmspace is space
            assert space.vm_map.nentries == 1
            assert space.vm_pmap.resident_count == 0
            with pytest.raises(SegFault):
                procs.read(p, va, 0)
            va = procs.anonymous(p, 20)
            assert procs.read(p, va, 5) == 0

        procs.run(body)

    def test_a_shared_space_is_left_to_the_others(self, procs):
        procs.boot()

        def child(c, va):
            old = c.p_vmspace
            procs.process.exec(c)
            assert c.p_vmspace is not old
            with pytest.raises(SegFault):
                procs.read(c, va, 0)

        def body(p):
            va = procs.anonymous(p, 20)
            procs.fill(p, va, 20)
            procs.process.fork1(p, procs.guarded(lambda c: child(c, va)), share=True)
            procs.process.wait(p)
            procs.check(p, va, 20)

        procs.run(body)

    def test_it_waits_until_nobody_holds_the_process(self, procs):
        procs.boot()
        order = []

        def body(p):
            def holder(c):
                procs.k.sleep.tsleep(c, 0, "test", 10)
                order.append("released")
                procs.k.proc.prele(p)

            procs.k.proc.phold(p)
            procs.process.fork1(p, holder)
            procs.process.exec(p)
            order.append("exec")
            procs.process.wait(p)

        procs.run(body)
        assert order == ["released", "exec"]


class TestKill:
    def test_it_is_noticed_at_the_boundary_to_user_mode(self, procs):
        procs.boot()
        seen = []

        def body(p):
            va = procs.anonymous(p, 20)
            procs.fill(p, va, 20)
            procs.k.proc.killproc(p, "test")
            seen.append("still in the kernel")
            procs.process.userret(p)
            seen.append("user mode")

        procs.run(body)
        assert seen == ["still in the kernel"]

    def test_it_ends_a_wait_for_children(self, procs):
        procs.boot()

        def body(p):
            def child(c):
                procs.k.proc.killproc(p, "test")
                procs.k.sleep.tsleep(c, 0, "test", 30)

            procs.process.fork1(p, child)
            error, _pid, _status = procs.process.wait(p)
            assert error
            with pytest.raises(ProcessKilled):
                procs.process.userret(p)

        procs.run(body)

    def test_low_memory_takes_the_biggest_process(self):
        """A fair scheduler and virtual time: who is the biggest does not depend on the host."""
        kinds = {}

        def hog(p):
            kinds[p.p_pid] = "hog"
            _, va = vm.process.sys.mmap(p, 0, 400 * P)
            for i in range(400):
                vm.process.user_write(p, va + i * P, 0, i)

        def small(p):
            kinds[p.p_pid] = "small"
            _, va = vm.process.sys.mmap(p, 0, 5 * P)
            for turn in range(50):
                for i in range(5):
                    vm.process.user_write(p, va + i * P, 0, turn + i)
                assert [vm.process.user_read(p, va + i * P, 0) for i in range(5)] == [
                    turn + i for i in range(5)
                ]
                vm.process.userret(p)
                vm.k.sleep.tsleep(p, 0, "test", 1)

        class Watch(SUBSYSTEMS["process"]):
            def exit1(self, p, status):
                kinds[p.p_pid] += f" {status} {bool(p.p_flags & P_LOWMEMKILL)}"
                super().exit1(p, status)

        carrier = SerialCarrier(Fair(20), access_points=False, limit=2_000_000)
        machine = Machine(
            Config(pages=128, swap_pages=0, pq_l2_size=4), carrier=carrier, changes=[Watch]
        )
        vm = machine.vm
        machine.boot()
        for td in machine.daemons.values():
            carrier.set_daemon(td)
        for body in (hog, small):
            vm.process.start(vm.process.create(), body)
        carrier.join()
        machine.k.check()
        assert sorted(kinds.values()) == [f"hog {SIGKILL} True", "small 0 False"]


def test_exit_twice_is_a_panic(procs):
    procs.boot()

    def body(p):
        p.p_flags |= P_WEXIT

    with pytest.raises(Panic, match="exit-twice"):
        procs.run(body)


class TestCounts:
    def test_anonymous_pages_are_counted_once_for_each_entry(self, procs):
        procs.boot()
        vp = procs.vm.vnode_pager.new_file(8 * P)

        def body(p):
            vm, space = procs.vm, p.p_vmspace
            va = procs.anonymous(p, 10)
            procs.fill(p, va, 10)
            shared = procs.anonymous(p, 8, flags=MAP_SHARED, vp=vp)
            procs.fill(p, shared, 8)
            assert vm.vmspace.anonymous_count(space) == 10
            procs.sys.mprotect(p, va + 5 * P, 5 * P, 1)
            assert vm.vmspace.anonymous_count(space) == 20
            assert vm.vmspace.swap_count(space) == 0
            assert vm.vmspace.resident_count(space) == 18
            assert space.vm_holdcnt == 1

        procs.run(body)

    def test_swap_counts_in_proportion_and_at_least_one(self, procs):
        procs.boot(pages=128)

        def body(p):
            va = procs.anonymous(p, 300)
            procs.fill(p, va, 300)
            obj = next(p.p_vmspace.vm_map.entries()).object
            blocks = obj.swblock_count
            assert blocks > 0
            count = procs.vm.vmspace.swap_count(p.p_vmspace)
            assert abs(count - (blocks * 32 + 1)) <= 64

        procs.run(body)

    def test_a_hold_on_a_space_that_is_gone_is_a_panic(self, procs):
        procs.boot()
        spaces = []
        procs.run(lambda p: spaces.append(p.p_vmspace))
        with pytest.raises(Panic, match="vmspace-hold-dead"):
            procs.vm.vmspace.hold(spaces[0])
        with pytest.raises(Panic, match="vmspace-ref-dead"):
            procs.vm.vmspace.ref(spaces[0])
