"""Repairs of vnode_pager.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.repairs.base import repair
from smpvm.vm.pager.vnode import VnodePager

if TYPE_CHECKING:
    from smpvm.kern.vnode import Vnode
    from smpvm.vm.object.struct import VmObject


@repair(
    "pager-lock-ident",
    "Sleep on the vnode when it cannot be locked, not on the first object's handle",
    "vnode_pager_lock (vnode_pager.c:835)",
)
class PagerLockIdent(VnodePager):
    """The sleep before the next try is on the vnode itself.

    In the C it is on the handle of the chain's first object, which is NULL for anonymous objects
    and for those whose vnode has just been reclaimed; tsleep asserts that it is not.
    """

    def retry_ident(self, obj: VmObject, vp: Vnode) -> Vnode | None:
        """vnode_pager.c:835 with the vnode."""
        return vp
