"""Files through their vnodes: read, write, truncate, fsync, reclaim, the last close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smpvm.config import PAGE_SIZE
from smpvm.fuzz.operations.table import Operation
from smpvm.fuzz.shape import Op
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_SHARED
from smpvm.kern.vnode import VRECLAIMED, Vnode
from smpvm.vm.fault.state import VM_FAULT_NORMAL
from smpvm.vm.page.struct import VM_ALLOC_NORMAL, VM_ALLOC_RETRY
from smpvm.vm.pager.vnode_io import WORD
from smpvm.vm.param import VM_PAGE_BITS_ALL, VM_PAGER_OK, VM_PROT_READ

if TYPE_CHECKING:
    from smpvm.fuzz.actor import Actor
    from smpvm.vm.object.struct import VmObject
    from smpvm.vm.page.pages import Page

HALF: Final = PAGE_SIZE // 2


def locked(a: Actor, vp: Vnode, flags: int) -> VmObject | None:
    """Lock the file's vnode; its object, or None (and no lock) if it is reclaimed."""
    k = a.k
    if k.vnode.vget(vp, flags):
        return None
    obj: VmObject | None = vp.v_object
    if obj is None or vp.v_flag & VRECLAIMED:
        k.vnode.vput(vp)
        return None
    return obj


def fread(a: Actor, op: Op) -> None:
    """A page of the file, held: vm_fault_object_page, as exec reads an image (imgact_elf.c:379).

    The vnode is referenced, not locked: the fault locks it.
    """
    vp = a.file(op.region)
    obj = locked(a, vp, LK_SHARED)
    if obj is None:
        return
    a.k.vnode.vn_unlock(vp)
    vm = a.vm
    offset = (op.page or 0) * PAGE_SIZE
    if offset < vm.vnode_pager.file(vp).size:
        vm.object.hold(obj)
        m, _, _ = vm.fault.object_page(obj, offset, VM_PROT_READ, VM_FAULT_NORMAL, False)
        vm.object.drop(obj)
        if m is not None:
            vm.page.unhold(m)
    a.k.vnode.vrele(vp)


def fwrite(a: Actor, op: Op) -> None:
    """write(2) of one word, extending the file if need be: the page is grabbed and wired, as by a
    buffer (allocbuf)."""
    vp = a.file(op.region)
    obj = locked(a, vp, LK_EXCLUSIVE)
    if obj is None:
        return
    vm = a.vm
    pindex = op.page or 0
    size = (pindex + 1) * PAGE_SIZE
    if size > vm.vnode_pager.file(vp).size:
        vm.vnode_pager.setsize(vp, size)
    m = vm.page.grab(obj, pindex, VM_ALLOC_NORMAL | VM_ALLOC_RETRY)
    assert m is not None  # RETRY waits for as long as it takes
    vm.object.hold(obj)
    if _valid(a, obj, m):
        vm.page.wire(m)
        a.store_file(op.region, pindex, m)
        vm.page.dirty(m)
        vm.object.set_writeable_dirty(obj)
        vm.page.unwire(m, True)
        vm.page.wakeup(m)
    else:
        vm.page.free(m)
    vm.object.drop(obj)
    a.k.vnode.vput(vp)


def _valid(a: Actor, obj: VmObject, m: Page) -> bool:
    """Make busied page *m* valid: from the disk, or zeroed where the file has no block."""
    if m.valid == VM_PAGE_BITS_ALL:
        return True
    if a.vm.vnode_pager.haspage(obj, m.pindex):
        return a.vm.vnode_pager.getpage(obj, m, 0) == VM_PAGER_OK
    a.vm.pmap.zero_page(m)
    m.valid = VM_PAGE_BITS_ALL
    return True


def truncate(a: Actor, op: Op) -> None:
    """ftruncate to so many pages, or with ``half`` to half a page more; may extend."""
    vp = a.file(op.region)
    if locked(a, vp, LK_EXCLUSIVE) is None:
        return
    size = (op.page or 0) * PAGE_SIZE + (HALF if op.word == "half" else 0)
    a.vm.vnode_pager.truncate(vp, size // WORD * WORD)
    a.k.vnode.vput(vp)


def fsync(a: Actor, op: Op) -> None:
    """VOP_FSYNC, waiting."""
    vp = a.file(op.region)
    if locked(a, vp, LK_EXCLUSIVE) is None:
        return
    a.vm.vnode_pager.fsync(vp)
    a.k.vnode.vput(vp)


def inval(a: Actor, op: Op) -> None:
    """vinvalbuf: discard the clean pages, as a file system does that learns of a change."""
    vp = a.file(op.region)
    if locked(a, vp, LK_EXCLUSIVE) is None:
        return
    a.vm.vnode_pager.vinvalbuf(vp, True)
    a.k.vnode.vput(vp)


def reclaim(a: Actor, op: Op) -> None:
    """revoke(2), or an unmount by force: the vnode is cleaned under those who use it."""
    a.reclaim(op.region)


FILE_OPS: Final = (
    Operation("fread", fread, "page", files=True, beyond=1),
    Operation("fwrite", fwrite, "page", files=True, beyond=1),
    Operation("truncate", truncate, "page", ("half",), files=True, beyond=2, loosens="access"),
    Operation("fsync", fsync, "region", files=True),
    Operation("inval", inval, "region", files=True, loosens="words"),
    Operation("reclaim", reclaim, "region", files=True, loosens="access"),
)
