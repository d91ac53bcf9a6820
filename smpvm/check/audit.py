"""The audit: is the state of a machine at rest consistent?

At rest no thread runs: processes have exited, I/O has drained, daemons sleep.  Then every page must
be accounted for, and every counter must be exact.  The audit only reads; it takes no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from smpvm.check.finding import Finding
from smpvm.kern.shared import peek
from smpvm.vm.page.struct import (
    PG_BUSY,
    PG_FICTITIOUS,
    PG_MAPPED,
    PG_MARKER,
    PG_SBUSY,
    PG_SWAPINPROG,
    PG_UNMANAGED,
    PG_WANTED,
    PG_WRITEABLE,
)

if TYPE_CHECKING:
    from smpvm.vm.page.struct import Page
    from smpvm.vm.vm import Vm

RULES: Final = {
    "queue-links": "its links do not point both ways",
    "marker-left": "a marker that is still on a queue",
    "page-on-two-queues": "on two queues",
    "queue-name": "names another queue than the one it is on",
    "queue-tail": "its tail is not its last page",
    "queue-count": "its page count is wrong",
    "page-off-queue": "not on the queue that it names",
    "page-busy": "still busy",
    "page-in-io": "still in I/O",
    "swap-io": "swap I/O still in progress",
    "page-wanted": "still marked as wanted",
    "page-held": "still held",
    "page-wired": "still wired",
    "page-lost": "lost",
    "mapped-flag": "mapped, but PG_MAPPED is clear",
    "page-mapped": "still mapped",
    "free-page-owned": "free, but belongs to an object",
    "page-unowned": "in use, but belongs to no object",
    "cached-dirty": "cached, but dirty",
    "cached-mapped": "cached, but mapped",
    "free-page-in-use": "free or cached, but wired or held",
    "page-index": "not in its object",
    "writeable-unmapped": "PG_WRITEABLE is set, but not PG_MAPPED",
    "vmstats": "its value is wrong",
    "paging-in-progress": "paging is still in progress",
    "object-held": "the object is still held",
    "resident-count": "its resident page count is wrong",
    "shadow-count": "its shadow count is too high",
    "page-of-other-object": "names another object than the one it is in",
    "swap-shared": "has two owners",
    "swap-leaked": "blocks are leaked",
    "process-left": "the process still exists",
    "memory-left": "anonymous memory outlives its processes",
}
"""Rule → what is wrong with an object that breaks it."""

SHOWN = 12
"""How many breaches of one rule its finding lists; the rest are only counted."""


@dataclass(frozen=True)
class Breach:
    """One object that breaks one rule."""

    rule: str
    """Its name in ``RULES``."""
    what: str
    """The object, by name."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {RULES[self.rule]}" + (f" ({self.detail})" if self.detail else "")


def breaches(vm: Vm, *, processes: bool = False) -> list[Breach]:
    """Everything inconsistent.  *processes*: some processes still exist, though at rest."""
    found = [*_queues(vm), *_pages(vm, processes), *_stats(vm), *_objects(vm), *_swap(vm)]
    if not processes:
        found += _processes(vm)
    return found


def audit(vm: Vm, *, processes: bool = False) -> list[Finding]:
    """The breaches as findings, one for each broken rule, with its objects as evidence."""
    by_rule: dict[str, list[Breach]] = {}
    for breach in breaches(vm, processes=processes):
        by_rule.setdefault(breach.rule, []).append(breach)
    out = []
    for rule, found in by_rule.items():
        title = str(found[0])
        if len(found) > 1:
            title += f", and {len(found) - 1} more"
        out.append(
            Finding(
                "audit",
                title,
                objects=[b.what for b in found[:SHOWN]],
                evidence=[str(b) for b in found[:SHOWN]],
                identity=(rule,),
            )
        )
    return out


def line(findings: list[Finding]) -> str:
    """The line that ends every run."""
    if not findings:
        return "audit: clean"
    return f"audit: {len(findings)} rules broken"


def _queues(vm: Vm) -> Iterator[Breach]:
    """Each page is on exactly the queue that it names; links and counts are right; no markers."""
    where: dict[int, str] = {}
    for q in vm.queues:
        count = 0
        before: Page | None = None
        m = peek(q, "head")
        while m is not None:
            if peek(m, "q_prev") is not before:
                yield Breach("queue-links", str(q), f"at {m}")
            if peek(m, "flags") & PG_MARKER:
                yield Breach("marker-left", str(m), str(q))
            else:
                count += 1
                if m.idx in where:
                    yield Breach("page-on-two-queues", str(m), f"{where[m.idx]} and {q}")
                    break  # the list may be circular
                where[m.idx] = str(q)
                if peek(m, "queue") != q.number:
                    named = vm.pq.name(peek(m, "queue"))
                    yield Breach("queue-name", str(m), f"{q}, names {named}")
            before, m = m, peek(m, "q_next")
        if peek(q, "tail") is not before:
            yield Breach("queue-tail", str(q))
        if peek(q, "lcnt") != count:
            yield Breach("queue-count", str(q), f"counts {peek(q, 'lcnt')}, has {count}")
    for m in vm.page_array:
        queue = peek(m, "queue")
        if queue and m.idx not in where:
            yield Breach("page-off-queue", str(m), vm.pq.name(queue))


def _pages(vm: Vm, processes: bool) -> Iterator[Breach]:
    """No page is lost; none is busy, held, wired or mapped without an owner."""
    for m in vm.page_array:
        flags, queue, obj = peek(m, "flags"), peek(m, "queue"), peek(m, "object")
        wired = peek(m, "wire_count")
        base = vm.pq.base(queue)
        if flags & PG_BUSY:
            owner = f"by {m.busy_owner}" if m.busy_owner else "owner unknown"
            yield Breach("page-busy", str(m), owner)
        if peek(m, "busy") or flags & PG_SBUSY:
            yield Breach("page-in-io", str(m), f"busy {peek(m, 'busy')}")
        if flags & PG_SWAPINPROG:
            yield Breach("swap-io", str(m))
        if flags & PG_WANTED:
            yield Breach("page-wanted", str(m))
        if peek(m, "hold_count"):
            yield Breach("page-held", str(m), str(peek(m, "hold_count")))
        if wired and not processes and not flags & PG_FICTITIOUS and obj is not vm.kernel_object:
            yield Breach("page-wired", str(m), f"wire_count {wired}")
        if not queue and not wired and not flags & (PG_FICTITIOUS | PG_UNMANAGED | PG_BUSY):
            yield Breach("page-lost", str(m), "on no queue, not wired")
        yield from _page_state(vm, m, base, flags, obj)
        mapped = m.pv_first is not None
        if mapped and not flags & PG_MAPPED:
            yield Breach("mapped-flag", str(m))
        if mapped and not processes:
            yield Breach("page-mapped", str(m))


def _page_state(vm: Vm, m: Page, base: int, flags: int, obj: Any) -> Iterator[Breach]:
    """The invariants of a page's queue and of its object."""
    pq = vm.pq
    if base in (pq.FREE, pq.HOLD) and obj is not None:
        yield Breach("free-page-owned", str(m), str(obj))
    if base in (pq.INACTIVE, pq.ACTIVE, pq.CACHE) and obj is None:
        yield Breach("page-unowned", str(m), pq.name(peek(m, "queue")))
    if base == pq.CACHE:
        if peek(m, "dirty"):
            yield Breach("cached-dirty", str(m), f"dirty {peek(m, 'dirty'):#x}")
        if m.pv_first is not None:
            yield Breach("cached-mapped", str(m))
    if base in (pq.FREE, pq.CACHE) and (peek(m, "wire_count") or peek(m, "hold_count")):
        yield Breach("free-page-in-use", str(m))
    if obj is not None and obj.rb_memq.lookup(peek(m, "pindex")) is not m:
        yield Breach("page-index", str(m), f"{obj} index {peek(m, 'pindex')}")
    if flags & PG_WRITEABLE and not flags & PG_MAPPED:
        yield Breach("writeable-unmapped", str(m))


def _stats(vm: Vm) -> Iterator[Breach]:
    """The counters in vmstats are exact."""
    stats, pq = vm.stats, vm.pq
    sums = dict.fromkeys(("free", "cache", "inactive", "active"), 0)
    names = {
        pq.FREE: "free",
        pq.CACHE: "cache",
        pq.INACTIVE: "inactive",
        pq.ACTIVE: "active",
        pq.HOLD: "active",
    }
    wired = total = 0
    for m in vm.page_array:
        total += 1
        if queue := peek(m, "queue"):
            sums[names[pq.base(queue)]] += 1
        if peek(m, "wire_count") and not peek(m, "flags") & PG_FICTITIOUS:
            wired += 1
    for name, count in {**sums, "wire": wired, "page": total}.items():
        said = peek(stats, f"v_{name}_count")
        if said != count:
            yield Breach("vmstats", f"v_{name}_count", f"{said}, should be {count}")


def _objects(vm: Vm) -> Iterator[Breach]:
    """No I/O in progress, resident and shadow counts exact, nothing held."""
    backed: dict[Any, int] = {}
    everything = vm.object.all_objects()
    for obj in everything:
        backing = peek(obj, "backing_object")
        if backing is not None:
            backed[backing] = backed.get(backing, 0) + 1
    for obj in everything:
        if n := peek(obj, "paging_in_progress"):
            yield Breach("paging-in-progress", str(obj), str(n))
        if n := peek(obj, "hold_count"):
            yield Breach("object-held", str(obj), str(n))
        resident = peek(obj, "resident_page_count")
        if resident != len(obj.rb_memq):
            yield Breach("resident-count", str(obj), f"{resident}, has {len(obj.rb_memq)}")
        if peek(obj, "shadow_count") > backed.get(obj, 0):
            yield Breach(
                "shadow-count",
                str(obj),
                f"{peek(obj, 'shadow_count')}, has {backed.get(obj, 0)}",
            )
        for m in obj.rb_memq:
            if peek(m, "object") is not obj:
                yield Breach("page-of-other-object", str(m), f"in {obj}")


def _swap(vm: Vm) -> Iterator[Breach]:
    """No swap block is leaked or shared."""
    owner: dict[int, str] = {}
    for obj in vm.object.all_objects():
        for pindex, block in vm.swap.blocks_of(obj):
            name = f"{obj} index {pindex}"
            if block in owner:
                yield Breach("swap-shared", f"block {block}", f"{owner[block]}, {name}")
            owner[block] = name
    used = vm.swap.blocks_in_use()
    if used != len(owner):
        yield Breach("swap-leaked", "swap", f"{used} allocated, {len(owner)} belong to objects")


def _processes(vm: Vm) -> Iterator[Breach]:
    """All processes have exited and their memory is released."""
    for p in vm.k.proc.all():
        yield Breach("process-left", str(p))
    for obj in vm.object.all_objects():
        anonymous = obj.handle is None and obj is not vm.kernel_object
        if anonymous and peek(obj, "ref_count"):
            yield Breach("memory-left", str(obj))
