"""``VmScenario``: a scenario on the real virtual memory system, and the small machine for it.

Like any ``Scenario``: ``setup`` makes a few pages, objects, processes on a machine that runs
nothing yet, and starts the threads, which run the model's own functions; ``check`` looks at what is
left.  Fifteen lines are enough::

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

What must hold after every scenario is checked for it: the audit at rest, no marker left, no panic,
and nothing left over when all that the set-up has made is given up.

The machine has a handful of pages, one page colour (or ``colours``), few spinlocks, and no daemons
unless the scenario starts them.  Of its limits only the target for free pages is set (so that the
page-out daemon, when it runs, frees what it has cached, but nobody else thinks that memory is
short).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from smpvm.check.audit import Breach, breaches
from smpvm.check.finding import Failure
from smpvm.config import Config, DiskConfig
from smpvm.explore.scenario import Refused, Scenario
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
    """A configuration of fewer pages than anybody could boot with."""

    def validate(self) -> None:
        """What ``VmScenario`` passes is right."""


class VmScenario(VmHelpers, Scenario):
    """The base of scenarios on the VM: see the module.

    Sizes that may be reduced without losing the point are class attributes, ``sizes`` names them
    with their smallest values.
    """

    changes: ClassVar[tuple[type, ...]] = ()
    """Changes of the VM's subsystems (``smpvm.Change``): a scenario about a changed kernel."""
    pages: int = 6
    """Pages of the machine; 8 times as many free ones are the page-out daemon's target."""
    colours: int = 1
    """Page colours: each has a queue of its own of every kind (a power of 2)."""
    spin_pool: ClassVar[int] = 4
    sysctls: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Sysctls that are not at their defaults."""

    def prepare(self, repairs: Iterable[str]) -> None:
        """The machine.  Raises Refused; ConfigError for sysctls and repairs that do not exist."""
        number("pages", self.pages, 1)
        number("colours", self.colours, 1)
        if not isinstance(self.sysctls, Mapping):
            raise Refused(f"sysctls: {self.sysctls!r}: a mapping is wanted")
        config = SmallConfig(
            pages=self.pages,
            swap_pages=32,
            pq_l2_size=self.colours,
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
        """A thread that runs ``body(*args)`` and must come to its end; of *process*, if given."""
        if process is None:
            return super().thread(name, body, *args)
        td = self._thread(name, body, args, "process")
        self.k.proc.lwp_fork(process, td)
        self.k.start(td)
        return td

    def spawn(self, name: str, body: Main, *args: Any, process: Proc | None = None) -> Thread:
        """``thread``, from inside a thread."""
        return self.thread(name, body, *args, process=process)

    def disks(self) -> None:
        """Start the devices' threads; needed by every scenario with I/O."""
        for disk in self.vm.pager.disks():
            disk.start()
            assert disk.thread is not None
            self.set_daemon(disk.thread)

    def pagedaemon(self, body: Main | None = None) -> Thread:
        """The page-out daemon: its rounds for ever, or *body*, in a thread known as the daemon.

        Without vm_pageout_thread's own start, which would set limits for a whole machine.
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

    # -- what the engine asks

    def failures(self) -> list[Failure]:
        """Everything that is not as it must be, at the end of an execution that got there.

        Called by the boot thread when all others have ended.  Makes the machine unusable.
        """
        carrier = self.k.carrier
        with self.k.quietly():
            found = [*map(_broken, breaches(self.vm, processes=True))]
            self.failure_kind = "audit" if found else "assertion"
            carrier.stopping = False  # the boot thread goes on alone
            try:
                self.checked()
                if not found and (found := self.take_down()):
                    self.failure_kind = "audit"
            except AssertionError as failed:
                found.append(Failure.raised(failed, str(failed) or "check failed"))
            except Panic as panic:
                found.append(Failure.of(f"at the end: {panic}", "at-end", panic.code))
            except Stopped:
                words = "at the end somebody waits for ever"
                found.append(Failure.of(words, "at-end", "waits"))
            finally:
                carrier.stopping = True
        return found

    def take_down(self) -> list[Failure]:
        """Everybody lets go of what he has: then nothing of it may be left."""
        for p in self.procs:
            if p in self.vm.process.families:
                self.vm.process.exit1(p, 0)
        for obj in self.objects:
            self.vm.object.deallocate(obj)
        return [*map(_broken, breaches(self.vm))]


def _broken(breach: Breach) -> Failure:
    return Failure.of(str(breach), breach.rule)


def fixed(**values: int) -> Mapping[str, int]:
    """A mapping that nobody changes, for ``sizes`` and ``sysctls``."""
    return MappingProxyType(values)


__all__ = ["VA", "VmScenario", "fixed"]
