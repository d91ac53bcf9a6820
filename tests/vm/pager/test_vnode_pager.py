"""Files: page-in and page-out through the disk, size changes, the vnode at the end of a chain."""

import time

from smpvm.config import PAGE_SIZE, DiskConfig
from smpvm.kern.lockreq import LK_EXCLUSIVE
from smpvm.kern.vnode import VOBJDIRTY, VRECLAIMED
from smpvm.vm.page.struct import PG_BUSY
from smpvm.vm.param import (
    OBJ_DEAD,
    OBJT_DEAD,
    OBJT_DEFAULT,
    OBJT_VNODE,
    VM_PAGER_BAD,
    VM_PAGER_ERROR,
    VM_PAGER_OK,
    VM_PAGER_PUT_SYNC,
)


def test_written_pages_are_in_the_file_and_come_back(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(4 * PAGE_SIZE)
    obj = vp.v_object

    def body():
        for i in range(4):
            p.page(obj, i, {0: 10 + i})
        assert p.flush(obj, range(4), VM_PAGER_PUT_SYNC) == 4
        for i in range(4):
            p.evict(obj, i)
            assert p.read(obj, i) == (VM_PAGER_OK, {0: 10 + i})

    p.run(body)
    assert {i: words[0] for i, words in vp.data.blocks.items()} == {0: 10, 1: 11, 2: 12, 3: 13}


def test_a_new_files_object_has_no_reference(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(3 * PAGE_SIZE + 1)
    obj = vp.v_object
    assert (obj.type, obj.size, obj.ref_count, obj.handle) == (OBJT_VNODE, 4, 0, vp)
    assert vp.v_refcnt == 1
    assert p.vm.vnode_pager.reference(vp) is obj
    assert (obj.ref_count, vp.v_refcnt) == (1, 2)
    p.vm.object.deallocate(obj)
    assert (obj.ref_count, vp.v_refcnt) == (0, 1)


def test_asynchronous_write_keeps_the_page_soft_busy(paging):
    p = paging(file_disk=DiskConfig(latency=20))
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE)
    obj = vp.v_object

    def body():
        m = p.page(obj, 0, {0: 1})
        assert p.flush(obj, [0]) == 1
        assert (m.dirty, m.busy, obj.paging_in_progress) == (0, 1, 1)
        assert vp.data.blocks == {}
        p.quiet(obj)
        assert (m.busy, vp.data.blocks) == (0, {0: {0: 1}})

    p.vm.stats.v_pageout_free_min = 0
    p.run(body)


def test_very_short_memory_makes_writes_synchronous(paging):
    p = paging(file_disk=DiskConfig(latency=20))
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE)

    def body():
        m = p.page(vp.v_object, 0, {0: 1})
        p.vm.stats.v_pageout_free_min = 1000
        p.flush(vp.v_object, [0])
        assert m.busy == 0
        assert vp.data.blocks == {0: {0: 1}}

    p.run(body)


def test_failed_writes_leave_the_page_dirty(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE)

    def body():
        m = p.page(vp.v_object, 0, {0: 1})
        for flags in (VM_PAGER_PUT_SYNC, 0):
            p.vm.vnode_pager.disk.fail_next("write")
            p.flush(vp.v_object, [0], flags)
            p.quiet(vp.v_object)
            assert m.dirty == 0xFF
            assert m.busy == 0
            assert vp.v_flag & VOBJDIRTY
        p.flush(vp.v_object, [0], VM_PAGER_PUT_SYNC)
        assert m.dirty == 0

    p.run(body)
    assert vp.data.blocks == {0: {0: 1}}


def test_failed_read(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE)
    vp.data.blocks[0] = {0: 3}

    def body():
        p.vm.vnode_pager.disk.fail_next("read")
        assert p.read(vp.v_object, 0)[0] == VM_PAGER_ERROR
        assert p.read(vp.v_object, 0) == (VM_PAGER_OK, {0: 3})
        assert vp.v_object.paging_in_progress == 0

    p.run(body)


def test_behind_the_end(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE)
    obj = vp.v_object

    def body():
        assert p.read(obj, 1)[0] == VM_PAGER_ERROR
        pages = [p.page(obj, i, {0: i}) for i in (0, 1)]
        for m in p.busy(obj, (0, 1)):
            p.vm.page.io_start(m)
            p.vm.page.wakeup(m)
        assert p.vm.pager.put_pages(obj, pages, 1) == [VM_PAGER_OK, VM_PAGER_BAD]

    p.run(body)


def test_haspage_knows_holes_and_the_end(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(2 * PAGE_SIZE)
    vp.data.blocks.update({0: {0: 1}, 5: {0: 1}})
    has = p.vm.pager.has_page
    assert [has(vp.v_object, i) for i in (0, 1, 5)] == [True, False, False]


def test_cutting_a_file_removes_pages_and_zeroes_the_tail(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(4 * PAGE_SIZE)
    obj = vp.v_object

    def body():
        for i in range(4):
            p.page(obj, i, {0: i, 511: 99})
        p.flush(obj, range(4), VM_PAGER_PUT_SYNC)
        p.k.vnode.vn_lock(vp, LK_EXCLUSIVE)
        p.vm.vnode_pager.truncate(vp, PAGE_SIZE + 8)
        p.k.vnode.vn_unlock(vp)
        assert obj.size == 2
        assert [m.pindex for m in obj.rb_memq] == [0, 1]
        assert obj.rb_memq.lookup(1).contents == {0: 1}
        assert vp.data.blocks == {0: {0: 0, 511: 99}, 1: {0: 1}}
        p.vm.vnode_pager.truncate(vp, 4 * PAGE_SIZE)
        assert p.read(obj, 3) == (VM_PAGER_OK, {})

    p.run(body)


def test_cutting_waits_for_a_write_in_flight(paging):
    p = paging(file_disk=DiskConfig(latency=20))
    vp = p.vm.vnode_pager.new_file(2 * PAGE_SIZE)
    p.vm.stats.v_pageout_free_min = 0

    def body():
        p.page(vp.v_object, 1, {0: 1})
        p.flush(vp.v_object, [1])
        p.vm.vnode_pager.truncate(vp, PAGE_SIZE)
        assert vp.data.blocks == {}
        assert vp.v_object.paging_in_progress == 0

    p.run(body)


def test_lock_finds_the_vnode_behind_a_shadow(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE)

    def body():
        objects = p.vm.object
        obj = p.vm.vnode_pager.reference(vp)
        shadow, _ = objects.shadow(obj, 0, 1, False)
        objects.hold(shadow)
        assert p.vm.vnode_pager.lock(shadow) is vp
        objects.drop(shadow)
        assert vp.v_lock.lockstatus()
        p.k.vnode.vput(vp)
        plain = objects.allocate(OBJT_DEFAULT, 1)
        objects.hold(plain)
        assert p.vm.vnode_pager.lock(plain) is None
        objects.drop(plain)
        objects.deallocate(shadow)

    p.run(body)
    assert vp.v_object.ref_count == 0
    assert vp.v_refcnt == 1


def test_reclaiming_writes_dirty_pages_and_ends_the_object(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(2 * PAGE_SIZE)
    obj = vp.v_object
    blocks = vp.data.blocks

    def body():
        p.page(obj, 0, {0: 1})
        p.page(obj, 1, {0: 2}, dirty=False)
        p.vm.vnode_pager.reclaim(vp)

    p.run(body)
    assert blocks == {0: {0: 1}}
    assert obj.flags & OBJ_DEAD
    assert obj.type == OBJT_DEAD
    assert obj.zfreed
    assert vp.v_object is None
    assert vp.v_flag & VRECLAIMED
    assert len(obj.rb_memq) == 0


def test_a_valid_page_is_not_read_over(paging):
    p = paging()
    vp = p.vm.vnode_pager.new_file(PAGE_SIZE)
    vp.data.blocks[0] = {0: 1}

    def body():
        p.page(vp.v_object, 0, {0: 2})
        assert p.read(vp.v_object, 0) == (VM_PAGER_OK, {0: 2})

    p.run(body)
    assert p.vm.vnode_pager.disk.reads == 0


def test_a_buffer_busies_its_pages_all_or_none_and_sleeps_with_the_first_ones(paging):
    """vfs_busy_pages (vfs_bio.c:4247-4257) gives them up only after its sleep."""
    p = paging()
    vm = p.vm
    vp = vm.vnode_pager.new_file(2 * PAGE_SIZE)
    obj, log = vp.v_object, []

    def holder():
        first, second = p.page(obj, 0), p.page(obj, 1)
        assert not vm.page.busy_try(second, False)
        td = p.k.spawn("writer", writer)
        while td.wmesg != "vbpage":
            p.k.carrier.yield_()
        log.append((first.flags & PG_BUSY, obj.paging_in_progress))
        vm.page.wakeup(second)

    def writer():
        pages = [obj.rb_memq.lookup(i) for i in (0, 1)]
        vm.vnode_pager._busy_pages(obj, pages, True)
        log.append(([m.busy for m in pages], [m.dirty for m in pages], obj.paging_in_progress))

    p.run(holder)
    deadline = time.monotonic() + 10
    while len(log) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert log == [(PG_BUSY, 0), ([1, 1], [0, 0], 2)]


def test_the_end_of_a_request_waits_for_the_object(paging):
    """bpdone holds the object exclusively (vfs_bio.c:3983)."""
    p = paging()
    vm = p.vm
    vm.stats.v_pageout_free_min = 0
    vp = vm.vnode_pager.new_file(PAGE_SIZE)
    obj = vp.v_object

    def body():
        m = p.page(obj, 0, {0: 1})
        vm.object.hold(obj)
        assert vm.pageout.flush(p.busy(obj, [0]), 0) == 1
        while (td := vm.vnode_pager.disk.thread) is None or td.waiting is not obj.token:
            time.sleep(0.001)  # holding the token: the model's yields would give it up
        assert (m.busy, obj.paging_in_progress) == (1, 1)
        vm.object.drop(obj)
        p.quiet(obj)
        assert m.busy == 0

    p.run(body)
