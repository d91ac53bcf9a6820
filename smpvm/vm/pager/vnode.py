"""vnode_pager.c: the VM objects of files, their size and termination; ``vnode_io`` has the I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds, own
from smpvm.kern.lockreq import LK_CANRECURSE, LK_EXCLUSIVE, LK_RETRY, LK_SHARED
from smpvm.kern.token import Token
from smpvm.kern.vnode import VINACTIVE, VOBJBUF, VRECLAIMED, Vnode
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_NEED_COMMIT
from smpvm.vm.pager.vnode_io import NOOFFSET, WORD, File, VnodeIo
from smpvm.vm.param import (
    OBJ_DEAD,
    OBJPC_SYNC,
    OBJT_DEAD,
    OBJT_VNODE,
    VM_PAGE_BITS_ALL,
    VM_PROT_NONE,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page


class VnodePager(VnodeIo):
    """vnode_pager.c: ``vm.vnode_pager``."""

    # -- files and their objects

    @own
    def new_file(self, size: int, name: str = "") -> Vnode:
        """Create a file of *size* bytes of zeros: a vnode with one reference and a VM object."""
        vp = self.k.vnode.new()
        vp.data = File(Token(self.k, "v_token", str(vp)), name or str(vp), size)
        self.vinitvmio(vp, size)
        return vp

    @c("vinitvmio", "vfs_subr.c:1578-1610", blocks=True)
    @holds("vp referenced")
    def vinitvmio(self, vp: Vnode, filesize: int) -> None:
        """vinitvmio, vfs_subr.c: create the VM object of *vp* (referenced), without a reference to
        it.
        """
        objects = self.vm.object
        obj: VmObject | None = vp.v_object
        if obj is None:
            obj = self.alloc(vp, filesize)
            objects.hold(obj)
            self.k.atomic.add_int(obj, "ref_count", -1)
            self.k.vnode.vrele(vp)
        else:
            objects.hold(obj)
            self.k.kassert(not obj.flags & OBJ_DEAD, "vinitvmio-dead", str(obj))
        self.k.vnode.vsetflags(vp, VOBJBUF)
        objects.drop(obj)

    @c("vnode_pager_alloc", "vnode_pager.c:101-189", blocks=True)
    @holds("vp referenced; no spinlock")
    def alloc(self, vp: Vnode, length: int) -> VmObject:
        """vnode_pager_alloc, vnode_pager.c:101-189: the object of *vp*, referenced once more.

        The caller has *vp* referenced; each reference on the object is also one on *vp*.  Blocks.
        """
        k, objects, file = self.k, self.vm.object, self.file(vp)
        file.token.get()
        obj: VmObject | None = vp.v_object
        pages = (length + PAGE_SIZE - 1) // PAGE_SIZE
        if obj is not None:
            objects.hold(obj)
            k.kassert(not obj.flags & OBJ_DEAD, "vnode-alloc-dead", str(obj))
            objects.reference_quick(obj)
            if obj.size != pages or file.size != length:
                kprintf(k, "vnode-alloc-size", object=obj, size=file.size, length=length)
        else:
            obj = objects.allocate_hold(OBJT_VNODE, pages)
            obj.handle = vp
            vp.v_object = obj
            file.size = length
            k.vnode.vref(vp)
        objects.drop(obj)
        file.token.release()
        return obj

    @c("vnode_pager_reference", "vnode_pager.c:202-210")
    @holds("vp referenced")
    def reference(self, vp: Vnode) -> VmObject | None:
        """vnode_pager_reference, vnode_pager.c:202-210: the object, referenced once more, or None.

        The caller has *vp* referenced.
        """
        obj: VmObject | None = vp.v_object
        if obj is not None:
            self.vm.object.reference_quick(obj)
        return obj

    @c("vnode_pager_dealloc", "vnode_pager.c:212-228", blocks=True)
    @holds("obj held exclusively")
    def dealloc(self, obj: VmObject) -> None:
        """vnode_pager_dealloc, vnode_pager.c:212-228.

        Detach *obj*, held, from its vnode.  Blocks.
        """
        vp = obj.handle
        self.k.kassert(vp is not None, "vnode-pager-dealloced", str(obj))
        self.vm.object.pip_wait(obj, "vnpdea")
        obj.handle = None
        obj.type = OBJT_DEAD
        vp.v_object = None
        self.file(vp).size = NOOFFSET
        self.k.vnode.vclrflags(vp, VOBJBUF)
        self.vm.swap.freespace_all(obj)

    @c("vnode_pager_haspage", "vnode_pager.c:235-282")
    @holds("obj held")
    def haspage(self, obj: VmObject, pindex: int) -> bool:
        """vnode_pager_haspage, vnode_pager.c:235-282: whether the file has a block at *pindex*."""
        vp = obj.handle
        if vp is None or vp.v_flag & VRECLAIMED:
            return False
        file = self.file(vp)
        return pindex * PAGE_SIZE < file.size and pindex in file.blocks

    @c("vnode_pager_lock", "vnode_pager.c:788-842", blocks=True)
    @holds("obj held; no spinlock", "obj held; the vnode returned referenced and locked shared")
    def lock(self, obj: VmObject | None) -> Vnode | None:
        """vnode_pager_lock, vnode_pager.c:788-842: lock the vnode at the end of a chain, shared.

        *obj* is held on entry and return; the objects behind it are held one after the other.
        Returns the vnode, referenced and locked, or None if there is none.  Blocks.
        """
        if obj is None:
            return None
        objects = self.vm.object
        objects.assert_held(obj)
        at = obj
        while at.type != OBJT_VNODE:
            if at.flags & OBJ_DEAD:
                break
            behind = at.backing_object
            if behind is None:
                break
            objects.hold_shared(behind)
            # Waiting for its token may have let a collapse replace it.
            if behind is not at.backing_object:
                objects.drop(behind)
                continue
            if at is not obj:
                objects.lock_swap()
                objects.drop(at)
            at = behind
        vp = self._lock_end(obj, at)
        if at is not obj:
            objects.drop(at)
        return vp

    @c("vnode_pager_lock", "vnode_pager.c:819-838", part=True, blocks=True)
    @holds("obj and at held", "obj and at held; the vnode returned referenced and locked shared")
    def _lock_end(self, obj: VmObject, at: VmObject) -> Vnode | None:
        k = self.k
        while at.type == OBJT_VNODE and not at.flags & OBJ_DEAD:
            vp: Vnode | None = at.handle
            if vp is None:
                k.panic("null-vnode", str(at), kind="fault")
            error = k.vnode.vget(vp, LK_SHARED | LK_RETRY | LK_CANRECURSE)
            if error == 0:
                same: bool = at.handle is vp
                if same:
                    return vp
                k.vnode.vput(vp)
            else:
                kprintf(k, "vnode-pager-lock", vnode=vp, error=error)
                ident = self.retry_ident(obj, vp)
                if ident is None:
                    k.panic("sleep-no-ident", f"vnpgrl, {obj} has no handle")
                k.sleep.tsleep(ident, 0, "vnpgrl", k.hz, cond=lambda: False)
        return None

    @c("vnode_pager_lock", "vnode_pager.c:835", part=True)
    @holds("obj held")
    def retry_ident(self, obj: VmObject, vp: Vnode) -> Vnode | None:
        """What to sleep on when *vp* cannot be had: the handle of the first object of the chain, of
        which an anonymous one has none, and a reclaimed file's no longer.
        """
        handle: Vnode | None = obj.handle
        return handle

    @c("vnode_pager_setsize", "vnode_pager.c:295-409", blocks=True)
    @holds("vp locked exclusively normally")
    def setsize(self, vp: Vnode, nsize: int) -> None:
        """vnode_pager_setsize, vnode_pager.c:295-409: set the size of the file to *nsize* bytes.

        Pages behind the new end are discarded, and the rest of the last one is zeroed.  The caller
        normally has *vp* locked exclusively.  Sleeps for busy pages.
        """
        obj: VmObject | None = vp.v_object
        if obj is None:
            return
        objects, file = self.vm.object, self.file(vp)
        objects.hold(obj)
        self.k.kassert(vp.v_object is obj, "setsize-object", str(vp))
        if nsize != file.size:
            nobjsize = (nsize + PAGE_SIZE - 1) // PAGE_SIZE
            oobjsize = obj.size
            obj.size = nobjsize
            shrunk = nsize < file.size
            file.size = nsize
            if shrunk:
                if nobjsize < oobjsize:
                    objects.page_remove(obj, nobjsize, oobjsize, False)
                if nsize % PAGE_SIZE:
                    self._zero_tail(obj, nsize)
        objects.drop(obj)

    @c("vnode_pager_setsize", "vnode_pager.c:342-404", part=True, blocks=True)
    @holds("obj held exclusively")
    def _zero_tail(self, obj: VmObject, nsize: int) -> None:
        """Zero the part of the last page, if resident, that is behind the end of the file
        (:341-391).
        """
        page = self.vm.page
        m = page.lookup_busy_wait(obj, nsize // PAGE_SIZE, True, "vsetsz")
        if m is None:
            return
        if m.valid:
            base = nsize % PAGE_SIZE
            self.vm.pmap.zero_page_area(m, base, PAGE_SIZE - base)
            # Unmapping transfers the modified bits: data behind the new end must not reappear.
            page.protect(m, VM_PROT_NONE)
            page.clear_dirty_beg_nonincl(m, base, PAGE_SIZE - base)
            if m.dirty:
                m.dirty = VM_PAGE_BITS_ALL
        page.wakeup(m)

    @c("vtruncbuf", "vfs_subr.c:431-516", blocks=True)
    @holds("vp locked exclusively")
    def truncate(self, vp: Vnode, nsize: int) -> None:
        """vtruncbuf, vfs_subr.c, and its caller in the file system: set the size to *nsize* bytes.

        The caller has *vp* locked exclusively.  The file's blocks are freed after the pages are
        gone, so no page can be written to a freed block.  Blocks.
        """
        file = self.file(vp)
        file.token.get()
        self.setsize(vp, nsize)
        first = (nsize + PAGE_SIZE - 1) // PAGE_SIZE
        for pindex in [p for p in file.blocks if p >= first]:
            file.blocks.pop(pindex, None)
        tail = nsize % PAGE_SIZE
        last = file.blocks.get(nsize // PAGE_SIZE)
        if tail and last is not None:
            kept = {word: value for word, value in last.items() if word * WORD < tail}
            file.blocks[nsize // PAGE_SIZE] = kept
        file.token.release()

    @c("vnode_pager_freepage", "vnode_pager.c:417-426", blocks=True)
    @holds("m busied; no spinlock", "m unbusied")
    def freepage(self, m: Page) -> None:
        """vnode_pager_freepage, vnode_pager.c:417-426: release a busied page that got no data.

        Frees it, unless it is otherwise in use (then activates and unbusies it).
        """
        page = self.vm.page
        if m.busy or m.wire_count or m.flags & PG_NEED_COMMIT:
            page.activate(m)
            page.wakeup(m)
        else:
            page.free(m)

    @c("vinvalbuf", "vfs_subr.c:269-357", blocks=True)
    @holds("vp referenced", "")
    def vinvalbuf(self, vp: Vnode, save: bool) -> None:
        """vinvalbuf, vfs_subr.c: wait for I/O, then discard clean pages (all pages without *save*).

        Blocks.
        """
        file = self.file(vp)
        file.token.get()
        obj: VmObject | None = vp.v_object
        if obj is not None:
            self.vm.object.pip_wait(obj, "vnvlbx")
            self.vm.object.page_remove(obj, 0, 0, save)
        file.token.release()

    @own
    def fsync(self, vp: Vnode) -> None:
        """VOP_FSYNC(vp, MNT_WAIT): write all dirty pages and wait for the writes.

        The caller has *vp* locked.  Blocks.
        """
        obj: VmObject | None = vp.v_object
        if obj is not None:
            self.vm.object.page_clean(obj, 0, 0, OBJPC_SYNC)
            self.vm.object.pip_wait(obj, "vnfsync")

    @c("vclean_vxlocked", "vfs_subr.c:1198-1334", blocks=True)
    @holds("vp referenced, not locked")
    def reclaim(self, vp: Vnode) -> None:
        """vclean_vxlocked, vfs_subr.c:1198-1334: reclaim *vp* and terminate its object.

        The caller has a reference but no lock; takes the vnode lock exclusively.  Blocks.
        """
        k, objects = self.k, self.vm.object
        k.vnode.vn_lock(vp, LK_EXCLUSIVE)
        k.vnode.reclaim(vp)
        self.vinvalbuf(vp, True)
        if not vp.v_flag & VINACTIVE:
            k.vnode.vsetflags(vp, VINACTIVE)
            self.vinvalbuf(vp, True)
        while (obj := vp.v_object) is not None:
            objects.hold(obj)
            if obj is vp.v_object:
                break
            objects.drop(obj)
        if obj is not None:
            if obj.ref_count == 0:
                if not obj.flags & OBJ_DEAD:
                    objects.terminate(obj)
                objects.drop(obj)
            else:
                self.vm.pager.deallocate(obj)
                objects.drop(obj)
        k.vnode.vclrflags(vp, VOBJBUF)
        k.vnode.vn_unlock(vp)
