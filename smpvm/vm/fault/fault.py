"""vm_fault.c: page faults, combined into one class, and how a user program accesses memory.

    state       struct faultstate, releasing locks and pages
    object      vm_fault_object: the shadow chain, page-in, copy-on-write
    prefault    mapping neighbouring pages
    wire        wiring
    fault       vm_fault, vm_fault_page, vm_fault_object_page

Left out: virtual page tables (MAP_VPAGETABLE; the C calls them an initial implementation), and
vm_fault_additional_pages, which is compiled out in the C.

A user program reads and writes memory through ``vm.process`` (see process.py), which alternates
between the MMU (``vm.pmap.access``) and ``fault`` as trap_pfault does.
"""

from __future__ import annotations

from smpvm.kern.cname import c, holds
from smpvm.kern.proc import RLIM_INFINITY
from smpvm.vm.fault.state import (
    VM_FAULT_BURST,
    VM_FAULT_CHANGE_WIRING,
    VM_FAULT_DIRTY,
    VM_FAULT_NORMAL,
    VM_FAULT_UNSWAP,
    VM_FAULT_USER_WIRE,
    VM_FAULT_WIRE_MASK,
    FaultState,
)
from smpvm.vm.fault.wire import FaultWire
from smpvm.vm.map.entry import (
    KERN_FAILURE,
    KERN_FAILURE_NOFAULT,
    KERN_INVALID_ADDRESS,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    KERN_TRY_AGAIN,
    MAP_ENTRY_NOFAULT,
    VM_MAPTYPE_UKSMAP,
    VM_PROT_OVERRIDE_WRITE,
    VmMap,
    VmMapEntry,
    off_to_idx,
)
from smpvm.vm.map.maps import TDF_NOFAULT, Lookup
from smpvm.vm.object.objects import VmObject
from smpvm.vm.page.struct import PG_BUSY, PG_REFERENCED, Page
from smpvm.vm.param import OBJT_SWAP, OBJT_VNODE, VM_PROT_READ, VM_PROT_WRITE

MAXSSIZ = 512 * 1024 * 1024
"""RLIMIT_STACK of every process, in bytes."""


class Fault(FaultWire):
    """vm_fault.c."""

    @c("vm_fault", "vm_fault.c:300-678", blocks=True)
    @holds("no locks; a reference on the map's space", "")
    def fault(self, map: VmMap, vaddr: int, fault_type: int, fault_flags: int) -> int:
        """vm_fault (vm_fault.c:300-678): make *vaddr* accessible for *fault_type*.

        *vaddr* is the start of a page.  The caller holds no locks, but a reference on the map's
        vmspace.  Blocks: for locks, busy pages, memory and I/O.  Returns KERN_SUCCESS with the page
        in the pmap, or another KERN_* code.
        """
        td = self.k.curthread()
        td.hit("vm_fault")
        fs = FaultState(fault_flags, self.shared_fault)
        growstack = True
        retry = 0
        if self.shared_fault:
            td.hit("vm_shared_count")
        map.token.get()
        while True:
            result, found = self._find_entry(fs, map, vaddr, fault_type)
            if result == KERN_INVALID_ADDRESS and growstack and self._grows(map):
                result = self.vm.map.growstack(map, vaddr, MAXSSIZ, RLIM_INFINITY)
                if result == KERN_SUCCESS:
                    growstack = False
                    retry += 1
                    continue
                result = KERN_FAILURE
            if result != KERN_SUCCESS:
                break
            if found.entry is not None and found.entry.maptype == VM_MAPTYPE_UKSMAP:
                result = self._fault_uksmap(fs, found, vaddr)
                break
            obj = self._first_object(fs, found)
            if self._nofault_refuses(fs, retry):
                result = KERN_FAILURE
                self.unlock_things(fs)
                break
            ftype = fs.first_prot if fs.wired else fault_type
            self._choose_mode(fs, fault_flags)
            self._hold_first(fs)
            result = self.fault_object(fs, found.pindex, ftype, True)
            # The failed try has released everything (and may have slept): start again with the
            # lookup.
            if result == KERN_TRY_AGAIN:
                self.vm.object.drop(obj)
                td.hit("vm_fault:retry")
                retry += 1
                continue
            if result == KERN_SUCCESS:
                self._enter(fs, vaddr, fault_flags)
            self.vm.object.drop(obj)
            break
        map.token.release()
        if self.shared_fault and not fs.shared:
            td.hit("vm_shared_miss")
        return result

    @c("vm_fault", "vm_fault.c:343-408", part=True, blocks=True)
    @holds("map token", "on KERN_SUCCESS the map locked shared")
    def _find_entry(
        self, fs: FaultState, map: VmMap, vaddr: int, fault_type: int
    ) -> tuple[int, Lookup]:
        """The lookup at the start of every try; on success the map is locked shared.

        User wiring of a copy-on-write mapping without write permission repeats the lookup with the
        override that debuggers use, so that the page is copied now or never (vm_fault.c:370-420).
        """
        found = self.vm.map.lookup(map, vaddr, fault_type)
        result = found.rv
        if result == KERN_FAILURE_NOFAULT:
            return KERN_FAILURE, found
        if (
            result == KERN_PROTECTION_FAILURE
            and fs.fault_flags & VM_FAULT_WIRE_MASK == VM_FAULT_USER_WIRE
        ):
            override = VM_PROT_READ | VM_PROT_WRITE | VM_PROT_OVERRIDE_WRITE
            found = self.vm.map.lookup(found.map, vaddr, override)
            if found.rv != KERN_SUCCESS or found.entry is None:
                return KERN_FAILURE, found
            if not found.entry.protection & VM_PROT_WRITE:
                found.entry.max_protection &= ~VM_PROT_WRITE
            result = KERN_SUCCESS
        return result, found

    @c("vm_fault", "vm_fault.c:366-367", part=True)
    def _grows(self, map: VmMap) -> bool:
        """Whether a missing address can be stack growth: only in the map of a process."""
        return map is not self.vm.map.kernel_map and self.k.curthread().proc is not None

    @c("vm_fault", "vm_fault.c:415-465", part=True)
    @c("vm_fault_page", "vm_fault.c:782-828", part=True)
    @holds("map locked shared")
    def _first_object(self, fs: FaultState, found: Lookup) -> VmObject:
        """Copy the result of the lookup to *fs* (vm_fault.c:415-465)."""
        if found.entry is None:
            self.k.panic("fault-no-entry", str(found.map), kind="fault")
        fs.map = found.map
        fs.entry = found.entry
        fs.map_generation = found.map.timestamp
        fs.lookup_still_valid = True
        fs.first_m = None
        fs.m = None
        fs.first_prot = fs.prot = found.prot
        fs.wired = found.wired
        if fs.entry.eflags & MAP_ENTRY_NOFAULT:
            self.k.panic("fault-nofault-entry", str(fs.entry))
        if found.object is None:
            self.k.panic("fault-no-object", str(fs.entry))
        fs.first_object = fs.object = found.object
        return found.object

    @c("vm_fault", "vm_fault.c:479-483", part=True)
    @c("vm_fault_page", "vm_fault.c:838-842", part=True)
    @holds("map locked shared")
    def _nofault_refuses(self, fs: FaultState, retry: int) -> bool:
        """With TDF_NOFAULT only trivial anonymous faults are allowed (vm_fault.c:479-483)."""
        obj = fs.first_object
        return bool(self.k.curthread().flags & TDF_NOFAULT) and (
            retry > 0 or obj.type in (OBJT_VNODE, OBJT_SWAP) or obj.backing_object is not None
        )

    @c("vm_fault", "vm_fault.c:510-521", part=True)
    @holds("map locked shared")
    def _choose_mode(self, fs: FaultState, fault_flags: int) -> None:
        """Take the first object exclusively from the start if shared is unlikely to suffice."""
        obj = fs.first_object
        proc = self.k.curthread().proc
        if (
            fs.first_shared
            and obj.backing_object is not None
            and not obj.shadow_head
            and proc is not None
            and len(proc.threads) == 1
        ):
            # A page will probably be inserted (copy-on-write), and few others use the object: save
            # a retry.
            fs.first_shared = False
        if fault_flags & (VM_FAULT_UNSWAP | VM_FAULT_DIRTY):
            # swap_pager_unswapped, called later, needs the object exclusively.
            fs.first_shared = False

    @c("vm_fault", "vm_fault.c:530-535", part=True, blocks=True)
    @c("vm_fault_page", "vm_fault.c:868-873", part=True)
    @holds("map locked shared", "fs.first_object held (as fs.first_shared), fs.vp locked shared")
    def _hold_first(self, fs: FaultState) -> None:
        """Take the first object's token, then lock the vnode at the end of the chain shared."""
        if fs.first_shared:
            self.vm.object.hold_shared(fs.first_object)
        else:
            self.vm.object.hold(fs.first_object)
        if fs.vp is None:
            fs.vp = self.vm.vnode_pager.lock(fs.first_object)

    @c("vm_fault", "vm_fault.c:598-653", part=True, blocks=True)
    @holds(
        "map locked shared; fs.m busied; first object held",
        "page given up, map and vnode unlocked; first object still held",
    )
    def _enter(self, fs: FaultState, vaddr: int, fault_flags: int) -> None:
        """Map the page, put it on a queue, unbusy it, prefault around it (vm_fault.c:598-653)."""
        page, k = self.vm.page, self.k
        m, map = self.page_of(fs), fs.map
        if map is None:
            k.panic("fault-no-map", str(m), kind="fault")
        k.kassert(fs.lookup_still_valid, "fault-map-unlocked", str(map))
        page.flag_set(m, PG_REFERENCED)
        self.vm.pmap.enter(map.pmap, vaddr, m, fs.prot, fs.wired, fs.entry)
        k.kassert(m.flags & PG_BUSY, "fault-not-busy", str(m))
        wiring = fs.fault_flags & VM_FAULT_WIRE_MASK
        if wiring:
            if fs.wired:
                page.wire(m)
            else:
                page.unwire(m, True)
        else:
            page.activate(m)
        # Unbusied before prefaulting, which busies other pages: never more than this one at a time.
        page.wakeup(m)
        if fault_flags & VM_FAULT_BURST and not wiring and not fs.wired:
            # The full prefault takes exclusive locks down the chain: only worth it if they are
            # exclusive already.
            if not fs.first_shared and not fs.shared:
                self.prefault(map.pmap, vaddr, fs.entry, fs.prot, fault_flags)
            else:
                self.prefault_quick(map.pmap, vaddr, fs.entry, fs.prot, fault_flags)
        self._account(fs)
        self.unlock_things(fs)

    @c("vm_fault", "vm_fault.c:646-661", part=True)
    def _account(self, fs: FaultState) -> None:
        """Update the counters of a fault (vm_fault.c:646-661).

        As in the C, ru_minflt counts each hard fault once and each soft fault twice.
        """
        td = self.k.curthread()
        td.hit("v_vm_faults")
        td.hit("ru_minflt")
        td.hit("ru_majflt" if fs.hardfault else "ru_minflt")

    @c("vm_fault", "vm_fault.c:440-456", part=True, blocks=True)
    @holds("map locked shared", "map unlocked")
    def _fault_uksmap(self, fs: FaultState, found: Lookup, vaddr: int) -> int:
        """Fault on a user-kernel shared mapping: its function supplies the page; nothing is
        managed.

        The C fills in a temporary fictitious page; here the callable returns the page or None.
        """
        entry, map = found.entry, found.map
        if entry is None:
            self.k.panic("fault-no-entry", str(map), kind="fault")
        m: Page | None = entry.object(entry.aux, found.pindex)
        if m is not None:
            self.vm.pmap.enter(map.pmap, vaddr, m, found.prot, found.wired, entry)
            self._account(fs)
        self.vm.map.lookup_done(map, entry)
        return KERN_FAILURE if m is None else KERN_SUCCESS

    # -- pages for the kernel's own use

    @c("vm_fault_page_quick", "vm_fault.c:687-696", blocks=True)
    @holds("no locks", "the page returned is held (hold_count)")
    def page_quick(self, va: int, fault_type: int) -> tuple[Page | None, int]:
        """vm_fault_page_quick (vm_fault.c:687-696): vm_fault_page in the current process."""
        p = self.k.curthread().proc
        if p is None or p.p_vmspace is None:
            self.k.panic("fault-no-vmspace", kind="fault")
        return self.page(p.p_vmspace.vm_map, va, fault_type, VM_FAULT_NORMAL)

    @c("vm_fault_page", "vm_fault.c:712-993", blocks=True)
    @holds("no locks; a reference on the map's space", "the page returned is held (hold_count)")
    def page(
        self, map: VmMap, vaddr: int, fault_type: int, fault_flags: int
    ) -> tuple[Page | None, int]:
        """vm_fault_page (vm_fault.c:712-993): the page at *vaddr*, held; does not change the pmap.

        The page is made dirty if *fault_type* includes write.  Blocks like vm_fault.  Returns (held
        page, 0) or (None, KERN_*).
        """
        td = self.k.curthread()
        self.k.kassert(not fault_flags & VM_FAULT_WIRE_MASK, "fault-page-wiring")
        quick = self.vm.pmap.fault_page_quick(map.pmap, vaddr, fault_type)
        if quick is not None:
            return quick, 0
        fs = FaultState(fault_flags, self.shared_fault)
        map.token.get()
        if fault_flags & (VM_FAULT_UNSWAP | VM_FAULT_DIRTY):
            fs.first_shared = False
        retry = 0
        while True:
            found = self.vm.map.lookup(map, vaddr, fault_type)
            m, error = None, found.rv
            if error != KERN_SUCCESS:
                break
            if found.entry is not None and found.entry.maptype == VM_MAPTYPE_UKSMAP:
                m, error = self._page_uksmap(found)
                break
            obj = self._first_object(fs, found)
            if self._nofault_refuses(fs, retry):
                error = KERN_FAILURE
                self.unlock_things(fs)
                break
            ftype = fs.first_prot if fs.wired else fault_type
            self._hold_first(fs)
            error = self.fault_object(fs, found.pindex, ftype, True)
            if error == KERN_TRY_AGAIN:
                self.vm.object.drop(obj)
                td.hit("vm_fault:retry")
                retry += 1
                continue
            if error == KERN_SUCCESS:
                if fault_type & VM_PROT_WRITE and not fs.prot & VM_PROT_WRITE:
                    # As in the C, the page is left busy here.
                    error = KERN_PROTECTION_FAILURE
                    self.unlock_things(fs)
                else:
                    m = self.page_of(fs)
                    self.vm.page.flag_set(m, PG_REFERENCED)
                    self.unlock_things(fs)
                    self._hold_page(m, bool(ftype & VM_PROT_WRITE))
                    self._return_page(fs, m)
            self.vm.object.drop(obj)
            break
        map.token.release()
        return m, error

    @c("vm_fault_page", "vm_fault.c:798-818", part=True)
    @holds("map locked shared", "map unlocked; the page returned is held")
    def _page_uksmap(self, found: Lookup) -> tuple[Page | None, int]:
        """The page, held, supplied by the function of a user-kernel shared mapping."""
        entry, map = found.entry, found.map
        if entry is None:
            self.k.panic("fault-no-entry", str(map), kind="fault")
        m: Page | None = entry.object(entry.aux, found.pindex)
        if m is not None:
            self.vm.page.hold(m)
        self.vm.map.lookup_done(map, entry)
        return m, KERN_FAILURE if m is None else KERN_SUCCESS

    @c("vm_fault_page", "vm_fault.c:966-969", part=True)
    @c("vm_fault_object_page", "vm_fault.c:1129-1132", part=True)
    @holds("m busied", "m busied and held")
    def _hold_page(self, m: Page, written: bool) -> None:
        """Hold, activate, and (if *written*) dirty the busied page."""
        page = self.vm.page
        page.hold(m)
        page.activate(m)
        if written:
            page.dirty(m)

    @c("vm_fault_page", "vm_fault.c:971-982", part=True)
    @holds("m busied and held", "m held, not busied")
    def _return_page(self, fs: FaultState, m: Page) -> None:
        """Count the fault for the process and unbusy the page, which stays held."""
        td = self.k.curthread()
        if td.proc is not None:
            td.hit("ru_majflt" if fs.hardfault else "ru_minflt")
        self.vm.page.wakeup(m)

    @c("vm_fault_object_page", "vm_fault.c:1005-1158", blocks=True)
    @holds("obj held (shared or not, as shared says)", "obj held; the page returned is held")
    def object_page(
        self, obj: VmObject, offset: int, fault_type: int, fault_flags: int, shared: bool
    ) -> tuple[Page | None, int, bool]:
        """vm_fault_object_page (vm_fault.c:1005-1158): a held page of *obj* at byte *offset*.

        *obj* is held on entry, shared or not as *shared* says; it may be held exclusively on
        return.  Blocks.  Returns (page or None, 0 or KERN_*, still shared).
        """
        self.vm.object.assert_held(obj)
        entry = self.k.new(VmMapEntry, 0, 0)
        entry.object = obj
        entry.protection = entry.max_protection = fault_type
        fs = FaultState(fault_flags, self.shared_fault)
        fs.first_shared = shared
        if shared and fault_flags & (VM_FAULT_UNSWAP | VM_FAULT_DIRTY):
            fs.first_shared = False
            self.vm.object.upgrade(obj)
        while True:
            shared = fs.first_shared
            fs.first_object = fs.object = obj
            fs.entry = entry
            fs.first_prot = fault_type
            fs.wired = False
            if fs.vp is None:
                fs.vp = self.vm.vnode_pager.lock(obj)
            fs.lookup_still_valid = True
            fs.first_m = None
            error = self.fault_object(fs, off_to_idx(offset), fault_type, False)
            if error != KERN_TRY_AGAIN:
                break
            if shared and not fs.first_shared:
                self.vm.object.upgrade(obj)
        if error != KERN_SUCCESS:
            return None, error, shared
        if fault_type & VM_PROT_WRITE and not fs.prot & VM_PROT_WRITE:
            self.unlock_things(fs)
            return None, KERN_PROTECTION_FAILURE, shared
        m = self.page_of(fs)
        self.unlock_things(fs)
        written = bool(fault_type & VM_PROT_WRITE or fault_flags & VM_FAULT_DIRTY)
        self._hold_page(m, written)
        if fault_flags & VM_FAULT_UNSWAP:
            self.vm.swap.unswapped(m)
        self.vm.page.flag_set(m, PG_REFERENCED)
        self._return_page(fs, m)
        return m, 0, shared


__all__ = [
    "VM_FAULT_BURST",
    "VM_FAULT_CHANGE_WIRING",
    "VM_FAULT_DIRTY",
    "VM_FAULT_NORMAL",
    "VM_FAULT_UNSWAP",
    "VM_FAULT_USER_WIRE",
    "VM_FAULT_WIRE_MASK",
    "Fault",
]
