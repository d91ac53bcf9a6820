import pytest

from smpvm.kern.refcount import REFCNTF_WAITING
from smpvm.kern.shared import shared
from smpvm.kern.thread import Panic
from smpvm.kern.tsleep import Addr


@shared("n")
class Counted:
    __slots__ = ("n",)

    def __init__(self, n=0):
        self.n = n

    def __str__(self):
        return "object 4"


def test_the_last_release_says_so(k):
    c = k.new(Counted)
    r = k.refcount
    r.init(c, "n", 1)
    r.acquire(c, "n")
    r.acquire_n(c, "n", 3)
    assert c.n == 5
    assert not r.release(c, "n")
    assert not r.release_n(c, "n", 3)
    assert r.release(c, "n")
    r.acquire_n(c, "n", 2)
    assert r.release_n(c, "n", 2)


def test_concurrent_counts_add_up(bench, k):
    c = k.new(Counted, 1)

    def body():
        for _ in range(3000):
            k.refcount.acquire(c, "n")
            k.refcount.release_wakeup(c, "n")

    bench.run(k, *[body] * 4)
    assert c.n == 1


def test_wait_sleeps_until_the_count_is_zero(bench, k):
    c = k.new(Counted, 3)
    seen = []
    td = k.spawn("w", lambda: (k.refcount.wait(c, "n", "objtrm"), seen.append(c.n)))
    bench.until(lambda: td.sleeper is not None and td.sleeper.asleep)
    assert c.n == 3 | REFCNTF_WAITING
    assert td.sleeper.ident == Addr(c, "n")
    assert td.wmesg == "objtrm"
    assert not td.sleeper.cond()
    assert not k.refcount.release_wakeup(c, "n")
    assert not seen
    assert k.refcount.release_wakeup_n(c, "n", 2)
    bench.finish(k)
    assert seen == [0]


def test_wait_returns_at_once_for_zero(k):
    k.refcount.wait(k.new(Counted), "n", "x")


def test_a_plain_release_does_not_wake(bench, k):
    c = k.new(Counted, 1)
    td = k.spawn("w", lambda: k.refcount.wait(c, "n", "x"))
    bench.until(lambda: td.sleeper is not None and td.sleeper.asleep)
    assert not k.refcount.release(c, "n")  # the WAITING bit hides that it was the last
    assert c.n == REFCNTF_WAITING
    with pytest.raises(Panic, match="refcount-illegal"):
        k.refcount.release_wakeup(c, "n")
