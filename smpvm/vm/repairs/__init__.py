"""Named repairs of the kernel's own defects, off by default: the default model is the kernel.

A repair is a subclass of exactly one subsystem of the VM that overrides the few methods where the
defect is; ``vm.compose`` mixes it in front of the model's own.  Each lives in a module here and is
listed in ``REPAIRS``: name, one-line title, where the defect is, the class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from smpvm.config import ConfigError
from smpvm.vm.repairs.fault import CopyWired, FaultOnce, MoveRecheck
from smpvm.vm.repairs.glue import SwapoutHeld
from smpvm.vm.repairs.map import MapToken, MsyncEnd, WireBackOut
from smpvm.vm.repairs.msync import CleanRecord, MsyncRange
from smpvm.vm.repairs.pageout import (
    ActCountCap,
    ActiveNullObject,
    BackOffWait,
    CleanCounted,
    ClusterForward,
    KillOnce,
    LaunderRecheck,
    PaperShortage,
    PartialPage,
    QueueIterator,
    RequestHint,
    ShortRest,
    StatsInterval,
)
from smpvm.vm.repairs.swap import BufferWakeup, SwapErrorHold
from smpvm.vm.repairs.vmdaemon import SwapoutAsk, SwapoutTake
from smpvm.vm.repairs.waits import AllocWanted, DaemonWait, FreeWait, UnholdWakeup


@dataclass(frozen=True)
class Repair:
    """One repair.  *where*: the C function and its lines, ``vm_clean (vm_pageout.c:1-2)``."""

    name: str
    title: str
    where: str
    override: type


_ALL = (
    Repair(
        "swap-error-hold",
        "hold the object when a failed asynchronous swap write forgets its blocks",
        "swp_pager_async_iodone (swap_pager.c:1831)",
        SwapErrorHold,
    ),
    Repair(
        "buffer-wakeup",
        "wake who sleeps for an I/O buffer at the first free one, not at the second",
        "relpbuf (vm_pager.c:659)",
        BufferWakeup,
    ),
    Repair(
        "msync-range",
        "let msync of a part of a file write it",
        "vm_object_page_clean (vm_object.c:1350-1370)",
        MsyncRange,
    ),
    Repair(
        "clean-record",
        "take a file off the dirty record before its pages are made read-only, not after",
        "vm_object_page_clean (vm_object.c:1350-1370)",
        CleanRecord,
    ),
    Repair(
        "swapout-ask",
        "ask for a swap-out before waking the swap daemon, and atomically",
        "vm_pageout_scan_cache (vm_pageout.c:1495-1496)",
        SwapoutAsk,
    ),
    Repair(
        "swapout-take",
        "lose no request for a swap-out: look before sleeping, take it in one step",
        "vm_daemon, vm_req_vmdaemon (vm_pageout.c:2110-2144)",
        SwapoutTake,
    ),
    Repair(
        "swapout-held",
        "let a process be swapped out although the scan itself holds it",
        "swappable (vm_glue.c:384-386)",
        SwapoutHeld,
    ),
    Repair(
        "msync-end",
        "end msync's check for holes at the last entry of the map",
        "vm_map_clean (vm_map.c:2645-2659)",
        MsyncEnd,
    ),
    Repair(
        "wire-back-out",
        "take the wiring back behind the entry that could not be wired, too",
        "vm_map_wire (vm_map.c:2483-2493)",
        WireBackOut,
    ),
    Repair(
        "map-token",
        "cut and merge map entries with the map's token, under which the kill scan walks them",
        "vm_map_protect (vm_map.c:1859-1935), vmspace_swap_count (:499-529)",
        MapToken,
    ),
    Repair(
        "copy-wired",
        "find the wired pages that a fork has to copy in the objects behind the first, too",
        "vm_fault_copy_entry (vm_fault.c:2290-2294)",
        CopyWired,
    ),
    Repair(
        "move-recheck",
        "look at the map's timestamp again once its lock is had, before a page is moved",
        "vm_fault_object (vm_fault.c:1836-1866)",
        MoveRecheck,
    ),
    Repair(
        "fault-once",
        "count a fault once, as soft or hard",
        "vm_fault (vm_fault.c:613-627)",
        FaultOnce,
    ),
    Repair(
        "free-wait",
        "look for free memory again once on the sleep queue",
        "vm_wait, vm_wait_pfault (vm_page.c:1964-2046)",
        FreeWait,
    ),
    Repair(
        "unhold-wakeup",
        "tell who waits for memory of a page that its last unhold frees",
        "vm_page_unhold (vm_page.c:957-972)",
        UnholdWakeup,
    ),
    Repair(
        "alloc-wanted",
        "keep the mark of who waits for a page that is allocated again meanwhile",
        "vm_page_alloc (vm_page.c:1786)",
        AllocWanted,
    ),
    Repair(
        "pagedaemon-wait",
        "look for a request again once on the sleep queue",
        "vm_pageout_thread (vm_pageout.c:1897-1901)",
        DaemonWait,
    ),
    Repair(
        "cluster-forward",
        "gather dirty pages above the first into its cluster, too",
        "vm_pageout_clean (vm_pageout.c:341-345)",
        ClusterForward,
    ),
    Repair(
        "partial-page",
        "do not write pages that are valid in part, which flush asserts never happens",
        "vm_pageout_clean, vm_pageout_scan_inactive (vm_pageout.c:320-351, 970)",
        PartialPage,
    ),
    Repair(
        "act-count-cap",
        "stop act_count at ACT_MAX, so that it never wraps to look idle",
        "vm_pageout_scan_inactive (vm_pageout.c:588, 889, 906)",
        ActCountCap,
    ),
    Repair(
        "launder-recheck",
        "do not write a page that was cleaned while its vnode was waited for",
        "vm_pageout_scan_inactive (vm_pageout.c:1075-1096)",
        LaunderRecheck,
    ),
    Repair(
        "active-null-object",
        "age an active page without an object instead of following NULL",
        "vm_pageout_scan_active (vm_pageout.c:1320)",
        ActiveNullObject,
    ),
    Repair(
        "clean-counted",
        "count a write as paging in progress while its object is still held",
        "vm_pageout_clean, vm_pageout_flush (vm_pageout.c:359-413)",
        CleanCounted,
    ),
    Repair(
        "kill-once",
        "do not kill a process that is being killed already",
        "vm_pageout_scan_callback (vm_pageout.c:1555-1558)",
        KillOnce,
    ),
    Repair(
        "stats-interval",
        "count the interval of full statistics scans once, not for each queue",
        "vm_pageout_page_stats (vm_pageout.c:1621-1629)",
        StatsInterval,
    ),
    Repair(
        "queue-iterator",
        "begin each round of scans behind the last queue scanned",
        "vm_pageout_thread (vm_pageout.c:1949, 2002)",
        QueueIterator,
    ),
    Repair(
        "paper-shortage",
        "do not count pages as available that were only deactivated",
        "vm_pageout_thread (vm_pageout.c:2001)",
        PaperShortage,
    ),
    Repair(
        "short-rest",
        "rest before the next round when the shortage was met on paper only",
        "vm_pageout_thread (vm_pageout.c:2049-2061)",
        ShortRest,
    ),
    Repair(
        "back-off-wait",
        "look for a request again once on the sleep queue, in a back-off",
        "vm_pageout_thread (vm_pageout.c:2034-2036)",
        BackOffWait,
    ),
    Repair(
        "request-hint",
        "raise a request for pages only if the page-out daemon has not taken it meanwhile",
        "pagedaemon_wakeup (vm_pageout.c:2096-2100)",
        RequestHint,
    ),
)

REPAIRS: MappingProxyType[str, Repair] = MappingProxyType({r.name: r for r in _ALL})
"""Every repair by name."""


def choose(names: Iterable[str]) -> list[Repair]:
    """The repairs called *names*; ``all`` is every one.  Raises ConfigError."""
    chosen: dict[str, Repair] = {}
    for name in names:
        if name == "all":
            chosen.update(REPAIRS)
        elif name in REPAIRS:
            chosen[name] = REPAIRS[name]
        else:
            known = ", ".join(["all", *REPAIRS])
            raise ConfigError(f"repair {name}: unknown; known are {known}")
    return list(chosen.values())
