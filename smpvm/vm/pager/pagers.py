"""vm_pager.c: dispatch by the type of an object to the pager that reads and writes its pages.

The small pagers (default, device, phys, dead) are in this file too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from smpvm.kern.cname import c, holds, own
from smpvm.vm.object.struct import VmObject
from smpvm.vm.param import (
    OBJT_DEAD,
    OBJT_DEFAULT,
    OBJT_DEVICE,
    OBJT_MGTDEVICE,
    OBJT_PHYS,
    OBJT_SWAP,
    OBJT_VNODE,
    VM_PAGE_BITS_ALL,
    VM_PAGER_AGAIN,
    VM_PAGER_FAIL,
    VM_PAGER_NAMES,
    VM_PAGER_OK,
)

if TYPE_CHECKING:
    from smpvm.vm.page.pages import Page
    from smpvm.vm.pager.disk import Disk
    from smpvm.vm.vm import Vm

GetPage = Callable[[VmObject, "Page", int], int]
PutPages = Callable[[VmObject, Sequence["Page"], int], list[int]]
HasPage = Callable[[VmObject, int], bool]


class Pagers:
    """vm_pager.c: ``vm.pager``."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k

    # -- dispatch

    @c("vm_pager_get_page", "vm_pager.h:125-135", blocks=True)
    @holds("obj held, a pip reference; m busied")
    def get_page(self, obj: VmObject, m: Page, seqaccess: int) -> int:
        """vm_pager_get_page, vm_pager.h:125-135: read the busied page *m*.

        The caller holds *obj* and has a paging reference.  Returns a VM_PAGER_* status; with
        VM_PAGER_OK the page is fully valid.  *m* stays busy and is not replaced (a device pager of
        the C would replace it: see ``device_getpage``).  Blocks.
        """
        status = self._getpage(obj)(obj, m, seqaccess)
        if status == VM_PAGER_OK and m.valid != VM_PAGE_BITS_ALL:
            self.vm.page.zero_invalid(m, True)
        return status

    @c("vm_pager_put_pages", "vm_pager.h:137-147", blocks=True)
    @holds(
        "pages soft-busy, a pip reference for each",
        "PEND: released by the pager; else the caller's",
    )
    def put_pages(self, obj: VmObject, pages: Sequence[Page], flags: int) -> list[int]:
        """vm_pager_put_pages, vm_pager.h:137-147: write the soft-busy *pages* of *obj*.

        *flags* are VM_PAGER_PUT_* and similar.  Returns a status for each page: with VM_PAGER_PEND
        the pager drops the soft busy and paging references at completion, otherwise the caller
        does.  Panics ``device-pager-put`` and ``phys-pager-put``.  Blocks.
        """
        k = self.k
        status = self._putpages(obj)(obj, pages, flags)
        td = k.curthread()
        for each in dict.fromkeys(status):
            td.hit(f"vm_pager_put_pages:{VM_PAGER_NAMES[each]}")
        if (f := k.probe.call) is not None:
            f(td, "put_pages", object=obj, pages=list(pages), flags=flags, statuses=status)
        return status

    @c("vm_pager_has_page", "vm_pager.h:160-164", blocks=True)
    @holds("obj held")
    def has_page(self, obj: VmObject, pindex: int) -> bool:
        """vm_pager_has_page, vm_pager.h:160-164: whether the backing store has a copy."""
        return self._haspage(obj)(obj, pindex)

    @c("vm_pager_deallocate", "vm_pager.c:335-339", blocks=True)
    @c("default_pager_dealloc", "default_pager.c:91-98")
    @c("dead_pager_dealloc", "vm_pager.c:138-143")
    @c("phys_pager_dealloc", "phys_pager.c:70-75")
    @holds("obj held exclusively")
    def deallocate(self, obj: VmObject) -> None:
        """vm_pager_deallocate, vm_pager.c:335-339: free the backing store of a dying object."""
        kind = obj.type
        if kind == OBJT_SWAP:
            self.vm.swap.dealloc(obj)
        elif kind == OBJT_VNODE:
            self.vm.vnode_pager.dealloc(obj)
        elif kind in (OBJT_DEVICE, OBJT_MGTDEVICE):
            self.device_dealloc(obj)
        else:
            if kind == OBJT_PHYS:
                self.k.kassert(obj.handle is None, "phys-pager-handle", str(obj))
            self.k.kassert(obj.swblock_count == 0, "dealloc-swap", str(obj))

    @own
    def disks(self) -> list[Disk]:
        """The devices of the pagers."""
        return [self.vm.swap.disk, self.vm.vnode_pager.disk]

    @c("vm_pager_get_page", "vm_pager.h:130", part=True)
    def _getpage(self, obj: VmObject) -> GetPage:
        kind = obj.type
        if kind == OBJT_SWAP:
            return self.vm.swap.getpage
        if kind == OBJT_VNODE:
            return self.vm.vnode_pager.getpage
        if kind in (OBJT_DEVICE, OBJT_MGTDEVICE):
            return self.device_getpage
        return self.phys_getpage if kind == OBJT_PHYS else self.no_getpage

    @c("vm_pager_put_pages", "vm_pager.h:145-146", part=True)
    @c("default_pager_putpages", "default_pager.c:117-122", part=True)
    def _putpages(self, obj: VmObject) -> PutPages:
        kind = obj.type
        if kind in (OBJT_SWAP, OBJT_DEFAULT):
            return self.vm.swap.putpages
        if kind == OBJT_VNODE:
            return self.vm.vnode_pager.putpages
        if kind in (OBJT_DEVICE, OBJT_MGTDEVICE):
            return self.device_putpages
        return self.phys_putpages if kind == OBJT_PHYS else self.dead_putpages

    @c("vm_pager_has_page", "vm_pager.h:163", part=True)
    def _haspage(self, obj: VmObject) -> HasPage:
        kind = obj.type
        if kind == OBJT_SWAP:
            return self.vm.swap.haspage
        if kind == OBJT_VNODE:
            return self.vm.vnode_pager.haspage
        return self.no_haspage if kind in (OBJT_DEFAULT, OBJT_DEAD) else self.always_haspage

    # -- default_pager.c, the dead pager

    @c("default_pager_getpage", "default_pager.c:105-109")
    @c("dead_pager_getpage", "vm_pager.c:106-110")
    @holds("obj held; m busied")
    def no_getpage(self, obj: VmObject, m: Page, seqaccess: int) -> int:
        """default_pager_getpage, default_pager.c:105-109; dead_pager_getpage too."""
        return VM_PAGER_FAIL

    @c("default_pager_haspage", "default_pager.c:136-140")
    @c("dead_pager_haspage", "vm_pager.c:129-133")
    @holds("obj held")
    def no_haspage(self, obj: VmObject, pindex: int) -> bool:
        """default_pager_haspage, default_pager.c:136-140; dead_pager_haspage too."""
        return False

    @c("dev_pager_haspage", "device_pager.c:265-269")
    @c("phys_pager_haspage", "phys_pager.c:119-123")
    @holds("obj held")
    def always_haspage(self, obj: VmObject, pindex: int) -> bool:
        """dev_pager_haspage, device_pager.c:265-269; phys_pager_haspage, device_pager.c:265-269."""
        return True

    @c("dead_pager_putpages", "vm_pager.c:115-124")
    @holds("pages soft-busy")
    def dead_putpages(self, obj: VmObject, pages: Sequence[Page], flags: int) -> list[int]:
        """dead_pager_putpages, vm_pager.c:115-124."""
        return [VM_PAGER_AGAIN] * len(pages)

    # -- phys_pager.c

    @c("phys_pager_alloc", "phys_pager.c:48-65", blocks=True, uncalled=True)
    @holds("no spinlock", "")
    def phys_alloc(self, size: int) -> VmObject:
        """phys_pager_alloc, phys_pager.c:48-65: an object of *size* pages of plain memory."""
        return self.vm.object.allocate(OBJT_PHYS, size)

    @c("phys_pager_getpage", "phys_pager.c:80-92")
    @holds("m busied")
    def phys_getpage(self, obj: VmObject, m: Page, seqaccess: int) -> int:
        """phys_pager_getpage, phys_pager.c:80-92.

        A zeroed page, permanently off the paging queues.
        """
        page = self.vm.page
        page.zero_fill(m)
        page.unmanage(m)
        m.valid = VM_PAGE_BITS_ALL
        m.dirty = VM_PAGE_BITS_ALL
        return VM_PAGER_OK

    @c("phys_pager_putpages", "phys_pager.c:97-103")
    @holds("", "panics")
    def phys_putpages(self, obj: VmObject, pages: Sequence[Page], flags: int) -> list[int]:
        """phys_pager_putpages, phys_pager.c:97-103: panics."""
        self.k.panic("phys-pager-put", str(obj))

    # -- device_pager.c, in brief: a device whose pages read as zeros

    @c("cdev_pager_allocate", "device_pager.c:109-169", blocks=True, uncalled=True)
    @holds("no spinlock", "")
    def device_alloc(self, handle: Any, size: int, managed: bool = False) -> VmObject:
        """cdev_pager_allocate, device_pager.c:109-169: an object of *size* pages of a device."""
        obj = self.vm.object.allocate_hold(OBJT_MGTDEVICE if managed else OBJT_DEVICE, size)
        obj.handle = handle
        self.vm.object.drop(obj)
        return obj

    @c("dev_pager_dealloc", "device_pager.c:201-229")
    @holds("obj held")
    def device_dealloc(self, obj: VmObject) -> None:
        """dev_pager_dealloc, device_pager.c:201-229: detach the object from the device."""
        obj.handle = None

    @c("dev_pager_getpage", "device_pager.c:237-250")
    @holds("m busied")
    def device_getpage(self, obj: VmObject, m: Page, seqaccess: int) -> int:
        """dev_pager_getpage, device_pager.c:237-250: a zeroed page.

        The C replaces *m* by a fictitious page for the device's memory; here *m* itself stands for
        it, so no caller has to follow a replacement.
        """
        self.vm.page.zero_fill(m)
        m.valid = VM_PAGE_BITS_ALL
        m.dirty = 0
        return VM_PAGER_OK

    @c("dev_pager_putpages", "device_pager.c:255-260")
    @holds("", "panics")
    def device_putpages(self, obj: VmObject, pages: Sequence[Page], flags: int) -> list[int]:
        """dev_pager_putpages, device_pager.c:255-260: panics."""
        self.k.panic("device-pager-put", str(obj))
