"""Shadow chains: who sees which page, and what collapse and bypass leave of them."""

import random

import pytest

from smpvm.config import PAGE_SIZE, DiskConfig
from smpvm.vm.param import (
    OBJ_ONEMAPPING,
    OBJ_ONSHADOW,
    OBJT_DEFAULT,
    OBJT_SWAP,
    VM_PAGER_OK,
)


@pytest.fixture
def p(paging):
    return paging(pages=256)


def referenced(p, obj):
    p.vm.object.hold(obj)
    p.vm.object.reference_locked(obj)
    p.vm.object.drop(obj)
    return obj


def shadow_of(p, back, pages, offset=0):
    """A shadow, by a second owner of *back* (who gives his reference to it)."""
    referenced(p, back)
    front, at = p.vm.object.shadow(back, offset * PAGE_SIZE, pages, False)
    assert at == 0
    return front


def collapse(p, obj):
    objects = p.vm.object
    objects.hold(obj)
    objects.chain_acquire(obj)
    objects.collapse(obj)
    objects.chain_release(obj)
    objects.drop(obj)


def view(p, obj, pages):
    """What a process would see: page by page down the chain, swap included."""
    seen = []
    for pindex in range(pages):
        at, i = obj, pindex
        while at is not None:
            m = at.rb_memq.lookup(i)
            if m is not None:
                seen.append(dict(m.contents or {}))
                break
            if at.type == OBJT_SWAP and p.vm.swap.haspage(at, i):
                status, words = p.read(at, i)
                assert status == VM_PAGER_OK
                seen.append(words)
                break
            i += at.backing_object_offset // PAGE_SIZE
            at = at.backing_object
        else:
            seen.append({})
    return seen


def test_an_unshared_source_needs_no_shadow(p):
    objects = p.vm.object
    obj = objects.allocate(OBJT_DEFAULT, 4)
    assert objects.shadow(obj, PAGE_SIZE, 4, False) == (obj, PAGE_SIZE)
    assert obj.ref_count == 1
    assert objects.shadow(obj, 0, 4, True) == (obj, 0)
    assert obj.ref_count == 2
    assert not obj.flags & OBJ_ONEMAPPING


def test_shadow_without_source(p):
    obj, at = p.vm.object.shadow(None, 8 * PAGE_SIZE, 2, False)
    assert (obj.size, obj.backing_object, at) == (2, None, 0)


def test_shadow_inherits_the_reference(p):
    back = p.vm.object.allocate(OBJT_DEFAULT, 4)
    front = shadow_of(p, back, 2, 1)
    assert (back.ref_count, back.shadow_count, front.ref_count) == (2, 1, 1)
    assert front.flags & OBJ_ONSHADOW
    assert front.backing_object is back
    assert front.backing_object_offset == PAGE_SIZE
    assert not back.flags & OBJ_ONEMAPPING


def test_shadow_with_a_second_reference(p):
    back = referenced(p, p.vm.object.allocate(OBJT_DEFAULT, 4))
    front, _ = p.vm.object.shadow(back, 0, 4, True)
    assert front.ref_count == 2
    assert not front.flags & OBJ_ONEMAPPING


def test_last_other_reference_going_collapses(p, audit):
    objects = p.vm.object
    back = objects.allocate(OBJT_DEFAULT, 6)

    def body():
        for i in range(6):
            p.page(back, i, {0: i})
        front = shadow_of(p, back, 3, 2)
        p.page(front, 1, {0: 100})
        before = view(p, front, 3)
        assert before == [{0: 2}, {0: 100}, {0: 4}]
        objects.deallocate(back)
        assert back.zfreed
        assert front.backing_object is None
        assert view(p, front, 3) == before
        assert front.resident_page_count == 3
        assert objects.collapses == 1
        objects.deallocate(front)
        assert front.zfreed

    p.run(body)
    assert p.vm.stats.v_free_count == 256
    audit(p.vm)


def test_collapse_moves_swap_up(p):
    objects = p.vm.object
    back = objects.allocate(OBJT_DEFAULT, 6)

    def body():
        for i in range(6):
            p.page(back, i, {0: i})
        p.flush(back, range(6))
        for i in range(6):
            p.evict(back, i)
        front = shadow_of(p, back, 3, 2)
        p.page(front, 1, {0: 100})
        p.flush(front, [1])
        p.evict(front, 1)
        objects.deallocate(back)
        assert front.type == OBJT_SWAP
        assert [i for i, _ in p.vm.swap.blocks_of(front)] == [0, 1, 2]
        assert p.vm.swap.blocks_in_use() == 3
        assert view(p, front, 3) == [{0: 2}, {0: 100}, {0: 4}]
        objects.deallocate(front)

    p.run(body)
    assert p.vm.swap.blocks_in_use() == 0


def test_bypass_of_a_backing_object_that_is_hidden(p):
    objects = p.vm.object
    bottom = objects.allocate(OBJT_DEFAULT, 2)

    def body():
        for i in range(2):
            p.page(bottom, i, {0: i})
        middle = shadow_of(p, bottom, 2)
        p.page(middle, 0, {0: 10})
        top = shadow_of(p, middle, 2)
        p.page(top, 0, {0: 20})
        collapse(p, top)
        assert top.backing_object is bottom
        assert objects.bypasses == 1
        assert (bottom.shadow_count, middle.shadow_count) == (2, 0)
        assert middle.ref_count == 1
        assert bottom.ref_count == 3
        assert view(p, top, 2) == [{0: 20}, {0: 1}]
        assert view(p, middle, 2) == [{0: 10}, {0: 1}]
        for obj in (top, middle, bottom):
            objects.deallocate(obj)
        assert bottom.zfreed

    p.run(body)


def test_no_bypass_when_something_shows(p):
    objects = p.vm.object

    def body():
        back = objects.allocate(OBJT_DEFAULT, 2)
        p.page(back, 0, {0: 0})
        p.page(back, 1, {0: 1})
        front = shadow_of(p, back, 2)
        p.page(front, 0, {0: 9})
        collapse(p, front)
        assert front.backing_object is back
        assert back.ref_count == 2

    p.run(body)


def test_collapse_while_io_goes_on_moves_what_is_not_busy(paging):
    p = paging(pages=128, swap_disk=DiskConfig(latency=20))
    objects = p.vm.object

    def body():
        p.vm.pageout.pagethread = p.k.curthread()
        back = objects.allocate(OBJT_DEFAULT, 2)
        p.page(back, 0, {0: 0})
        p.page(back, 1, {0: 1})
        front = shadow_of(p, back, 2)
        p.flush(back, [0])
        back.ref_count -= 1
        collapse(p, front)
        assert [m.pindex for m in front.rb_memq] == [1]
        assert [m.pindex for m in back.rb_memq] == [0]
        assert back.ref_count == 1
        p.quiet(back)
        collapse(p, front)
        assert back.zfreed
        assert view(p, front, 2) == [{0: 0}, {0: 1}]
        objects.deallocate(front)

    p.run(body)
    assert p.vm.swap.blocks_in_use() == 0


def test_shadow_of_a_file_keeps_its_vnode(p):
    objects = p.vm.object
    vp = p.vm.vnode_pager.new_file(4 * PAGE_SIZE)

    def body():
        obj = p.vm.vnode_pager.reference(vp)
        front, _ = objects.shadow(obj, PAGE_SIZE, 2, False)
        assert obj.shadow_count == 0
        assert not front.flags & OBJ_ONSHADOW
        assert (obj.ref_count, vp.v_refcnt) == (1, 2)
        top = shadow_of(p, front, 2)
        p.page(top, 0, {0: 1})
        objects.deallocate(front)  # front is collapsed into top
        assert top.backing_object is obj
        assert top.backing_object_offset == PAGE_SIZE
        objects.deallocate(top)
        assert (obj.ref_count, vp.v_refcnt) == (0, 1)

    p.run(body)


def test_a_long_chain_goes_in_one_deallocation(p):
    objects = p.vm.object

    def body():
        at = objects.allocate(OBJT_DEFAULT, 2)
        chain = [at]
        for i in range(50):
            p.page(at, i % 2, {0: i})
            nxt, _ = objects.shadow(referenced(p, at), 0, 2, False)
            at = nxt
            chain.append(at)
        for obj in chain[:-1]:
            objects.deallocate(obj)
        objects.deallocate(at)
        assert all(obj.zfreed for obj in chain)

    p.run(body)
    assert p.vm.stats.v_free_count == 256


def test_coalesce_extends_the_last_part(p):
    objects = p.vm.object

    def body():
        obj = objects.allocate(OBJT_DEFAULT, 4)
        assert objects.coalesce(None, 0, 0, 0)
        assert objects.coalesce(obj, 0, 4 * PAGE_SIZE, 2 * PAGE_SIZE)
        assert obj.size == 6
        referenced(p, obj)
        assert not objects.coalesce(obj, 0, 2 * PAGE_SIZE, PAGE_SIZE)
        assert objects.coalesce(obj, 0, 6 * PAGE_SIZE, PAGE_SIZE)
        assert obj.size == 7
        p.page(obj, 0, {0: 1})
        assert not objects.coalesce(shadow_of(p, obj, 2), 0, 2 * PAGE_SIZE, PAGE_SIZE)

    p.run(body)


def test_coalesce_throws_stale_pages_away(p):
    objects = p.vm.object

    def body():
        obj = objects.allocate(OBJT_DEFAULT, 4)
        for i in range(4):
            p.page(obj, i, {0: i})
        p.flush(obj, range(4))
        assert objects.coalesce(obj, 0, 2 * PAGE_SIZE, 3 * PAGE_SIZE)
        assert obj.size == 5
        assert [m.pindex for m in obj.rb_memq] == [0, 1]
        assert [i for i, _ in p.vm.swap.blocks_of(obj)] == [0, 1]

    p.run(body)


@pytest.mark.parametrize("seed", range(3))
def test_collapse_against_pageout_loses_nothing(paging, seed, audit):
    """Forks come and go while a daemon writes and frees pages: all must see what was written."""
    p = paging(pages=256, swap_disk=DiskConfig(latency=1))
    objects, page = p.vm.object, p.vm.page
    rnd = random.Random(seed)
    pages = 16
    live = []
    stop = []

    def daemon():
        p.vm.pageout.pagethread = p.k.curthread()
        pick = random.Random(seed + 100)
        while not stop:
            m = pick.choice(p.vm.page_array)
            if m.object is None:
                continue
            if page.busy_try(m, True):
                continue
            if m.object is None or m.object not in live or m.wire_count or not m.valid:
                page.wakeup(m)
            elif m.dirty:
                p.vm.pageout.clean(m)
            else:
                page.protect(m, 0)
                page.free(m)

    def forks():
        obj = objects.allocate(OBJT_DEFAULT, pages)
        live.append(obj)
        truth = [{} for _ in range(pages)]
        for step in range(60):
            back = obj
            referenced(p, back)
            obj, _ = objects.shadow(back, 0, pages, False)
            live.append(obj)
            for _ in range(4):
                i = rnd.randrange(pages)
                objects.hold(obj)
                if obj.rb_memq.lookup(i) is None and not p.vm.pager.has_page(obj, i):
                    truth[i] = {0: step * 100 + i}
                    p.page(obj, i, truth[i])
                objects.drop(obj)
            objects.deallocate(back)
            if back.zfreed:
                live.remove(back)
        stop.append(True)
        p.quiet(obj)
        for o in list(live):
            p.quiet(o)
        assert view(p, obj, pages) == truth
        objects.deallocate(obj)

    p.run(forks, daemon, timeout=60)
    assert [o for o in live if not o.zfreed] == []
    assert p.vm.swap.blocks_in_use() == 0
    assert p.vm.stats.v_free_count == 256
    audit(p.vm)
