"""The audit: does a machine at rest still add up?

At rest nobody runs: processes have exited, I/O has drained, daemons sleep.  Then every page must be
accounted for, and every count must equal what it counts.  The audit only looks; it takes no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smpvm.check.finding import Finding, fingerprint
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

SHOWN = 12
"""Breaches of one rule that its finding lists; the rest are counted."""


@dataclass(frozen=True)
class Breach:
    """One object breaks one rule."""

    rule: str
    what: str
    """The object, by name."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.rule}" + (f" ({self.detail})" if self.detail else "")


def breaches(vm: Vm, *, processes: bool = False) -> list[Breach]:
    """Everything that does not add up.  *processes*: some are still there, though at rest."""
    found = [*_queues(vm), *_pages(vm, processes), *_stats(vm), *_objects(vm), *_swap(vm)]
    if not processes:
        found += _processes(vm)
    return found


def audit(vm: Vm, *, processes: bool = False) -> list[Finding]:
    """The same as findings, one for each broken rule, its objects in the evidence."""
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
                fingerprint=fingerprint("audit", rule),
            )
        )
    return out


def line(findings: list[Finding]) -> str:
    """The line that ends every run."""
    if not findings:
        return "audit: clean"
    return f"audit: {len(findings)} rules broken"


def _queues(vm: Vm) -> Iterator[Breach]:
    """Each page on exactly the queue that it names; lists whole, counts true, no marker left."""
    where: dict[int, str] = {}
    for q in vm.queues:
        count = 0
        before: Page | None = None
        m = peek(q, "head")
        while m is not None:
            if peek(m, "q_prev") is not before:
                yield Breach("queue links point both ways", str(q), f"at {m}")
            if peek(m, "flags") & PG_MARKER:
                yield Breach("no marker stays on a queue", str(m), str(q))
            else:
                count += 1
                if m.idx in where:
                    yield Breach("a page is on one queue", str(m), f"{where[m.idx]} and {q}")
                    break  # the list may be a ring
                where[m.idx] = str(q)
                if peek(m, "queue") != q.number:
                    named = vm.pq.name(peek(m, "queue"))
                    yield Breach("a page names the queue it is on", str(m), f"{q}, names {named}")
            before, m = m, peek(m, "q_next")
        if peek(q, "tail") is not before:
            yield Breach("a queue's tail is its last page", str(q))
        if peek(q, "lcnt") != count:
            yield Breach(
                "a queue's count is its pages", str(q), f"counts {peek(q, 'lcnt')}, has {count}"
            )
    for m in vm.page_array:
        queue = peek(m, "queue")
        if queue and m.idx not in where:
            yield Breach("a page is on the queue it names", str(m), vm.pq.name(queue))


def _pages(vm: Vm, processes: bool) -> Iterator[Breach]:
    """No page lost, none busy, held, wired or mapped without an owner."""
    for m in vm.page_array:
        flags, queue, obj = peek(m, "flags"), peek(m, "queue"), peek(m, "object")
        wired = peek(m, "wire_count")
        base = vm.pq.base(queue)
        if flags & PG_BUSY:
            owner = f"by {m.busy_owner}" if m.busy_owner else "owner unknown"
            yield Breach("no page is left busy", str(m), owner)
        if peek(m, "busy") or flags & PG_SBUSY:
            yield Breach("no page is left in I/O", str(m), f"busy {peek(m, 'busy')}")
        if flags & PG_SWAPINPROG:
            yield Breach("no page is left with swap I/O in progress", str(m))
        if flags & PG_WANTED:
            yield Breach("nobody waits for a page", str(m))
        if peek(m, "hold_count"):
            yield Breach("no page is held without an owner", str(m), str(peek(m, "hold_count")))
        if wired and not processes and not flags & PG_FICTITIOUS and obj is not vm.kernel_object:
            yield Breach("no page is wired without an owner", str(m), f"wire_count {wired}")
        if not queue and not wired and not flags & (PG_FICTITIOUS | PG_UNMANAGED | PG_BUSY):
            yield Breach("no page is lost", str(m), "on no queue, not wired")
        yield from _page_state(vm, m, base, flags, obj)
        mapped = m.pv_first is not None
        if mapped and not flags & PG_MAPPED:
            yield Breach("a mapped page says so", str(m))
        if mapped and not processes:
            yield Breach("no page stays mapped", str(m))


def _page_state(vm: Vm, m: Page, base: int, flags: int, obj: Any) -> Iterator[Breach]:
    """What a queue promises of its pages, and a page of its object."""
    pq = vm.pq
    if base in (pq.FREE, pq.HOLD) and obj is not None:
        yield Breach("a free page belongs to no object", str(m), str(obj))
    if base in (pq.INACTIVE, pq.ACTIVE, pq.CACHE) and obj is None:
        yield Breach("a page in use belongs to an object", str(m), pq.name(peek(m, "queue")))
    if base == pq.CACHE:
        if peek(m, "dirty"):
            yield Breach("a cached page is clean", str(m), f"dirty {peek(m, 'dirty'):#x}")
        if m.pv_first is not None:
            yield Breach("a cached page is not mapped", str(m))
    if base in (pq.FREE, pq.CACHE) and (peek(m, "wire_count") or peek(m, "hold_count")):
        yield Breach("a free page is neither wired nor held", str(m))
    if obj is not None and obj.rb_memq.lookup(peek(m, "pindex")) is not m:
        yield Breach("a page is in its object", str(m), f"{obj} index {peek(m, 'pindex')}")
    if flags & PG_WRITEABLE and not flags & PG_MAPPED:
        yield Breach("a writeable page is mapped", str(m))


def _stats(vm: Vm) -> Iterator[Breach]:
    """vmstats equal to what is there; pages in = pages out."""
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
            yield Breach("vmstats counts what is there", f"v_{name}_count", f"{said}, is {count}")


def _objects(vm: Vm) -> Iterator[Breach]:
    """No I/O in progress, resident counts true, shadow counts true, nothing held."""
    backed: dict[Any, int] = {}
    everything = vm.object.all_objects()
    for obj in everything:
        backing = peek(obj, "backing_object")
        if backing is not None:
            backed[backing] = backed.get(backing, 0) + 1
    for obj in everything:
        if n := peek(obj, "paging_in_progress"):
            yield Breach("no paging is left in progress", str(obj), str(n))
        if n := peek(obj, "hold_count"):
            yield Breach("no object is left held", str(obj), str(n))
        resident = peek(obj, "resident_page_count")
        if resident != len(obj.rb_memq):
            yield Breach(
                "an object counts its pages", str(obj), f"{resident}, has {len(obj.rb_memq)}"
            )
        if peek(obj, "shadow_count") > backed.get(obj, 0):
            yield Breach(
                "an object counts its shadows",
                str(obj),
                f"{peek(obj, 'shadow_count')}, has {backed.get(obj, 0)}",
            )
        for m in obj.rb_memq:
            if peek(m, "object") is not obj:
                yield Breach("an object's page names it", str(m), f"in {obj}")


def _swap(vm: Vm) -> Iterator[Breach]:
    """No swap block leaked or shared."""
    owner: dict[int, str] = {}
    for obj in vm.object.all_objects():
        for pindex, block in vm.swap.blocks_of(obj):
            name = f"{obj} index {pindex}"
            if block in owner:
                yield Breach(
                    "a swap block has one owner", f"block {block}", f"{owner[block]}, {name}"
                )
            owner[block] = name
    used = vm.swap.blocks_in_use()
    if used != len(owner):
        yield Breach(
            "no swap block is leaked", "swap", f"{used} allocated, {len(owner)} belong to objects"
        )


def _processes(vm: Vm) -> Iterator[Breach]:
    """All processes are gone, and took their memory with them."""
    for p in vm.k.proc.all():
        yield Breach("no process is left", str(p))
    for obj in vm.object.all_objects():
        anonymous = obj.handle is None and obj is not vm.kernel_object
        if anonymous and peek(obj, "ref_count"):
            yield Breach("anonymous memory ends with its processes", str(obj))
