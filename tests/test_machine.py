"""Machines: boot, a clean stop, and failures."""

import threading
import time

import pytest

from smpvm.check.audit import audit
from smpvm.config import Config
from smpvm.kern.thread import Thread
from smpvm.machine import Machine

pytestmark = pytest.mark.timeout(60)


def test_a_machine_boots_and_stops_with_every_page_where_it_was() -> None:
    machine = Machine(Config(pages=256))
    before = machine.queues()
    machine.boot()
    time.sleep(0.2)
    machine.stop()
    assert not machine.failed
    assert machine.queues() == before
    assert audit(machine.vm) == []
    assert machine.k.live_threads() in (
        [machine.k.boot],
        [machine.k.boot, machine_monitor(machine)],
    )


def machine_monitor(machine: Machine) -> Thread:
    return next(td for td in machine.k.threads if td.name == "monitor")


def test_a_process_leaves_and_takes_its_memory_with_it() -> None:
    machine = Machine(Config(pages=256))
    machine.boot()
    process = machine.vm.process
    seen: list[int] = []

    def body(p: object) -> None:
        _, base = process.sys.mmap(p, 0, 50 << 12)  # type: ignore[arg-type]
        for page in range(50):
            process.user_write(p, base + (page << 12), 3, page + 1)  # type: ignore[arg-type]
        seen.append(machine.queues()["free"])

    td = process.start(process.create(), body)
    while not td.exited:
        time.sleep(0.01)
    machine.stop()
    assert not machine.failed
    assert seen[0] <= 256 - 50
    assert machine.queues()["free"] + machine.queues()["cache"] == 256
    assert audit(machine.vm) == []


def test_the_callers_config_is_left_alone() -> None:
    config = Config(pages=256)
    machine = Machine(config)
    machine.boot()
    time.sleep(0.1)
    machine.stop()
    assert machine.vm.sysctl.pageout_stats_max
    assert config.sysctl.pageout_stats_max == 0


def test_sysctls_can_be_changed_while_it_runs() -> None:
    machine = Machine(Config(pages=256))
    machine.boot()
    machine.vm.sysctl.max_launder = 1
    assert machine.vm.pageout.inactive_maxlaunder(0) == 1
    machine.stop()


def test_an_error_of_the_models_own_ends_the_machine() -> None:
    machine = Machine(Config(pages=256))
    machine.boot()

    def oops() -> None:
        raise KeyError("oops")

    machine.k.spawn("oops", oops)
    while not machine.failed:
        time.sleep(0.01)
    machine.stop()
    assert [str(why) for _, why in machine.k.errors] == ["'oops'"]
    assert threading.active_count() < 20


def test_a_panic_ends_the_machine_and_is_kept() -> None:
    machine = Machine(Config(pages=256))
    machine.boot()
    machine.k.spawn("bad", lambda: machine.k.panic("test-panic", "on purpose"))
    while not machine.failed:
        time.sleep(0.01)
    machine.stop()
    assert [panic.code for _, panic in machine.k.panics] == ["test-panic"]


def test_a_machine_without_progress_says_who_waits_for_what() -> None:
    machine = Machine(Config(pages=256), stall_after=0.6)
    machine.boot()
    process = machine.vm.process
    vnode = machine.vm.vnode_pager.new_file(4096, "f")
    vnode.v_lock.lockmgr(2)  # LK_EXCLUSIVE, by the boot thread

    def body(p: object) -> None:
        machine.k.vnode.vn_lock(vnode, 2)

    td = process.start(process.create(), body)
    while not machine.failed:
        time.sleep(0.05)
    machine.halt()
    assert td.exited
    text = "\n".join(machine.stall)
    assert "no fault, no I/O and no scan" in text
    assert "held by boot" in text


@pytest.mark.timeout(60)
def test_a_last_sync_that_nobody_wakes_is_a_stall_too(monkeypatch):
    """No process is left to get on, but who ends the machine waits for what nobody will do."""
    machine = Machine(Config(pages=256), stall_after=0.6)
    machine.boot()
    sync = lambda: machine.k.sleep.tsleep("page", 0, "vpcwai", 0)  # noqa: E731
    monkeypatch.setattr(machine.vm.syncer, "sync_all", sync)
    machine.stop(patience=5.0)
    assert machine.failed
    assert "no fault, no I/O and no scan" in machine.stall[0]
    assert any("vpcwai" in line for line in machine.stall)


def test_a_thread_that_spins_without_a_wait_is_stopped_and_the_machine_says_so() -> None:
    machine = Machine(Config(pages=256))
    machine.boot()
    spinning = threading.Event()

    def body(p: object) -> None:
        spinning.set()
        while True:
            pass

    td = machine.vm.process.start(machine.vm.process.create(), body)
    assert spinning.wait(30.0)
    machine.halt(timeout=0.2)
    machine.carrier.join(30.0)
    assert td.exited


def test_whatever_is_raised_above_a_machine_its_threads_end() -> None:
    machine = Machine(Config(pages=256))
    machine.boot()
    with pytest.raises(ZeroDivisionError), machine.halted_on_error():
        raise ZeroDivisionError
    assert machine.carrier.join(30.0) == []
