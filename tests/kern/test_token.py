import sys

import pytest

from smpvm.kern.thread import Misuse
from smpvm.kern.token import Token, TokRef
from smpvm.kern.tsleep import PINTERLOCKED, Ident


def test_exclusive_recursion_is_counted(bench, k):
    t = Token(k, "object", "object 4")
    t.get()
    t.get()
    t.get_shared()
    assert t.try_()
    assert t.held_excl()
    assert len(k.boot.toks) == 4
    for _ in range(3):
        t.release()
        assert t.owner is k.boot
    t.release()
    assert t.owner is None
    assert t.count == 0
    assert not t.held()
    assert str(t) == "token object object 4"


def test_shared_holders_share_and_keep_exclusive_out(bench, k):
    t = Token(k, "object")
    t.get_shared()
    seen = []
    bench.run(k, lambda: (t.get_shared(), seen.append(t.count), seen.append(t.try_()), t.release()))
    assert seen == [2, False]
    writer = k.spawn("writer", lambda: (t.get(), seen.append("excl"), t.release()))
    bench.until(lambda: writer.waiting is t)
    assert t.exclreq
    assert t.owners() == [k.boot]
    reader = k.spawn("reader", lambda: (t.get_shared(), seen.append("shared"), t.release()))
    bench.until(lambda: reader.exited)  # TOK_EXCLREQ keeps no shared request out at this commit
    t.release()
    bench.finish(k)
    assert seen == [2, False, "shared", "excl"]
    assert not t.exclreq


def test_try_fails_on_a_foreign_token(bench, k):
    t = Token(k, "object")
    t.get()
    seen = []
    bench.run(k, lambda: seen.append(t.try_()))
    assert seen == [False]
    t.release()


def test_mutual_exclusion_under_contention(bench, k):
    a, b = Token(k, "a"), Token(k, "b")
    box = [0]
    rounds = 1500

    def body(first, second):
        def run():
            for i in range(rounds):
                first.get()
                second.get()  # either order: tokens cannot deadlock by order
                value = box[0]
                if i % 64 == 0:
                    k.carrier.yield_()
                box[0] = value + 1
                second.release()
                first.release()

        return run

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        bench.collide(
            k,
            lambda: (a.get(), b.get()),
            lambda: (b.release(), a.release()),
            body(a, b),
            body(b, a),
            body(a, b),
        )
    finally:
        sys.setswitchinterval(old)
    assert box[0] == 3 * rounds
    assert k.lock_contention()["a"] + k.lock_contention()["b"] >= 3


def test_all_tokens_are_given_up_while_waiting_for_another(bench, recorder):
    k = bench.kernel(recorder)
    a, b, c = (Token(k, n) for n in "abc")
    c.get()
    seen = []

    def waiter():
        a.get()
        b.get_shared()
        c.get()
        seen.append([a.owner, b.count, c.owner])
        for t in (c, b, a):
            t.release()

    td = k.spawn("waiter", waiter)
    bench.until(lambda: td.waiting is c and td.toks_dropped)
    bench.until(a.try_)  # what it had is free meanwhile
    bench.until(b.try_)
    b.release()
    k.token.swap()
    c.release()
    bench.until(lambda: td.waiting is a)  # it will not run with only some of them
    assert seen == []
    assert c.owner is None
    a.release()
    bench.finish(k)
    assert seen == [[td, 1, td]]
    drops = [a for n, a, _ in recorder.of("token_drop") if a[0] is td]
    regains = [a for n, a, _ in recorder.of("token_regain") if a[0] is td]
    assert [x[1] for x in drops] == [[a, b]]
    assert [x[1] for x in regains] == [[a, b]]


def test_all_tokens_are_given_up_while_asleep(bench, recorder):
    k = bench.kernel(recorder)
    t, ident = Token(k, "object"), Ident("x")
    seen = []

    def sleeper():
        t.get()
        t.get()
        k.sleep.tsleep(ident, 0, "wait", 0)
        seen.append((t.owner, t.count))
        t.release()
        t.release()

    td = k.spawn("sleeper", sleeper)
    bench.until(lambda: td.toks_dropped)
    bench.until(t.try_)
    k.sleep.wakeup(ident)
    bench.until(lambda: td.waiting is t)
    assert seen == []
    t.release()
    bench.finish(k)
    assert seen == [(td, 1)]
    names = [n for n, a, _ in recorder.log if a[0] is td and n.startswith(("token", "sleep"))]
    assert names == ["sleep", "token_drop", "token_regain", "sleep_done"]


def test_released_in_reverse_order_only(k):
    a, b = Token(k, "a"), Token(k, "b")
    a.get()
    b.get()
    with pytest.raises(Misuse) as e:
        a.release()
    assert e.value.code == "token-order"
    b.release()
    a.release()
    with pytest.raises(Misuse) as e:
        a.release()
    assert e.value.code == "wrong-release"


def test_release_by_a_stranger(bench, k):
    t = Token(k, "a")
    t.get()
    k.spawn("stranger", t.release)
    with pytest.raises(Misuse, match="wrong-release"):
        bench.finish(k)


def test_exclusive_after_shared_is_detected(k):
    t = Token(k, "object")
    t.get_shared()
    assert not t.try_()
    with pytest.raises(Misuse) as e:
        t.get()
    assert e.value.code == "token-excl-after-shared"
    t.release()


def test_swap_exchanges_the_two_newest(k):
    a, b = Token(k, "a"), Token(k, "b")
    a.get()
    b.get_shared()
    k.token.swap()
    a.release()
    assert (a.owner, b.count) == (None, 1)
    b.release()
    with pytest.raises(Misuse, match="token-order"):
        k.token.swap()


def test_swap_of_one_token_with_itself_keeps_the_exclusive_bit_below(k):
    a = Token(k, "a")
    a.get()
    a.get()
    k.token.swap()
    a.release()
    assert a.owner is k.boot
    a.release()
    assert a.owner is None


def test_swap_in_a_hand_over_hand_walk_with_recursion(k):
    parent, child = Token(k, "parent"), Token(k, "child")
    parent.get()
    child.get()
    parent.get()
    k.token.swap()  # parent, parent, child
    child.release()
    assert child.owner is None
    parent.release()
    assert parent.owner is k.boot
    parent.release()


def test_all_or_nothing_also_in_the_sorted_variant(bench, k):
    a, b = Token(k, "a"), Token(k, "b")
    bench.run(k, lambda: (b.get(), b.release()))
    a_ref, b_ref = TokRef(a, True), TokRef(b, False)
    stranger = k.make_thread("stranger", lambda: None)
    assert b.try_ref(TokRef(b, True), stranger, False)
    for in_order in (False, True):
        assert k.token.get_all(k.boot, [a_ref, b_ref], in_order) is b
        assert a.owner is None
    assert not k.token.all_free(k.boot, [a_ref, b_ref])
    b.rel_ref(b.ref)
    assert k.token.all_free(k.boot, [a_ref, b_ref])
    assert k.token.get_all(k.boot, [b_ref, a_ref], True) is None
    assert (a.owner, b.count) == (k.boot, 1)


def test_an_interlocked_sleep_that_was_woken_gives_nothing_up(bench, recorder):
    k = bench.kernel(recorder)
    t, ident = Token(k, "object"), Ident("x")
    t.get()
    k.sleep.tsleep_interlock(ident)
    k.sleep.wakeup(ident)
    assert k.sleep.tsleep(ident, PINTERLOCKED, "x", 0) == 0
    assert recorder.of("token_drop") == []
    t.release()


def test_yield_gives_the_tokens_up(bench, recorder):
    k = bench.kernel(recorder)
    t = Token(k, "object")
    t.get()
    k.boot.carrier_data.slice_end = 0.0  # the time slice is over
    k.lwkt_yield()
    assert t.owner is k.boot
    assert [n for n in recorder.names() if n.startswith("token")] == ["token_drop", "token_regain"]
    t.release()


def test_sharers_that_come_and_go_do_not_starve_an_exclusive_request(bench, k):
    a, t = Token(k, "a"), Token(k, "object")
    done, shared = [], [0]

    def sharer():
        while not done:
            a.get_shared()
            t.get_shared()
            for _ in range(500):
                pass
            shared[0] += 1
            t.release()
            a.release()

    def writer():
        for _ in range(20):
            t.get()
            t.release()
        done.append(True)

    bench.run(k, *[sharer] * 6, writer, timeout=20)
    assert shared[0] > 0
