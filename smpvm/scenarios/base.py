"""``VmScenario``: a scenario on the real virtual memory system, with a small machine.

Like any ``Scenario``: ``setup`` makes a few pages, objects and processes on a machine that runs
nothing yet, and starts the threads, which call the model's functions; ``check`` examines the final
state.  Fifteen lines are enough::

    from smpvm import VmScenario

    class StoreAndScan(VmScenario):
        "A store against page-out of the same page."

        def setup(self):
            self.p = self.process()
            self.va = self.map(self.p)
            self.write(self.p, self.va, 1)
            self.to_inactive(self.page_at(self.p, self.va), unmap=True)
            self.disks()
            self.pagedaemon(self.launder)
            self.thread("writer", self.write, self.p, self.va, 2, 1, process=self.p)

        def check(self):
            words = [self.see(self.p, self.va, word) for word in (0, 1)]
            assert words == [1, 2], f"the page holds {words}"

What must hold after every scenario is checked automatically: a clean audit at rest, no marker
left, no panic, and nothing left over when everything that the set-up made has been released.

The machine has a handful of pages, one page color (or ``colors``), few spinlocks, and no daemons
unless the scenario starts them.  Of its limits only the target for free pages is set, so that the
page-out daemon frees what it has cached, while memory is not short for other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from smpvm.check.audit import Breach, breaches
from smpvm.check.finding import Failure
from smpvm.config import Config, DiskConfig
from smpvm.explore.scenario import Refused, Scenario
from smpvm.explore.scenario.base import failed_check
from smpvm.explore.scenario.rules import number, runs
from smpvm.host.carrier import Stopped
from smpvm.kern.proc import Proc
from smpvm.kern.thread import TDF_SYSTHREAD, Panic, Thread
from smpvm.repairs.catalogue import choose
from smpvm.scenarios.helpers import VA, VmHelpers
from smpvm.vm.build import build_vm, compose
from smpvm.vm.pageout.daemon import Round

Main = Callable[..., object]


class SmallConfig(Config):
    """A configuration with fewer pages than a machine needs to boot."""

    def validate(self) -> None:
        """Accept everything: ``VmScenario`` passes valid values."""


class VmScenario(VmHelpers, Scenario):
    """The base class of scenarios on the VM: see the module.

    Sizes that may be reduced are class attributes; ``sizes`` lists them with their smallest values.
    """

    changes: ClassVar[tuple[type, ...]] = ()
    """Changes of the VM's subsystems (``smpvm.Change``): a scenario about a changed kernel."""
    pages: int = 6
    """Pages of the machine; the page-out daemon's target of free pages is 8 times as many."""
    colors: int = 1
    """Page colors: each has a queue of every kind (a power of 2)."""
    spin_pool: ClassVar[int] = 4
    wakeup_order: ClassVar[str] = "c"
    swap_pages: ClassVar[int] = 32
    sysctls: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Sysctls with other values than their defaults."""

    def prepare(self, repairs: Iterable[str]) -> None:
        """Build the machine.  Raises Refused; ConfigError for unknown sysctls and repairs."""
        number("pages", self.pages, 1)
        number("colors", self.colors, 1)
        if not isinstance(self.sysctls, Mapping):
            raise Refused(f"sysctls: {self.sysctls!r}: a mapping is expected")
        config = SmallConfig(
            pages=self.pages,
            swap_pages=self.swap_pages,
            pq_l2_size=self.colors,
            swap_disk=DiskConfig(latency=0),
            file_disk=DiskConfig(latency=0),
        )
        for name, value in {"pageout_stats_interval": 5, **self.sysctls}.items():
            setattr(config.sysctl, name, value)
        changes = [*self.changes, *(r.change for r in choose(repairs))]
        if self.changes:
            try:
                compose(self.changes)
            except TypeError as why:
                raise Refused(f"changes: {why}") from None
        self.vm = build_vm(self.k, config, changes)
        self.procs, self.objects, self.files = [], [], []
        self.limits(free_target=8 * self.pages)

    # -- threads

    def thread(self, name: str, body: Main, *args: Any, process: Proc | None = None) -> Thread:
        """A thread, of *process* if given, that runs ``body(*args)`` and must end."""
        if process is None:
            return super().thread(name, body, *args)
        td = self._thread(name, body, args, "process")
        self.k.proc.lwp_fork(process, td)
        self.k.start(td)
        return td

    def spawn(self, name: str, body: Main, *args: Any, process: Proc | None = None) -> Thread:
        """``thread``, called in a thread."""
        return self.thread(name, body, *args, process=process)

    def disks(self) -> None:
        """Start the devices' threads; needed by every scenario with I/O."""
        for disk in self.vm.pager.disks():
            disk.start()
            assert disk.thread is not None
            self.set_daemon(disk.thread)

    def pagedaemon(self, body: Main | None = None) -> Thread:
        """The page-out daemon: a thread that runs its rounds forever, or *body*.

        Without the start of vm_pageout_thread, which would set limits for a normal machine.
        """

        if body is not None:
            runs("pagedaemon", body)

        def main() -> object:
            td.flags |= TDF_SYSTHREAD
            return (body or self.rounds)()

        td = self.thread("pagedaemon", main) if body else self.daemon("pagedaemon", main)
        self.vm.pageout.pagethread = td
        return td

    def rounds(self) -> None:
        """The loop of vm_pageout_thread (vm_pageout.c:1881-2064)."""
        pageout = self.vm.pageout
        r = Round()
        while True:
            if pageout.thread_wait():
                pageout.thread_round(r)
                pageout.thread_rest(r)

    # -- called by the engine

    def failures(self) -> list[Failure]:
        """Everything wrong at the end of an execution in which all threads have ended.

        Called by the boot thread.  Makes the machine unusable.
        """
        carrier = self.k.carrier
        with self.k.quietly():
            found = [*map(_broken, breaches(self.vm, processes=True))]
            self.failure_kind = "audit" if found else "assertion"
            carrier.stopping = False  # the boot thread continues alone
            try:
                self.checked()
                if not found and (found := self.take_down()):
                    self.failure_kind = "audit"
            except AssertionError as failed:
                found.append(failed_check(failed))
            except Panic as panic:
                found.append(Failure.of(f"at the end: {panic}", "at-end", panic.code))
            except Stopped:
                words = "at the end the boot thread waits forever"
                found.append(Failure.of(words, "at-end", "waits"))
            finally:
                carrier.stopping = True
        return found

    def take_down(self) -> list[Failure]:
        """Release everything that the scenario made; then nothing may be left."""
        for p in self.procs:
            if p in self.vm.process.families:
                self.vm.process.exit1(p, 0)
        for obj in self.objects:
            self.vm.object.deallocate(obj)
        return [*map(_broken, breaches(self.vm))]


def _broken(breach: Breach) -> Failure:
    return Failure.of(str(breach), breach.rule)


def fixed(**values: int) -> Mapping[str, int]:
    """A read-only mapping, for ``sizes`` and ``sysctls``."""
    return MappingProxyType(values)


__all__ = ["VA", "VmScenario", "fixed"]
