"""Greenlets are reused: for which executions, and when not."""

import contextvars
import decimal
import threading

import pytest

greenlet = pytest.importorskip("greenlet")

from smpvm.host import switcher as module  # noqa: E402
from smpvm.host.switcher import Greenlets  # noqa: E402

V = contextvars.ContextVar("V", default=0)


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """An empty pool of workers."""
    pool = module._Pool()
    monkeypatch.setattr(module, "_POOL", pool)
    return pool


def one(entries):
    """One execution: a context for each entry, run in turn; their greenlets."""
    switcher = Greenlets()
    switcher.here()
    goes = [switcher.make(entry) for entry in entries]
    for go in goes:
        go()
    used = [go.__self__ for go in goes]
    switcher.close()
    return used


def test_a_greenlet_whose_thread_has_ended_runs_the_next_one(pool):
    said = []
    first = one([lambda: said.append("a"), lambda: said.append("b")])
    assert len(pool.idle) == 2
    again = one([lambda: said.append("c"), lambda: said.append("d"), lambda: said.append("e")])
    assert set(first) < set(again)
    assert said == list("abcde")
    assert len(pool.idle) == 3


def test_what_was_never_started_is_not_run_later(pool):
    said = []
    switcher = Greenlets()
    switcher.here()
    switcher.make(lambda: said.append("never"))
    switcher.close()
    assert len(pool.idle) == 1
    one([lambda: said.append("a")])
    assert said == ["a"]


def test_who_has_not_come_to_its_end_is_not_used_again(pool):
    home = greenlet.getcurrent()
    (stuck,) = one([lambda: home.switch("stuck")])
    assert pool.idle == []
    assert not stuck.dead


def test_a_failure_reaches_the_caller_and_ends_the_greenlet(pool):
    def fails():
        raise ZeroDivisionError

    switcher = Greenlets()
    switcher.here()
    go = switcher.make(fails)
    with pytest.raises(ZeroDivisionError):
        go()
    switcher.close()
    assert pool.idle == []


def test_each_host_thread_has_its_own(pool):
    one([int])
    seen = []
    t = threading.Thread(target=lambda: seen.append((len(pool.idle), one([int]))))
    t.start()
    t.join()
    assert seen[0][0] == 0
    assert len(pool.idle) == 1


def test_context_variables_do_not_reach_the_next_thread(pool):
    seen = []

    def body():
        seen.append((V.get(), decimal.getcontext().prec))
        V.set(V.get() + 1)
        decimal.getcontext().prec = 5

    for _ in range(2):
        one([body, body])
    assert seen == [(0, decimal.getcontext().prec)] * 4
