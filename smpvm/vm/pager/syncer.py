"""vfs_sync.c and vfs_msync: the file system syncer, one thread.

Each second it processes one of 32 slots.  The item that matters to the VM is the mount's own syncer
vnode: when its turn comes (every ``syncdelay`` seconds, sooner after ``speedup_syncer``), it scans
all vnodes and writes the dirty pages of those marked dirty.  Dirty buffers are not modelled, so the
slots contain nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c, holds, own
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT
from smpvm.kern.shared import shared
from smpvm.kern.tsleep import Ident
from smpvm.kern.vnode import VOBJDIRTY, VRECLAIMED, Vnode
from smpvm.vm.param import OBJPC_NOSYNC, OBJPC_SYNC, u32

if TYPE_CHECKING:
    from smpvm.vm.vm import Vm

SYNCER_MAXDELAY = 32


@shared(
    "rushjob", atomic={"rushjob": "atomic (vfs_sync.c:472); the syncer reads it to pace itself"}
)
class RushJob:
    """The syncer's global: how many slots are to be processed at once."""

    __slots__ = ("rushjob",)

    def __init__(self) -> None:
        self.rushjob = 0

    def __str__(self) -> str:
        return "rushjob"


class Syncer:
    """vfs_sync.c: ``vm.syncer``.  ``syncdelay`` is in seconds."""

    @c("vn_syncer_thr_create", "vfs_sync.c:283-299")
    @holds("boot only", "")
    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k
        self.syncdelay = 30
        self.rush = vm.k.new(RushJob)
        self.ctx = Ident("syncer")
        self.dummy = Ident("syncer.rush")
        self.delayno = 0
        self.syncer_rushjob = 0
        self.slot = self.syncdelay % SYNCER_MAXDELAY
        self.rounds = 0

    @c("syncer_thread", "vfs_sync.c:335-459", blocks=True)
    @holds("nothing", "does not return")
    def thread(self) -> None:
        """syncer_thread, vfs_sync.c:335-459: the body of the syncer's thread; never returns."""
        k = self.k
        while True:
            start = k.clock.time_uptime()
            due = self.delayno == self.slot
            self.delayno = (self.delayno + 1) % SYNCER_MAXDELAY
            if due:
                self.slot = (self.delayno + min(self.syncdelay, SYNCER_MAXDELAY - 2)) % (
                    SYNCER_MAXDELAY
                )
                self.sync_fsync()
            if not self.rushing() and k.clock.time_uptime() == start:
                k.sleep.tsleep(self.ctx, 0, "syncer", k.hz, cond=self.never)

    @c("syncer_thread", "vfs_sync.c:426-436", part=True, blocks=True)
    @holds("nothing", "")
    def rushing(self) -> bool:
        """Continue with the next slot at once if that was requested (vfs_sync.c:426-436)."""
        delta = self.rush.rushjob - self.syncer_rushjob
        if u32(delta) > self.syncdelay // 2:
            self.syncer_rushjob = self.rush.rushjob - self.syncdelay // 2
        elif delta:
            self.syncer_rushjob += 1
        else:
            return False
        self.k.sleep.tsleep(self.dummy, 0, "rush", 1, cond=self.never)
        return True

    @own
    def never(self) -> bool:
        """The condition of a sleep that only waits for time to pass."""
        return False

    @c("speedup_syncer", "vfs_sync.c:465-476")
    def speedup_syncer(self, wake: bool = False) -> None:
        """speedup_syncer, vfs_sync.c:465-476: process one more slot as soon as possible.

        The VM passes no mount, so the syncer is not woken (*wake*) and sees the request within a
        second.  Does not block.
        """
        k = self.k
        td = k.curthread()
        td.hit("speedup_syncer")
        k.atomic.add_int(self.rush, "rushjob", 1)
        if (f := k.probe.call) is not None:
            f(td, "speedup_syncer")
        if wake:
            k.sleep.wakeup(self.ctx)

    @c("sync_fsync", "vfs_sync.c:567-606", blocks=True)
    @holds("nothing", "")
    def sync_fsync(self) -> None:
        """sync_fsync, vfs_sync.c:567-606.

        The mount's turn: flush dirty objects, without waiting.
        """
        self.rounds += 1
        self.k.curthread().hit("vfs_msync")
        self.msync(wait=False)

    @c("vfs_msync", "vfs_subr.c:2292-2323", blocks=True)
    @c("vmntvnodescan", "vfs_mount.c:769-912")
    @holds("nothing", "")
    def msync(self, wait: bool) -> None:
        """vfs_msync, vfs_subr.c:2292-2323: write the dirty pages of every file.

        With *wait* it waits for vnode locks and for the writes; without it, it skips locked vnodes
        and NOSYNC pages.  Blocks.
        """
        for vp in self.k.vnode.all():
            if self.wants(vp, wait):
                flags = LK_EXCLUSIVE if wait else LK_EXCLUSIVE | LK_NOWAIT
                if self.k.vnode.vget(vp, flags) == 0:
                    self.msync_vnode(vp, wait)
                    self.k.vnode.vput(vp)

    @c("vfs_msync_scan1", "vfs_subr.c:2330-2352")
    def wants(self, vp: Vnode, wait: bool) -> bool:
        """vfs_msync_scan1, vfs_subr.c:2330-2352.

        Whether *vp*, not locked, needs to be processed.
        """
        if vp.v_flag & VRECLAIMED:
            return False
        return bool(vp.v_flag & VOBJDIRTY) and (wait or not vp.v_lock.lockstatus())

    @c("vfs_msync_scan2", "vfs_subr.c:2357-2374", blocks=True)
    @holds("vp locked exclusively")
    def msync_vnode(self, vp: Vnode, wait: bool) -> None:
        """vfs_msync_scan2, vfs_subr.c:2357-2374: flush *vp*, which is locked exclusively."""
        # The vnode was tested before it was locked: test it again.
        if not vp.v_flag & VRECLAIMED and vp.v_flag & VOBJDIRTY:
            obj = vp.v_object
            if obj is not None:
                self.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC if wait else OBJPC_NOSYNC)

    @own
    def sync_all(self) -> None:
        """sync(2), waiting for completion: write all dirty files and wait for the writes.

        Blocks.
        """
        self.msync(wait=True)
        for vp in self.k.vnode.all():
            obj = vp.v_object
            if obj is not None:
                self.vm.object.pip_wait(obj, "vnsync")
