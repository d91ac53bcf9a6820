"""Objects: holds and references, chain locks, termination, removal, cleaning, madvise."""

import pytest

from smpvm.config import PAGE_SIZE, DiskConfig
from smpvm.kern.thread import Panic
from smpvm.vm.page.pages import PG_CLEANCHK
from smpvm.vm.param import (
    CHAINLK_EXCL,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    OBJ_DEAD,
    OBJ_MIGHTBEDIRTY,
    OBJ_ONEMAPPING,
    OBJ_WRITEABLE,
    OBJPC_SYNC,
    OBJT_DEFAULT,
    OBJT_PHYS,
    OBJT_SWAP,
)


@pytest.fixture
def p(paging):
    return paging(pages=128)


# -- holds and references


def test_last_drop_of_a_dead_object_frees_it(paging, recorder):
    p = paging(recorder)
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)
    objects.hold(obj)
    objects.deallocate_locked(obj)
    assert obj.flags & OBJ_DEAD
    assert not obj.zfreed
    objects.drop(obj)
    assert obj.zfreed
    assert [f["object"] for _, a, f in recorder.of("call") if a[1] == "object_zfree"] == [obj]
    assert obj not in objects.all_objects()


def test_hold_try_fails_while_another_has_the_token(p):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)
    objects.hold(obj)
    got = []
    p.run(lambda: got.append(objects.hold_try(obj)))
    assert got == [False]
    assert obj.hold_count == 1
    objects.drop(obj)

    def body():
        got.append(objects.hold_try(obj))
        objects.drop(obj)

    p.run(body)
    assert got == [False, True]


def test_too_many_deallocations_panic(p):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)
    objects.hold(obj)
    objects.deallocate_locked(obj)
    with pytest.raises(Panic, match="dealloc-too-often"):
        objects.deallocate_locked(obj)
    objects.drop(obj)


@pytest.mark.parametrize("refs", [1, 2, 3, 4, 5, 9])
def test_every_reference_is_given_back(p, refs):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)
    for _ in range(refs - 1):
        objects.hold(obj)
        objects.reference_locked(obj)
        objects.drop(obj)
    for left in range(refs - 1, -1, -1):
        assert not obj.zfreed
        objects.deallocate(obj)
        assert obj.ref_count == left
    assert obj.zfreed


def test_second_last_reference_makes_it_mapped_once(p):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)
    objects.hold(obj)
    objects.reference_locked(obj)
    objects.clear_flag(obj, OBJ_ONEMAPPING)
    objects.drop(obj)
    objects.deallocate(obj)
    assert obj.flags & OBJ_ONEMAPPING


def test_need_of_the_token_is_checked(p):
    obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
    with pytest.raises(Panic, match="object-not-held"):
        p.vm.object.reference_locked(obj)


# -- the chain lock


def test_exclusive_chain_lock_waits_for_shared_owners(p):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)
    order = []

    def shared():
        objects.hold(obj)
        objects.chain_acquire(obj, True)
        order.append("shared")
        p.k.sleep.tsleep("test", 0, "test", 20)
        order.append("released")
        objects.chain_release(obj)
        objects.drop(obj)

    def excl():
        while not order:
            p.k.sched.lwkt_yield()
        objects.hold(obj)
        objects.chain_acquire(obj)
        order.append("excl")
        objects.chain_release(obj)
        objects.drop(obj)

    p.run(shared, excl)
    assert order == ["shared", "released", "excl"]
    assert obj.chainlk == 0


def test_chain_lock_counts_many(p):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)
    inside, worst = [], []

    def body():
        for i in range(30):
            objects.hold(obj)
            objects.chain_acquire(obj, i % 3 != 0)
            excl = bool(obj.chainlk & CHAINLK_EXCL)
            inside.append(excl)
            if excl and len(inside) != 1:
                worst.append(list(inside))
            p.k.sched.lwkt_yield()
            inside.remove(excl)
            objects.chain_release(obj)
            objects.drop(obj)

    p.run(body, body, body)
    assert worst == []
    assert obj.chainlk == 0


def test_releasing_an_unlocked_chain_panics(p):
    obj = p.vm.object.allocate(OBJT_DEFAULT, 1)
    with pytest.raises(Panic, match="chain-not-locked"):
        p.vm.object.chain_release(obj)


# -- the end


def test_termination_waits_for_io(paging):
    p = paging(swap_disk=DiskConfig(latency=20))
    seen = []

    def body():
        p.vm.pageout.pagethread = p.k.curthread()
        obj = p.vm.object.allocate(OBJT_DEFAULT, 4)
        for i in range(4):
            p.page(obj, i, {0: i})
        p.flush(obj, range(4))
        seen.append(obj)
        assert obj.paging_in_progress == 4
        p.vm.object.deallocate(obj)
        assert obj.paging_in_progress == 0
        assert len(obj.rb_memq) == 0

    p.run(body)
    assert seen[0].zfreed
    assert p.vm.swap.blocks_in_use() == 0


def test_termination_frees_pages_and_disowns_wired_ones(p, audit):
    obj = p.vm.object.allocate(OBJT_DEFAULT, 3)

    def body():
        for i in range(3):
            p.page(obj, i)
        (m,) = p.busy(obj, [1])
        p.vm.page.wire(m)
        p.vm.page.wakeup(m)
        before = p.vm.stats.v_free_count
        p.vm.object.deallocate(obj)
        assert p.vm.stats.v_free_count == before + 2
        assert m.object is None
        assert m.wire_count == 1

    p.run(body)
    audit(p.vm)


# -- removal


def test_page_remove_takes_a_range_and_its_swap(p):
    obj = p.vm.object.allocate(OBJT_DEFAULT, 10)

    def body():
        for i in range(10):
            p.page(obj, i, {0: i})
        p.flush(obj, range(10))
        p.vm.object.page_remove(obj, 3, 6, False)

    p.run(body)
    rest = [0, 1, 2, 6, 7, 8, 9]
    assert [m.pindex for m in obj.rb_memq] == rest
    assert [i for i, _ in p.vm.swap.blocks_of(obj)] == rest
    assert obj.paging_in_progress == 0


def test_page_remove_of_clean_pages_keeps_dirty_and_swap(p):
    obj = p.vm.object.allocate(OBJT_DEFAULT, 2)

    def body():
        p.page(obj, 0, {0: 0})
        p.page(obj, 1, {0: 1})
        p.flush(obj, [0])
        p.vm.object.page_remove(obj, 0, 0, True)

    p.run(body)
    assert [m.pindex for m in obj.rb_memq] == [1]
    assert [i for i, _ in p.vm.swap.blocks_of(obj)] == [0]


def test_page_remove_invalidates_wired_pages(p):
    obj = p.vm.object.allocate(OBJT_DEFAULT, 1)

    def body():
        m = p.page(obj, 0)
        p.busy(obj, [0])
        p.vm.page.wire(m)
        p.vm.page.wakeup(m)
        p.vm.object.page_remove(obj, 0, 0, True)
        assert m.valid == 0xFF
        p.vm.object.page_remove(obj, 0, 0, False)
        assert m.valid == 0
        assert m.object is obj

    p.run(body)


def test_page_remove_refuses_phys(p):
    obj = p.vm.pager.phys_alloc(1)

    def body():
        m = p.page(obj, 0)
        assert m.object is obj
        p.vm.object.page_remove(obj, 0, 0, False)

    with pytest.raises(Panic, match="page-remove-phys"):
        p.run(body)


# -- cleaning


def file_with(p, pages):
    vp = p.vm.vnode_pager.new_file(pages * PAGE_SIZE)
    p.run(lambda: [p.page(vp.v_object, i, {0: i}) for i in range(pages)])
    return vp, vp.v_object


def test_whole_clean_writes_everything_and_takes_it_off_the_record(p):
    vp, obj = file_with(p, 40)
    assert obj.flags & OBJ_MIGHTBEDIRTY
    p.run(lambda: p.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC))
    assert sorted(vp.data.blocks) == list(range(40))
    assert not obj.flags & (OBJ_MIGHTBEDIRTY | OBJ_WRITEABLE)
    assert all(m.dirty == 0 and m.busy == 0 for m in obj.rb_memq)
    assert not any(m.flags & PG_CLEANCHK for m in obj.rb_memq)


def test_clean_clusters_do_not_cross_32(paging, recorder):
    p = paging(recorder, pages=128)
    _, obj = file_with(p, 40)
    p.run(lambda: p.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC))
    sizes = [len(f["pages"]) for _, a, f in recorder.of("call") if a[1] == "put_pages"]
    assert sizes == [32, 8]


def test_cleaning_a_part_does_nothing(p):
    """As in the C: only a scan of the whole object marks pages, and only marked ones go."""
    vp, obj = file_with(p, 4)
    p.run(lambda: p.vm.object.page_clean(obj, 0, 2, OBJPC_SYNC))
    assert vp.data.blocks == {}
    assert all(m.dirty for m in obj.rb_memq)


def test_a_busy_page_keeps_the_object_on_the_record(p):
    vp, obj = file_with(p, 2)
    (m,) = p.busy(obj, [1])

    def release():
        while obj.rb_memq.lookup(0).dirty:
            p.k.sched.lwkt_yield()
        p.vm.page.wakeup(m)

    p.run(lambda: p.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC), release)
    assert sorted(vp.data.blocks) == [0, 1]
    assert obj.flags & OBJ_MIGHTBEDIRTY


def test_only_files_are_cleaned(p):
    obj = p.vm.object.allocate(OBJT_DEFAULT, 1)

    def body():
        m = p.page(obj, 0)
        p.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC)
        assert m.dirty

    p.run(body)


# -- madvise


def test_willneed_activates_through_the_chain(p):
    objects = p.vm.object

    def body():
        back = objects.allocate(OBJT_DEFAULT, 4)
        m = p.page(back, 2)
        objects.hold(back)
        objects.reference_locked(back)
        objects.drop(back)
        front, _ = objects.shadow(back, PAGE_SIZE, 2, False)
        objects.madvise(front, 0, 2, MADV_WILLNEED)
        assert m.queue - m.pc == p.vm.pq.ACTIVE

    p.run(body)


def test_free_cleans_and_drops_swap(p):
    objects = p.vm.object

    def body():
        obj = objects.allocate(OBJT_DEFAULT, 2)
        m = p.page(obj, 0, {0: 1})
        p.page(obj, 1, {0: 2})
        p.flush(obj, [0, 1])
        p.evict(obj, 1)
        p.vm.page.activate(m)
        objects.madvise(obj, 0, 2, MADV_FREE)
        assert (m.dirty, m.act_count) == (0, 0)

    p.run(body)
    assert p.vm.swap.blocks_in_use() == 0


def test_free_leaves_a_shared_object_alone(p):
    objects = p.vm.object

    def body():
        obj = objects.allocate(OBJT_SWAP, 1)
        m = p.page(obj, 0, {0: 1})
        objects.clear_flag(obj, OBJ_ONEMAPPING)
        objects.madvise(obj, 0, 1, MADV_FREE)
        assert m.dirty

    p.run(body)


def test_advice_skips_wired_and_invalid_pages(p):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 1)

    def body():
        m = p.page(obj, 0)
        m.valid = 0x0F
        for advice in (MADV_WILLNEED, MADV_DONTNEED, MADV_FREE):
            objects.madvise(obj, 0, 1, advice)
        assert m.queue - m.pc == p.vm.pq.INACTIVE
        assert m.dirty

    p.run(body)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda p: p.vm.pager.device_alloc("dev", 1), "device-pager-put"),
        (lambda p: p.vm.pager.device_alloc("dev", 1, managed=True), "device-pager-put"),
        (lambda p: p.vm.pager.phys_alloc(1), "phys-pager-put"),
    ],
)
def test_writing_to_devices_panics(p, make, code):
    obj = make(p)
    assert obj.type != OBJT_PHYS or p.vm.pager.has_page(obj, 0)
    with pytest.raises(Panic, match=code):
        p.vm.pager.put_pages(obj, [], 0)


def test_the_end_of_a_large_object_offers_the_cpu(paging, monkeypatch):
    """vm_object_terminate_callback yields at every 64th page (vm_object.c:1256)."""
    p = paging(pages=256)
    offers = []
    monkeypatch.setattr(p.k.sched, "lwkt_user_yield", lambda: offers.append(1))

    def body():
        obj = p.vm.object.allocate(OBJT_DEFAULT, 130)
        for i in range(130):
            p.page(obj, i, dirty=False)
        p.vm.object.deallocate(obj)

    p.run(body)
    assert len(offers) == 2
