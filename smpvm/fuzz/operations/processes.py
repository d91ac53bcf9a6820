"""Processes: fork, exec, exit, kill, and swapping them out and in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smpvm.fuzz.operations.table import Operation
from smpvm.fuzz.shape import PROCESSES, Op

if TYPE_CHECKING:
    from smpvm.fuzz.actor import Actor


def fork(a: Actor, op: Op) -> None:
    """fork(2); the child does its operation, or exits at once."""
    a.fork(op.child)


def vfork(a: Actor, op: Op) -> None:
    """A child in the same address space (RFMEM); the parent waits until it has gone."""
    a.fork(op.child, share=True)
    a.vm.process.wait(a.p)


def wait(a: Actor, op: Op) -> None:
    """wait(2): reap one child, if there is any."""
    a.vm.process.wait(a.p)


def exec_(a: Actor, op: Op) -> None:
    """exec: the address space is emptied, or replaced where it is shared."""
    a.exec()


def exit_(a: Actor, op: Op) -> None:
    """exit of the process, by this thread."""
    a.exit()


def kill(a: Actor, op: Op) -> None:
    """SIGKILL to a process."""
    a.kill(op.word)


def sync(a: Actor, op: Op) -> None:
    """sync(2): vfs_msync of every mount, without waiting."""
    a.vm.syncer.msync(wait=False)


PROCESS_OPS: Final = (
    Operation("fork", fork, child=True),
    Operation("vfork", vfork, child=True),
    Operation("wait", wait),
    Operation("exec", exec_, loosens="access"),
    Operation("exit", exit_),
    Operation("kill", kill, words=tuple(PROCESSES), word_needed=True),
    Operation("sync", sync),
)
