"""The small machine that every built-in scenario stands on, and how a scenario is written.

A scenario is a subclass of ``Situation``: ``set_up`` makes a few pages, objects, processes on a
machine that runs nothing yet, ``threads`` starts the threads, ``check`` looks at what is left.  The
threads run the model's own functions.  What must hold after every scenario is checked for it: the
audit at rest, no marker left, every thread at its end, no panic.

The machine has a handful of pages, one page colour, few spinlocks, and no daemons unless the
scenario starts them.  Of its limits only the target for free pages is set (so that the page-out
daemon, when it runs, frees what it has cached, but nobody else thinks that memory is short).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from smpvm.check.audit import Breach, breaches
from smpvm.check.finding import Failure
from smpvm.config import PAGE_SIZE, Config, DiskConfig
from smpvm.host.carrier import Stopped
from smpvm.kern.kernel import Kernel
from smpvm.kern.proc import Proc
from smpvm.kern.shared import peek
from smpvm.kern.thread import TDF_SYSTHREAD, Panic, Thread
from smpvm.repairs.catalogue import choose
from smpvm.vm.build import build_vm
from smpvm.vm.map.mmap import MAP_ANON, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_RW
from smpvm.vm.page.struct import PG_REFERENCED, VM_ALLOC_NORMAL, Page
from smpvm.vm.pageout.daemon import Round
from smpvm.vm.pageout.marker import Tally
from smpvm.vm.param import OBJT_DEFAULT, OBJT_VNODE, VM_PAGE_BITS_ALL

if TYPE_CHECKING:
    from smpvm.kern.vnode import Vnode
    from smpvm.vm.object.struct import VmObject

VA: Final = 0x10_0000
"""Where scenarios map their first page."""


class SmallConfig(Config):
    """A configuration of fewer pages than anybody could boot with."""

    def validate(self) -> None:
        """What ``Small`` passes is right."""


class Small:
    """A tiny machine, and the shorthands of set-ups.  All of them run before any thread does."""

    def __init__(self, k: Kernel, pages: int, changes: Iterable[type] = (), **sysctls: int) -> None:
        self.k = k
        config = SmallConfig(
            pages=pages,
            swap_pages=32,
            pq_l2_size=1,
            swap_disk=DiskConfig(latency=0),
            file_disk=DiskConfig(latency=0),
        )
        for name, value in {"pageout_stats_interval": 5, **sysctls}.items():
            setattr(config.sysctl, name, value)
        self.vm = build_vm(k, config, changes)
        self.procs: list[Proc] = []
        self.objects: list[VmObject] = []
        self.files: list[Vnode] = []

    # -- memory

    def limits(self, **values: int) -> None:
        """Set vmstats: ``limits(free_min=2)`` sets v_free_min."""
        for name, value in values.items():
            setattr(self.vm.stats, f"v_{name}", value)

    def anon(self, size: int = 8, *, swap: bool = False) -> VmObject:
        """An anonymous object of *size* pages with one reference."""
        obj = self.vm.object.allocate(OBJT_DEFAULT, size)
        self.objects.append(obj)
        if swap:
            self._to_swap(obj)
        return obj

    def _to_swap(self, obj: VmObject) -> None:
        self.vm.object.hold(obj)
        self.vm.swap.meta_convert(obj)
        self.vm.object.drop(obj)

    def page(
        self,
        obj: VmObject,
        pindex: int,
        queue: str = "inactive",
        *,
        words: Mapping[int, int] | None = None,
        dirty: bool = False,
    ) -> Page:
        """A valid, unmapped page of *obj* on a queue: active, inactive, cache, or "" for none."""
        vm = self.vm
        vm.object.hold(obj)
        m = vm.page.alloc(obj, pindex, VM_ALLOC_NORMAL)
        assert m is not None
        m.valid = VM_PAGE_BITS_ALL
        vm.pmap.write_contents(m, dict(words) if words else None)
        if dirty:
            vm.page.dirty(m)
        if queue == "cache":
            vm.page.cache(m)
        else:
            if queue == "active":
                vm.page.activate(m)
            elif queue == "inactive":
                vm.page.deactivate(m)
            vm.page.wakeup(m)
        vm.object.drop(obj)
        return m

    def swapped(self, obj: VmObject, pindex: int, words: Mapping[int, int]) -> None:
        """Page *pindex* of *obj* is on swap, and not in memory (unless it is there already)."""
        vm = self.vm
        vm.object.hold(obj)
        vm.swap.meta_convert(obj)
        block = vm.swap.getswapspace(obj, 1)
        vm.swap.meta_build(obj, pindex, block)
        vm.swap.store[block] = dict(words)
        vm.object.drop(obj)

    def waste(self, leave: int) -> None:
        """Wire all free pages but *leave* into the kernel's object, out of everybody's way."""
        vm = self.vm
        obj = vm.kernel_object
        vm.object.hold(obj)
        while peek(vm.stats, "v_free_count") > leave:
            m = vm.page.alloc(obj, peek(obj, "resident_page_count"), VM_ALLOC_NORMAL)
            assert m is not None
            vm.page.wire(m)
            vm.page.wakeup(m)
        vm.object.drop(obj)

    # -- files and processes

    def file(self, *blocks: Mapping[int, int]) -> Vnode:
        """A file with a block for each of *blocks*, referenced by the scenario."""
        vp = self.vm.vnode_pager.new_file(len(blocks) * PAGE_SIZE)
        data = self.vm.vnode_pager.file(vp).blocks
        for i, words in enumerate(blocks):
            data[i] = dict(words)
        self.files.append(vp)
        return vp

    def process(self) -> Proc:
        """A process with an address space that is empty but for the stack."""
        p = self.vm.process.create()
        self.procs.append(p)
        return p

    def map(
        self,
        p: Proc,
        va: int = VA,
        pages: int = 1,
        vp: Vnode | None = None,
        *,
        prot: int = PROT_RW,
    ) -> int:
        """Anonymous memory, or a file shared, at *va*; returns *va*."""
        flags = MAP_FIXED | (MAP_SHARED if vp is not None else MAP_ANON | MAP_PRIVATE)
        error, at = self.vm.process.sys.mmap(p, va, pages * PAGE_SIZE, prot, flags, vp)
        assert (error, at) == (0, va)
        return va

    def write(self, p: Proc, va: int, value: int, word: int = 0) -> None:
        """A store by *p* (in the set-up: by the boot thread in its name)."""
        self.vm.process.user_write(p, va, word, value)

    def read(self, p: Proc, va: int, word: int = 0) -> int:
        """A load by *p*."""
        return self.vm.process.user_read(p, va, word)

    def see(self, p: Proc, va: int, word: int = 0) -> int:
        """What *p* would read: from memory, swap, or the file.  Moves nothing."""
        entry = p.p_vmspace.vm_map.at_or_before(va)
        obj, offset = entry.object, entry.offset + va - entry.start
        while obj is not None:
            found, words = self._stored(obj, offset // PAGE_SIZE)
            if found:
                return words.get(word, 0)
            offset += obj.backing_object_offset
            obj = obj.backing_object
        return 0

    def _stored(self, obj: VmObject, pindex: int) -> tuple[bool, Mapping[int, int]]:
        """Page *pindex* of *obj* itself: whether there is one, and its words."""
        m = obj.rb_memq.lookup(pindex)
        if m is not None and m.valid:
            return True, self.vm.pmap.read_contents(m) or {}
        block = dict(self.vm.swap.blocks_of(obj)).get(pindex)
        if block is not None:
            return True, self.vm.swap.store.get(block, {})
        if obj.type == OBJT_VNODE:
            return True, self.vm.vnode_pager.file(obj.handle).blocks.get(pindex, {})
        return False, {}

    def page_at(self, p: Proc, va: int) -> Page:
        """The page mapped at *va*."""
        m = self.vm.pmap.extract(p.p_vmspace.vm_pmap, va)
        assert m is not None
        return m

    def object_at(self, p: Proc, va: int) -> VmObject:
        """The object of the entry at *va*."""
        obj: VmObject = p.p_vmspace.vm_map.at_or_before(va).object
        return obj

    def to_inactive(self, m: Page, *, unmap: bool = False) -> None:
        """An idle page: unreferenced, on the inactive queue, ready for the scan to launder."""
        vm = self.vm
        assert not vm.page.busy_try(m, True)
        vm.page.test_dirty(m)
        if unmap:
            vm.page.protect(m, 0)
        vm.page.deactivate(m)
        vm.page.flag_clear(m, PG_REFERENCED)
        vm.pmap.clear_reference(m)
        vm.page.wakeup(m)

    # -- threads

    def spawn(self, name: str, body: Callable[[], object], p: Proc | None = None) -> Thread:
        """A thread that must come to its end; of process *p*, if given."""

        def main() -> None:
            body()

        td = self.k.make_thread(name, main, role="process" if p else name, cpu=0)
        if p is not None:
            self.k.proc.lwp_fork(p, td)
        self.k.start(td)
        return td

    def daemon(self, name: str, body: Callable[[], object]) -> Thread:
        """A thread that need not end; the run is over when it is idle and all others have ended."""
        td = self.spawn(name, body)
        self.set_daemon(td)
        return td

    def set_daemon(self, td: Thread) -> None:
        """*td* need not end."""
        mark = getattr(self.k.carrier, "set_daemon", None)
        if mark is not None:
            mark(td)

    def disks(self) -> None:
        """Start the devices' threads; needed by every scenario with I/O."""
        for disk in self.vm.pager.disks():
            disk.start()
            assert disk.thread is not None
            self.set_daemon(disk.thread)

    def pagedaemon(self, body: Callable[[], object] | None = None) -> Thread:
        """The page-out daemon: its rounds for ever, or *body*, in a thread known as the daemon.

        Without vm_pageout_thread's own start, which would set limits for a whole machine.
        """
        td: Thread | None = None

        def main() -> None:
            assert td is not None
            td.flags |= TDF_SYSTHREAD
            (body or self.rounds)()

        td = self.spawn("pagedaemon", main) if body else self.daemon("pagedaemon", main)
        self.vm.pageout.pagethread = td
        return td

    def rounds(self) -> None:
        """The loop of vm_pageout_thread (vm_pageout.c:1881-2064)."""
        pageout = self.vm.pageout
        r = Round()
        while True:
            if pageout.thread_wait():
                pageout.thread_round(r)
                pageout.thread_rest(r)

    def scan(self, *, pass_: int = 0, want: int = 8) -> int:
        """vm_pageout_scan_inactive of the one inactive queue; *want* pages are asked for."""
        return self.vm.pageout.scan_inactive(pass_, 0, want, Tally())

    def launder(self, scans: int = 1) -> None:
        """Rounds that need more than there is: dirty pages are written, clean ones freed."""
        for _ in range(scans):
            self.scan(pass_=1)
        self.vm.pageout.cache_drain()

    def scan_active(self, *, pass_: int = 0, avail: int = 0, inactive: int = 8) -> int:
        """vm_pageout_scan_active of the one active queue."""
        return self.vm.pageout.scan_active(pass_, 0, avail, inactive, Tally())


class Situation(Small):
    """One scenario.  Made for each execution; the kernel's boot thread makes it.

    Sizes that may be reduced without losing the point are class attributes, ``sizes`` names them
    with their smallest values.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    repairs: ClassVar[tuple[str, ...]] = ()
    """Repairs of true defects of the seed that show here; without them it is not clean."""
    changes: ClassVar[tuple[type, ...]] = ()
    """Overrides of the VM's subsystems: a scenario about a changed kernel."""
    pages: int = 6
    spin_pool: ClassVar[int] = 4
    sysctls: ClassVar[Mapping[str, int]] = MappingProxyType({})
    sizes: ClassVar[Mapping[str, int]] = MappingProxyType({})
    failure_kind = "assertion"
    """The kind of finding that ``failures`` tells of."""

    def __init__(self, k: Kernel, repairs: Iterable[str] = ()) -> None:
        changes = [*self.changes, *(r.change for r in choose(repairs))]
        super().__init__(k, self.pages, changes, **self.sysctls)
        self.limits(free_target=8 * self.pages)
        self.set_up()
        self.threads()

    def set_up(self) -> None:
        """Before anything runs."""

    def threads(self) -> None:
        """Start the threads."""
        raise NotImplementedError

    def check(self) -> None:
        """What must hold at the end, besides what ``failures`` always checks; asserts."""

    def failures(self) -> list[Failure]:
        """Everything that is not as it must be, at the end of an execution that got there.

        Called by the boot thread when all others have ended.  Makes the machine unusable.
        """
        carrier = self.k.carrier
        with self.k.quietly():
            found = [*map(_broken, breaches(self.vm, processes=True))]
            self.failure_kind = "audit" if found else "assertion"
            carrier.stopping = False  # the boot thread goes on alone
            try:
                self.check()
                if not found and (found := self.take_down()):
                    self.failure_kind = "audit"
            except AssertionError as failed:
                found.append(Failure.raised(failed, str(failed) or "check failed"))
            except Panic as panic:
                found.append(Failure.of(f"at the end: {panic}", "at-end", panic.code))
            except Stopped:
                words = "at the end somebody waits for ever"
                found.append(Failure.of(words, "at-end", "waits"))
            finally:
                carrier.stopping = True
        return found

    def take_down(self) -> list[Failure]:
        """Everybody lets go of what he has: then nothing of it may be left."""
        for p in self.procs:
            if p in self.vm.process.families:
                self.vm.process.exit1(p, 0)
        for obj in self.objects:
            self.vm.object.deallocate(obj)
        return [*map(_broken, breaches(self.vm))]


def _broken(breach: Breach) -> Failure:
    return Failure.of(str(breach), breach.rule)


def fixed(**values: int) -> Mapping[str, int]:
    """A mapping that nobody changes."""
    return MappingProxyType(values)


def expect(ok: object, what: str) -> None:
    """``check`` says what does not hold."""
    if not ok:
        raise AssertionError(what)


__all__ = ["VA", "Situation", "Small", "expect", "fixed"]
