"""Load a state into a machine that has just been built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LKC_EXCL
from smpvm.kern.proc import Proc
from smpvm.kern.thread import TDF_SYSTHREAD
from smpvm.kern.vnode import VOBJDIRTY, Vnode
from smpvm.state import names
from smpvm.state.roster import Roster
from smpvm.state.rules import State, check
from smpvm.state.shapes import GLOBAL_NAMES
from smpvm.vm.map.entry import VmMap, VmMapEntry
from smpvm.vm.map.vmspace import VMSPACE_EXIT1, VmSpace
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_BUSY, PG_MARKER, Page
from smpvm.vm.param import VM_MAX_USER_ADDRESS, VM_MIN_USER_ADDRESS
from smpvm.vm.pmap.pte import PTE_A, PTE_M, PTE_RW, PTE_V, PTE_W, PvEntry

if TYPE_CHECKING:
    from smpvm.kern.thread import Thread
    from smpvm.vm.vm import Vm

LOOSE_PMAP_BITS = (
    ("referenced", PTE_A),
    ("modified", PTE_M),
    ("writeable", PTE_RW),
    ("wired", PTE_W),
)


def load(vm: Vm, state: State, *, settled: bool | None = True) -> Roster:
    """Turn *vm*, fresh from its constructor, into the machine that *state* describes.

    Everything that *vm* had is dropped.  The current thread takes the part of the state's
    ``curthread``.  Raises StateError if *state* is not well formed (see ``rules.check`` for
    *settled*; None: the caller has checked it).
    """
    if settled is not None:
        check(state, vm.pq.L2_SIZE, settled=settled)
    return _Loader(vm, state).load()


class _Loader:
    def __init__(self, vm: Vm, state: State) -> None:
        self.vm = vm
        self.k = vm.k
        self.state = state
        self.roster = Roster(vm)

    def load(self) -> Roster:
        with self.k.quietly():
            self._clear()
            self._scalars()
            self.roster.vnodes = [self._vnode(vp) for vp in self.state["vnodes"]]
            self._objects()
            self.roster.pages = [self._page(p) for p in self.state["pages"]]
            self.vm.page_array[:] = [m for m in self.roster.pages if not m.flags & PG_MARKER]
            self._queues()
            self.roster.maps = [self._map(m) for m in self.state["maps"]]
            self._mappings()
            self._procs()
            self.roster.number()
        return self.roster

    def _others(self) -> Thread:
        if self.roster.others is None:
            self.roster.others = self.k.make_thread("others", lambda: None, role="others")
        return self.roster.others

    def _clear(self) -> None:
        vm = self.vm
        vm.page_array.clear()
        for q in vm.queues:
            q.head = q.tail = None
            q.lcnt = 0
        for some in vm.object.lists:
            some.clear()

    def _scalars(self) -> None:
        vm, k, globs = self.vm, self.k, self.state["globals"]
        for name, value in self.state["vmstats"].items():
            setattr(vm.stats, name, value)
        for name in GLOBAL_NAMES:
            if name not in ("ticks", "time_uptime"):
                self.roster.set_global(name, globs[name])
        k.clock.set(globs["ticks"], globs["time_uptime"])
        td = k.curthread()
        vm.pageout.pagethread = td if globs["curthread"] == "pagedaemon" else None
        td.flags = td.flags & ~TDF_SYSTHREAD | (TDF_SYSTHREAD if globs["systhread"] else 0)
        for thread in k.threads:
            for name in names.COUNTERS:
                thread.cnt[name] = 0
        for name, value in self.state["counters"].items():
            td.cnt[name] = value

    def _vnode(self, desc: State) -> Vnode:
        vp = self.k.vnode.new()
        if desc["objdirty"]:
            vp.v_flag |= VOBJDIRTY
        if desc["locked_by_other"]:
            self._lock_by_other(vp.v_lock)
        return vp

    def _lock_by_other(self, lock: Lock) -> None:
        others = self._others()
        lock.count = LKC_EXCL | 1
        lock.holder = others
        others.locks.append(lock)

    def _objects(self) -> None:
        vm, roster = self.vm, self.roster
        for n, desc in enumerate(self.state["objects"]):
            obj = self.k.new(
                VmObject, self.k, names.OBJECT_TYPES.index(desc["type"]), desc["size"], 0
            )
            obj.num = n
            obj.token.name = str(obj)
            for name in (
                "ref_count",
                "paging_in_progress",
                "shadow_count",
                "resident_page_count",
                "generation",
                "hold_count",
                "swblock_count",
                "pg_color",
            ):
                setattr(obj, name, desc[name])
            obj.flags = names.bits_of(desc["flags"], names.OBJECT_FLAGS)
            if desc["handle"] is not None:
                obj.handle = roster.vnodes[desc["handle"]]
            if desc.get("kernel"):
                vm.kernel_object = obj
                roster.has_kernel_object = True
            if desc.get("token_held_by_other"):
                obj.token.owner = self._others()
                roster.held_tokens[obj] = None
            roster.objects.append(obj)
            vm.object.lists[obj.num % len(vm.object.lists)][obj] = None
        for obj, desc in zip(roster.objects, self.state["objects"], strict=True):
            if desc["backing_object"] is not None:
                obj.backing_object = roster.objects[desc["backing_object"]]
            if obj.handle is not None and obj.handle.v_object is None:
                obj.handle.v_object = obj

    def _page(self, desc: State) -> Page:
        vm = self.vm
        flags = names.bits_of(desc.get("flags", []), names.PAGE_FLAGS)
        queue, pc = desc["queue"], desc["pc"]
        number = 0 if queue == "none" else 1 + names.QUEUES.index(queue) * vm.pq.L2_SIZE + pc
        m = self.k.new(Page, desc["id"], number, pc, flags, desc.get("wire_count", 0))
        for name in ("pindex", "act_count", "busy", "hold_count", "valid", "dirty"):
            setattr(m, name, desc.get(name, 0))
        if flags & PG_BUSY:
            m.busy_owner = self.k.curthread()
        owner = desc.get("object")
        if owner is not None:
            m.object = self.roster.objects[owner]
            m.object.rb_memq.insert(m.pindex, m)
        return m

    def _queues(self) -> None:
        vm, pages = self.vm, self.roster.pages
        for name, lists in self.state["queues"].items():
            base = 1 + names.QUEUES.index(name) * vm.pq.L2_SIZE
            for colour, ids in lists.items():
                q = vm.queues[base + int(colour)]
                before: Page | None = None
                for n in ids:
                    m = pages[n]
                    m.q_prev = before
                    if before is None:
                        q.head = m
                    else:
                        before.q_next = m
                    before = m
                    q.lcnt += not m.flags & PG_MARKER
                q.tail = before

    def _map(self, desc: State) -> VmMap:
        vm, k = self.vm, self.k
        space: VmSpace = vm.vmspace.alloc(VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS)
        map_ = space.vm_map
        map_.id = desc["id"]
        space.vm_holdcnt, space.vm_refcnt = desc["holdcnt"], desc["refcnt"]
        if space.vm_refcnt == -1:  # its process has exited: stage 1 is over
            space.vm_flags |= VMSPACE_EXIT1
        map_.pmap.resident_count = desc["resident_count"]
        map_.pmap.wired_count = desc["wired_count"]
        last = map_.header
        for each in desc["entries"]:
            entry = k.new(VmMapEntry, each["start"], each["end"])
            entry.maptype = names.MAPTYPES[each["maptype"]]
            entry.wired_count = each["wired_count"]
            if each["object"] is not None:
                entry.object = self.roster.objects[each["object"]]
            entry.prev, last.next = last, entry
            entry.next, map_.header.prev = map_.header, entry
            map_.tree_insert(entry)
            map_.nentries += 1
            map_.size += entry.end - entry.start
            last = entry
        if desc["locked_by_other"]:
            self._lock_by_other(map_.lock)
        return map_

    def _mappings(self) -> None:
        for m, desc in zip(self.roster.pages, self.state["pages"], strict=True):
            before: PvEntry | None = None
            for each in desc.get("pmap", []):
                pv = self._mapping(m, each)
                pv.pv_prev = before
                if before is None:
                    m.pv_first = pv
                else:
                    before.pv_next = pv
                before = m.pv_last = pv

    def _mapping(self, m: Page, desc: State) -> PvEntry:
        pmap = self.roster.maps[desc["pmap"]].pmap
        pv: PvEntry = self.k.new(PvEntry, pmap, desc["va"], True, 0)
        pv.m = m
        pv.bits = PTE_V
        for name, bit in LOOSE_PMAP_BITS:
            if desc.get(name):
                pv.bits |= bit
        pmap.ptes[desc["va"]] = pv
        return pv

    def _procs(self) -> None:
        # Processes are inserted at the head of the list, so the last one comes first.
        found: dict[int, Proc] = {}
        for desc in reversed(self.state["procs"]):
            found[desc["pid"]] = self._proc(desc)
        self.roster.procs = [found[desc["pid"]] for desc in self.state["procs"]]

    def _proc(self, desc: dict[str, Any]) -> Proc:
        map_ = desc["map"]
        space = None if map_ is None else self.roster.maps[map_].vmspace
        p = self.k.proc.new(desc["pid"], space)
        p.p_stat = names.PROC_STATS[desc["stat"]]
        p.p_flags = names.bits_of(desc["flags"], names.PROC_FLAGS)
        p.p_nice = desc["nice"]
        p.p_lock = desc["lock"]
        p.p_rlimit_rss_cur = desc["rss_cur"]
        p.p_rlimit_rss_max = desc["rss_max"]
        return p
