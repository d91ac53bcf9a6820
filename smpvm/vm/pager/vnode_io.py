"""Reading and writing the pages of files (the I/O half of vnode_pager.c), and the model of a file.

The buffer cache is left out, except for what the VM sees of it: while a block is read or written,
its page has one more soft-busy reference and its object one more paging reference, which the
device's thread drops at completion (vfs_busy_pages and bpdone of vfs_bio.c).  Wiring by buffers is
not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds, own
from smpvm.kern.errno import EINVAL
from smpvm.kern.token import Token
from smpvm.kern.vnode import VRECLAIMED, Vnode
from smpvm.vm.console import kprintf
from smpvm.vm.object.struct import VmObject
from smpvm.vm.pager.disk import READ, WRITE, Contents, Disk, Io
from smpvm.vm.param import (
    OBJPC_SYNC,
    VM_PAGE_BITS_ALL,
    VM_PAGER_AGAIN,
    VM_PAGER_BAD,
    VM_PAGER_ERROR,
    VM_PAGER_OK,
    VM_PAGER_PUT_INVAL,
    VM_PAGER_PUT_SYNC,
    VM_PROT_NONE,
    VM_PROT_READ,
    u32,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page
    from smpvm.vm.vm import Vm

NOOFFSET = -1
WORD = 8
"""Bytes per word of page contents."""


class File:
    """The file of a vnode (its ``data``): the size in bytes (v_filesize), the blocks, v_token.

    ``blocks`` maps a page index to the words on disk; a block of zeros, or a hole, is absent.
    """

    __slots__ = ("blocks", "name", "size", "token")

    def __init__(self, token: Token, name: str, size: int) -> None:
        self.token = token
        self.name = name
        self.size = size
        self.blocks: dict[int, Contents] = {}


class VnodeIo:
    """Page-in and page-out of files."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k
        self.disk = Disk(vm.k, "file", vm.config.file_disk, vm.config.seed)

    @own
    def file(self, vp: Vnode) -> File:
        """The file behind *vp*."""
        data = vp.data
        assert isinstance(data, File)
        return data

    @c("vnode_pager_getpage", "vnode_pager.c:436-447", blocks=True)
    @c("vnode_pager_generic_getpages", "vnode_pager.c:458-619")
    @holds(
        "m busied, obj held, vnode locked",
        "m busied, obj held, vnode locked (m only soft-busy meanwhile)",
    )
    def getpage(self, obj: VmObject, m: Page, seqaccess: int) -> int:
        """vnode_pager_getpage, vnode_pager.c:436-447 (and the generic getpages, :448-609).

        The caller has *m* busied, *obj* held and the vnode locked (vm_fault: shared).  The page is
        only soft-busy during the read; it is busy again on return.  Returns VM_PAGER_OK,
        VM_PAGER_BAD (reclaimed vnode) or VM_PAGER_ERROR.  Blocks.
        """
        k, page = self.k, self.vm.page
        vp: Vnode = obj.handle
        if vp.v_flag & VRECLAIMED:
            return VM_PAGER_BAD
        if m.pindex * PAGE_SIZE >= self.file(vp).size:
            return VM_PAGER_ERROR
        # The buffer's I/O busies the page itself: leave it soft-busy meanwhile.
        page.io_start(m)
        page.wakeup(m)
        td = k.curthread()
        td.hit("v_vnodein")
        td.hit("v_vnodepgsin")
        error = self.vop_read(vp, obj, m)
        page.busy_wait(m, False, "getpgs")
        page.io_finish(m)
        if m.valid == 0:
            if error == 0:
                kprintf(k, "getpages-not-valid", page=m)
                error = EINVAL
        elif m.valid != VM_PAGE_BITS_ALL:
            page.zero_invalid(m, True)
        if error:
            kprintf(k, "vnode-read-error", vnode=vp, error=error)
        return VM_PAGER_ERROR if error else VM_PAGER_OK

    @own
    def vop_read(self, vp: Vnode, obj: VmObject, m: Page) -> int:
        """VOP_READ into the page itself: read a block that is not valid from the disk.

        Returns an errno.  Sleeps for the I/O.  If the page is fully valid its buffer becomes valid
        too (B_CACHE) and is not read again.
        """
        if m.valid == VM_PAGE_BITS_ALL:
            return 0
        self._busy_pages(obj, [m], False)
        io = self._io(READ, vp, obj, [m], self.read_done)
        self.disk.strategy(io)
        return self.disk.biowait(io, "biord")

    @c("bpdone", "vfs_bio.c:4023-4025", part=True, blocks=True)
    @holds("nothing (device's thread)", "")
    def read_done(self, io: Io) -> None:
        """bpdone of a read: the pages become valid."""
        page = self.vm.page

        def valid(m: Page) -> None:
            if not io.error:
                page.set_validclean(m, 0, PAGE_SIZE)

        self._bpdone(io, valid)

    # -- page-out

    @c("vnode_pager_putpages", "vnode_pager.c:631-665", blocks=True)
    @c("vnode_pager_generic_putpages", "vnode_pager.c:677-782")
    @holds("pages soft-busy, a pip reference for each; vnode locked")
    def putpages(self, obj: VmObject, pages: Sequence[Page], flags: int) -> list[int]:
        """vnode_pager_putpages, vnode_pager.c:631-665 (and generic_putpages, :668-783).

        The soft-busy *pages* are contiguous.  Synchronous if memory is extremely short.  Returns
        for each page VM_PAGER_OK (written or being written, and clean), VM_PAGER_BAD behind the end
        of the file, or VM_PAGER_AGAIN after an error.  Blocks.
        """
        k, stats = self.k, self.vm.stats
        if u32(stats.v_free_count + stats.v_cache_count) < stats.v_pageout_free_min:
            flags |= OBJPC_SYNC
        vp: Vnode = obj.handle
        status = [VM_PAGER_AGAIN] * len(pages)
        inside = (self.file(vp).size + PAGE_SIZE - 1) // PAGE_SIZE - pages[0].pindex
        ncount = max(0, min(len(pages), inside))
        for i in range(ncount, len(pages)):
            status[i] = VM_PAGER_BAD
        sync = bool(flags & (VM_PAGER_PUT_SYNC | VM_PAGER_PUT_INVAL))
        error = self.vop_write(vp, obj, pages[:ncount], sync) if ncount else 0
        td = k.curthread()
        td.hit("v_vnodeout")
        td.cnt["v_vnodepgsout"] += ncount
        if error:
            kprintf(k, "vnode-write-error", vnode=vp, error=error)
            return status
        for i in range(ncount):
            status[i] = VM_PAGER_OK
            self.vm.page.undirty(pages[i])
        return status

    @own
    def vop_write(self, vp: Vnode, obj: VmObject, pages: Sequence[Page], sync: bool) -> int:
        """VOP_WRITE of resident pages: bwrite and wait with *sync*, else bawrite.

        Returns an errno (0 for a write that was only started).
        """
        self._busy_pages(obj, pages, True)
        io = self._io(WRITE, vp, obj, pages, self.write_done)
        self.disk.strategy(io)
        return self.disk.biowait(io, "biowr") if sync else 0

    @c("bpdone", "vfs_bio.c:4023-4057", part=True, blocks=True)
    @holds("nothing (device's thread)", "")
    def write_done(self, io: Io) -> None:
        """bpdone of a write.

        After an error the C keeps the block as a dirty buffer, to be written again (bdirty); here
        the page becomes dirty again.
        """
        page = self.vm.page

        def again(m: Page) -> None:
            if io.error:
                page.dirty(m)

        self._bpdone(io, again)

    @c("bpdone", "vfs_bio.c:3881-4080", blocks=True)
    @holds("nothing (device's thread)", "")
    def _bpdone(self, io: Io, each: Callable[[Page], None]) -> None:
        """bpdone, vfs_bio.c:3881-4080, in the device's thread: calls *each* for every page, busied
        again.

        The object is held throughout; sleeps for a busy page.
        """
        page, objects, obj = self.vm.page, self.vm.object, io.object
        objects.hold(obj)
        for m in io.pages:
            page.busy_wait(m, False, "bpdpgw")
            each(m)
            page.io_finish(m)
            page.wakeup(m)
            objects.pip_wakeup(obj)
        objects.drop(obj)

    # -- what a buffer does to its pages

    def _io(
        self, cmd: str, vp: Vnode, obj: VmObject, pages: Sequence[Page], done: Callable[[Io], None]
    ) -> Io:
        blocks = self.file(vp).blocks
        io = self.k.new(Io, self.k, cmd, blocks, pages[0].pindex, pages, done)
        io.object = obj
        return io

    @c("vfs_busy_pages", "vfs_bio.c:4222-4370", blocks=True)
    @holds(
        "pages not busied by the caller; no spinlock",
        "one soft busy and one pip reference more for each",
    )
    def _busy_pages(self, obj: VmObject, pages: Sequence[Page], writing: bool) -> None:
        """vfs_busy_pages, vfs_bio.c:4222-4370.

        One more soft-busy and paging reference for each page.

        A page to be written becomes read-only and clean (from here on the buffer is responsible for
        its data); a page to be read is unmapped.  Blocks.
        """
        page = self.vm.page
        while not self._busy_all(pages):
            pass
        for m in pages:
            self.vm.object.pip_add(obj, 1)
            page.io_start(m)
        for m in pages:
            page.protect(m, VM_PROT_READ if writing else VM_PROT_NONE)
            if writing:
                self._clean_page(m)
                self.vm.swap.unswapped(m)
            page.wakeup(m)

    @c("vfs_busy_pages", "vfs_bio.c:4247-4257", part=True, blocks=True)
    @holds("pages not busied by the caller", "on True all busied")
    def _busy_all(self, pages: Sequence[Page]) -> bool:
        """Busy all of *pages*, or none: sleeps for a busy page with the ones before it still
        busied.

        Returns whether they are busied now.
        """
        page = self.vm.page
        for i, m in enumerate(pages):
            if page.busy_try(m, False):
                page.sleep_busy(m, False, "vbpage")
                for other in reversed(pages[:i]):
                    page.wakeup(other)
                return False
        return True

    @c("vfs_clean_one_page", "vfs_bio.c:4415-4512")
    @holds("m busied")
    def _clean_page(self, m: Page) -> None:
        """vfs_clean_one_page, vfs_bio.c:4415-4512, for a whole page: its dirty data are the
        buffer's now.
        """
        page = self.vm.page
        page.test_dirty(m)
        if m.dirty == VM_PAGE_BITS_ALL:
            self.vm.pmap.clear_modify(m)
        page.set_validclean(m, 0, PAGE_SIZE)
