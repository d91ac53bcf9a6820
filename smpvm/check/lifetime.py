"""Lifetime: memory that is used after it was given back, or given back while in use, or twice.

Who frees something says so at the C's free point (``Probe.freed``).  Nothing is looked up while
things live: what is freed gets a class of its own whose shared fields report whoever touches them,
so the check costs nothing but at the free itself, and works on free-running threads too.

The smallest program that has the fault, and its twin::

    k.probe.freed(td, obj); obj.size       # use after free
    obj.size; k.probe.freed(td, obj)       # right

Physical pages are never given back, and the C looks at free ones by right: scans and
vm_page_list_find read m->queue and m->flags of any page and look again with its lock
(vm_page.c:1407-1437); a thread that slept for a busy page busies it whatever has become of it,
compares m->object, and lets it go (vm_object.c:1262-1270, vm_pageout.c:1075-1090); vm_page_hold
takes a page that is being freed to PQ_HOLD (vm_page.c:939-951).  What may not be is judged where
a page is freed and where it is taken again: busied by another thread, mapped, in I/O, freed twice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, Site, site_of
from smpvm.check.stacks import RawStack, capture, functions
from smpvm.kern.proc import PLOCK_MASK, Proc
from smpvm.kern.shared import peek
from smpvm.vm.map.entry import VmMapEntry
from smpvm.vm.map.vmspace import VmSpace
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_MARKER, PG_SBUSY, PG_SWAPINPROG
from smpvm.vm.param import CHAINLK_EXCL, CHAINLK_MASK
from smpvm.vm.pmap.struct import Pmap

KEPT: Final = 4096
"""Freed things whose free is remembered; of older ones only that they were freed."""

Uses = Callable[[Any], list[tuple[bool, str]]]


def _object_uses(obj: Any) -> list[tuple[bool, str]]:
    """vm_object_drop frees at the last hold of a dead object without references
    (vm_object.c:334-362); vm_object_terminate has waited for paging and freed the pages
    (vm_object.c:1130-1246)."""
    return [
        (bool(peek(obj, "hold_count")), "held"),
        (bool(peek(obj, "ref_count")), "referenced"),
        (bool(peek(obj, "paging_in_progress")), "with paging in progress"),
        (bool(peek(obj, "chainlk") & (CHAINLK_EXCL | CHAINLK_MASK)), "chain locked"),
        (len(obj.rb_memq) > 0, "with resident pages"),
    ]


USES: Final[dict[type, Uses]] = {
    VmObject: _object_uses,
    # vmspace_drop_notoken: the last hold, after the last reference (vm_map.c:326-334).
    VmSpace: lambda s: [
        (bool(peek(s, "vm_holdcnt")), "held"),
        (peek(s, "vm_refcnt") > 0, "referenced"),
    ],
    # pmap_release (pmap.c:2344-2379).
    Pmap: lambda p: [(bool(p.ptes), "with mappings")],
    # kern_wait: PSTALL "reap5" before kfree (kern_exit.c:1110-1120).
    Proc: lambda p: [(bool(peek(p, "p_lock") & PLOCK_MASK), "held")],
    # vm_map_entry_unlink comes first (vm_map.c:884-903).
    VmMapEntry: lambda e: [(peek(e, "next").prev is e, "linked into its map")],
}
"""What must have ended when one of the class is freed."""


UNTOLD: Final = frozenset({"biodone"})
"""The C's biodone does not look at the buffer after the done function (vfs_bio.c:4109-4117); the
model's flag stands for that function having run."""


class Grave(NamedTuple):
    """Who freed something, and where."""

    obj: Any
    who: Any
    stack: RawStack


class Lifetime(Checker):
    """The checker."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.freed_things = 0
        self._graves: OrderedDict[int, Grave] = OrderedDict()
        self._buried: dict[type, type] = {}
        """Class → the class of its freed instances."""
        self._mutex = threading.Lock()
        self._vm: Any = None

    def attach_vm(self, vm: Any) -> None:
        self._vm = vm

    # -- what is given back

    def freed(self, td: Any, obj: Any) -> None:
        cls = type(obj)
        if getattr(cls, "__freed__", None) is not None:
            self._report(td, obj, "freed twice", f"{obj} is freed twice", "frees it again")
            return
        bare = getattr(cls, "__bare__", cls)
        if (uses := USES.get(bare)) is not None:
            for wrong, how in uses(obj):
                if wrong:
                    self._report(td, obj, how, f"{obj} is freed {how}", f"frees it {how}")
        with self._mutex:
            self.freed_things += 1
            self._graves[id(obj)] = Grave(obj, td, capture(2))
            if len(self._graves) > KEPT:
                self._graves.popitem(last=False)
            grave = self._buried.get(cls) or self._buried.setdefault(
                cls, _grave(cls, self._touched)
            )
        obj.__class__ = grave

    def _touched(self, obj: Any, field: str, how: str) -> None:
        """Somebody reads or writes a shared field of what was freed."""
        k = self.tracker.k
        if k is None or k.carrier.stopping or (k.carrier.serial and k.carrier.inert):
            return
        td = k.curthread()
        if td.quiet:
            return
        name = f"{type(obj).__name__}.{field}"
        title = f"{td.name} {how} {name} of {obj} after it was freed"
        self._report(td, obj, name, title, f"{how} {name}")

    # -- pages

    def page_free(self, td: Any, m: Any) -> None:
        vm = self._vm
        if vm is None or peek(m, "flags") & PG_MARKER:
            return
        flags = peek(m, "flags")
        if m.busy_owner is not None and m.busy_owner is not td:
            how = f"freed while {m.busy_owner.name} has it busy"
            self._page(td, m, "freed busied by another", how)
        if m.pv_first is not None:
            self._page(td, m, "freed mapped", f"freed while {m.pv_first} maps it")
        if peek(m, "busy") or flags & PG_SBUSY:
            self._page(td, m, "freed in I/O", "freed while I/O is in progress (soft-busy)")
        if flags & PG_SWAPINPROG:
            self._page(td, m, "freed in swap I/O", "freed while swap I/O is in progress")
        if peek(m, "wire_count"):
            self._page(td, m, "freed wired", f"freed with wire_count {peek(m, 'wire_count')}")
        if vm.pq.base(peek(m, "queue")) == vm.pq.HOLD:
            self._page(td, m, "freed twice", "freed again while it waits on the hold queue")

    def page_alloc(self, td: Any, m: Any) -> None:
        if self._vm is None:
            return
        if m.pv_first is not None:
            self._page(td, m, "reused mapped", f"reused while {m.pv_first} maps it")
        if (obj := peek(m, "object")) is not None:
            self._page(td, m, "reused owned", f"reused while it belongs to {obj}")

    def _page(self, td: Any, m: Any, what: str, how: str) -> None:
        stack = capture(3)
        self.log.add(
            Finding(
                "lifetime",
                f"{m} is {how}",
                sites=[site_of(td, "frees or takes it", stack)],
                objects=[str(m)],
                identity=("page", what, *functions(stack)),
            )
        )

    def _report(self, td: Any, obj: Any, how: str, title: str, deed: str) -> None:
        stack = capture(3)
        sites: list[Site] = [site_of(td, deed, stack)]
        grave = self._graves.get(id(obj))
        if grave is not None and grave.obj is obj:
            sites.append(site_of(grave.who, f"freed {obj}", grave.stack))
        self.log.add(
            Finding(
                "lifetime",
                title,
                sites=sites,
                objects=[str(obj)],
                identity=(type(obj).__name__, how, *functions(stack)),
            )
        )

    def summary(self) -> dict[str, Any]:
        return {"freed": self.freed_things}


def _grave(cls: type, touched: Callable[[Any, str, str], None]) -> type:
    """The class of freed instances of *cls*: each access to a shared field is told first.

    ``__freed__`` holds the same for atomic operations, which pass hooks by.
    """
    bare = getattr(cls, "__bare__", cls)
    fields = set(getattr(cls, "__shared__", ()))
    told = sorted(fields - UNTOLD)
    body: dict[str, Any] = {name: _told(name, getattr(cls, name), touched) for name in told}
    atomics: dict[str, Any] = {name: getattr(bare, name) for name in fields}
    atomics |= {name: _told(name, atomics[name], touched) for name in told}
    body |= {
        "__slots__": (),
        "__freed__": type("freed", (), atomics),
        "__bare__": bare,
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
    }
    return type(cls.__name__, (cls,), body)


def _told(name: str, slot: Any, touched: Callable[[Any, str, str], None]) -> property:
    get0, set0 = slot.__get__, slot.__set__

    def get(self: Any) -> Any:
        touched(self, name, "reads")
        return get0(self)

    def set_(self: Any, value: Any) -> None:
        touched(self, name, "writes")
        set0(self, value)

    return property(get, set_)
