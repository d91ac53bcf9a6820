"""The start of a program: processes, regions in their states, memory.  Made by the boot thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from smpvm.config import PAGE_SIZE
from smpvm.fuzz.actor import Life
from smpvm.fuzz.shape import EVERYBODY, FILES, SHARERS, Program, Region
from smpvm.fuzz.words import BASE, Oracle, Space, Word
from smpvm.kern.proc import Proc
from smpvm.kern.shared import peek, poke
from smpvm.scenarios.base import VmScenario
from smpvm.vm.map.entry import VM_INHERIT_COPY, VM_INHERIT_NONE
from smpvm.vm.page.struct import PG_REFERENCED, Page
from smpvm.vm.param import OBJT_VNODE

if TYPE_CHECKING:
    from smpvm.kern.vnode import Vnode

WHERE: Final = 0x10_0000
APART: Final = 0x10_0000
"""Bytes between the regions, and the size of a stack's."""
REGIONS: Final = "fgxyz"
FILLERS: Final = 4
"""Clean pages that the page-out daemon can free, where memory is short."""


class StartState(VmScenario):
    """Makes ``program.start``."""

    program: ClassVar[Program]
    oracle: Oracle

    # -- where regions are

    def bytes_of(self, region: Region) -> int:
        """The size of the mapping."""
        return APART if region.kind == "stack" else region.pages * PAGE_SIZE

    def bottom(self, region: Region) -> int:
        """The lowest address of the mapping."""
        return WHERE + 2 * APART * REGIONS.index(region.name)

    def va(self, name: str, page: int) -> int:
        """The address of a page; those of a stack are far apart, so that it grows."""
        region = self.program.region(name)
        assert region is not None
        bottom = self.bottom(region)
        if region.kind == "stack":
            return bottom + APART - (page + 1) * (APART // 4)
        return bottom + page * PAGE_SIZE

    def region_at(self, va: int) -> str:
        """The region that has an address; "" for none."""
        for region in self.program.start.regions:
            if 0 <= va - self.bottom(region) < self.bytes_of(region):
                return region.name
        return ""

    def map_region(self, p: Proc, region: Region) -> None:
        """mmap."""
        raise NotImplementedError

    # -- making it

    def make_start(self) -> None:
        """Processes with their memory, then its state, then the machine's."""
        start, vm = self.program.start, self.vm
        self.vnodes: dict[str, Vnode] = {}
        self.lives: dict[str, Life] = {}
        self.first: dict[tuple[str, int], Page] = {}
        first = self.process()
        self.lives["a"] = Life(first, Space())
        for region in start.regions:
            self._populate(region)
        for name in self.program.processes()[1:]:
            self._forked(name)
        self.disks()
        for region in start.regions:
            for page in range(region.pages):
                self._settle(region, page)
        if start.swap_full:
            self._fill_swap()
        self.filler = self.object(64)
        if "pagedaemon" in start.daemons:
            for i in range(FILLERS):
                self.page(self.filler, i)
        self.memory(start.memory)
        self._daemons(start.daemons)
        vm.vmdaemon.lastrun = -1000  # long ago

    def _populate(self, region: Region) -> None:
        """Map it in process a, and write each page."""
        life = self.lives["a"]
        blocks: list[dict[int, int]] = []
        if region.kind in FILES:
            blocks = [{BASE: self.oracle.fresh(BASE)} for _ in range(region.pages)]
            self.vnodes[region.name] = self.file(*blocks)
        space = self.oracle.common if region.kind in EVERYBODY else life.space
        for page in range(region.pages):
            word = Word(blocks[page][BASE] if blocks else 0)
            space.words[region.name, page, BASE] = word
        if region.state == "unmapped":
            return
        chained = region.sharing in ("chain2", "chain3")  # a copies the file's page
        if region.state != "empty" and (region.state != "swapped" or chained):
            for page, words in enumerate(blocks):  # so that the set-up waits for no disk
                self.page(self.vnodes[region.name].v_object, page, "active", words=words)
        self.map_region(life.p, region)
        self.k.boot.proc = life.p  # stacks grow only for a process's own thread
        for page in range(region.pages):
            if region.state == "touched" or (blocks and region.state in ("backed", "cached")):
                self.read(life.p, self.va(region.name, page), BASE)
            elif region.state != "empty" and not (blocks and region.state == "swapped"):
                self._store(life, space, region, page)
        self.k.boot.proc = None

    def _store(self, life: Life, space: Space, region: Region, page: int) -> None:
        value, key = self.oracle.fresh(BASE), (region.name, page, BASE)
        self.oracle.begin(space, key, value)
        self.write(life.p, self.va(region.name, page), value, BASE)
        self.oracle.end(space, key)

    def _forked(self, name: str) -> None:
        """Process *name*, forked off a; then a writes what is to be in a chain."""
        vm, first = self.vm, self.lives["a"]
        regions = self.program.start.regions
        mine = [r for r in regions if r.kind in EVERYBODY or name in SHARERS[r.sharing]]
        for region in regions:
            self._inherit(region, VM_INHERIT_COPY if region in mine else VM_INHERIT_NONE)
        p = self.process()
        vm.vmspace.rel(p.p_vmspace)
        p.p_vmspace = vm.vmspace.fork(first.p.p_vmspace)
        names = {r.name for r in mine}
        words = first.space.fork(BASE).words
        self.lives[name] = Life(p, Space({k: w for k, w in words.items() if k[0] in names}))
        for region in regions:
            self._inherit(region, VM_INHERIT_COPY)
            deep = {"chain2": "b", "chain3": "bc"}.get(region.sharing, "")
            if name in deep and region.state != "empty":
                self._store(first, first.space, region, 0)

    def _inherit(self, region: Region, what: int) -> None:
        if region.kind not in EVERYBODY and region.state != "unmapped":
            p, start = self.lives["a"].p, self.bottom(region)
            self.vm.process.sys.minherit(p, start, self.bytes_of(region), what)

    # -- the state of pages

    def _settle(self, region: Region, page: int) -> None:
        """Every page of the chain of objects at that place goes to the region's state."""
        if region.state in ("unmapped", "empty", "touched", "resident"):
            self._remember(region, page)
            return
        p, va = self.lives["a"].p, self.va(region.name, page)
        if region.state == "wired":
            assert self.vm.process.sys.mlock(p, va, PAGE_SIZE) == 0
            self._remember(region, page)
            return
        self._remember(region, page)
        found = self._pages(p, va)
        for m in found[:1] if region.state == "busy" else found:  # there are few I/O buffers
            self._one(region.state, m)

    def _remember(self, region: Region, page: int) -> None:
        if region.state != "unmapped":
            found = self._pages(self.lives["a"].p, self.va(region.name, page))
            if found:
                self.first[region.name, page] = found[0]

    def _pages(self, p: Proc, va: int) -> list[Page]:
        """The resident pages at *va*, in each object of the chain, the first in front."""
        entry = p.p_vmspace.vm_map.at_or_before(va)
        obj, offset, found = entry.object, entry.offset + va - entry.start, []
        while obj is not None:
            m = obj.rb_memq.lookup(offset // PAGE_SIZE)
            if m is not None:
                found.append(m)
            offset += obj.backing_object_offset
            obj = obj.backing_object
        return found

    def _one(self, state: str, m: Page) -> None:
        vm = self.vm
        if state in ("inactive", "laundry", "busy"):
            self.to_inactive(m, unmap=state != "inactive")
            if state == "busy" and m.dirty:
                assert not vm.page.busy_try(m, True)
                vm.pageout.pagethread = self.k.boot  # who does not wait for the write
                vm.pageout.clean(m)
                vm.pageout.pagethread = None
            return
        vm.object.hold(m.object)
        assert not vm.page.busy_try(m, True)
        self._back(m)
        obj = m.object
        if state == "backed":
            vm.page.wakeup(m)
        else:
            vm.page.protect(m, 0)
            vm.page.flag_clear(m, PG_REFERENCED)
            if state == "cached":
                vm.page.cache(m)
            else:
                vm.page.free(m)
        vm.object.drop(obj)

    def _back(self, m: Page) -> None:
        """Busied page *m* is clean: its contents are on swap, or in the file."""
        vm, obj = self.vm, m.object
        words = dict(vm.pmap.read_contents(m) or {})
        if obj.type == OBJT_VNODE:
            vm.vnode_pager.file(obj.handle).blocks[m.pindex] = words
        else:
            self.swapped(obj, m.pindex, words)
            vm.swap.page_inserted(m)
        vm.pmap.clear_modify(m)
        m.dirty = 0

    # -- the machine

    def _fill_swap(self) -> None:
        obj = self.object(64)
        free = self.vm.swap.blist.free_count
        for pindex in range(free):
            self.swapped(obj, pindex, {BASE: 1})

    def memory(self, word: str) -> None:
        """Move the limits: plenty, low (below the minimum), or severe (faults wait).

        Not as a thread of the machine does: no step, nobody races with it.
        """
        stats = self.vm.stats
        free = peek(stats, "v_free_count") + peek(stats, "v_cache_count")
        short = word != "plenty"
        values = {
            "v_free_reserved": 1 if short else 0,
            "v_free_severe": free + 1 if word == "severe" else 0,
            "v_free_min": free + 2 if short else 0,
            "v_free_target": free + 3 if short else 8 * self.pages,
        }
        for name, value in values.items():
            poke(stats, name, value)

    def _daemons(self, names: tuple[str, ...]) -> None:
        vm = self.vm
        for name in names:
            if name == "pagedaemon":
                self.pagedaemon()
            elif name == "vmdaemon":
                vm.vmdaemon.vmthread = self.daemon(name, vm.vmdaemon.daemon)
            else:
                self.daemon(name, vm.syncer.thread if name == "syncer" else vm.glue.scheduler)

    def sees(self, p: Proc, va: int) -> bool:
        """Is *va* mapped?"""
        map = p.p_vmspace.vm_map
        entry = map.at_or_before(va)
        return entry is not map.header and bool(entry.start <= va < entry.end)


def pages_for(program: Program) -> int:
    """Pages of a machine on which *program* is never short of memory unless it says so."""
    processes = len(program.processes()) + sum(op.child is not None for op in program.ops())
    forks = sum(op.name in ("fork", "vfork") for op in program.ops())
    each = sum(r.pages for r in program.start.regions)
    return each * (processes + forks + 2) + 2 * FILLERS + 2


def body_of(program: Program) -> dict[str, Any]:
    """The class attributes that size the machine."""
    start = program.start
    return {
        "spin_pool": start.locks,
        "colors": start.colours,
        "sysctls": {"page_max_wired": pages_for(program), **dict(start.sysctls)},
        "pages": pages_for(program),
        "swap_pages": 16 if start.swap_full else 32,
    }
