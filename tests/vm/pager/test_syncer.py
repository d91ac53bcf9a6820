"""The syncer: dirty files are written in time, sooner when somebody asks."""

from waiting import until

from smpvm.config import PAGE_SIZE
from smpvm.kern.lockreq import LK_EXCLUSIVE
from smpvm.kern.vnode import VOBJDIRTY
from smpvm.vm.page.pages import PG_NOSYNC


def dirty_file(p, name=""):
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE, name)
    p.run(lambda: p.page(vp.v_object, 0, {0: 1}))
    assert vp.v_flag & VOBJDIRTY
    return vp


def test_dirty_files_are_written_within_the_delay(paging):
    p = paging()
    p.vm.syncer.syncdelay = 2
    p.vm.syncer.slot = 2
    vp = dirty_file(p)
    p.k.spawn("syncer", p.vm.syncer.thread)
    until(lambda: vp.data.blocks == {0: {0: 1}})
    until(lambda: not vp.v_flag & VOBJDIRTY)


def test_every_request_brings_the_turn_one_slot_nearer(paging, recorder):
    p = paging(recorder)
    syncer = p.vm.syncer
    for _ in range(12):
        syncer.speedup_syncer()
    assert syncer.rush.rushjob == 12
    assert [args[1] for _, args, _ in recorder.of("call")] == ["speedup_syncer"] * 12
    slots = []

    def body():
        for _ in range(14):
            slots.append(syncer.rushing())

    p.run(body)
    assert slots == [True] * 12 + [False] * 2


def test_more_requests_than_half_the_delay_are_dropped(paging):
    p = paging()
    syncer = p.vm.syncer
    syncer.rush.rushjob = 1000
    count = []

    def body():
        while syncer.rushing():
            count.append(1)

    p.run(body)
    assert len(count) == 1 + 15


def test_lazy_pass_skips_a_locked_vnode(paging):
    p = paging()
    vp, other = dirty_file(p), dirty_file(p)
    p.k.vnode.vn_lock(vp, LK_EXCLUSIVE)
    p.run(lambda: p.vm.syncer.msync(wait=False))
    p.k.vnode.vn_unlock(vp)
    p.run(lambda: p.quiet(other.v_object))
    assert vp.data.blocks == {}
    assert other.data.blocks == {0: {0: 1}}


def test_lazy_pass_leaves_nosync_pages_and_the_record(paging):
    p = paging()
    vp = dirty_file(p)
    p.vm.page.flag_set(vp.v_object.rb_memq.lookup(0), PG_NOSYNC)
    p.run(lambda: p.vm.syncer.msync(wait=False))
    assert vp.data.blocks == {}
    assert vp.v_flag & VOBJDIRTY
    p.run(p.vm.syncer.sync_all)
    assert vp.data.blocks == {0: {0: 1}}
    assert not vp.v_flag & VOBJDIRTY


def test_sync_all_waits(paging):
    p = paging()
    files = [dirty_file(p) for _ in range(3)]
    p.run(p.vm.syncer.sync_all)
    for vp in files:
        assert vp.data.blocks == {0: {0: 1}}
        assert vp.v_object.paging_in_progress == 0
