"""Swapping processes: who goes, who may not return to user mode, who comes back."""

import pytest

from smpvm.kern.proc import P_SWAPPEDOUT, P_SWAPWAIT, P_SYSTEM, P_WEXIT, PLOCK_MASK
from smpvm.vm.build import SUBSYSTEMS
from smpvm.vm.param import VM_SWAP_IDLE, VM_SWAP_NORMAL
from smpvm.vm.proc.glue import SchedulerInfo

Glue = SUBSYSTEMS["glue"]


class Swappable(Glue):
    """allproc_scan's own hold is not counted: swapping out works."""

    def swappable(self, p):
        held = p.p_lock & PLOCK_MASK
        return held == 1 and not p.p_flags & (P_SYSTEM | P_SWAPPEDOUT | P_WEXIT)


def asleep_until(procs, p, ticks):
    """Sleep long in the kernel (the child's exit ends it sooner), then return to user mode."""
    procs.k.sleep.tsleep(p, 0, "test", ticks)
    procs.process.userret(p)


def test_nobody_is_ever_swapped_out(procs):
    """swappable() wants p_lock zero, and allproc_scan holds every process (vm_glue.c:384)."""
    procs.boot(daemons=())
    procs.vm.glue.swap_idle_threshold1 = 0
    procs.vm.glue.swap_idle_threshold2 = -1

    def body(p):
        def other(c):
            procs.k.sleep.tsleep(c, 0, "test", 5)
            procs.vm.glue.swapout_procs(VM_SWAP_NORMAL | VM_SWAP_IDLE)

        procs.process.fork1(p, other)
        asleep_until(procs, p, 4000)
        procs.process.wait(p)

    procs.run(body)
    hits = procs.hits()
    assert hits["swapout_procs"] == 1
    assert hits["swapout"] == 0


@pytest.mark.parametrize(
    ("action", "threshold1", "threshold2", "goes"),
    [
        (VM_SWAP_NORMAL, 0, 60, True),
        (VM_SWAP_NORMAL, 15, 60, False),
        (VM_SWAP_IDLE, 0, -1, True),
        (VM_SWAP_IDLE, 0, 60, False),
    ],
)
def test_who_is_swapped_out_when_it_works(procs, action, threshold1, threshold2, goes):
    procs.boot(daemons=(), changes=[Swappable])
    glue = procs.vm.glue
    glue.swap_idle_threshold1, glue.swap_idle_threshold2 = threshold1, threshold2
    seen = []

    def body(p):
        va = procs.anonymous(p, 5)
        procs.fill(p, va, 5)

        def other(c):
            procs.k.sleep.tsleep(c, 0, "test", 5)
            glue.swapout_procs(action)
            seen.append((bool(p.p_flags & P_SWAPPEDOUT), p.p_vmspace.vm_swrss))
            glue.faultin(p)

        procs.process.fork1(p, other)
        asleep_until(procs, p, 4000)
        procs.process.wait(p)
        procs.check(p, va, 5)

    procs.run(body)
    assert seen == [(goes, 5 if goes else 0)]


def test_a_swapped_out_process_returns_to_user_mode_only_when_the_swapper_lets_it(procs):
    procs.boot(daemons=("swapper",), changes=[Swappable])
    glue = procs.vm.glue
    glue.swap_idle_threshold1 = 0
    order = []

    def body(p):
        def other(c):
            while not p.p_flags & P_SWAPPEDOUT:  # it must be asleep for that, however slow the host
                procs.k.sleep.tsleep(c, 0, "test", 2)
                glue.swapout_procs(VM_SWAP_NORMAL)

        procs.process.fork1(p, other)
        while not p.p_flags & P_SWAPPEDOUT:
            procs.k.sleep.tsleep(p, 0, "test", 20)
        order.append(bool(p.p_flags & P_SWAPPEDOUT))
        procs.process.userret(p)
        order.append(bool(p.p_flags & (P_SWAPPEDOUT | P_SWAPWAIT)))
        procs.process.wait(p)

    procs.run(body)
    assert order == [True, False]
    hits = procs.hits()
    assert hits["faultin"] >= 1


def test_a_killed_process_does_not_wait_for_the_swapper(procs):
    procs.boot(daemons=())

    def body(p):
        p.p_flags |= P_SWAPPEDOUT

        def other(c):
            while not p.p_flags & P_SWAPWAIT:
                procs.k.sched.lwkt_yield()
            procs.k.proc.killproc(p, "test")

        procs.process.fork1(p, other)
        procs.process.userret(p)
        pytest.fail("returned to user mode")

    procs.run(body)


def test_the_longest_waiting_process_comes_back_first(procs):
    procs.boot(daemons=())
    k, glue = procs.k, procs.vm.glue
    space = procs.vm.vmspace.alloc()
    procs_ = []
    for nice, swrss in ((0, 0), (-5, 0), (0, 100_000)):
        p = procs.process.create()
        p.p_nice, p.p_flags = nice, P_SWAPPEDOUT | P_SWAPWAIT
        p.p_vmspace.vm_swrss = swrss
        procs_.append(p)
    info = SchedulerInfo()
    k.proc.allproc_scan(glue.scheduler_callback, info)
    assert info.pp is procs_[1]
    assert [p.p_lock for p in procs_] == [0, 1, 0]
    k.proc.prele(info.pp)
    for p in procs_:
        p.p_flags = 0
        procs.process.start(p, lambda p: None)
    procs.run()
    procs.vm.vmspace.rel(space)
