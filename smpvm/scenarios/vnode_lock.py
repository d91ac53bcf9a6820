"""The vnode itself: two vgets of an inactive vnode, upgrades of its lock, and reclaim.

Situation: a vnode is inactive: its last reference has gone, and with it what VOP_INACTIVE does.  It
is looked up again by two threads at once, as by a name cache.  In the second scenario three threads
have the vnode shared and want it exclusively; in the third one of two lookups meets its reclaim.

Threads: ``shared`` and ``exclusive`` vget, look, vput; ``upgrade 1`` and ``upgrade 2`` lock shared,
upgrade as a file system does, change the file's size twice, unlock; ``reader`` looks at it.

What must hold: whoever has it finds the vnode active, and only one has it exclusively; a reclaimed
one is not got; references and locks are given back.

C: vget, vput, vrele, vnode_terminate, _vactivate, _vinactive, vn_lock, lockmgr (LK_UPGRADE,
LK_EXCLUPGRADE, LK_SHARED, LK_EXCLUSIVE, LK_RELEASE), vclean_vxlocked.
"""

from __future__ import annotations

from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RETRY, LK_SHARED, LK_UPGRADE
from smpvm.kern.vnode import VREF_FINALIZE, VREF_MASK, VS_ACTIVE, VS_INACTIVE
from smpvm.scenarios.base import VmScenario


class VgetInactive(VmScenario):
    """See the module."""

    name = "vget-inactive"
    title = "two vgets of an inactive vnode"
    pages = 2

    def setup(self) -> None:
        """A file that nobody uses any more."""
        self.vp = self.file({0: 1})
        self.refs = self.vp.v_refcnt
        self.make()
        self.thread("shared", self.get, LK_SHARED)
        self.thread("exclusive", self.get, LK_EXCLUSIVE)

    def make(self) -> None:
        """The last reference goes; the object's own has gone before, with the file's pages."""
        self.k.atomic.set_int(self.vp, "v_refcnt", VREF_FINALIZE)
        while self.vp.v_state == VS_ACTIVE:
            self.k.vnode.vrele(self.vp)
        assert self.vp.v_state == VS_INACTIVE

    def get(self, flags: int) -> None:
        """Look it up."""
        vnode = self.k.vnode
        assert vnode.vget(self.vp, flags | LK_RETRY) == 0, "vget failed"
        state = self.vp.v_state
        assert state == VS_ACTIVE, f"{self.vp} is locked and in state {state}"
        vnode.vput(self.vp)

    def check(self) -> None:
        """Nobody has it."""
        assert self.vp.v_refcnt & VREF_MASK == 0, f"references are left: {self.vp.v_refcnt:#x}"
        assert not self.vp.v_lock.lockstatus(), "the lock is left"


class VnodeUpgrade(VmScenario):
    """Two who upgrade, one who reads."""

    name = "vnode-upgrade"
    title = "upgrades of a vnode's lock"
    pages = 2

    def setup(self) -> None:
        """A file."""
        self.vp = self.file({0: 1})
        self.c = self.shared(first=0, second=0)
        for i in range(2):
            self.thread(f"upgrade {i + 1}", self.upgrade)
        self.thread("reader", self.reader)

    def upgrade(self) -> None:
        """Shared, then exclusive: both words change together."""
        vnode, c = self.k.vnode, self.c
        assert vnode.vget(self.vp, LK_SHARED | LK_RETRY) == 0
        assert c.first == c.second, "who has it shared sees a change half done"
        while vnode.vn_lock(self.vp, LK_UPGRADE):
            vnode.vn_lock(self.vp, LK_SHARED | LK_RETRY)
        c.first = c.first + 1
        c.second = c.second + 1
        vnode.vput(self.vp)

    def reader(self) -> None:
        """Shared only."""
        vnode = self.k.vnode
        assert vnode.vget(self.vp, LK_SHARED | LK_RETRY) == 0
        assert self.c.first == self.c.second, "who has it shared sees a change half done"
        vnode.vput(self.vp)

    def check(self) -> None:
        """Both changes."""
        assert (self.c.first, self.c.second) == (2, 2), "a change is lost"
        assert not self.vp.v_lock.lockstatus(), "the lock is left"


class VgetReclaim(VgetInactive):
    """Beside its reclaim."""

    name = "vget-reclaim"
    title = "vget of a vnode against its reclaim"

    def make(self) -> None:
        """It is still used: a forced unmount."""
        self.thread("reclaim", self.vm.vnode_pager.reclaim, self.vp)

    def get(self, flags: int) -> None:
        """Look it up, if it is still there."""
        vnode = self.k.vnode
        if vnode.vget(self.vp, flags | LK_RETRY) == 0:
            assert self.vp.v_object is not None, f"{self.vp} is reclaimed, and got"
            vnode.vput(self.vp)

    def check(self) -> None:
        """As many references as before."""
        assert not self.vp.v_lock.lockstatus(), "the lock is left"
