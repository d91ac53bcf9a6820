"""The repairs of map, fault and glue: what was wrong without them is right with them."""

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.repairs.catalogue import REPAIRS
from smpvm.vm.map.entry import KERN_SUCCESS
from smpvm.vm.map.mmap import MAP_PRIVATE, MAP_SHARED
from smpvm.vm.param import VM_PROT_READ, VM_SWAP_NORMAL


@pytest.fixture
def repaired(procs):
    def boot(name, **config):
        return procs.boot(changes=[REPAIRS[name].change], **config)

    return boot


def test_copy_wired(repaired):
    procs = repaired("copy-wired")
    vp = procs.vm.vnode_pager.new_file(4 * P)

    def child(c, va):
        assert procs.read(c, va, 0) == 1
        procs.check(c, va + P, 3, base=101)

    def body(p):
        shared = procs.anonymous(p, 4, flags=MAP_SHARED, vp=vp)
        procs.fill(p, shared, 4)
        va = procs.anonymous(p, 4, flags=MAP_PRIVATE, vp=vp)
        procs.write(p, va, 0, 1)
        procs.sys.mprotect(p, va, 4 * P, VM_PROT_READ)
        assert procs.sys.mlock(p, va, 4 * P) == 0
        procs.process.fork1(p, procs.guarded(lambda c: child(c, va)))
        procs.process.wait(p)

    procs.run(body)


def test_wire_back_out(repaired):
    procs = repaired("wire-back-out")
    vp = procs.vm.vnode_pager.new_file(4 * P)

    def body(p):
        beyond = procs.anonymous(p, 8, flags=MAP_SHARED, vp=vp)
        _, va = procs.sys.mmap(p, beyond + 8 * P, 4 * P, flags=0x1012)
        map = p.p_vmspace.vm_map
        procs.fill(p, va, 4)
        assert procs.vm.map.wire(map, beyond, va + 4 * P, 0) != KERN_SUCCESS
        assert [e for e in map.entries() if e.wired_count] == []
        assert procs.sys.munmap(p, va, 4 * P) == 0

    procs.run(body)


def test_msync_end(repaired):
    procs = repaired("msync-end")

    def body(p):
        procs.anonymous(p, 2)
        stack = p.p_vmspace.vm_map.header.prev
        assert procs.sys.msync(p, stack.start, stack.end - stack.start) == 0

    procs.run(body)


def test_swapout_held(repaired):
    procs = repaired("swapout-held", daemons=("swapper",))
    glue = procs.vm.glue
    glue.swap_idle_threshold1 = 0

    def body(p):
        def other(c):
            procs.k.sleep.tsleep(c, 0, "test", 5)
            glue.swapout_procs(VM_SWAP_NORMAL)

        procs.process.fork1(p, other)
        procs.k.sleep.tsleep(p, 0, "test", 20)
        procs.process.userret(p)
        procs.process.wait(p)

    procs.run(body)
    assert procs.hits()["swapout"] > 0


def test_fault_once(repaired):
    procs = repaired("fault-once")

    def body(p):
        procs.fill(p, procs.anonymous(p, 10), 10)

    procs.run(body)
    hits = procs.hits()
    assert hits["ru_minflt"] + hits["ru_majflt"] == hits["v_vm_faults"] > 0
