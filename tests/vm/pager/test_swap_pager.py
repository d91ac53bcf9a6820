"""Anonymous memory to swap and back: asynchronous and synchronous writes, failures, limits."""

import pytest

from smpvm.config import DiskConfig
from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import PG_SWAPINPROG, PG_SWAPPED
from smpvm.vm.param import (
    OBJT_DEFAULT,
    OBJT_SWAP,
    SWAPBLK_NONE,
    VM_PAGER_ERROR,
    VM_PAGER_FAIL,
    VM_PAGER_OK,
)


def as_daemon(p, body, timeout=20.0):
    """Run *body* in the thread that the swap pager takes for the page-out daemon."""

    def main():
        p.vm.pageout.pagethread = p.k.curthread()
        body()

    p.run(main, timeout=timeout)


def test_write_evict_read_back(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 8)
        for i in range(8):
            p.page(obj, i, {0: 100 + i})
        assert p.flush(obj, range(8)) == 8
        assert obj.type == OBJT_SWAP
        for i in range(8):
            p.evict(obj, i)
        for i in range(8):
            assert p.read(obj, i) == (VM_PAGER_OK, {0: 100 + i})

    p.run(body)
    assert p.vm.swap.blocks_in_use() == 8


def test_page_of_zeros_overwrites_what_the_block_had(paging):
    p = paging(swap_pages=1)

    def body():
        a = p.vm.object.allocate(OBJT_DEFAULT, 1)
        p.page(a, 0, {3: 7})
        p.flush(a, [0])
        p.vm.object.deallocate(a)
        b = p.vm.object.allocate(OBJT_DEFAULT, 1)
        p.page(b, 0, None)
        p.flush(b, [0])
        p.evict(b, 0)
        assert p.read(b, 0) == (VM_PAGER_OK, {})

    p.run(body)


def test_daemon_writes_asynchronously(paging, recorder):
    p = paging(recorder, swap_disk=DiskConfig(latency=20))

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 4)
        pages = [p.page(obj, i, {0: i}) for i in range(4)]
        assert p.flush(obj, range(4)) == 4
        for m in pages:
            assert m.flags & PG_SWAPINPROG
            assert m.busy == 1
            assert m.dirty == 0xFF
        assert obj.paging_in_progress == 4
        p.quiet(obj)
        for m in pages:
            assert m.flags & PG_SWAPPED
            assert not m.flags & PG_SWAPINPROG
            assert m.busy == 0
            assert m.dirty == 0

    as_daemon(p, body)
    (done,) = recorder.of("io_complete")
    assert done[1][0].role == "io"


def test_others_wait_for_their_writes(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
        m = p.page(obj, 0, {0: 1})
        p.flush(obj, [0])
        assert m.flags & PG_SWAPPED
        assert m.busy == 0
        assert obj.paging_in_progress == 0

    p.run(body)


def test_sync_write_error_leaves_page_dirty_and_frees_block(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
        m = p.page(obj, 0, {0: 1})
        p.vm.swap.disk.fail_next("write")
        p.flush(obj, [0])
        assert m.dirty == 0xFF
        assert not m.flags & (PG_SWAPPED | PG_SWAPINPROG)
        assert m.queue - m.pc == p.vm.pq.ACTIVE
        assert p.vm.swap.blocks_in_use() == 0
        assert p.flush(obj, [0]) == 1  # and later it works
        p.evict(obj, 0)
        assert p.read(obj, 0) == (VM_PAGER_OK, {0: 1})

    p.run(body)


def test_async_write_error_finds_the_object_not_held(paging):
    """As in the C: the completion looks the swap up without the object's token, and panics."""
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
        p.page(obj, 0, {0: 1})
        p.vm.swap.disk.fail_next("write")
        p.flush(obj, [0])
        p.quiet(obj)

    with pytest.raises((Panic, AssertionError)):
        as_daemon(p, body)
    assert [panic.code for _, panic in p.k.panics] == ["object-not-held"]


def test_read_error_leaves_page_invalid(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
        p.page(obj, 0, {0: 1})
        p.flush(obj, [0])
        p.evict(obj, 0)
        p.vm.swap.disk.fail_next("read")
        assert p.read(obj, 0)[0] == VM_PAGER_ERROR
        assert len(obj.rb_memq) == 0
        assert p.read(obj, 0) == (VM_PAGER_OK, {0: 1})

    p.run(body)


def test_no_swap_for_a_page_is_fail(paging):
    p = paging()

    def body():
        obj = p.vm.swap.alloc(4096)
        assert p.read(obj, 0)[0] == VM_PAGER_FAIL

    p.run(body)


def test_full_swap_sets_full_and_almost_full_and_space_clears_them(paging):
    p = paging(swap_pages=100)
    swap, glob = p.vm.swap, p.vm.glob
    assert (swap.nswap_lowat, swap.nswap_hiwat) == (4, 6)

    def body():
        obj = p.vm.object.allocate(OBJT_SWAP, 200)
        p.vm.object.hold(obj)
        blocks = [swap.getswapspace(obj, 1) for _ in range(96)]
        assert glob.swap_pager_almost_full == 0
        blocks.append(swap.getswapspace(obj, 1))
        assert (glob.swap_pager_almost_full, glob.swap_pager_full) == (1, 0)
        blocks += [swap.getswapspace(obj, 1) for _ in range(3)]
        assert swap.getswapspace(obj, 1) == SWAPBLK_NONE
        assert glob.swap_pager_full == 2
        for _ in range(3):
            swap.freeswapspace(obj, blocks.pop(), 1)
        assert glob.swap_pager_full == 2
        swap.freeswapspace(obj, blocks.pop(), 1)
        assert (glob.swap_pager_full, glob.swap_pager_almost_full) == (0, 1)
        for _ in range(2):
            swap.freeswapspace(obj, blocks.pop(), 1)
        assert glob.swap_pager_almost_full == 1
        swap.freeswapspace(obj, blocks.pop(), 1)
        assert glob.swap_pager_almost_full == 0
        for blk in blocks:
            swap.freeswapspace(obj, blk, 1)
        p.vm.object.drop(obj)

    p.run(body)
    assert glob.vm_swap_size == 100


def test_full_swap_fails_the_pages_that_get_none(paging):
    p = paging(swap_pages=8)

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 16)
        pages = [p.page(obj, i, {0: i}) for i in range(16)]
        assert p.flush(obj, range(16)) == 8
        assert all(m.busy == 0 for m in pages)
        assert sum(m.dirty == 0 for m in pages) == 8
        assert obj.paging_in_progress == 0

    p.run(body)


def test_swap_goes_with_its_object(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 70)
        for i in (0, 31, 32, 69):
            p.page(obj, i, {0: i})
            p.flush(obj, [i])
        assert obj.swblock_count == 3
        assert [pindex for pindex, _ in p.vm.swap.blocks_of(obj)] == [0, 31, 32, 69]
        p.vm.object.deallocate(obj)

    p.run(body)
    assert p.vm.swap.blocks_in_use() == 0
    assert p.vm.glob.vm_swap_size == p.vm.config.swap_pages


def test_freespace_frees_only_its_range(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 100)
        p.vm.object.hold(obj)
        for i in range(100):
            p.vm.swap.meta_build(obj, i, p.vm.swap.getswapspace(obj, 1))
        p.vm.object.drop(obj)
        p.vm.swap.freespace(obj, 20, 50)
        assert [i for i, _ in p.vm.swap.blocks_of(obj)] == [*range(20), *range(70, 100)]
        assert p.vm.swap.blocks_in_use() == 50
        p.vm.swap.freespace(obj, 0, 1 << 60)
        assert p.vm.swap.blocks_in_use() == 0
        assert obj.swblock_count == 0

    p.run(body)


def test_dirtied_page_gives_its_swap_up(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
        p.page(obj, 0, {0: 1})
        p.flush(obj, [0])
        (m,) = p.busy(obj, [0])
        p.vm.page.dirty(m)
        p.vm.swap.unswapped(m)
        assert not m.flags & PG_SWAPPED
        assert not p.vm.swap.haspage(obj, 0)
        p.vm.page.wakeup(m)

    p.run(body)
    assert p.vm.swap.blocks_in_use() == 0


def test_rewriting_a_page_frees_its_old_block(paging):
    p = paging()

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
        p.page(obj, 0, {0: 1})
        for _ in range(5):
            p.flush(obj, [0])

    p.run(body)
    assert p.vm.swap.blocks_in_use() == 1


def test_many_async_writes_wait_for_buffers(paging):
    p = paging(pages=256, swap_disk=DiskConfig(latency=2, queue_depth=1))

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 100)
        pages = [p.page(obj, i, {0: i}) for i in range(100)]
        for i in range(100):
            p.flush(obj, [i])
        p.quiet(obj)
        assert all(m.flags & PG_SWAPPED for m in pages)
        assert p.k.curthread().cnt["getpbuf_kva:wait"] > 0

    as_daemon(p, body)
    assert p.vm.swap.nsw_wcount_async.count == 4


def test_second_writer_hangs_with_one_async_buffer(paging):
    """As in the C: relpbuf wakes at the second free buffer, which a limit of one never has."""
    p = paging(swap_disk=DiskConfig(latency=2))
    swap = p.vm.swap
    swap.swap_async_max = 1

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 2)
        p.page(obj, 0, {0: 0})
        p.page(obj, 1, {0: 1})
        p.flush(obj, [0])
        p.flush(obj, [1])

    with pytest.raises(AssertionError):
        as_daemon(p, body, timeout=1.0)
    (sleeper,) = [s for s in p.k.sleep.sleepers() if s.wmesg == "wswbuf2"]
    assert sleeper.cond()
    assert swap.nsw_wcount_async.count == 1


def test_burst_read_brings_neighbours_in(paging):
    p = paging()
    p.vm.swap.swap_burst_read = True

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 8)
        for i in range(8):
            p.page(obj, i, {0: i})
        p.flush(obj, range(8))
        for i in range(8):
            p.evict(obj, i)
        assert p.read(obj, 2) == (VM_PAGER_OK, {0: 2})
        p.quiet(obj)
        assert [m.pindex for m in obj.rb_memq] == list(range(2, 8))
        assert all(m.valid == 0xFF and not m.dirty for m in obj.rb_memq)
        p.vm.object.deallocate(obj)

    p.run(body)
