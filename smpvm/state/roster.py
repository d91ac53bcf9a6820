"""The pages, objects, vnodes, processes and maps of a machine, by their position in a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.proc import Proc
from smpvm.kern.vnode import Vnode
from smpvm.state import names
from smpvm.vm.map.entry import VmMap
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_MARKER, Page
from smpvm.vm.pmap.pte import PTE_A, PTE_M, PTE_RW
from smpvm.vm.pmap.struct import Pmap

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread
    from smpvm.vm.vm import Vm

SCAN_MARKER = "scan_marker"
"""How a dump shows a marker that is not a page of the state: a scan is in progress."""


class Roster:
    """The members of a machine's state, in the order of the state's lists."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k: Kernel = vm.k
        self.pages: list[Page] = []
        self.objects: list[VmObject] = []
        self.vnodes: list[Vnode] = []
        self.procs: list[Proc] = []
        self.maps: list[VmMap] = []
        self.page_ids: dict[Page, int] = {}
        self.object_ids: dict[VmObject, int] = {}
        self.vnode_ids: dict[Vnode, int] = {}
        self.map_ids: dict[VmMap, int] = {}
        self.others: Thread | None = None
        """A thread that holds what the state says another thread holds."""
        self.vm_daemon_needed = 0
        """The value of the variable; threads only sleep on its address."""
        self.has_kernel_object = False
        self.held_tokens: dict[VmObject, None] = {}
        """Objects whose token the state says another thread holds."""

    @classmethod
    def of(cls, vm: Vm) -> Roster:
        """The roster of a machine at rest, the kernel's object first."""
        roster = cls(vm)
        k = vm.k
        markers = [m for q in vm.queues for m in q.pages() if m.flags & PG_MARKER]
        roster.pages = [*vm.page_array, *markers]
        roster.objects = vm.object.all_objects()
        roster.has_kernel_object = vm.kernel_object in roster.objects
        roster.vnodes = k.vnode.all()
        roster.procs = k.proc.all()
        spaces = [p.p_vmspace for p in roster.procs if p.p_vmspace is not None]
        roster.maps = list(dict.fromkeys(space.vm_map for space in spaces))
        roster.number()
        return roster

    def number(self) -> None:
        """Fill the reverse tables from the lists."""
        self.page_ids = {m: n for n, m in enumerate(self.pages)}
        self.object_ids = {obj: n for n, obj in enumerate(self.objects)}
        self.vnode_ids = {vp: n for n, vp in enumerate(self.vnodes)}
        self.map_ids = {map_: n for n, map_ in enumerate(self.maps)}

    def page_id(self, m: Page) -> int | str:
        """The page's position; SCAN_MARKER for a marker that a scan has inserted."""
        return self.page_ids.get(m, SCAN_MARKER)

    def pmap_id(self, pmap: Pmap) -> int:
        """The position of the map that *pmap* belongs to."""
        return self.map_ids[pmap.map]

    def proc(self, pid: int) -> Proc:
        """The process with this pid."""
        return next(p for p in self.procs if p.p_pid == pid)

    def vnode_locked(self, vp: Vnode) -> bool:
        """Does another thread hold the vnode's lock?"""
        holder = vp.v_lock.holder
        return holder is not None and holder is not self.k.curthread()

    def token_held(self, obj: VmObject) -> bool:
        """Does another thread hold the object's token?"""
        owner = obj.token.owner
        return obj in self.held_tokens or (owner is not None and owner is not self.k.curthread())

    def touch(self, m: Page, pv: int, write: bool) -> None:
        """A user access through mapping number *pv* of *m*, if there is one."""
        for n, entry in enumerate(m.mappings()):
            if n == pv:
                modified = PTE_M if write and entry.bits & PTE_RW else 0
                entry.bits |= PTE_A | modified

    def get_global(self, name: str) -> int:
        """The value of a C variable, by its name in FORMAT.md 3.9 (not the clock)."""
        vm = self.vm
        if name == "vm_daemon_needed":
            return self.vm_daemon_needed
        if name in names.GLOBALS_OF_SYSCTL:
            return int(getattr(vm.sysctl, names.GLOBALS_OF_SYSCTL[name]))
        if name in names.STATICS:
            part, field = names.STATICS[name]
            return int(getattr(getattr(vm, part), field))
        return int(getattr(vm.glob, name))

    def set_global(self, name: str, value: int) -> None:
        """Set a C variable, by its name in FORMAT.md 3.9 (not the clock)."""
        vm = self.vm
        if name == "vm_daemon_needed":
            self.vm_daemon_needed = value
        elif name in names.GLOBALS_OF_SYSCTL:
            vars(vm.sysctl)[names.GLOBALS_OF_SYSCTL[name]] = value  # a recorded state may have any
        elif name in names.STATICS:
            part, field = names.STATICS[name]
            setattr(getattr(vm, part), field, value)
        else:
            setattr(vm.glob, name, value)
