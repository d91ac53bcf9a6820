"""The device model: latency, requests in service, errors, completion in the device's thread."""

import pytest

from smpvm.config import DiskConfig
from smpvm.kern.errno import EIO
from smpvm.vm.page.pages import Page
from smpvm.vm.pager.disk import READ, WRITE, Disk, Io, Slots


@pytest.fixture
def disk(paging):
    made = []

    def make(*observers, seed=0, **config):
        p = paging(*observers)
        d = p.k.new(Disk, p.k, "test", DiskConfig(**config), seed)
        made.append((p, d))
        return p, d

    return make


def page(words=None):
    m = Page(0)
    m.contents = words
    return m


def test_write_and_read_move_the_words(disk):
    p, d = disk()
    store = {}

    def body():
        out = Io(p.k, WRITE, store, 7, [page({1: 2}), page(None)])
        d.strategy(out)
        assert d.biowait(out, "test") == 0
        m, z = page(), page({9: 9})
        back = Io(p.k, READ, store, 7, [m, z])
        d.strategy(back)
        assert d.biowait(back, "test") == 0
        assert m.contents == {1: 2}
        assert not z.contents

    p.run(body)
    assert store == {7: {1: 2}}


def test_what_is_written_is_a_copy(disk):
    p, d = disk()
    store, m = {}, page({1: 1})

    def body():
        io = Io(p.k, WRITE, store, 0, [m])
        d.strategy(io)
        d.biowait(io, "test")
        m.contents[1] = 2

    p.run(body)
    assert store == {0: {1: 1}}


def test_latency_passes(disk):
    p, d = disk(latency=10)

    def body():
        start = p.k.clock.ticks()
        io = Io(p.k, WRITE, {}, 0, [page()])
        d.strategy(io)
        assert not io.biodone
        d.biowait(io, "test")
        assert p.k.clock.ticks() - start >= 10

    p.run(body)


def elapsed(p, d, n):
    took = []

    def body():
        start = p.k.clock.ticks()
        ios = [Io(p.k, WRITE, {}, i, [page()]) for i in range(n)]
        for io in ios:
            d.strategy(io)
        for io in ios:
            d.biowait(io, "test")
        took.append(p.k.clock.ticks() - start)

    p.run(body)
    return took[0]


def test_queue_depth_limits_what_is_in_service(disk):
    assert elapsed(*disk(latency=40, queue_depth=1), 4) >= 160
    assert elapsed(*disk(latency=40, queue_depth=8), 4) < 160


def test_named_operations_fail(disk):
    p, d = disk()
    store = {0: {0: 5}}
    d.fail_next("read", "read")
    errors = []

    def body():
        for cmd in (WRITE, READ, READ, READ):
            m = page({0: 5})
            io = Io(p.k, cmd, store, 0, [m])
            d.strategy(io)
            errors.append(d.biowait(io, "test"))

    p.run(body)
    assert errors == [0, EIO, EIO, 0]


def test_a_failed_request_moves_nothing(disk):
    p, d = disk()
    store, m = {}, page({1: 1})
    d.fail_next("write")

    def body():
        io = Io(p.k, WRITE, store, 0, [m])
        d.strategy(io)
        d.biowait(io, "test")

    p.run(body)
    assert store == {}


def outcomes(p, d, n=60):
    errors = []

    def body():
        for i in range(n):
            io = Io(p.k, WRITE, {}, i, [page()])
            d.strategy(io)
            errors.append(d.biowait(io, "test"))

    p.run(body)
    return errors


def test_errors_by_rate_come_from_the_seed(disk):
    first = outcomes(*disk(seed=3, latency=0, error_rate=0.5))
    assert first == outcomes(*disk(seed=3, latency=0, error_rate=0.5))
    assert first != outcomes(*disk(seed=4, latency=0, error_rate=0.5))
    assert 0 < sum(e == EIO for e in first) < 60


def test_done_runs_in_the_thread_of_the_device(disk, recorder):
    p, d = disk(recorder)
    who = []

    def body():
        io = Io(p.k, WRITE, {}, 0, [page()], lambda io: who.append(p.k.curthread()))
        d.strategy(io)
        d.biowait(io, "test")

    p.run(body)
    assert who == [d.thread]
    assert who[0].role == "io"
    assert [name for name, _, _ in recorder.of("io_submit", "io_complete")] == [
        "io_submit",
        "io_complete",
    ]


def test_owner_of_a_pending_request_is_the_device(disk):
    p, d = disk(latency=50)

    def body():
        io = Io(p.k, WRITE, {}, 0, [page()])
        d.strategy(io)
        assert io.owners() == [d.thread]
        assert d.pending() == [io]
        d.biowait(io, "test")
        assert io.owners() == []
        assert d.pending() == []

    p.run(body)


def test_slots_let_as_many_in_as_there_are(disk):
    p, d = disk(latency=20)
    slots = p.k.new(Slots, p.k, "slots", 2, lambda old: old == 0)

    def body():
        ios = [Io(p.k, WRITE, {}, i, [page()], slots.relpbuf) for i in range(6)]
        for io in ios:
            slots.getpbuf(io)
            d.strategy(io)
            assert slots.count >= 0
            assert d.thread in slots.owners()
        for io in ios:
            d.biowait(io, "test")

    p.run(body)
    assert slots.count == 2
    assert not slots.users
