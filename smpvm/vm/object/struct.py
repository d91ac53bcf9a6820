"""struct vm_object and the base of vm_object.c: lock, hold, flags, paging_in_progress.

An object's *token* is its lock.  ``hold_count`` keeps the structure in memory while a thread owns
that token or waits for it; ``ref_count`` counts map entries, shadows and other owners.  The
structure is freed when both are zero and OBJ_DEAD is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smpvm.kern.cname import c, holds, own
from smpvm.kern.guard import FREE, Guard, guarded
from smpvm.kern.shared import Site, shared
from smpvm.kern.token import Token
from smpvm.kern.vnode import VOBJDIRTY
from smpvm.vm.object.memq import PageTree
from smpvm.vm.param import (
    OBJ_DEAD,
    OBJ_MIGHTBEDIRTY,
    OBJ_ONEMAPPING,
    OBJ_WRITEABLE,
    OBJT_DEFAULT,
    OBJT_NAMES,
    OBJT_SWAP,
    OBJT_VNODE,
    PQ_PRIME2,
    U32,
)

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.pager.swap_meta import SwBlock
    from smpvm.vm.vm import Vm

VMOBJ_HSIZE = 8
"""Number of lists of all objects (64 in the C; nothing depends on it)."""

KERNEL_OBJECT_SIZE = 1 << 35
"""Size of kernel_object in pages: all of kernel virtual memory."""


_SWAPS = "readers without the token treat OBJT_DEFAULT and OBJT_SWAP alike"
_MODE = "only picks how to lock the first object (vm_fault.c:496-508)"
_BIGGEST = "picks the biggest object by an instant's values, the map locked but not the objects"
_APPROXIMATE = "an approximate size, for the kill scan (vm_pageout.c:1571-1576)"
_KNOWN = (
    Site("type", "swp_pager_meta_convert", "swap_pager.c:2144", _SWAPS, "write"),
    Site("type", "swap_pager_copy", "swap_pager.c:822", _SWAPS, "write"),
    Site("backing_object", "vm_fault", "vm_fault.c:510", _MODE),
    Site("backing_object", "vm_object_chain_release_all", "vm_object.c:701", "the chain is locked"),
    Site("shadow_count", "vm_pageout_map_deactivate_pages", "vm_pageout.c:659", _BIGGEST),
    Site("resident_page_count", "vm_pageout_map_deactivate_pages", "vm_pageout.c:661", _BIGGEST),
    Site("resident_page_count", "vmspace_anonymous_count", "vm_map.c:556", _APPROXIMATE),
    Site("swblock_count", "vmspace_swap_count", "vm_map.c:515", _APPROXIMATE),
)


_FEW = Site("shadow_head", "vm_fault", "vm_fault.c:511", _MODE)


@shared(
    "ref_count",
    "hold_count",
    "flags",
    "type",
    "size",
    "handle",
    "chainlk",
    "generation",
    "shadow_count",
    "swblock_count",
    "backing_object",
    "backing_object_offset",
    "paging_in_progress",
    "resident_page_count",
    benign=_KNOWN,
    atomic={
        "ref_count": "atomic (vm_object.c:729-843); who decides by it compares and sets",
        "hold_count": "vm_object_hold and vm_object_drop are atomic (refcount(9))",
        "flags": "vm_object_set_flag and vm_object_clear_flag are atomic (vm_object.h:267-277)",
        "paging_in_progress": "refcount(9): atomic, with a bit for who waits",
        "chainlk": "a lock word: atomic, looked at before each compare-and-set",
    },
)
@guarded(
    Guard("rb_memq", "token", "vm_page.c:1023, 1124", container=True),
    Guard("shadow_head", "token", "vm_object.c:1082, 1940", container=True, sites=(_FEW,)),
    Guard("size", "token", "vm_object.h:140", read=FREE),
    Guard("type", "token", "swap_pager.c:2169", read=FREE),
    Guard("handle", "token", "vnode_pager.c:162, 222", read=FREE),
    Guard("swblock_root", "token", "swap_pager.c:2117, 2131", container=True),
    Guard("swblock_count", "token", "swap_pager.c:2169"),
    Guard("shadow_count", "token", "vm_object.c:1084, 1942"),
    Guard("generation", "token", "vm_page.c:1023, vm_object.c:1378"),
    Guard("resident_page_count", "token", "vm_page.c:1023, 1090"),
    Guard("backing_object", "token", "vm_object.c:1088, 2412"),
    Guard("backing_object_offset", "token", "vm_object.c:1954, 2424"),
)
class VmObject:
    """struct vm_object (vm_object.h:127-196).

    ``backing_object_offset`` is in bytes, ``size`` in pages.  ``shadow_head`` lists the objects
    that this one backs, newest last (the C's list has the newest first); it stays empty for vnode
    objects.  ``swblock_root`` maps a rounded-down page index to its block of swap metadata.
    """

    __slots__ = (
        "__weakref__",
        "backing_object",
        "backing_object_offset",
        "chainlk",
        "devp",
        "flags",
        "generation",
        "handle",
        "hold_count",
        "num",
        "paging_in_progress",
        "pg_color",
        "rb_memq",
        "ref_count",
        "resident_page_count",
        "shadow_count",
        "shadow_head",
        "size",
        "swblock_count",
        "swblock_root",
        "token",
        "type",
        "zfreed",
    )

    @c("_vm_object_allocate", "vm_object.c:376-402", part=True)
    def __init__(self, kernel: Kernel, type_: int, size: int, pg_color: int) -> None:
        self.num = kernel.next_id("object")
        self.token = Token(kernel, "object", str(self))
        self.rb_memq = kernel.container(PageTree, self, "rb_memq")
        self.shadow_head: dict[VmObject, None] = kernel.container(dict, self, "shadow_head")
        self.type = type_
        self.size = size
        self.ref_count = 1
        self.hold_count = 0
        self.flags = OBJ_ONEMAPPING if type_ in (OBJT_DEFAULT, OBJT_SWAP) else 0
        self.paging_in_progress = 0
        self.resident_page_count = 0
        self.shadow_count = 0
        self.pg_color = pg_color
        self.handle: Any = None
        self.backing_object: VmObject | None = None
        self.backing_object_offset = 0
        self.generation = 1
        self.swblock_count = 0
        self.swblock_root: dict[int, SwBlock] = kernel.container(dict, self, "swblock_root")
        self.chainlk = 0
        self.devp: Any = None
        self.zfreed = False

    def __str__(self) -> str:
        return f"object {self.num}"

    def __repr__(self) -> str:
        return f"<object {self.num} {OBJT_NAMES[self.type]} refs {self.ref_count}>"


@guarded(Guard("objects", "token", "vm_object.c:408, 1232", container=True))
class ObjectList:
    """One of the lists of all objects: ``objects``, with vmobj_tokens[n]."""

    __slots__ = ("objects", "token")

    def __init__(self, k: Kernel, n: int) -> None:
        self.token = Token(k, "vmobjlst", f"{n}")
        self.objects: dict[VmObject, None] = k.container(dict, self, "objects")


class ObjectsBase:
    """The base of vm_object.c; ``Objects`` combines it with the other parts."""

    @c("vm_object_init", "vm_object.c:418-435")
    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = k = vm.k
        self.atomic = k.atomic
        lists = [ObjectList(k, n) for n in range(VMOBJ_HSIZE)]
        self.lists = [some.objects for some in lists]
        self.list_tokens = [some.token for some in lists]
        self.quick_color = [0] * max(vm.config.ncpus, 1)
        self.collapses = 0
        self.bypasses = 0
        vm.kernel_object = self.allocate(OBJT_DEFAULT, KERNEL_OBJECT_SIZE)

    # -- the lock

    @c("vm_object_lock_swap", "vm_object.c:199-203")
    @holds("two tokens", "the same two, exchanged")
    def lock_swap(self) -> None:
        """vm_object_lock_swap, vm_object.c:199-203: exchange the thread's two newest tokens.

        A chain walk can then release the parent's token and keep the backing object's.
        """
        self.k.token.swap()

    @c("vm_object_lock", "vm_object.c:205-209", blocks=True)
    @holds("a hold on obj; no spinlock", "token of obj, exclusive")
    def lock(self, obj: VmObject) -> None:
        """vm_object_lock, vm_object.c:205-209.

        Take only the token; the caller has a hold.  Blocks.
        """
        obj.token.get()

    @c("vm_object_lock_shared", "vm_object.c:220-224", blocks=True)
    @holds("a hold on obj; no spinlock", "token of obj, shared")
    def lock_shared(self, obj: VmObject) -> None:
        """vm_object_lock_shared, vm_object.c:220-224.  Blocks."""
        obj.token.get_shared()

    @c("vm_object_unlock", "vm_object.c:226-230")
    @holds("token of obj, the newest", "token released; the hold stays")
    def unlock(self, obj: VmObject) -> None:
        """vm_object_unlock, vm_object.c:226-230: release only the token; a hold remains."""
        obj.token.release()

    @c("vm_object_upgrade", "vm_object.c:232-237", blocks=True)
    @holds("obj held (shared), its token the newest", "obj held exclusively (released in between)")
    def upgrade(self, obj: VmObject) -> None:
        """vm_object_upgrade, vm_object.c:232-237: shared to exclusive.

        The token is released in between, so everything may have changed.  Blocks.
        """
        obj.token.release()
        obj.token.get()

    @c("vm_object_downgrade", "vm_object.c:239-244", blocks=True, uncalled=True)
    @holds("obj held, its token the newest", "obj held shared (released in between)")
    def downgrade(self, obj: VmObject) -> None:
        """vm_object_downgrade, vm_object.c:239-244.

        Exclusive to shared; released in between.  Blocks.
        """
        obj.token.release()
        obj.token.get_shared()

    @c("vm_object_assert_held", "vm_object.c:246-250")
    @c("ASSERT_LWKT_TOKEN_HELD", "thread.h:138-139")
    @holds("obj held, either mode (asserted)")
    def assert_held(self, obj: VmObject) -> None:
        """ASSERT_LWKT_TOKEN_HELD: panics ``object-not-held`` unless held, in either mode."""
        self.k.kassert(obj.token.held(), "object-not-held", str(obj))

    @c("ASSERT_LWKT_TOKEN_HELD_EXCL", "thread.h:141-142")
    @holds("obj held exclusively (asserted)")
    def assert_held_excl(self, obj: VmObject) -> None:
        """ASSERT_LWKT_TOKEN_HELD_EXCL: panics unless held exclusively."""
        self.k.kassert(obj.token.held_excl(), "object-not-held", f"{obj}, exclusively")

    @c("vm_object_hold", "vm_object.c:265-282", blocks=True)
    @holds("something that keeps obj there; no spinlock", "obj held exclusively")
    def hold(self, obj: VmObject | None) -> None:
        """vm_object_hold, vm_object.c:265-282: keep *obj* in memory and take its token exclusively.

        The caller must guarantee that *obj* exists until the hold count is raised (it holds the
        parent, or owns a reference).  Blocks.
        """
        if obj is None:
            self.k.panic("object-null", "hold", kind="panic")
        self.atomic.add_int(obj, "hold_count", 1)
        self.lock(obj)

    @c("vm_object_hold_try", "vm_object.c:284-308")
    @c("vm_object_lock_try", "vm_object.c:214-218")
    @holds("something that keeps obj there", "on True obj held exclusively")
    def hold_try(self, obj: VmObject) -> bool:
        """vm_object_hold_try, vm_object.c:284-308: like hold, without blocking.

        Returns True if held.  On failure the hold count is dropped again, which may free a dead
        object.
        """
        self.atomic.add_int(obj, "hold_count", 1)
        if obj.token.try_():
            return True
        last = self.atomic.fetchadd_int(obj, "hold_count", -1) == 1
        if last and obj.ref_count == 0 and obj.flags & OBJ_DEAD:
            self.zfree(obj)
        return False

    @c("vm_object_hold_shared", "vm_object.c:310-327", blocks=True)
    @holds("something that keeps obj there; no spinlock", "obj held shared")
    def hold_shared(self, obj: VmObject) -> None:
        """vm_object_hold_shared, vm_object.c:310-327: hold with the token shared.  Blocks."""
        self.atomic.add_int(obj, "hold_count", 1)
        self.lock_shared(obj)

    @c("vm_object_drop", "vm_object.c:334-362")
    @holds("obj held, its token the newest", "obj not held")
    def drop(self, obj: VmObject | None) -> None:
        """vm_object_drop, vm_object.c:334-362: undo a hold of either mode; None is allowed.

        The last drop of a dead object without references frees it.
        """
        if obj is None:
            return
        k = self.k
        k.kassert(obj.hold_count > 0, "object-drop-unheld", str(obj))
        last = self.atomic.fetchadd_int(obj, "hold_count", -1) == 1
        if last and obj.ref_count == 0 and obj.flags & OBJ_DEAD:
            self.unlock(obj)
            self.zfree(obj)
        else:
            self.unlock(obj)

    @c("zfree", "vm_zone.c:134-198")
    @holds("nobody holds obj", "")
    def zfree(self, obj: VmObject) -> None:
        """zfree(obj_zone, obj): the structure is freed; it must not be held again."""
        k = self.k
        if (freed := k.probe.freed) is not None:
            freed(k.curthread(), obj)
        k.kassert(not obj.zfreed, "object-freed-twice", str(obj))
        obj.zfreed = True
        if (f := k.probe.call) is not None:
            f(k.curthread(), "object_zfree", object=obj)

    # -- allocation and references

    @c("vm_quickcolor", "vm_object.c:252-263")
    def quickcolor(self) -> int:
        """vm_quickcolor, vm_object.c:252-263: the first colour of a new object."""
        td = self.k.curthread()
        cpu = td.cpu % len(self.quick_color)
        color = td.tid + self.quick_color[cpu]
        self.quick_color[cpu] = (self.quick_color[cpu] + PQ_PRIME2) & U32
        return color & 0xFFFF

    @c("vm_object_allocate_hold", "vm_object.c:465-475", blocks=True)
    @c("_vm_object_allocate", "vm_object.c:371-411")
    @holds("no spinlock", "the new object held exclusively")
    def allocate_hold(self, type_: int, size: int) -> VmObject:
        """vm_object_allocate_hold, vm_object.c:465-475 (and _vm_object_allocate, :371-411).

        A new object of *size* pages with one reference, returned held exclusively.  May block on
        the token of an object list.
        """
        k = self.k
        obj = k.new(VmObject, k, type_, size, self.quickcolor())
        self.hold(obj)
        n = obj.num % VMOBJ_HSIZE
        self.list_tokens[n].get()
        self.lists[n][obj] = None
        self.list_tokens[n].release()
        return obj

    @c("vm_object_allocate", "vm_object.c:448-459", blocks=True)
    @holds("no spinlock", "")
    def allocate(self, type_: int, size: int) -> VmObject:
        """vm_object_allocate, vm_object.c:448-459: like allocate_hold, but not held on return."""
        obj = self.allocate_hold(type_, size)
        self.drop(obj)
        return obj

    @c("vm_object_terminate", "vm_object.c:1231-1234", part=True, blocks=True)
    @c("vm_object_backing_scan", "vm_object.c:2013-2016", part=True)
    @holds("obj held exclusively")
    def unlist(self, obj: VmObject) -> None:
        """Remove *obj* from the list of all objects (part of vm_object_terminate and collapse)."""
        n = obj.num % VMOBJ_HSIZE
        self.list_tokens[n].get()
        self.lists[n].pop(obj, None)
        self.list_tokens[n].release()

    @own
    def all_objects(self) -> list[VmObject]:
        """Every object on the lists, by number; for audits and meters.  Takes no locks."""
        found = [obj for some in self.lists for obj in tuple(some)]
        return sorted(found, key=lambda obj: obj.num)

    # -- flags

    @c("vm_object_set_flag", "vm_object.h:267-271")
    def set_flag(self, obj: VmObject, bits: int) -> None:
        """vm_object_set_flag, vm_object.h:267-271 (atomic)."""
        self.atomic.set_int(obj, "flags", bits)

    @c("vm_object_clear_flag", "vm_object.h:273-277")
    def clear_flag(self, obj: VmObject, bits: int) -> None:
        """vm_object_clear_flag, vm_object.h:273-277 (atomic)."""
        self.atomic.clear_int(obj, "flags", bits)

    @c("vm_object_set_writeable_dirty", "vm_object.c:2887-2921")
    @holds("a busied page of obj, or obj held")
    def set_writeable_dirty(self, obj: VmObject) -> None:
        """vm_object_set_writeable_dirty, vm_object.c:2887-2921.

        A page of *obj* may be dirty from now on.

        Needs no lock: the caller's busied page keeps object and vnode alive.  A vnode object also
        marks its vnode dirty for the syncer.  Does not block.

        It does not block because the modelled mount is of the old style, whose syncer scans every
        vnode.  With MNTK_THR_SYNC (HAMMER, tmpfs, NFS) the C calls vsetobjdirty instead, which
        takes the syncer's token (vfs_sync.c:266-278), although pmap_clearbit gets here with a
        page's spinlock held (pmap.c:4832-4841): if the syncer owns that token at that moment,
        lwkt_switch panics.
        """
        both = OBJ_WRITEABLE | OBJ_MIGHTBEDIRTY
        if obj.flags & both != both:
            self.set_flag(obj, both)
        if obj.type == OBJT_VNODE:
            vp = obj.handle
            if vp is not None and not vp.v_flag & VOBJDIRTY:
                self.k.vnode.vsetflags(vp, VOBJDIRTY)

    # -- paging_in_progress

    @c("vm_object_pip_add", "vm_object.h:279-283")
    @holds("obj held, or busied pages of it", "a paging reference")
    def pip_add(self, obj: VmObject, n: int) -> None:
        """vm_object_pip_add, vm_object.h:279-283.

        *n* more I/Os in progress: no collapse, no termination.
        """
        self.atomic.add_int(obj, "paging_in_progress", n)
        if (f := self.k.probe.pip_add) is not None:
            f(self.k.curthread(), obj, n)

    @c("vm_object_pip_wakeup_n", "vm_object.h:285-289")
    @holds("n paging references", "released")
    def pip_wakeup_n(self, obj: VmObject, n: int) -> None:
        """vm_object_pip_wakeup_n, vm_object.h:285-289: *n* I/Os done; wakes the waiters at zero."""
        if (f := self.k.probe.pip_wakeup) is not None:
            f(self.k.curthread(), obj, n)
        self.k.refcount.release_wakeup_n(obj, "paging_in_progress", n)

    @c("vm_object_pip_wakeup", "vm_object.h:291-295")
    @holds("a paging reference", "released")
    def pip_wakeup(self, obj: VmObject) -> None:
        """vm_object_pip_wakeup, vm_object.h:291-295: one I/O done."""
        self.pip_wakeup_n(obj, 1)

    @c("vm_object_pip_wait", "vm_object.h:297-301", blocks=True)
    @holds("obj held (token lost meanwhile)")
    def pip_wait(self, obj: VmObject, wmesg: str) -> None:
        """vm_object_pip_wait, vm_object.h:297-301: sleep until no I/O is in progress on *obj*.

        The caller's tokens are released while asleep.
        """
        if obj.paging_in_progress:
            if (f := self.k.probe.pip_block) is not None:
                f(self.k.curthread(), obj)
            self.k.refcount.wait(obj, "paging_in_progress", wmesg)

    # -- scans

    @c("lwkt_user_yield", "lwkt_thread.c:1127-1171", blocks=True)
    @holds("no spinlock", "no spinlock (tokens lost meanwhile)")
    def user_yield(self, count: int) -> None:
        """lwkt_user_yield at every 64th page of a scan."""
        if count & 63 == 0:
            self.k.sched.lwkt_user_yield()
