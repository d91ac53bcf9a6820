"""Going on from a snapshot, and taking one in a run."""

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
    """The page-out daemon of a restored machine: its targets are the snapshot's."""

    def thread_start(self) -> None:
        """Only what belongs to the thread itself."""
        self.k.curthread().flags |= TDF_SYSTHREAD
        self.vm.swap.swap_init()


def read(path: Path) -> Snapshot:
    """The snapshot in a file, tried: a machine can go on from it.  Raises StateError."""
    snapshot = read_snapshot(path)
    with naming(path, StateError):
        _try(snapshot)
    return snapshot


def _try(snapshot: Snapshot) -> None:
    """Put the memory into a machine that does not run, and see that it adds up.

    The rules of a snapshot look at its parts; the audit looks at the machine that they make.
    Raises StateError.
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
    """Fill a machine that has not booted; returns the processes, for ``start``.

    Raises StateError.
    """
    return restore(machine.vm, snapshot).procs


def start(machine: Machine, procs: list[Proc]) -> None:
    """Give the restored processes threads: they keep their memory until they are killed or the
    machine closes.  What their programs were doing is not in a snapshot."""
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
    """The snapshot of a running machine; it goes on afterwards.  Raises StateError."""
    if not machine.freeze():
        machine.frozen.clear()
        raise StateError("the machine did not come to rest for the snapshot")
    try:
        return take(machine.vm)
    finally:
        machine.frozen.clear()
