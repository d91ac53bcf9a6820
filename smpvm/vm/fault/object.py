"""vm_fault_object: find, page in or create a page, down the shadow chain (vm_fault.c:1280-2021)."""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT
from smpvm.kern.proc import P_LOWMEMKILL
from smpvm.vm.console import kprintf
from smpvm.vm.fault.state import VM_FAULT_DIRTY, FaultBase, FaultState
from smpvm.vm.map.entry import (
    KERN_FAILURE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    KERN_TRY_AGAIN,
    MAP_ENTRY_BEHAV_MASK,
    MAP_ENTRY_BEHAV_RANDOM,
    MAP_ENTRY_NOSYNC,
    VM_MAPTYPE_VPAGETABLE,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.map.maps import TDF_NOFAULT
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_NOSYNC,
    PG_RAM,
    VM_ALLOC_NORMAL,
    VM_ALLOC_NULL_OK,
    VM_ALLOC_USE_GD,
    VM_ALLOC_ZERO,
    Page,
)
from smpvm.vm.param import (
    OBJ_DEAD,
    OBJT_DEFAULT,
    OBJT_SWAP,
    VM_PAGE_BITS_ALL,
    VM_PAGER_BAD,
    VM_PAGER_ERROR,
    VM_PAGER_OK,
    VM_PROT_NONE,
    VM_PROT_WRITE,
)

# Results of one step of the search; any other result is a KERN_* code to return.
FOUND = -1
READREST = -2
MISSING = -3


class FaultObject(FaultBase):
    """The core of the fault code."""

    @c("vm_fault_object", "vm_fault.c:1280-2021", blocks=True)
    @holds(
        "fs.first_object held; map locked shared (if any)",
        "success: nothing let go, fs.m busied; failure: only fs.first_object held",
    )
    def fault_object(
        self, fs: FaultState, first_pindex: int, fault_type: int, allow_nofault: bool
    ) -> int:
        """vm_fault_object (vm_fault.c:1280-2021): resolve page *first_pindex* of the first object.

        ``fs.first_object`` is held, shared or exclusively as ``fs.first_shared`` says.  Blocks.  On
        success nothing is released, ``fs.m`` is a busied page, and ``fs.object``, if it is another
        object, has a paging reference.  On failure everything but that hold is released;
        KERN_TRY_AGAIN means start over, possibly with ``first_shared`` or ``shared`` cleared.
        """
        self.k.curthread().hit("vm_fault_object")
        self.vm.object.assert_held(fs.first_object)
        fs.prot = fs.first_prot
        fs.object = fs.first_object
        fs.first_pindex = first_pindex
        # The chain lock keeps the shadow chain from being collapsed while this thread blocks, the
        # paging count keeps the object from being terminated.
        self.vm.object.chain_acquire(fs.first_object, fs.shared)
        self.vm.object.pip_add(fs.first_object, 1)
        if fs.entry.maptype == VM_MAPTYPE_VPAGETABLE and not fault_type & VM_PROT_WRITE:
            fs.prot &= ~VM_PROT_WRITE
        pindex = first_pindex
        while True:
            if fs.object.flags & OBJ_DEAD:
                return self.give_up(fs, KERN_PROTECTION_FAILURE)
            what = self._resident(fs, pindex, allow_nofault)
            if what == MISSING:
                what = self._allocate(fs, pindex, allow_nofault)
            if what == READREST:
                what = self._page_in(fs, pindex)
            if what == FOUND:
                break
            if what != MISSING:
                return what
            step = self._next_object(fs)
            if step is None:
                break
            pindex += step
        return self._page_found(fs, fault_type)

    @c("vm_fault_object", "vm_fault.c:1359-1430", part=True, blocks=True)
    @holds(
        "fs.object held and chain locked, pip reference on the first object",
        "FOUND and READREST: fs.m busied too; else only fs.first_object held",
    )
    def _resident(self, fs: FaultState, pindex: int, allow_nofault: bool) -> int:
        """Look for a resident page and busy it.  If it is busy, sleep for it and start over."""
        page = self.vm.page
        m, error = page.lookup_busy_try(fs.object, pindex, True)
        fs.m = m
        td = self.k.curthread()
        if m is None:
            return MISSING
        if error:
            td.hit("vm_fault_object:busy")
            # Release everything before sleeping: the owner of the page may need one of these locks.
            # Once a backing object is dropped, though, its page may be freed and reused before the
            # sleep (as in the C).
            self.give_up(fs, KERN_TRY_AGAIN)
            page.sleep_busy(m, True, "vmpfw")
            td.hit("v_intrans")
            fs.m = None
            return KERN_TRY_AGAIN
        queue = m.queue
        # Off its queue while it is being mapped; vm_fault puts it on the active queue at the end.
        page.unqueue_nowakeup(m)
        # Reactivating a cached page consumes available memory: throttle it when memory is severely
        # short.
        if queue - m.pc == self.vm.pq.CACHE and self.vm.meter.count_severe():
            td.hit("vm_fault_object:cache-severe")
            page.activate(m)
            page.wakeup(m)
            fs.m = None
            self.give_up(fs, KERN_TRY_AGAIN)
            return self._wait_for_memory(allow_nofault)
        if m.object is not self.vm.kernel_object:
            if m.valid & VM_PAGE_BITS_ALL != VM_PAGE_BITS_ALL:
                return READREST
            # A read-ahead mark: go through the pager once more, to start the next read-ahead.
            if m.flags & PG_RAM:
                page.flag_clear(m, PG_RAM)
                return READREST
        return FOUND

    @c("vm_fault_object", "vm_fault.c:1498-1507", part=True, blocks=True)
    @holds("fs.first_object held (token lost meanwhile)")
    def _wait_for_memory(self, allow_nofault: bool) -> int:
        """Wait for free pages, then start over; fail if the process is to be killed for memory."""
        td = self.k.curthread()
        if not allow_nofault or not td.flags & TDF_NOFAULT:
            self.vm.page.vm_wait_pfault()
            if td.proc is not None and td.proc.p_flags & P_LOWMEMKILL:
                td.hit("vm_fault_object:lowmemkill")
                return KERN_PROTECTION_FAILURE
        return KERN_TRY_AGAIN

    @c("vm_fault_object", "vm_fault.c:1440-1454", part=True)
    @holds("fs.object held")
    def _needs_exclusive(self, fs: FaultState) -> bool:
        """Is the current object held shared, although a page must be inserted?

        If so, clear the modes for the next try.
        """
        if fs.object is fs.first_object:
            if not fs.first_shared:
                return False
            fs.first_shared = False
            return True
        if not fs.shared:
            return False
        fs.first_shared = False
        fs.shared = False
        return True

    @c("vm_fault_object", "vm_fault.c:1436-1514", part=True, blocks=True)
    @holds(
        "fs.object held and chain locked",
        "READREST: fs.m busied too; give-up: only fs.first_object held",
    )
    def _allocate(self, fs: FaultState, pindex: int, allow_nofault: bool) -> int:
        """The page is not resident: allocate one for the pager, or for the top of the chain."""
        if not self.try_pager(fs) and fs.object is not fs.first_object:
            return MISSING
        if self._needs_exclusive(fs):
            return self.give_up(fs, KERN_TRY_AGAIN)
        if pindex >= fs.object.size:
            return self.give_up(fs, KERN_PROTECTION_FAILURE)
        fs.m = None
        if not self.vm.meter.count_severe():
            req = VM_ALLOC_NULL_OK | VM_ALLOC_NORMAL
            if fs.vp is None and fs.object.backing_object is None:
                req |= VM_ALLOC_USE_GD | VM_ALLOC_ZERO
            fs.m = self.vm.page.alloc(fs.object, pindex, req)
        # Another thread may have inserted the page (NULL_OK), or memory is severely short.
        if fs.m is None:
            self.k.curthread().hit("vm_fault_object:nopage")
            self.give_up(fs, KERN_TRY_AGAIN)
            return self._wait_for_memory(allow_nofault)
        return READREST

    @c("vm_fault_object", "vm_fault.c:1530-1634", part=True, blocks=True)
    @holds(
        "fs.object held and chain locked; fs.m busied",
        "FOUND: the same, the map unlocked; give-up: only fs.first_object held",
    )
    def _page_in(self, fs: FaultState, pindex: int) -> int:
        """Ask the pager to fill the busied page ``fs.m`` (invalid, or marked for read-ahead)."""
        if not self.try_pager(fs):
            return MISSING
        if self._needs_exclusive(fs):
            # A page allocated here cannot be freed without the exclusive lock; leave it invalid
            # instead.
            self.release_page(fs)
            return self.give_up(fs, KERN_TRY_AGAIN)
        behaviour = fs.entry.eflags & MAP_ENTRY_BEHAV_MASK
        seqaccess = 0 if behaviour == MAP_ENTRY_BEHAV_RANDOM else -1
        # The map must not stay locked during I/O: other threads need it exclusively, and may have
        # to wait for this very page.
        self.unlock_map(fs)
        rv = self.vm.pager.get_page(fs.object, self.page_of(fs), seqaccess)
        if rv == VM_PAGER_OK:
            # The pager may have replaced the page.
            fs.m = self.vm.page.lookup(fs.object, pindex)
            if fs.m is None:
                return self.give_up(fs, KERN_TRY_AGAIN)
            fs.hardfault += 1
            return FOUND
        return self._page_in_failed(fs, rv)

    @c("vm_fault_object", "vm_fault.c:1649-1709", part=True, blocks=True)
    @holds("fs.object held and chain locked; fs.m busied", "fs.m unbusied below the first object")
    def _page_in_failed(self, fs: FaultState, rv: int) -> int:
        """No such page in the backing store (continue down the chain), or an error (fail)."""
        td = self.k.curthread()
        if rv == VM_PAGER_ERROR:
            td.hit("vm_fault_object:pager-error")
            if td.proc is None:
                # vm_fault.c:1656-1659 prints curproc->p_comm where curproc is NULL.
                self.k.panic("null-curproc", f"{td}: pager read error", kind="fault")
            kprintf(self.k, "pager-read-error", pid=td.proc.p_pid)
        # A page of the first object stays busy as the target of a copy: it keeps other threads from
        # inserting theirs at this index.
        if fs.object is not fs.first_object:
            self.vm.vnode_pager.freepage(self.page_of(fs))
            fs.m = None
        is_kernel = fs.map is not None and fs.map is self.vm.map.kernel_map
        if rv == VM_PAGER_BAD or (rv == VM_PAGER_ERROR and not is_kernel):
            if fs.m is not None:
                if fs.first_shared:
                    self.release_page(fs)
                else:
                    self.vm.vnode_pager.freepage(fs.m)
                fs.m = None
            failed = KERN_FAILURE if rv == VM_PAGER_ERROR else KERN_PROTECTION_FAILURE
            return self.give_up(fs, failed)
        return MISSING

    @c("vm_fault_object", "vm_fault.c:1720-1785", part=True, blocks=True)
    @holds(
        "fs.object held and chain locked",
        "the next object held, chain locked, with a pip reference",
    )
    def _next_object(self, fs: FaultState) -> int | None:
        """Go one object down the chain; returns the number of pages to add to the index.

        At the end of the chain, zero-fill the page of the first object and return None.
        """
        objects = self.vm.object
        at = fs.object
        if at is fs.first_object:
            fs.first_m = fs.m
        below = at.backing_object
        if below is None:
            self._zero_fill(fs)
            return None
        if fs.shared:
            objects.hold_shared(below)
        else:
            objects.hold(below)
        objects.chain_acquire(below, fs.shared)
        self.k.kassert(below is at.backing_object, "fault-chain-changed", str(at))
        step = off_to_idx(at.backing_object_offset)
        # Hand over hand: the next object is held and chain locked, so this one can be dropped; its
        # chain lock stays.
        if at is not fs.first_object:
            objects.pip_wakeup(at)
            objects.lock_swap()
            objects.drop(at)
        self.k.kassert(at is not below, "fault-object-loop", str(at))
        fs.object = below
        objects.pip_add(below, 1)
        return step

    @c("vm_fault_object", "vm_fault.c:1745-1775", part=True)
    @holds("fs.object held; the first object's page busied", "fs.m (of the first object) busied")
    def _zero_fill(self, fs: FaultState) -> None:
        """No object has the page: go back to the first object and zero its page."""
        if fs.object is not fs.first_object:
            self._drop_chain(fs)
            fs.m = fs.first_m
        fs.first_m = None
        m = self.page_of(fs)
        td = self.k.curthread()
        td.hit("vm_fault_object:zfod")
        self.vm.page.zero_fill(m)
        td.hit("v_zfod")
        m.valid = VM_PAGE_BITS_ALL

    @c("vm_fault_object", "vm_fault.c:1752-1763,1917-1937", part=True)
    @holds("fs.object held and chain locked", "only fs.first_object held and chain locked")
    def _drop_chain(self, fs: FaultState) -> None:
        """Release everything below the first object and make that the current one."""
        below = fs.first_object.backing_object
        if below is None:
            self.k.panic("chain-broken", str(fs.first_object), kind="fault")
        self.vm.object.chain_release_all(below, fs.object)
        self.vm.object.pip_wakeup(fs.object)
        self.vm.object.drop(fs.object)
        fs.object = fs.first_object

    # -- the page has been found

    @c("vm_fault_object", "vm_fault.c:1800-2020", part=True, blocks=True)
    @holds(
        "fs.m busied; fs.object held and chain locked",
        "success: fs.m busied, fs.first_object held; else only fs.first_object held",
    )
    def _page_found(self, fs: FaultState, fault_type: int) -> int:
        """The busied page ``fs.m`` of ``fs.object`` was found: copy it if necessary, and finish."""
        k, objects = self.k, self.vm.object
        k.kassert(self.page_of(fs).flags & PG_BUSY, "fault-not-busy", str(fs.m))
        if fs.object is not fs.first_object:
            if fault_type & VM_PROT_WRITE:
                self._copy_on_write(fs)
            else:
                # A read: map the backing object's page read-only instead of copying it.
                fs.prot &= ~VM_PROT_WRITE
        # The map was unlocked for I/O.  Relock it and compare the timestamp: if it has changed, the
        # entry may be gone.  The relock has a timeout, because this thread has the page busy.
        relock = not fs.lookup_still_valid and fs.map is not None
        if relock and (self.relock_map(fs) or not self.generation_unchanged(fs)):
            k.curthread().hit("vm_fault_object:map-changed")
            self.release_page(fs)
            return self.give_up(fs, KERN_TRY_AGAIN)
        m = self.page_of(fs)
        self.vm.page.activate(m)
        if fs.prot & VM_PROT_WRITE:
            objects.set_writeable_dirty(m.object)
            self.set_nosync(m, fs.entry)
            if fs.fault_flags & VM_FAULT_DIRTY:
                self.vm.page.dirty(m)
                self.vm.swap.unswapped(m)
        objects.pip_wakeup(fs.first_object)
        objects.chain_release_all(fs.first_object, fs.object)
        if fs.object is not fs.first_object:
            objects.drop(fs.object)
        k.kassert(m.flags & PG_BUSY, "fault-not-busy", str(m))
        # User space must never see the rest of a partially valid page.
        if m.valid != VM_PAGE_BITS_ALL:
            self.vm.page.zero_invalid(m, True)
            kprintf(k, "fault-partially-invalid", page=m)
        return KERN_SUCCESS

    @c("vm_fault_object", "vm_fault.c:1961", part=True)
    def generation_unchanged(self, fs: FaultState) -> bool:
        """The recheck after relocking: has the map not changed in the meantime?"""
        return fs.map is None or fs.map.timestamp == fs.map_generation

    @c("vm_fault_object", "vm_fault.c:1807-1938", part=True, blocks=True)
    @holds("fs.m and fs.first_m busied; both objects held", "fs.m of the first object busied")
    def _copy_on_write(self, fs: FaultState) -> None:
        """A write to a page of a backing object: move or copy it to the first object."""
        td = self.k.curthread()
        page = self.vm.page
        if fs.first_m is None:
            self.k.panic("fault-no-page", str(fs.first_object), kind="fault")
        if self._may_move(fs):
            td.hit("vm_fault_object:cow-move")
            fs.lookup_still_valid = True
            # Both pages are busy and both objects held, so nobody sees the index empty.
            # vm_page_free may block, so the old page is freed last.
            page.protect(fs.first_m, VM_PROT_NONE)
            page.remove(fs.first_m)
            page.rename(self.page_of(fs), fs.first_object, fs.first_pindex)
            page.free(fs.first_m)
            fs.first_m = fs.m
            fs.m = None
            td.hit("v_cow_optim")
        else:
            td.hit("vm_fault_object:cow-copy")
            self.k.kassert(not fs.first_shared, "fault-first-shared", str(fs.first_object))
            self.cow_copy(self.page_of(fs), fs.first_m)
        if fs.m is not None:
            self.release_page(fs)
        self._drop_chain(fs)
        td.hit("v_cow_faults")
        fs.m = fs.first_m

    @c("vm_fault_object", "vm_fault.c:1898-1899", part=True, blocks=True)
    @holds("src and dst busied")
    def cow_copy(self, src: Page, dst: Page) -> None:
        """Copy, then unmap the original everywhere: kernel code may have written to the copy
        without using the pmap, and the process would still see the original.
        """
        self.vm.page.copy(src, dst)
        self.vm.page.protect(src, VM_PROT_NONE)

    @c("vm_fault_object", "vm_fault.c:1818-1857", part=True)
    @holds(
        "fs.m busied; both objects held",
        "fs.m busied; both objects held; the map locked exclusively if it had been let go",
    )
    def _may_move(self, fs: FaultState) -> bool:
        """Can the page be moved up instead of copied (vm_fault.c:1818-1857)?

        Only if nobody else can reach it.  Takes the map lock if it was released.
        """
        obj = fs.object
        return (
            not fs.first_shared
            and not fs.shared
            and self.kept_before_lock(fs)
            and obj.shadow_count == 1
            and obj.ref_count == 1
            and obj.handle is None
            and obj.type in (OBJT_DEFAULT, OBJT_SWAP)
            and obj is fs.first_object.backing_object
            and (
                fs.lookup_still_valid
                or fs.map is None
                or fs.map.lock.lockmgr(LK_EXCLUSIVE | LK_NOWAIT) == 0
            )
        )

    @c("vm_fault_object", "vm_fault.c:1827-1828", part=True)
    @holds("fs.m busied; the map perhaps not locked")
    def kept_before_lock(self, fs: FaultState) -> bool:
        """Has the map not changed?  In the C that is asked before it is locked, and not after."""
        return self.generation_unchanged(fs)

    @c("vm_set_nosync", "vm_fault.c:2472-2481")
    @holds("m busied")
    def set_nosync(self, m: Page, entry: VmMapEntry) -> None:
        """vm_set_nosync (vm_fault.c:2472-2481).

        Set PG_NOSYNC as the entry asks, if *m* is clean.
        """
        if entry.eflags & MAP_ENTRY_NOSYNC:
            if m.dirty == 0:
                self.vm.page.flag_set(m, PG_NOSYNC)
        else:
            self.vm.page.flag_clear(m, PG_NOSYNC)
