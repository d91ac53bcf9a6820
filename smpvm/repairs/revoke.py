"""Repairs of what happens to the users of a file that is revoked (vclean under them)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.lockreq import LK_CANRECURSE, LK_RETRY, LK_SHARED
from smpvm.repairs.base import repair
from smpvm.vm.map.entry import VmMapEntry
from smpvm.vm.map.maps import Maps
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.pages import Pages
from smpvm.vm.pager.vnode import VnodePager
from smpvm.vm.param import OBJ_DEAD, OBJ_ONEMAPPING, OBJT_DEFAULT, OBJT_SWAP, OBJT_VNODE

if TYPE_CHECKING:
    from smpvm.kern.vnode import Vnode
    from smpvm.vm.page.struct import Page


@repair(
    "revoke-split",
    "Hold an object that is to be cloned, as it may have lost its vnode",
    "vm_map_split (vm_map.c:3099-3104), vm_object_reference_quick (vm_object.c:510-518)",
)
class RevokeSplit(Maps):
    """vm_map_split holds the object, and references one that is a file's no longer like any other.

    In the C, fork of a process that has a revoked file mapped private panics on an assertion.
    """

    def split(self, entry: VmMapEntry) -> None:
        obj, objects = entry.object, self.vm.object
        if obj.type in (OBJT_DEFAULT, OBJT_SWAP):
            super().split(entry)
            return
        objects.hold(obj)
        objects.chain_wait(obj)
        objects.reference_locked(obj)
        objects.clear_flag(obj, OBJ_ONEMAPPING)
        objects.drop(obj)


@repair(
    "revoke-mmap",
    "Take and drop a vnode's object under v_token, as vnode_pager_alloc does",
    "vnode_pager_reference (vnode_pager.c:203-209), vnode_pager_dealloc (:213-228)",
)
class RevokeMmap(VnodePager):
    """The object of a vnode is referenced, and detached, with v_token held.

    In the C, mmap may reference an object that revoke has just detached: an assertion fails.
    """

    def reference(self, vp: Vnode) -> VmObject | None:
        token = self.file(vp).token
        token.get()
        obj = super().reference(vp)
        token.release()
        return obj

    def dealloc(self, obj: VmObject) -> None:
        token = self.file(obj.handle).token
        token.get()
        super().dealloc(obj)
        token.release()


@repair(
    "revoke-sleep",
    "Do not sleep on the handle of an object that has none",
    "vnode_pager_lock (vnode_pager.c:829-834)",
)
class RevokeSleep(VnodePager):
    """vnode_pager_lock looks again when vget fails: the object is dead by then.

    In the C it sleeps on object->handle, which is NULL for the anonymous object in front of a file,
    and for a file that has been revoked: tsleep asserts that there is an ident.
    """

    def _lock_end(self, obj: VmObject, at: VmObject) -> Vnode | None:
        vnodes = self.k.vnode
        while at.type == OBJT_VNODE and not at.flags & OBJ_DEAD:
            vp: Vnode | None = at.handle
            if vp is None:
                return None
            if vnodes.vget(vp, LK_SHARED | LK_RETRY | LK_CANRECURSE):
                self.k.sleep.tsleep(at, 0, "vnpgrl", self.k.hz, cond=lambda: False)
                continue
            same: bool = at.handle is vp
            if same:
                return vp
            vnodes.vput(vp)
        return None


@repair(
    "cache-free",
    "Do not cache a page that has been freed",
    "vm_page_try_to_cache (vm_page.c:2416-2430)",
)
class CacheFree(Pages):
    """vm_page_try_to_cache refuses a page on the free or hold queue, as try_to_free does.

    In the C the buffer cache (vfs_bio.c:1871) unbusies the page and then asks: it may have been
    freed in between, and would go to the cache queue without an object.
    """

    def try_to_cache(self, m: Page) -> bool:
        self.pool.lock(m)
        free = m.queue - m.pc in (self.FREE, self.HOLD)
        self.pool.unlock(m)
        return not free and super().try_to_cache(m)
