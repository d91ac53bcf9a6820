"""The memory system calls (vm_mmap.c): mmap, munmap, msync, mprotect, mlock, madvise, minherit.

Each is called by a thread of the process, takes addresses and sizes in bytes as in the C, and
returns an errno (0: success).  Left out: file descriptors (a Vnode is passed directly, so there are
no access modes to check), devices, virtual page tables, mincore, mlockall, and all limits except
that on wired memory (``sysctl.page_max_wired``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.kern.errno import EAGAIN, EINVAL, EIO, ENOMEM
from smpvm.kern.proc import Proc
from smpvm.kern.vnode import Vnode
from smpvm.vm.map.entry import (
    KERN_FAILURE,
    KERN_INVALID_ADDRESS,
    KERN_NO_SPACE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_WIREFUTURE,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_NORMAL,
    VmMap,
)
from smpvm.vm.param import (
    MAP_COPY_ON_WRITE,
    MAP_DISABLE_SYNCER,
    MAP_PREFAULT_PARTIAL,
    VM_MAX_USER_ADDRESS,
    VM_PROT_ALL,
    VM_PROT_NONE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)

if TYPE_CHECKING:
    from smpvm.vm.object.objects import VmObject
    from smpvm.vm.vm import Vm

MAP_SHARED: Final = 0x0001
MAP_PRIVATE: Final = 0x0002
MAP_FIXED: Final = 0x0010
MAP_STACK: Final = 0x0400
MAP_NOSYNC: Final = 0x0800
MAP_ANON: Final = 0x1000
MAP_TRYFIXED: Final = 0x00010000

MS_ASYNC: Final = 0x0001
MS_INVALIDATE: Final = 0x0002
MS_SYNC: Final = 0x0000

PROT_RW: Final = VM_PROT_READ | VM_PROT_WRITE
MMAP_BASE: Final = 0x8_0000_0000
"""Default address of a mapping (vm_map_hint: behind the data segment)."""

SEG_SIZE: Final = 1 << 21
"""Bytes that a page table segment maps; large mappings are aligned to it."""

_PAGE_MASK = PAGE_SIZE - 1
EACCES: Final = 13


def round_range(addr: int, size: int) -> tuple[int, int]:
    """The whole pages that *size* bytes at *addr* touch: (address, bytes)."""
    pageoff = addr & _PAGE_MASK
    return addr - pageoff, (size + pageoff + _PAGE_MASK) & ~_PAGE_MASK


class Mmap:
    """vm_mmap.c; workloads reach it as ``vm.process.sys``."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k

    @c("kern_mmap", "vm_mmap.c:150-410", blocks=True)
    @holds("no locks", "")
    def mmap(
        self,
        p: Proc,
        addr: int,
        size: int,
        prot: int = PROT_RW,
        flags: int = MAP_ANON | MAP_PRIVATE,
        vp: Vnode | None = None,
        pos: int = 0,
    ) -> tuple[int, int]:
        """kern_mmap (vm_mmap.c:150-410): map anonymous memory, or *vp* from byte *pos* on.

        Blocks.  Returns (errno, address).
        """
        if flags & MAP_ANON and (vp is not None or pos != 0):
            return EINVAL, 0
        if size <= 0:
            return EINVAL, 0
        if flags & MAP_STACK:
            if vp is not None or prot & PROT_RW != PROT_RW:
                return EINVAL, 0
            flags |= MAP_ANON
        pageoff = pos & _PAGE_MASK
        pos -= pageoff
        size = (size + pageoff + _PAGE_MASK) & ~_PAGE_MASK
        if flags & (MAP_FIXED | MAP_TRYFIXED):
            addr -= pageoff
            if addr & _PAGE_MASK or addr < 0 or addr + size > VM_MAX_USER_ADDRESS:
                return EINVAL, 0
        elif addr == 0:
            addr = MMAP_BASE
        if not flags & MAP_ANON and (vp is None or vp.v_object is None):
            return EINVAL, 0
        map = p.p_vmspace.vm_map
        map.token.get()
        error, addr = self.vm_mmap(map, addr, size, prot, VM_PROT_ALL, flags, vp, pos)
        map.token.release()
        return error, addr + pageoff

    @c("vm_mmap", "vm_mmap.c:1178-1492", blocks=True)
    @holds("map not locked (its token may be held)")
    def vm_mmap(
        self,
        map: VmMap,
        addr: int,
        size: int,
        prot: int,
        maxprot: int,
        flags: int,
        vp: Vnode | None,
        foff: int,
    ) -> tuple[int, int]:
        """vm_mmap (vm_mmap.c:1178-1492): make the mapping.  Blocks.  Returns (errno, address)."""
        if size == 0:
            return 0, addr
        maps = self.vm.map
        map.token.get()
        fitit = not flags & (MAP_FIXED | MAP_TRYFIXED)
        large = size & (SEG_SIZE - 1) == 0 or size > 16 * SEG_SIZE
        if foff & _PAGE_MASK or (not fitit and addr & _PAGE_MASK):
            map.token.release()
            return EINVAL, addr
        if fitit:
            addr = (addr + _PAGE_MASK) & ~_PAGE_MASK
        elif not flags & MAP_TRYFIXED:
            maps.remove(map, addr, addr + size)
        obj: VmObject | None = None
        docow = 0
        if flags & MAP_ANON:
            foff = 0
        elif vp is not None:
            obj = self.vm.vnode_pager.reference(vp)
            if obj is None:
                map.token.release()
                return EINVAL, addr
            docow = MAP_PREFAULT_PARTIAL
        if not flags & (MAP_ANON | MAP_SHARED):
            docow |= MAP_COPY_ON_WRITE
        if flags & MAP_NOSYNC:
            docow |= MAP_DISABLE_SYNCER
        if flags & MAP_STACK:
            rv, addr = maps.stack(map, addr, size, not fitit, prot, maxprot)
        else:
            rv, addr = maps.find(
                map,
                obj,
                None,
                foff,
                addr,
                size,
                SEG_SIZE if large else PAGE_SIZE,
                fitit,
                VM_MAPTYPE_NORMAL,
                prot,
                maxprot,
                docow,
            )
        if rv != KERN_SUCCESS:
            self.vm.object.deallocate(obj)
        elif flags & MAP_SHARED:
            rv = maps.inherit(map, addr, addr + size, VM_INHERIT_SHARE)
            if rv != KERN_SUCCESS:
                maps.remove(map, addr, addr + size)
        if rv == KERN_SUCCESS and map.flags & MAP_WIREFUTURE:
            maps.unwire(map, addr, addr + size, False)
        map.token.release()
        return to_errno(rv), addr

    @c("sys_munmap", "vm_mmap.c:525-576", blocks=True, uncalled=True)
    @holds("no locks", "")
    def munmap(self, p: Proc, addr: int, size: int) -> int:
        """sys_munmap (vm_mmap.c:525-576): unmap a range, all of which must be mapped.  Blocks."""
        addr, size = round_range(addr, size)
        if size == 0:
            return 0
        if addr < 0 or addr + size > VM_MAX_USER_ADDRESS:
            return EINVAL
        map = p.p_vmspace.vm_map
        map.token.get()
        if not self.vm.map.check_protection(map, addr, addr + size, VM_PROT_NONE, False):
            map.token.release()
            return EINVAL
        self.vm.map.remove(map, addr, addr + size)
        map.token.release()
        return 0

    @c("sys_msync", "vm_mmap.c:436-516", blocks=True)
    @holds("no locks", "")
    def msync(self, p: Proc, addr: int, size: int, flags: int = MS_SYNC) -> int:
        """sys_msync (vm_mmap.c:436-516): write the file pages of a range.  Blocks, also for I/O.

        *size* 0 means the whole entry at *addr*.
        """
        addr, size = round_range(addr, size)
        if flags & MS_ASYNC and flags & MS_INVALIDATE:
            return EINVAL
        maps, map = self.vm.map, p.p_vmspace.vm_map
        map.token.get()
        if size == 0:
            maps.lock_read(map)
            found, entry = maps.lookup_entry(map, addr)
            start, end = entry.start, entry.end
            maps.unlock_read(map)
            if not found:
                map.token.release()
                return EINVAL
            addr, size = start, end - start
        rv = maps.clean(map, addr, addr + size, not flags & MS_ASYNC, bool(flags & MS_INVALIDATE))
        map.token.release()
        if rv == KERN_SUCCESS:
            return 0
        return EIO if rv == KERN_FAILURE else EINVAL

    @c("sys_mprotect", "vm_mmap.c:583-624", blocks=True)
    @holds("no locks", "")
    def mprotect(self, p: Proc, addr: int, size: int, prot: int) -> int:
        """sys_mprotect (vm_mmap.c:583-624).  Blocks."""
        addr, size = round_range(addr, size)
        rv = self.vm.map.protect(p.p_vmspace.vm_map, addr, addr + size, prot & VM_PROT_ALL, False)
        if rv == KERN_SUCCESS:
            return 0
        return EACCES if rv == KERN_PROTECTION_FAILURE else EINVAL

    @c("sys_minherit", "vm_mmap.c:633-670", blocks=True, uncalled=True)
    @holds("no locks", "")
    def minherit(self, p: Proc, addr: int, size: int, inheritance: int) -> int:
        """sys_minherit (vm_mmap.c:633-670).  Blocks."""
        addr, size = round_range(addr, size)
        rv = self.vm.map.inherit(p.p_vmspace.vm_map, addr, addr + size, inheritance)
        return 0 if rv == KERN_SUCCESS else EINVAL

    @c("sys_madvise", "vm_mmap.c:679-713", blocks=True)
    @holds("no locks", "")
    def madvise(self, p: Proc, addr: int, size: int, behav: int) -> int:
        """sys_madvise (vm_mmap.c:679-713).  Blocks."""
        addr, size = round_range(addr, size)
        if addr < 0 or addr + size > VM_MAX_USER_ADDRESS:
            return EINVAL
        return self.vm.map.madvise(p.p_vmspace.vm_map, addr, addr + size, behav)

    @c("sys_mlock", "vm_mmap.c:981-1024", blocks=True)
    @holds("no locks", "")
    def mlock(self, p: Proc, addr: int, size: int) -> int:
        """sys_mlock (vm_mmap.c:981-1024): EAGAIN if more would be wired than the machine allows.

        The C checks v_wire_count once and without a lock, so two callers may both pass.  Blocks.
        """
        addr, size = round_range(addr, size)
        limit = self.vm.sysctl.page_max_wired
        if size // PAGE_SIZE + self.vm.stats.v_wire_count > limit:
            return EAGAIN
        rv = self.vm.map.unwire(p.p_vmspace.vm_map, addr, addr + size, False)
        return 0 if rv == KERN_SUCCESS else ENOMEM

    @c("sys_munlock", "vm_mmap.c:1139-1169", blocks=True)
    @holds("no locks", "")
    def munlock(self, p: Proc, addr: int, size: int) -> int:
        """sys_munlock (vm_mmap.c:1139-1169).  Blocks."""
        addr, size = round_range(addr, size)
        rv = self.vm.map.unwire(p.p_vmspace.vm_map, addr, addr + size, True)
        return 0 if rv == KERN_SUCCESS else ENOMEM


@c("vm_mmap_to_errno", "vm_mmap.c:1498-1513")
def to_errno(rv: int) -> int:
    """vm_mmap_to_errno (vm_mmap.c:1498-1513)."""
    if rv == KERN_SUCCESS:
        return 0
    if rv in (KERN_INVALID_ADDRESS, KERN_NO_SPACE):
        return ENOMEM
    return EACCES if rv == KERN_PROTECTION_FAILURE else EINVAL
