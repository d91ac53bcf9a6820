"""Address spaces: struct vmspace, its two counts and two-stage termination, fork and exec.

``vm_refcnt`` counts the processes that run in it; the last release removes the mappings (stage 1).
``vm_holdcnt`` counts those references and every temporary hold; the last release frees the rest
(stage 2).  A refcnt of -1 means that stage 1 has begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smpvm.config import PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.kern.shared import shared
from smpvm.vm.map.entry import (
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_USER_WIRED,
    OBJECT_MAPTYPES,
    VM_INHERIT_COPY,
    VM_INHERIT_NONE,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_SUBMAP,
    VM_MAPTYPE_UKSMAP,
    VmMap,
    VmMapEntry,
)
from smpvm.vm.param import (
    OBJ_ONEMAPPING,
    OBJT_DEFAULT,
    OBJT_SWAP,
    OBJT_VNODE,
    SWAP_META_PAGES,
    VM_MAX_USER_ADDRESS,
    VM_MIN_USER_ADDRESS,
)

if TYPE_CHECKING:
    from smpvm.kern.proc import Proc
    from smpvm.vm.pmap.pmaps import Pmap
    from smpvm.vm.vm import Vm

VMSPACE_EXIT1 = 0x0001
VMSPACE_EXIT2 = 0x0002


@shared("vm_refcnt", "vm_holdcnt", "vm_flags")
class VmSpace:
    """struct vmspace (vm_map.h): a map, its pmap, and the sizes of the process.

    ``vm_swrss``, ``vm_tsize``, ``vm_dsize``, ``vm_ssize`` are in pages; addresses are in bytes.
    """

    __slots__ = (
        "vm_daddr",
        "vm_dsize",
        "vm_flags",
        "vm_holdcnt",
        "vm_map",
        "vm_maxsaddr",
        "vm_pmap",
        "vm_refcnt",
        "vm_ssize",
        "vm_swrss",
        "vm_taddr",
        "vm_tsize",
    )

    @c("vmspace_initrefs", "vm_map.c:256-261")
    def __init__(self, map: VmMap, pmap: Pmap) -> None:
        self.vm_map = map
        self.vm_pmap = pmap
        self.vm_flags = 0
        self.vm_refcnt = 1
        self.vm_holdcnt = 1
        self.vm_swrss = 0
        self.vm_tsize = 0
        self.vm_dsize = 0
        self.vm_ssize = 0
        self.vm_taddr = 0
        self.vm_daddr = 0
        self.vm_maxsaddr = 0

    def __str__(self) -> str:
        return f"vmspace {self.vm_map.id}"

    @c("vmspace_fork", "vm_map.c:3427-3428", part=True)
    @c("vmspace_exec", "vm_map.c:3891-3893", part=True)
    @holds("map token of other")
    def startcopy(self, other: VmSpace) -> None:
        """Copy the fields between vm_startcopy and vm_endcopy, as fork and exec do."""
        self.vm_swrss = other.vm_swrss
        self.vm_tsize = other.vm_tsize
        self.vm_dsize = other.vm_dsize
        self.vm_ssize = other.vm_ssize
        self.vm_taddr = other.vm_taddr
        self.vm_daddr = other.vm_daddr
        self.vm_maxsaddr = other.vm_maxsaddr


class VmSpaces:
    """vmspace_* of vm_map.c: ``vm.vmspace``."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k

    @c("vmspace_alloc", "vm_map.c:273-304")
    @holds("", "one reference and one hold")
    def alloc(self, low: int = VM_MIN_USER_ADDRESS, high: int = VM_MAX_USER_ADDRESS) -> VmSpace:
        """vmspace_alloc (vm_map.c:273-304): an empty space with one reference and one hold."""
        k = self.k
        pmap = self.vm.pmap.pinit()
        map = self.vm.map.create(pmap, low, high)
        space = k.new(VmSpace, map, pmap)
        map.vmspace = space
        pmap.map = map
        return space

    @c("vmspace_getrefs", "vm_map.c:309-313")
    def getrefs(self, space: VmSpace) -> int:
        """vmspace_getrefs (vm_map.c:309-313): the reference count; -1 once it is exiting."""
        return space.vm_refcnt

    @c("vmspace_hold_notoken", "vm_map.c:319-324")
    @holds("a hold, or knowledge of one", "a hold more")
    def hold_notoken(self, space: VmSpace) -> None:
        """vmspace_hold_notoken (vm_map.c:319-324): add a hold; there must already be one."""
        self.k.kassert(space.vm_holdcnt != 0, "vmspace-hold-dead", str(space))
        self.k.atomic.add_int(space, "vm_holdcnt", 1)

    @c("vmspace_drop_notoken", "vm_map.c:326-334", blocks=True)
    @holds("a hold; no spinlock", "hold released")
    def drop_notoken(self, space: VmSpace) -> None:
        """vmspace_drop_notoken (vm_map.c:326-334): drop a hold; the last one frees the space."""
        if self._release(space, "vm_holdcnt") and space.vm_refcnt == -1:
            self._terminate_final(space)

    @c("vmspace_hold", "vm_map.c:336-341", blocks=True)
    @holds("a hold or reference elsewhere; no spinlock", "a hold and the map token")
    def hold(self, space: VmSpace) -> None:
        """vmspace_hold (vm_map.c:336-341): add a hold and take the map's token.  Blocks."""
        self.hold_notoken(space)
        space.vm_map.token.get()

    @c("vmspace_drop", "vm_map.c:343-348", blocks=True)
    @holds("a hold and the map token", "both released")
    def drop(self, space: VmSpace) -> None:
        """vmspace_drop (vm_map.c:343-348): release the token, then the hold."""
        space.vm_map.token.release()
        self.drop_notoken(space)

    @c("vmspace_ref", "vm_map.c:356-362")
    @holds("a reference or hold", "a reference (and its hold) more")
    def ref(self, space: VmSpace) -> None:
        """vmspace_ref (vm_map.c:356-362).

        Add a reference; not allowed once the space is exiting.
        """
        self.k.kassert(space.vm_refcnt >= 0, "vmspace-ref-dead", str(space))
        self.hold_notoken(space)
        self.k.atomic.add_int(space, "vm_refcnt", 1)

    @c("vmspace_rel", "vm_map.c:369-377", blocks=True)
    @holds("a reference; no spinlock", "released")
    def rel(self, space: VmSpace) -> None:
        """vmspace_rel (vm_map.c:369-377): undo vmspace_ref.  Blocks."""
        self.relexit(space)
        self.drop_notoken(space)

    @c("vmspace_relexit", "vm_map.c:388-395", blocks=True)
    @holds("a reference; no spinlock", "released, its hold stays")
    def relexit(self, space: VmSpace) -> None:
        """vmspace_relexit (vm_map.c:388-395).

        At exit, drop the reference but keep the hold.  Blocks.
        """
        if self._release(space, "vm_refcnt"):
            space.vm_refcnt = -1
            self._terminate_first(space)

    @c("vmspace_exitfree", "vm_map.c:403-411", blocks=True)
    @holds("the hold left by vmspace_relexit", "released")
    def exitfree(self, p: Proc) -> None:
        """vmspace_exitfree (vm_map.c:403-411): at reap, drop the remaining hold.  Blocks."""
        space = p.p_vmspace
        p.p_vmspace = None
        if space is not None:
            self.drop_notoken(space)

    @c("refcount_release", "refcount.h:60-64")
    def _release(self, space: VmSpace, field: str) -> bool:
        """refcount_release: decrement; True if that was the last."""
        left = self.k.atomic.fetchadd_int(space, field, -1) - 1
        self.k.kassert(left >= 0, "refcount-negative", f"{space}.{field}")
        return left == 0

    @c("vmspace_terminate", "vm_map.c:431-459", part=True, blocks=True)
    @holds("no spinlock", "")
    def _terminate_first(self, space: VmSpace) -> None:
        """vmspace_terminate(vm, 0) (vm_map.c:431-459): remove the mappings.

        The bulk removal of mappings comes first only if nothing is wired, because unwiring finds
        the pages through the pmap.
        """
        map, pmap = space.vm_map, space.vm_pmap
        map.token.get()
        self.k.kassert(not space.vm_flags & VMSPACE_EXIT1, "vmspace-exit-twice", str(space))
        space.vm_flags |= VMSPACE_EXIT1
        low, high = VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS
        if pmap.wired_count:
            self.vm.map.remove(map, low, high)
            self.vm.pmap.remove_pages(pmap, low, high)
        else:
            self.vm.pmap.remove_pages(pmap, low, high)
            self.vm.map.remove(map, low, high)
        map.token.release()

    @c("vmspace_terminate", "vm_map.c:461-487", part=True, blocks=True)
    @holds("no spinlock", "")
    def _terminate_final(self, space: VmSpace) -> None:
        """vmspace_terminate(vm, 1) (vm_map.c:461-487).

        Free what is left; nobody can reach the space.
        """
        map = space.vm_map
        map.token.get()
        self.k.kassert(space.vm_flags & VMSPACE_EXIT1, "vmspace-not-exited", str(space))
        self.k.kassert(not space.vm_flags & VMSPACE_EXIT2, "vmspace-freed-twice", str(space))
        space.vm_flags |= VMSPACE_EXIT2
        self.vm.map.lock(map)
        self.vm.map.delete(map, map.min_offset, map.max_offset)
        self.vm.map.unlock(map)
        self.vm.pmap.release(space.vm_pmap)
        map.token.release()
        if (f := self.k.probe.freed) is not None:
            td = self.k.curthread()
            for part in (space.vm_pmap, map, space):
                f(td, part)

    # -- sizes

    @c("vmspace_swap_count", "vm_map.c:499-528", blocks=True)
    @holds("a hold or reference; no spinlock")
    def swap_count(self, space: VmSpace) -> int:
        """vmspace_swap_count (vm_map.c:499-528).

        Swap pages, estimated; at least 1 per entry with swap.

        Holds the space.  Only the map's token protects the walk, not the map lock, although
        vm_map_protect, _madvise, _inherit and the wiring calls merge and free entries without the
        token.
        """
        count = 0
        self.hold(space)
        for entry in self.vm.map.walk(space.vm_map):
            obj = entry.vm_object
            if obj is not None and (blocks := obj.swblock_count):
                n = (entry.end - entry.start) // PAGE_SIZE
                count += blocks * SWAP_META_PAGES * n // obj.size + 1
        self.drop(space)
        return count

    @c("vmspace_anonymous_count", "vm_map.c:537-565", blocks=True)
    @holds("a hold or reference; no spinlock")
    def anonymous_count(self, space: VmSpace) -> int:
        """vmspace_anonymous_count (vm_map.c:537-565): resident pages of the anonymous objects.

        Holds the space, like vmspace_swap_count.  An object counts once for each of its entries.
        """
        count = 0
        self.hold(space)
        for entry in self.vm.map.walk(space.vm_map):
            obj = entry.vm_object
            if obj is not None and obj.type in (OBJT_DEFAULT, OBJT_SWAP):
                count += obj.resident_page_count
        self.drop(space)
        return count

    @c("vmspace_resident_count", "vm_map.h:426-430")
    @holds("map token")
    def resident_count(self, space: VmSpace) -> int:
        """vmspace_resident_count (vm_map.h): pages mapped in its pmap, page tables included."""
        return self.vm.pmap.resident_count(space.vm_pmap)

    # -- fork and exec

    @c("vmspace_fork", "vm_map.c:3413-3471", blocks=True)
    @holds("map of old not locked (its token may be held)")
    def fork(self, old: VmSpace) -> VmSpace:
        """vmspace_fork (vm_map.c:3413-3471): a new space that is a copy of *old*.

        Entries are shared, made copy-on-write or left out, according to their inheritance.  *old*'s
        map is not locked on entry.  Locks both maps exclusively; blocks.
        """
        src = old.vm_map
        src.token.get()
        self.vm.map.lock(src)
        new = self.alloc(src.min_offset, src.max_offset)
        dst = new.vm_map
        dst.token.get()
        new.startcopy(old)
        dst.timestamp = 1
        self.vm.map.lock(dst)
        entry = src.header.next
        while entry is not src.header:
            if entry.maptype == VM_MAPTYPE_SUBMAP:
                self.k.panic("map-fork-submap", str(src))
            elif entry.maptype == VM_MAPTYPE_UKSMAP:
                self._fork_clone(dst, entry)
            elif entry.maptype in OBJECT_MAPTYPES:
                self.fork_normal_entry(src, dst, entry)
            entry = entry.next
        dst.size = src.size
        self.vm.map.unlock(src)
        self.vm.map.unlock(dst)
        dst.token.release()
        src.token.release()
        return new

    @c("vmspace_fork_normal_entry", "vm_map.c:3473-3572", blocks=True)
    @holds("both maps locked exclusively, both map tokens")
    def fork_normal_entry(self, src: VmMap, dst: VmMap, old: VmMapEntry) -> None:
        """vmspace_fork_normal_entry (vm_map.c:3473-3572).  Both maps locked, tokens held.  Blocks.

        The caller updates ``dst.size``.
        """
        if old.inheritance == VM_INHERIT_NONE:
            return
        if old.inheritance == VM_INHERIT_SHARE:
            self._fork_share_object(old)
            new = self._fork_clone(dst, old)
            self.vm.pmap.copy(dst.pmap, src.pmap, new.start, old.end - old.start, old.start)
        elif old.inheritance == VM_INHERIT_COPY:
            new = self._fork_clone(dst, old, objectless=True)
            self.vm.map.copy_entry(src, dst, old, new)

    @c("vmspace_fork_normal_entry", "vm_map.c:3489-3530", part=True, blocks=True)
    @holds("map of old locked exclusively")
    def _fork_share_object(self, old: VmMapEntry) -> None:
        """Reference the object of a shared entry; allocate or shadow it first if needed."""
        objects = self.vm.object
        if old.object is None:
            self.vm.map.entry_allocate_object(old)
        if old.eflags & MAP_ENTRY_NEEDS_COPY:
            self.vm.map.entry_shadow(old, True)
            return
        obj = old.object
        if obj.type == OBJT_VNODE:
            objects.reference_quick(obj)
            objects.clear_flag(obj, OBJ_ONEMAPPING)
        else:
            objects.hold(obj)
            objects.chain_wait(obj, False)
            objects.reference_locked(obj)
            objects.clear_flag(obj, OBJ_ONEMAPPING)
            objects.drop(obj)

    @c("vmspace_fork_normal_entry", "vm_map.c:3536-3547", part=True)
    @c("vmspace_fork_uksmap_entry", "vm_map.c:3578-3591", part=True)
    @holds("both maps locked exclusively")
    def _fork_clone(self, dst: VmMap, old: VmMapEntry, objectless: bool = False) -> VmMapEntry:
        """A clone of *old* at the end of *dst*, not wired."""
        new = self.vm.map.entry_clone(old)
        new.eflags &= ~MAP_ENTRY_USER_WIRED
        new.wired_count = 0
        if objectless:
            new.object = None
        self.vm.map.entry_link(dst, dst.header.prev, new)
        return new

    @c("vmspace_exec", "vm_map.c:3872-3906", blocks=True)
    @holds("no spinlock; called by p's thread", "")
    def exec(self, p: Proc, vmcopy: VmSpace | None = None) -> None:
        """vmspace_exec (vm_map.c:3872-3906): give *p* a space of its own, empty or a copy.

        Blocks: the reference on the old space is dropped.
        """
        old: VmSpace = p.p_vmspace
        old.vm_map.token.get()
        if vmcopy is not None:
            new = self.fork(vmcopy)
            new.vm_map.token.get()
        else:
            new = self.alloc(old.vm_map.min_offset, old.vm_map.max_offset)
            new.vm_map.token.get()
            new.startcopy(old)
        self._replacevm(p, new)
        new.vm_map.token.release()
        old.vm_map.token.release()
        self.rel(old)

    @c("vmspace_unshare", "vm_map.c:3912-3930", blocks=True, uncalled=True)
    @holds("no spinlock; called by p's thread", "")
    def unshare(self, p: Proc) -> None:
        """vmspace_unshare (vm_map.c:3912-3930).

        Leave a shared space for a copy-on-write copy of it.
        """
        old: VmSpace = p.p_vmspace
        old.vm_map.token.get()
        if self.getrefs(old) == 1:
            old.vm_map.token.release()
            return
        new = self.fork(old)
        new.vm_map.token.get()
        self._replacevm(p, new)
        new.vm_map.token.release()
        old.vm_map.token.release()
        self.rel(old)

    @c("pmap_replacevm", "pmap.c:5186-5203")
    @holds("map tokens of both spaces")
    def _replacevm(self, p: Proc, new: Any) -> None:
        """pmap_replacevm (pmap.c): *p* runs in *new* from now on."""
        p.p_vmspace = new
