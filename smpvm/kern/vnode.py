"""Vnodes (vfs_lock.c, vn_lock of vfs_vnops.c): references, the vnode lock, and states."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from smpvm.kern.clock import i32
from smpvm.kern.cname import c, holds, own
from smpvm.kern.errno import ENOENT
from smpvm.kern.guard import FREE, Guard, guarded
from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import (
    LK_EXCLUSIVE,
    LK_EXTFLG_MASK,
    LK_FAILRECLAIM,
    LK_RELEASE,
    LK_RETRY,
    LK_TYPE_MASK,
)
from smpvm.kern.shared import Site, peek, shared
from smpvm.kern.spinlock import Spinlock

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel

# v_flag (sys/vnode.h:207-232)
VOBJBUF: Final = 0x00002000
VINACTIVE: Final = 0x00004000
VRECLAIMED: Final = 0x00040000
VOBJDIRTY: Final = 0x00800000

# v_refcnt (sys/vnode.h:253-257)
VREF_TERMINATE: Final = 0x80000000
VREF_FINALIZE: Final = 0x40000000
VREF_MASK: Final = 0xBFFFFFFF
"""The references and VREF_TERMINATE: while that is set no release is the last."""

# v_state
VS_CACHED: Final = 0
VS_ACTIVE: Final = 1
VS_INACTIVE: Final = 2
VS_DYING: Final = 3

VACT_INC: Final = 2
VACT_MAX: Final = 10


@c("VLKTIMEOUT", "vnode.h:306")
def vlktimeout(hz: int) -> int:
    """VLKTIMEOUT: the ticks that a LK_TIMELOCK request waits for a vnode."""
    return hz // 20 + 1


@shared(
    "v_refcnt",
    "v_flag",
    "v_state",
    "v_act",
    "v_object",
    benign=[Site("v_act", "vget", "vfs_lock.c:521", "'SMP race ok': an estimate of use", "both")],
    atomic={
        "v_refcnt": "vref and vrele are atomic (vfs_lock.c), and look before they compare",
        "v_flag": "vsetflags and vclrflags are atomic; scans look first, and again with the vnode",
    },
)
@guarded(Guard("v_state", "v_spin", "vnode.h:236", read=FREE))
class Vnode:
    """struct vnode: the fields that the page-out path uses."""

    __slots__ = (
        "data",
        "v_act",
        "v_flag",
        "v_id",
        "v_lock",
        "v_object",
        "v_refcnt",
        "v_spin",
        "v_state",
    )

    v_act: int
    v_flag: int
    v_object: Any
    v_refcnt: int
    v_state: int

    def __init__(self, k: Kernel, vid: int, subclass: int = 0) -> None:
        name = f"vnode {vid}"
        self.v_id = vid
        self.v_lock = Lock(k, "vnode", name, timo=vlktimeout(k.hz), subclass=subclass)
        self.v_spin = Spinlock(k, "v_spin", name)
        self.v_refcnt = 1
        self.v_flag = 0
        self.v_state = VS_ACTIVE
        self.v_act = 0
        self.v_object = None
        self.data: Any = None  # v_data: the file behind it

    def __str__(self) -> str:
        return f"vnode {self.v_id}"


class Vnodes:
    """The functions of vfs_lock.c that the VM uses, and a list of all vnodes."""

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.spin = Spinlock(k, "vfs_spin")
        self._guard = threading.Lock()
        self._all: list[Vnode] = []

    @c("getnewvnode", "vfs_mount.c:164-194")
    @holds("", "the vnode referenced")
    def new(self, data: Any = None, subclass: int = 0) -> Vnode:
        """getnewvnode: an active vnode with one reference, not locked.

        *subclass* is its lock's level in the lock order: a directory's differs from a file's.
        """
        vp = self.k.new(Vnode, self.k, self.k.next_id("vnode"), subclass)
        vp.data = data
        with self._guard:
            self._all.append(vp)
        return vp

    @own
    def all(self) -> list[Vnode]:
        """All vnodes that are not reclaimed, oldest first."""
        with self._guard:
            return list(self._all)

    # -- flags

    @c("vsetflags", "vfs_lock.c:139-143")
    def vsetflags(self, vp: Vnode, bits: int) -> None:
        """vsetflags (vfs_lock.c:140)."""
        self.k.atomic.set_int(vp, "v_flag", bits)

    @c("vclrflags", "vfs_lock.c:145-149")
    def vclrflags(self, vp: Vnode, bits: int) -> None:
        """vclrflags (vfs_lock.c:146)."""
        self.k.atomic.clear_int(vp, "v_flag", bits)

    @c("vclrobjdirty", "vfs_sync.c:239-245")
    def vclrobjdirty(self, vp: Vnode) -> None:
        """vclrobjdirty (vfs_sync.c:239-245): mark the vnode's object clean for the syncer.

        On this mount only dirty buffers, which are not modelled, put a vnode on the syncer's list,
        so there is nothing to remove from it (which would need the syncer's token).
        """
        self.vclrflags(vp, VOBJDIRTY)

    # -- references

    @c("vref", "vfs_lock.c:274-280")
    @holds("a reference", "one more")
    def vref(self, vp: Vnode) -> None:
        """vref (vfs_lock.c:275): add a reference; there must already be one."""
        k = self.k
        refs = i32(vp.v_refcnt & VREF_MASK)
        k.kassert(refs > 0 and vp.v_state != VS_INACTIVE, "vref-bad", str(vp))
        k.atomic.add_int(vp, "v_refcnt", 1)

    @c("vrele", "vfs_lock.c:316-362", blocks=True)
    @holds("a reference; no spinlock", "released")
    def vrele(self, vp: Vnode) -> None:
        """vrele (vfs_lock.c:317): drop a reference.

        The last one leaves the vnode cached, or with VREF_FINALIZE makes it inactive (blocks).
        """
        k = self.k
        while True:
            count = vp.v_refcnt
            k.kassert(count & VREF_MASK, "vrele-unreferenced", str(vp))
            k.kassert(vp.v_state in (VS_ACTIVE, VS_INACTIVE), "vnode-state", str(vp))
            if count & VREF_MASK > 1:
                if k.atomic.cmpset_int(vp, "v_refcnt", count, count - 1):
                    return
            elif count & VREF_FINALIZE:
                vp.v_lock.lockmgr(LK_EXCLUSIVE)
                if k.atomic.cmpset_int(vp, "v_refcnt", count, VREF_TERMINATE):
                    self._terminate(vp)
                    return
                vp.v_lock.lockmgr(LK_RELEASE)
            elif k.atomic.cmpset_int(vp, "v_refcnt", count, 0):
                return

    @c("vnode_terminate", "vfs_lock.c:416-433")
    @holds("vnode locked exclusively, VREF_TERMINATE set", "vnode unlocked, inactive")
    def _terminate(self, vp: Vnode) -> None:
        """vnode_terminate (vfs_lock.c:418): make inactive; releases the vnode lock."""
        self.k.kassert(vp.v_state == VS_ACTIVE, "vnode-state", str(vp))
        if not vp.v_flag & VINACTIVE:
            self.vsetflags(vp, VINACTIVE)
        vp.v_spin.lock()
        self._move(vp, VS_INACTIVE)
        vp.v_spin.unlock()
        vp.v_lock.lockmgr(LK_RELEASE)
        # Unless somebody has got it meanwhile freesomevnodes may take it now (vfs_lock.c:665-961).
        if (f := self.k.probe.freed) is not None:
            reclaimed = peek(vp, "v_flag") & VRECLAIMED
            if reclaimed and peek(vp, "v_refcnt") & ~VREF_FINALIZE == VREF_TERMINATE:
                f(self.k.curthread(), vp)

    # -- the lock

    @c("vn_lock", "vfs_vnops.c:985-1019", blocks=True)
    @holds("vp referenced; no spinlock unless LK_NOWAIT", "on 0 vnode locked")
    def vn_lock(self, vp: Vnode, flags: int) -> int:
        """vn_lock (vfs_vnops.c): lockmgr on the vnode; with LK_RETRY, until it succeeds.

        With LK_FAILRECLAIM a reclaimed vnode is unlocked again: ENOENT.
        """
        request = flags & (LK_TYPE_MASK | LK_EXTFLG_MASK)
        while error := vp.v_lock.lockmgr(request):
            if not flags & LK_RETRY:
                return error
        if vp.v_flag & VRECLAIMED and flags & LK_FAILRECLAIM:
            vp.v_lock.lockmgr(LK_RELEASE)
            return ENOENT
        return 0

    @c("vn_unlock", "vfs_vnops.c:1032-1036")
    @holds("vnode locked", "vnode unlocked")
    def vn_unlock(self, vp: Vnode) -> None:
        """vn_unlock."""
        vp.v_lock.lockmgr(LK_RELEASE)

    @c("vget", "vfs_lock.c:474-574", blocks=True)
    @holds("no page hard-busied (lock order); no spinlock", "on 0 vnode referenced and locked")
    def vget(self, vp: Vnode, flags: int) -> int:
        """vget (vfs_lock.c:475): reference and lock a vnode, and make an inactive one active again.

        Blocks unless LK_NOWAIT; the caller must have no page hard-busied (lock order).  Returns 0,
        EBUSY, EWOULDBLOCK (LK_TIMELOCK), or ENOENT for a reclaimed vnode.
        """
        k = self.k
        k.kassert(flags & LK_TYPE_MASK, "vget-no-lock-type", str(vp))
        k.atomic.fetchadd_int(vp, "v_refcnt", 1)
        # Reference first: it keeps the vnode from being reused while this thread waits for the
        # lock.
        error = self.vn_lock(vp, flags | LK_FAILRECLAIM)
        if error:
            self.vrele(vp)
        else:
            self._reactivate(vp)
        if (f := k.probe.call) is not None:
            f(k.curthread(), "vget", vnode=vp, flags=flags, result=error)
        return error

    @c("vget", "vfs_lock.c:520-571", part=True)
    @holds("vnode referenced and locked")
    def _reactivate(self, vp: Vnode) -> None:
        self.vclrflags(vp, VINACTIVE)
        vp.v_act = min(vp.v_act + VACT_INC, VACT_MAX)
        if vp.v_state == VS_ACTIVE:
            return
        vp.v_spin.lock()
        self.k.kassert(vp.v_state != VS_DYING, "vnode-state", str(vp))
        drop = VREF_FINALIZE
        if vp.v_state in (VS_INACTIVE, VS_CACHED):
            self._move(vp, VS_ACTIVE)
            drop |= VREF_TERMINATE
        self.k.atomic.clear_int(vp, "v_refcnt", drop)
        vp.v_spin.unlock()

    @c("_vactivate", "vfs_lock.c:156-185")
    @c("_vinactive", "vfs_lock.c:192-236")
    @holds("v_spin")
    def _move(self, vp: Vnode, state: int) -> None:
        """_vactivate, _vinactive (vfs_lock.c:156-185): move to the other list; v_spin is held."""
        self.spin.lock()
        vp.v_state = state
        self.spin.unlock()

    @c("vput", "vfs_lock.c:588-593", blocks=True)
    @holds("vnode referenced and locked", "both released")
    def vput(self, vp: Vnode) -> None:
        """vput (vfs_lock.c:589): unlock and drop the reference."""
        k = self.k
        if (f := k.probe.call) is not None:
            f(k.curthread(), "vput", vnode=vp)
        self.vn_unlock(vp)
        self.vrele(vp)

    @c("vclean_vxlocked", "vfs_subr.c:1216-1218", part=True)
    @holds("vnode locked exclusively")
    def reclaim(self, vp: Vnode) -> None:
        """The start of vclean_vxlocked (vfs_subr.c:1216-1218): vget fails from now on.

        The caller holds the vnode lock exclusively.  The last release will make it inactive.
        """
        self.vsetflags(vp, VRECLAIMED)
        self.k.atomic.set_int(vp, "v_refcnt", VREF_FINALIZE)
        vp.v_act = 0
        with self._guard:
            if vp in self._all:
                self._all.remove(vp)
