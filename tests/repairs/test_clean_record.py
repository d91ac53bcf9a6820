"""A file stays on record as dirty while it can be written to: as the C does not, and repaired."""

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.kern.lockreq import LK_EXCLUSIVE
from smpvm.kern.vnode import VOBJDIRTY
from smpvm.repairs.catalogue import REPAIRS
from smpvm.vm.map.mmap import MAP_SHARED
from smpvm.vm.param import OBJ_MIGHTBEDIRTY

PAGES = 66


@pytest.mark.parametrize("repaired", [False, True])
def test_a_read_fault_while_a_file_is_cleaned(procs, monkeypatch, repaired):
    """Pass 1 of vm_object_page_clean yields at the 64th page (vm_object.c:1396).

    A read fault then maps page 0 writeable once more; what is written there later, fsync does not
    write: the object is not on record any more.
    """
    changes = [REPAIRS["clean-record"].change] if repaired else []
    procs.boot(daemons=(), changes=changes)
    vm = procs.vm
    vp = vm.vnode_pager.new_file(PAGES * P)
    obj = vp.v_object
    vm.fault.prefault_pages = 0
    blocks = vp.data.blocks

    def sync():
        procs.k.vnode.vget(vp, LK_EXCLUSIVE)
        vm.vnode_pager.fsync(vp)
        procs.k.vnode.vput(vp)

    def body(p):
        one = procs.anonymous(p, PAGES, flags=MAP_SHARED, vp=vp)
        two = procs.anonymous(p, PAGES, flags=MAP_SHARED, vp=vp)
        procs.fill(p, one, PAGES)
        sync()
        procs.write(p, one, PAGES - 1, 1)  # page 0 is clean: the second pass will not touch it
        offers = []

        def offer(count):
            if count & 63 == 0 and not offers:
                offers.append(count)
                assert procs.read(p, two, 0) == 100

        monkeypatch.setattr(vm.object, "user_yield", offer)
        sync()
        assert offers == [64]
        assert blocks[0] == {0: 100}
        procs.write(p, two, 0, 999)
        recorded = bool(obj.flags & OBJ_MIGHTBEDIRTY), bool(vp.v_flag & VOBJDIRTY)
        assert recorded == (repaired, repaired)
        sync()
        assert blocks[0] == {0: 999 if repaired else 100}
        procs.write(p, one, 1, 5)  # on record again
        sync()
        assert blocks[0] == {0: 999}
        if repaired:
            sync()
            assert not vp.v_flag & VOBJDIRTY

    procs.run(body)
