"""What the kernel does by itself, one round at a time: scans, the swap daemon, the syncer, errors.

All of these run in threads of the kernel.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from smpvm.fuzz.operations.table import Operation
from smpvm.fuzz.shape import Op
from smpvm.kern.shared import poke
from smpvm.vm.pageout.daemon import Round
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.param import VM_SWAP_IDLE, VM_SWAP_NORMAL

if TYPE_CHECKING:
    from smpvm.fuzz.actor import Actor

WANT: Final = 8
"""Pages that a scan is asked for: more than there are."""
SWAP: Final = MappingProxyType({"": VM_SWAP_NORMAL, "idle": VM_SWAP_IDLE})
DISKS: Final = ("swap-read", "swap-write", "file-read", "file-write")


def queues(a: Actor) -> range:
    """One for each colour."""
    return range(a.vm.pq.L2_SIZE)


def inactive(a: Actor, op: Op) -> None:
    """vm_pageout_scan_inactive of every colour, in the pass that the word says."""
    for q in queues(a):
        a.vm.pageout.scan_inactive(int(op.word or 0), q, WANT, Tally())


def active(a: Actor, op: Op) -> None:
    """vm_pageout_scan_active of every colour."""
    for q in queues(a):
        a.vm.pageout.scan_active(int(op.word or 0), q, WANT, WANT, Tally())


def cache(a: Actor, op: Op) -> None:
    """vm_pageout_scan_cache: free cached pages, and what follows a shortage."""
    tally = Tally()
    a.vm.pageout.scan_cache(0, int(op.word or 0), tally.vnodes_skipped, tally.recycle_count)


def stats(a: Actor, op: Op) -> None:
    """vm_pageout_page_stats of every colour."""
    for q in queues(a):
        a.vm.pageout.page_stats(q)


def round_(a: Actor, op: Op) -> None:
    """A whole round of vm_pageout_thread."""
    a.vm.pageout.thread_round(Round())


def limits(a: Actor, op: Op) -> None:
    """vm_daemon's scan of all processes: those above their resident limit lose pages."""
    a.k.proc.allproc_scan(a.vm.vmdaemon.daemon_callback, None)


def swapout(a: Actor, op: Op) -> None:
    """vm_daemon's request: swap processes out."""
    a.vm.glue.swapout_procs(SWAP[op.word])


def ask(a: Actor, op: Op) -> None:
    """vm_req_vmdaemon, pagedaemon_wakeup: requests to the daemons."""
    if op.word == "vmdaemon":
        a.vm.vmdaemon.req_vmdaemon()
    elif op.word == "syncer":
        a.vm.syncer.speedup_syncer(wake=True)
    else:
        a.vm.pageout.pagedaemon_wakeup()


def syncer(a: Actor, op: Op) -> None:
    """The mount's turn: write dirty files, without waiting."""
    a.vm.syncer.sync_fsync()


def fail(a: Actor, op: Op) -> None:
    """The next read or write of a disk fails."""
    disk, _, what = op.word.partition("-")
    pager = a.vm.swap if disk == "swap" else a.vm.vnode_pager
    pager.disk.fail_next(what)


def swapspace(a: Actor, op: Op) -> None:
    """swap_pager_full, as swapoff or a full swap set it, and back."""
    poke(a.vm.glob, "swap_pager_full", 1 if op.word == "full" else 0)


def memory(a: Actor, op: Op) -> None:
    """Less memory is free than should be, or it is plenty again: the limits move, not the pages."""
    a.memory(op.word)


def sysctl(a: Actor, op: Op) -> None:
    """A sysctl that an administrator changes while the machine runs."""
    name, _, value = op.word.partition("=")
    setattr(a.vm.sysctl, name, int(value))


def try_free(a: Actor, op: Op) -> None:
    """vm_page_try_to_free, as the buffer cache calls it (vfs_vmio_release)."""
    if (m := a.first_page(op.region, op.page or 0)) is not None:
        a.vm.page.try_to_free(m)


def try_cache(a: Actor, op: Op) -> None:
    """vm_page_try_to_cache, as the buffer cache calls it (vfs_vmio_release)."""
    if (m := a.first_page(op.region, op.page or 0)) is not None:
        a.vm.page.try_to_cache(m)


SYSCTLS: Final = (
    "pageout_algorithm=1",
    "defer_swapspace_pageouts=1",
    "disable_swapspace_pageouts=1",
    "swap_enabled=0",
    "swap_idle_enabled=1",
    "max_launder=0",
    "max_launder=1",
)

DAEMON_OPS: Final = (
    Operation("inactive", inactive, words=("0", "1", "2"), kernel=True, only="pageout"),
    Operation("active", active, words=("0", "1"), kernel=True, only="pageout"),
    Operation("cache", cache, words=("0", "1", "2"), kernel=True, only="pageout"),
    Operation("stats", stats, kernel=True, only="pageout"),
    Operation("round", round_, kernel=True, only="pageout"),
    Operation("limits", limits, kernel=True, only="vmdaemon"),
    Operation("swapout", swapout, words=("idle",), kernel=True, only="vmdaemon"),
    Operation(
        "ask", ask, words=("pagedaemon", "vmdaemon", "syncer"), word_needed=True, kernel=True
    ),
    Operation("syncer", syncer, kernel=True, only="syncer"),
    Operation("fail", fail, words=DISKS, word_needed=True, kernel=True),
    Operation("swapspace", swapspace, words=("full", "free"), word_needed=True, kernel=True),
    Operation("memory", memory, words=("plenty", "low", "severe"), word_needed=True, kernel=True),
    Operation("sysctl", sysctl, words=SYSCTLS, word_needed=True, kernel=True),
    Operation("try-free", try_free, "page", kernel=True),
    Operation("try-cache", try_cache, "page", kernel=True),
)
