"""struct faultstate, and the helpers that release what a fault holds (vm_fault.c:127-282)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from smpvm.kern.cname import c, holds, own
from smpvm.vm.map.entry import VmMap, VmMapEntry
from smpvm.vm.object.objects import VmObject
from smpvm.vm.page.struct import Page
from smpvm.vm.param import OBJT_DEFAULT

if TYPE_CHECKING:
    from smpvm.vm.vm import Vm

# fault flags (vm_map.h)
VM_FAULT_NORMAL: Final = 0x00
VM_FAULT_CHANGE_WIRING: Final = 0x01
VM_FAULT_USER_WIRE: Final = 0x02
VM_FAULT_BURST: Final = 0x04
VM_FAULT_DIRTY: Final = 0x08
VM_FAULT_UNSWAP: Final = 0x10
VM_FAULT_WIRE_MASK: Final = VM_FAULT_CHANGE_WIRING | VM_FAULT_USER_WIRE


class FaultState:
    """struct faultstate: one fault in progress.

    ``m`` is the busied page found so far, ``object`` the object searched last; ``first_m`` is the
    busied page in ``first_object`` that a copy would go to.  ``shared`` and ``first_shared`` say
    whether the backing objects, and the first object, are held shared.  ``lookup_still_valid``:
    ``map`` has been locked shared ever since the lookup.
    """

    __slots__ = (
        "entry",
        "fault_flags",
        "first_m",
        "first_object",
        "first_pindex",
        "first_prot",
        "first_shared",
        "hardfault",
        "lookup_still_valid",
        "m",
        "map",
        "map_generation",
        "object",
        "prot",
        "shared",
        "vp",
        "wired",
    )

    first_object: VmObject
    object: VmObject
    entry: VmMapEntry

    @c("vm_fault", "vm_fault.c:311-316", part=True)
    def __init__(self, fault_flags: int, shared: bool) -> None:
        self.fault_flags = fault_flags
        self.shared = shared
        self.first_shared = shared
        self.m: Page | None = None
        self.first_m: Page | None = None
        self.map: VmMap | None = None
        self.prot = 0
        self.first_prot = 0
        self.first_pindex = 0
        self.lookup_still_valid = False
        self.hardfault = 0
        self.map_generation = 0
        self.wired = False
        self.vp: Any = None


class FaultBase:
    """Releasing pages and locks, in the order of the C."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k
        self.prefault_pages = 8
        """vm.prefault_pages: pages tried around a fault, half before it and half after."""
        self.fast_fault = True
        """vm.fast_fault: prefaulting may allocate zero-filled pages."""

    @property
    @own
    def shared_fault(self) -> bool:
        """vm.shared_fault: try with shared object tokens first (same variable as vm_object.c)."""
        shared: bool = self.vm.object.vm_shared_fault
        return shared

    @shared_fault.setter
    def shared_fault(self, on: bool) -> None:
        self.vm.object.vm_shared_fault = on

    @c("release_page", "vm_fault.c:181-187")
    @holds("fs.m busied", "fs.m unbusied")
    def release_page(self, fs: FaultState) -> None:
        """release_page (vm_fault.c:181-187): deactivate the busied page and unbusy it."""
        m = self.page_of(fs)
        self.vm.page.deactivate(m)
        self.vm.page.wakeup(m)
        fs.m = None

    @own
    def page_of(self, fs: FaultState) -> Page:
        """``fs.m``; panics where the C would dereference NULL."""
        if fs.m is None:
            self.k.panic("fault-no-page", str(fs.first_object), kind="fault")
        return fs.m

    @c("relock_map", "vm_fault.c:199-212", blocks=True)
    @holds("map unlocked (or still locked shared)", "on 0 map locked shared")
    def relock_map(self, fs: FaultState) -> int:
        """relock_map (vm_fault.c:199-212): lock the map shared again, with the lock's timeout.

        A plain wait could deadlock: the thread that has the map lock may be waiting for our busy
        page.
        """
        if fs.lookup_still_valid or fs.map is None:
            return 0
        error = self.vm.map.lock_read_to(fs.map)
        if error == 0:
            fs.lookup_still_valid = True
        return error

    @c("unlock_map", "vm_fault.c:214-221")
    @holds("map locked shared, if fs.lookup_still_valid", "map unlocked")
    def unlock_map(self, fs: FaultState) -> None:
        """unlock_map (vm_fault.c:214-221): ``fs.entry`` is stale from here on."""
        if fs.lookup_still_valid and fs.map is not None:
            self.vm.map.lookup_done(fs.map, fs.entry)
            fs.lookup_still_valid = False

    @c("_cleanup_successful_fault", "vm_fault.c:227-250", blocks=True)
    @c("cleanup_successful_fault", "vm_fault.c:269")
    @holds(
        "fs.first_object held; fs.first_m busied if the objects differ",
        "fs.first_m freed; with relock the map locked shared",
    )
    def cleanup_successful_fault(self, fs: FaultState, relock: bool) -> None:
        """_cleanup_successful_fault (vm_fault.c:227-250).

        Free the page that was meant for a copy.
        """
        if fs.object is not fs.first_object:
            self.k.kassert(not fs.first_shared, "fault-first-shared", str(fs.first_object))
            if fs.first_m is None:
                self.k.panic("fault-no-page", str(fs.first_object), kind="fault")
            self.vm.page.free(fs.first_m)
            self.vm.object.pip_wakeup(fs.object)
            fs.first_m = None
        fs.object = fs.first_object
        if relock and not fs.lookup_still_valid:
            if fs.map is not None:
                self.vm.map.lock_read(fs.map)
            fs.lookup_still_valid = True

    @c("_unlock_things", "vm_fault.c:252-265", blocks=True)
    @c("unlock_things", "vm_fault.c:267")
    @c("unlock_and_deallocate", "vm_fault.c:268")
    @holds("fs.first_object held", "map and vnode unlocked; fs.first_object still held")
    def unlock_things(self, fs: FaultState) -> None:
        """_unlock_things (vm_fault.c:252-265).

        Also unlock map and vnode; the first object stays held.
        """
        self.cleanup_successful_fault(fs, False)
        self.unlock_map(fs)
        if fs.vp is not None:
            self.k.vnode.vput(fs.vp)
            fs.vp = None

    @c("vm_fault_object", "vm_fault.c:1337-1342", part=True, blocks=True)
    @holds("fs.object held and chain locked", "only fs.first_object held")
    def give_up(self, fs: FaultState, result: int) -> int:
        """Every early exit of vm_fault_object: release chain locks, objects and the rest.

        ``fs.first_object`` stays held by the caller.  Returns *result*.
        """
        self.vm.object.pip_wakeup(fs.first_object)
        self.vm.object.chain_release_all(fs.first_object, fs.object)
        if fs.object is not fs.first_object:
            self.vm.object.drop(fs.object)
        self.unlock_things(fs)
        return result

    @c("TRYPAGER", "vm_fault.c:280-282")
    def try_pager(self, fs: FaultState) -> bool:
        """TRYPAGER (vm_fault.c:280-282): may the pager of the current object have the page?"""
        return fs.object.type != OBJT_DEFAULT and (
            not fs.fault_flags & VM_FAULT_WIRE_MASK or fs.wired
        )
