"""Counts: each is what its holders add up to, and who raised one has lowered it before leaving.

Two questions.  At rest: do references, holds and wirings equal what holds them (map entries,
shadows, processes, mappings)?  What the boot thread had taken before the first thread ran may stay:
a set-up keeps its objects and files.  And for holds that pass from no thread to another: has every
thread lowered what it raised, when it ends and at rest?  A leak is shown with the place of the
raise.

The smallest program that has the fault, and its twin::

    k.proc.phold(p)                        # the thread ends
    k.proc.phold(p); k.proc.prele(p)       # right

Reasons in the C: vm_object.h:127-196 (ref_count: entries, shadows; vnode objects reference their
vnode as often, vm_object.c:490-518), vm_map.c:319-411 (vmspace), kern_proc.c:253-326 (p_lock),
vfs_lock.c:274-362, 474-574 (vget's reference goes with an error), vm_page.c:2270-2347 (wirings).
"""

from __future__ import annotations

import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, Site, site_of
from smpvm.check.stacks import PLACES, kind_of, shown
from smpvm.kern.proc import P_WEXIT, PLOCK_MASK
from smpvm.kern.shared import peek
from smpvm.kern.vnode import VRECLAIMED, VREF_FINALIZE, VREF_MASK, VREF_TERMINATE
from smpvm.vm.page.struct import PG_FICTITIOUS, PG_UNMANAGED
from smpvm.vm.pmap.pte import PTE_W

VREFS: Final = VREF_MASK & ~VREF_TERMINATE & ~VREF_FINALIZE

OWN: Final = {("Proc", "p_lock"), ("VmObject", "hold_count")}
"""Counts that the thread lowers that has raised them."""
RAISED: Final = OWN | {("Vnode", "v_refcnt"), ("VmObject", "ref_count")}
"""Counts whose raises are remembered."""
FIELDS: Final = frozenset(field for _, field in RAISED)

KEPT: Final = 512

Key = tuple[Any, str]


class Raise:
    """What one thread has raised one count by, and where it did so last."""

    __slots__ = ("net", "place")

    def __init__(self) -> None:
        self.net = 0
        self.place = 0


class Counts(Checker):
    """The checker."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._vm: Any = None
        self._mutex = threading.Lock()
        self._ledgers: dict[Any, dict[Key, Raise]] = {}
        """Thread → what it has raised and not lowered."""
        self._ended: OrderedDict[Key, tuple[Any, Raise]] = OrderedDict()
        """Of threads that have ended: what they left raised, the newest KEPT."""
        self._before: Counter[Key] | None = None
        """What nobody held in the model before the first thread ran: the set-up's own."""

    def attach_vm(self, vm: Any) -> None:
        self._vm = vm

    def thread_start(self, td: Any) -> None:
        if self._before is None and self._vm is not None:
            with self._vm.k.quietly():
                self._before = Counter({key: over for key, over, _ in self._excess()})

    # -- raises

    def atomic(self, td: Any, obj: Any, field: str, old: Any, new: Any) -> None:
        if field in FIELDS and (type(obj).__name__, field) in RAISED:
            mask = VREFS if field == "v_refcnt" else PLOCK_MASK
            self._note(td, obj, field, (new & mask) - (old & mask))

    def page_hold(self, td: Any, m: Any, delta: int) -> None:
        self._note(td, m, "hold_count", delta)

    def _note(self, td: Any, obj: Any, field: str, delta: int) -> None:
        ledger = self._ledgers.get(td)
        if ledger is None:
            ledger = self._ledgers.setdefault(td, {})
        known = ledger.get((obj, field))
        if known is None:
            if not delta:
                return
            known = ledger[obj, field] = Raise()
        known.net += delta
        if not known.net:
            del ledger[obj, field]
        elif delta > 0:
            known.place = PLACES.number(_kernel_frame())

    # -- has everybody lowered what he raised?

    def thread_exit(self, td: Any) -> None:
        ledger = self._ledgers.pop(td, None)
        vm = self._vm
        if ledger and not (vm is None or vm.k.carrier.stopping or vm.k.panics or vm.k.errors):
            self._left(td, ledger, "ends")
            with self._mutex:
                self._ended |= {k: (td, known) for k, known in ledger.items() if known.net > 0}
                while len(self._ended) > KEPT:
                    self._ended.popitem(last=False)

    def _left(self, td: Any, ledger: dict[Key, Raise], when: str) -> None:
        for (obj, field), known in list(ledger.items()):
            name = type(obj).__name__
            if known.net > 0 and ((name, field) in OWN or name == "Page"):
                title = f"{td.name} {when} with {known.net} of {name}.{field} of {obj} not lowered"
                self._leak(title, obj, f"{name}.{field}", [self._site(td, obj, field, known)])

    def _site(self, td: Any, obj: Any, field: str, known: Raise) -> Site:
        stack = shown(PLACES.stack(known.place))
        return site_of(td, f"raised {field} of {obj}", stack)

    # -- at rest

    def at_rest(self) -> None:
        vm = self._vm
        if vm is None or vm.k.panics or vm.k.errors:
            return
        with vm.k.quietly():
            for td, ledger in list(self._ledgers.items()):
                if td is not vm.k.boot:
                    self._left(td, ledger, "is at rest")
            before = self._before or Counter()
            for (obj, field), over, says in self._excess():
                # Who makes a vnode has its first reference (getnewvnode, vfs_mount.c:164-194).
                own = before.get((obj, field), int(field == "v_refcnt"))
                if not 0 <= over <= own:
                    self._wrong(obj, field, over - own if over > 0 else over, says)

    def _wrong(self, obj: Any, field: str, over: int, says: str) -> None:
        name = type(obj).__name__
        key = (obj, field)
        raised = [(td, known[key]) for td, known in list(self._ledgers.items()) if key in known]
        raised += [self._ended[key]] if key in self._ended else []
        sites = [self._site(td, obj, field, r) for td, r in raised if r.net > 0]
        more = f"{over} more" if over > 0 else f"{-over} less"
        title = f"{name}.{field} of {obj} is {says}: {more} than its holders add up to"
        self._leak(title, obj, f"{name}.{field}", sites if over > 0 else [])

    def _leak(self, title: str, obj: Any, what: str, sites: list[Site]) -> None:
        where = [f.c or f.name for f in sites[0].stack] if sites else []
        self.log.add(
            Finding("count", title, sites=sites, objects=[str(obj)], identity=(what, *where))
        )

    def _excess(self) -> Iterator[tuple[Key, int, str]]:
        """Each count: by how much it is more than its holders add up to, and what it is."""
        vm = self._vm
        procs = vm.k.proc.all()
        spaces = Counter(p.p_vmspace for p in procs if peek(p, "p_vmspace") is not None)
        living = Counter(
            p.p_vmspace
            for p in procs
            if peek(p, "p_vmspace") is not None and not peek(p, "p_flags") & P_WEXIT
        )
        for p in procs:
            held = peek(p, "p_lock") & PLOCK_MASK
            yield (p, "p_lock"), held, str(held)
        for space, users in spaces.items():
            hold, refs = peek(space, "vm_holdcnt"), peek(space, "vm_refcnt")
            yield (space, "vm_holdcnt"), hold - users, str(hold)
            yield (space, "vm_refcnt"), max(refs, 0) - living[space], str(refs)
        yield from self._objects(vm, spaces)
        yield from self._vnodes(vm)
        yield from self._wirings(vm)

    @staticmethod
    def _objects(vm: Any, spaces: Counter[Any]) -> Iterator[tuple[Key, int, str]]:
        """Map entries and shadows hold an object."""
        holders: Counter[Any] = Counter()
        for space in spaces:
            holders.update(e.vm_object for e in space.vm_map.entries() if e.vm_object is not None)
        objects = vm.object.all_objects()
        for obj in objects:
            if (behind := peek(obj, "backing_object")) is not None:
                holders[behind] += 1
        for obj in objects:
            refs = peek(obj, "ref_count")
            yield (obj, "ref_count"), refs - holders[obj], str(refs)

    @staticmethod
    def _vnodes(vm: Any) -> Iterator[tuple[Key, int, str]]:
        """References on a vnode's object are references on the vnode."""
        for vp in vm.k.vnode.all():
            if peek(vp, "v_flag") & VRECLAIMED:
                continue
            refs, obj = peek(vp, "v_refcnt") & VREFS, peek(vp, "v_object")
            over = refs - (0 if obj is None else peek(obj, "ref_count"))
            yield (vp, "v_refcnt"), over, str(refs)

    @staticmethod
    def _wirings(vm: Any) -> Iterator[tuple[Key, int, str]]:
        """A wired mapping wires its page."""
        for m in vm.page_array:
            if peek(m, "flags") & (PG_FICTITIOUS | PG_UNMANAGED):
                continue
            wired = peek(m, "wire_count")
            mapped = sum(peek(pv, "bits") & PTE_W != 0 for pv in m.mappings())
            if wired or mapped:
                yield (m, "wire_count"), wired - mapped, str(wired)


def _kernel_frame() -> FrameType:
    """The innermost frame of the kernel's code."""
    frame: FrameType = sys._getframe(2)
    while not kind_of(frame.f_code) and frame.f_back is not None:
        frame = frame.f_back
    return frame
