"""Resume a machine from a snapshot, and take a snapshot of a running machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from smpvm.check.audit import breaches
from smpvm.conform.carrier import ScriptCarrier
from smpvm.files import naming
from smpvm.kern.kernel import Kernel
from smpvm.kern.proc import Proc
from smpvm.kern.thread import TDF_SYSTHREAD, Panic
from smpvm.kern.tsleep import PCATCH, Ident
from smpvm.state import StateError
from smpvm.state.snapshot import Snapshot, restore, take
from smpvm.state.snapshot import read as read_snapshot
from smpvm.vm.build import build_vm
from smpvm.vm.pageout.daemon import Pageout

if TYPE_CHECKING:
    from smpvm.machine import Machine


class ResumedPageout(Pageout):
    """The page-out daemon of a resumed machine: it keeps the paging targets of the snapshot."""

    def thread_start(self) -> None:
        """Set up the daemon's thread, but do not compute the targets anew."""
        self.k.curthread().flags |= TDF_SYSTHREAD
        self.vm.swap.swap_init()


def read(path: Path) -> Snapshot:
    """Read the snapshot in a file, and make sure that a machine can resume from it.

    ``smpvm snapshot`` and ``--from`` both call this, so they accept the same files.  Raises
    StateError.
    """
    snapshot = read_snapshot(path)
    with naming(path, StateError):
        _try(snapshot)
    return snapshot


def _try(snapshot: Snapshot) -> None:
    """Restore into a machine that does not run, and audit it.

    The rules of a snapshot check its parts; the audit checks the machine that they make.  Raises
    StateError.
    """
    config = snapshot.config
    k = Kernel(ScriptCarrier(), hz=config.hz, ncpus=config.ncpus, spin_pool=config.spin_pool)
    vm = build_vm(k, config)
    try:
        restore(vm, snapshot)
    except Panic as why:
        raise StateError(f"no machine could go on from it: {why}") from None
    with k.quietly():
        broken = next(iter(breaches(vm, processes=True)), None)
    if broken is not None:
        raise StateError(f"its machine does not add up: {broken}")


def resume(machine: Machine, snapshot: Snapshot) -> list[Proc]:
    """Restore *snapshot* into a machine that has not booted.

    Returns the processes, for ``start``.  Raises StateError.
    """
    return restore(machine.vm, snapshot).procs


def start(machine: Machine, procs: list[Proc]) -> None:
    """Give the restored processes threads, on a booted machine.

    A snapshot does not say what their programs were doing: they only keep their memory until they
    are killed or the machine closes.
    """
    for n, p in enumerate(procs):
        machine.vm.process.start(
            p,
            lambda p: _rest(machine, p),
            name=f"restored{p.p_pid}",
            cpu=n % machine.config.ncpus,
        )


def _rest(machine: Machine, p: Proc) -> None:
    ident = Ident(f"proc {p.p_pid} restored")
    while not machine.closing.is_set():
        machine.vm.process.userret(p)
        wmesg = "frozen" if machine.frozen.is_set() else "user"
        machine.k.sleep.tsleep(ident, PCATCH, wmesg, 5, cond=lambda: False)
    machine.vm.process.userret(p)


def freeze_and_take(machine: Machine) -> Snapshot:
    """Take a snapshot of a running machine, which runs on afterwards.

    Blocks until the machine is at rest.  Raises StateError if that takes too long.
    """
    if not machine.freeze():
        machine.frozen.clear()
        raise StateError("the machine did not come to rest for the snapshot")
    try:
        return take(machine.vm)
    finally:
        machine.frozen.clear()
