"""The repairs of the pagers and of page_clean fix their defects."""

from smpvm.config import PAGE_SIZE, DiskConfig
from smpvm.repairs.msync import MsyncRange
from smpvm.repairs.swap import BufferWakeup, SwapErrorHold
from smpvm.vm.param import OBJ_MIGHTBEDIRTY, OBJPC_SYNC, OBJT_DEFAULT


def as_daemon(p, body):
    def main():
        p.vm.pageout.pagethread = p.k.curthread()
        body()

    p.run(main)


def test_failed_asynchronous_write_leaves_the_page_dirty(paging):
    p = paging(classes={"swap": SwapErrorHold})

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
        m = p.page(obj, 0, {0: 1})
        p.vm.swap.disk.fail_next("write")
        p.flush(obj, [0])
        p.quiet(obj)
        assert m.dirty == 0xFF
        assert m.busy == 0
        assert p.vm.swap.blocks_in_use() == 0

    as_daemon(p, body)


def test_one_buffer_is_enough(paging):
    p = paging(classes={"swap": BufferWakeup}, swap_disk=DiskConfig(latency=2))
    p.vm.swap.swap_async_max = 1

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 6)
        for i in range(6):
            p.page(obj, i, {0: i})
            p.flush(obj, [i])
        p.quiet(obj)

    as_daemon(p, body)


def test_a_part_of_a_file_is_written(paging):
    p = paging(classes={"object": MsyncRange})
    vp = p.vm.vnode_pager.new_file(6 * PAGE_SIZE)
    obj = vp.v_object
    p.run(lambda: [p.page(obj, i, {0: i}) for i in range(6)])
    p.run(lambda: p.vm.object.page_clean(obj, 2, 4, OBJPC_SYNC))
    assert sorted(vp.data.blocks) == [2, 3]
    assert obj.flags & OBJ_MIGHTBEDIRTY
    p.run(lambda: p.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC))
    assert sorted(vp.data.blocks) == list(range(6))
    assert not obj.flags & OBJ_MIGHTBEDIRTY
