"""One machine: a kernel, its VM, its daemons, and the processes that use them, on one carrier.

``Machine`` boots, starts processes, runs, and shuts down cleanly: processes leave at the boundary
to user mode and really exit, then I/O drains, then the daemons are stopped while asleep.  The state
that a stopped machine must have is checked by ``check.audit``, not here.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from smpvm.config import Config
from smpvm.host.carrier import Carrier, Stopped
from smpvm.host.native import NativeCarrier, raise_in
from smpvm.kern.kernel import Kernel
from smpvm.kern.probe import Probe
from smpvm.kern.stall import who_waits
from smpvm.kern.thread import Panic, Thread
from smpvm.vm.build import build_vm

HOST_ROLES = ("boot", "monitor")
DAEMONS = ("pagedaemon", "vmdaemon", "syncer", "swapper")

PROGRESS = (
    "v_vm_faults",
    "v_pdpages",
    "v_syscall",
    "v_intr",
    "v_swapin",
    "v_swapout",
    "v_vnodein",
    "v_vnodeout",
    "user_access",
)
"""Counters that show progress; the rounds of an idle daemon do not count as progress."""


class Machine:
    """A running machine.

    *changes* are changes to the VM's subsystems (repairs, tests).  *on_stall* may add lines to the
    report on a machine that no longer makes progress.  The calling host thread carries the boot
    thread and must be the one that calls ``stop``.
    """

    def __init__(
        self,
        config: Config,
        carrier: Carrier | None = None,
        observers: Sequence[Probe] = (),
        changes: Iterable[type] = (),
        *,
        stall_after: float = 10.0,
        on_stall: Callable[[], list[str]] = list,
    ) -> None:
        self.config = config = copy.deepcopy(config)
        self.carrier: Carrier = carrier or NativeCarrier(hz=config.hz, tick_scale=config.tick_scale)
        self.k = Kernel(
            self.carrier,
            observers,
            hz=config.hz,
            ncpus=config.ncpus,
            spin_pool=config.spin_pool,
        )
        self._halted = threading.Event()
        self.k.on_panic = self.k.on_error = lambda td, why: self._halted.set()
        self.vm = build_vm(self.k, config, changes)
        self.daemons: dict[str, Thread] = {}
        self.closing = threading.Event()
        """Set when processes should exit at their next return to user mode."""
        self.frozen = threading.Event()
        """Set while processes should pause at the boundary to user mode."""
        self.stall: list[str] = []
        """Which thread waited for what when the machine stopped making progress."""
        self.stall_after = stall_after
        self.on_stall = on_stall
        self.started = time.monotonic()
        self._syncing = False
        """The boot thread is writing dirty pages and may sleep."""
        self._mutex = threading.Lock()
        self._monitor: threading.Thread | None = None

    # -- start

    def boot(self, daemons: Iterable[str] = DAEMONS) -> None:
        """Start the daemons, and the monitor that detects a machine without progress."""
        vm = self.vm
        mains: dict[str, Callable[[], None]] = {
            "pagedaemon": vm.pageout.thread,
            "vmdaemon": vm.vmdaemon.daemon,
            "syncer": vm.syncer.thread,
            "swapper": vm.glue.scheduler,
        }
        for name in daemons:
            td = self.k.make_thread(name, mains[name], role=name)
            self.daemons[name] = td
            if name == "pagedaemon":
                vm.pageout.pagethread = td
            elif name == "vmdaemon":
                vm.vmdaemon.vmthread = td
            self.k.start(td)
        if not self.carrier.serial:
            self.started = time.monotonic()
            self._monitor = threading.Thread(target=self._watch, name="monitor", daemon=True)
            self._monitor.start()

    # -- what is going on

    def locks(self) -> dict[str, tuple[int, int]]:
        """Lock class → (acquired, contended)."""
        contended = self.k.lock_contention()
        return {cls: (n, contended[cls]) for cls, n in self.k.lock_acquires().items()}

    def queues(self) -> dict[str, int]:
        """The number of pages on the queues of each kind, and of wired pages."""
        stats = self.vm.stats
        names = ("free", "cache", "inactive", "active", "wire")
        return {name: getattr(stats, f"v_{name}_count") for name in names}

    @property
    def failed(self) -> bool:
        """The machine ended with an error: its memory is not at rest."""
        return bool(self.k.panics or self.k.errors or self.stall)

    # -- a rest in between

    def freeze(self, patience: float = 30.0) -> bool:
        """Wait until every process pauses in user mode and all I/O has ended; False on timeout.

        The processes continue when ``frozen`` is cleared.
        """
        self.frozen.set()
        end = time.monotonic() + patience
        quiet = 0
        while quiet < 3 and not self.failed and time.monotonic() < end:
            time.sleep(0.01)
            resting = all(td.wmesg in ("frozen", "wait") for td in self._processes())
            quiet = quiet + 1 if resting and self._idle() else 0
        return quiet == 3

    # -- the end

    def stop(
        self, *, patience: float = 120.0, at_rest: Callable[[], object] = lambda: None
    ) -> None:
        """Shut down cleanly.  Raises nothing; ``failed`` tells how it went.

        *patience*: host seconds for all processes to exit, as long as the machine makes progress.
        *at_rest* is called when all is quiet, before the daemons are stopped.
        """
        self.closing.set()
        end = time.monotonic() + patience
        while not self.failed and self._processes() and time.monotonic() < end:
            time.sleep(0.01)
        if not self.failed and self._processes():
            self._stalled(f"processes have not exited after {patience:.0f} s")
        if not self.failed:
            self._drain(end)
        if not self.failed:
            at_rest()
        self.halt()

    @contextmanager
    def halted_on_error(self) -> Iterator[None]:
        """Whatever is raised in the body, no thread of the machine goes on behind it."""
        try:
            yield
        except BaseException:
            self.halt()
            raise

    def halt(self, timeout: float = 10.0) -> None:
        """Stop every thread: in its next wait, and one that spins without waits wherever it is.

        *timeout*: host seconds for the first, and half as many for the second.
        """
        self._halted.set()
        self.carrier.stop()
        for td in self.carrier.join(timeout):
            raise_in(td.carrier_data.host, Stopped)
        for td in self.carrier.join(timeout / 2):
            with self._mutex:
                self.stall.append(f"{td}: did not stop")

    def _processes(self) -> list[Thread]:
        return [td for td in self.k.live_threads() if td.proc is not None]

    def _drain(self, end: float) -> None:
        """Write dirty files back, and wait until no I/O is left and every daemon sleeps.

        The disks' error rate is set to 0 first: what an error has left dirty must be written now.
        A daemon that runs rounds and finds nothing counts as at rest too: small machines never
        reach its targets.
        """
        for disk in self.vm.pager.disks():
            disk.config.error_rate = 0.0
        self._syncing = True
        try:
            self.vm.syncer.sync_all()
        except Stopped:
            return
        except Panic as panic:
            self.k.panicked(self.k.boot, panic)
            return
        finally:
            self._syncing = False
        quiet = 0
        before = -1
        while quiet < 3 and not self.failed and time.monotonic() < end:
            time.sleep(0.01)
            now = self._progress()
            quiet = quiet + 1 if now == before and self._idle() else 0
            before = now

    def _progress(self) -> int:
        """A number that changes while the machine makes progress."""
        counts = self.k.counts()
        return sum(counts[name] for name in PROGRESS)

    def _idle(self) -> bool:
        live = [
            td
            for td in self.k.live_threads()
            if td.carrier_data is not None and td.role not in HOST_ROLES
        ]
        return all(td.sleeper is not None and td.sleeper.asleep for td in live) and not any(
            disk.pending() for disk in self.vm.pager.disks()
        )

    # -- trouble

    def _stalled(self, why: str) -> None:
        lines = [why, *who_waits(self.k), *self.on_stall()]
        with self._mutex:
            if not self.stall:
                self.stall = lines

    def _watch(self) -> None:
        """The body of the monitor: a host thread outside the model."""
        td = self.k.make_thread("monitor", lambda: None)
        self.carrier.adopt(td)
        before = -1
        moved = time.monotonic()
        while not self._halted.wait(0.25):
            now = self._progress()
            if now != before or not (self._syncing or self._processes()):
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > self.stall_after:
                seconds = time.monotonic() - moved
                self._stalled(f"no fault, no I/O and no scan for {seconds:.0f} s")
                self.carrier.stop()
                return
