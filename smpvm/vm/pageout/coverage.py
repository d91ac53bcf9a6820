"""The branches of vm_pageout.c that are counted, and which functions and branches have run.

The kernel code counts with ``td.hit(name)``: a C function's name at its entry, and
``function:branch`` inside.  The lines of the functions come from their marks (``kern.cname``); this
table explains the branches.  The summary of a run prints both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Final

from smpvm.kern.cname import MARKS, CName
from smpvm.vm.pageout.daemon import Pageout
from smpvm.vm.pageout.vmdaemon import VmDaemon

SOURCE: Final = "vm_pageout.c"
UNCOUNTED: Final = frozenset({"PQAVERAGE"})
"""An inline function without branches, called in every round of the daemon."""


@dataclass(frozen=True)
class Row:
    """One function (*branch* empty) or one of its branches; *lines* are lines of vm_pageout.c."""

    function: str
    branch: str
    lines: str
    what: str = ""
    unreachable: str = ""
    """Why the C can never get here; empty if it can."""

    @property
    def name(self) -> str:
        """The argument of ``td.hit``."""
        return f"{self.function}:{self.branch}" if self.branch else self.function


_FORWARD = (
    "vm_page_lookup_busy_try has just set PG_BUSY on the page, and line 342 refuses every page "
    "that has PG_BUSY set: no page above the first is ever added"
)

_MARKER = (
    "only the page-out daemon puts markers on active queues (vm_swapcache.c uses inactive ones), "
    "and it runs one scan at a time"
)

BRANCHES: Final = (
    Row("vm_pageout_clean", "held", "270-273", "held or unmanaged page skipped"),
    Row("vm_pageout_clean", "back", "307-331", "a neighbour below joined the cluster"),
    Row("vm_pageout_clean", "forward-refused", "341-345", "a neighbour above was found busy"),
    Row("vm_pageout_clean", "forward", "355-356", "a neighbour above joined", _FORWARD),
    Row("vm_pageout_flush", "bad", "429-439", "page outside its object: changes discarded"),
    Row("vm_pageout_flush", "severe", "470-471", "written page deactivated, memory severely short"),
    Row("vm_pageout_object_deactivate_pages", "paging", "515-516", "stopped: paging in progress"),
    Row("vm_pageout_object_deactivate_pages", "swap", "540-543", "continued with a backing object"),
    Row(
        "vm_pageout_object_deactivate_pages",
        "backing-changed",
        "533-539",
        "the backing object changed while waiting for its token",
    ),
    Row("vm_pageout_object_deactivate_pages_callback", "activate", "585-589", "activated"),
    Row("vm_pageout_object_deactivate_pages_callback", "deactivate", "593-597", "deactivated"),
    Row("vm_pageout_object_deactivate_pages_callback", "declined", "598-604", "idle: aged"),
    Row("vm_pageout_object_deactivate_pages_callback", "referenced", "605-620", "referenced"),
    Row("vm_pageout_object_deactivate_pages_callback", "unmap", "621-623", "inactive: unmapped"),
    Row("vm_pageout_map_deactivate_pages", "locked", "642-644", "map locked: skipped"),
    Row("vm_pageout_map_deactivate_pages", "remove-all", "707-709", "swapped out: all unmapped"),
    Row("vm_pageout_scan_inactive", "marker", "815-816", "met another scan's marker"),
    Row("vm_pageout_scan_inactive", "busy", "822-823", "busy page passed over"),
    Row("vm_pageout_scan_inactive", "wired", "841-847", "wired page taken off the queue"),
    Row("vm_pageout_scan_inactive", "held", "852-866", "held page to the tail"),
    Row("vm_pageout_scan_inactive", "reactivated-pmap", "876-891", "used by a mapping"),
    Row("vm_pageout_scan_inactive", "reactivated-flag", "902-909", "PG_REFERENCED"),
    Row("vm_pageout_scan_inactive", "invalid", "930-936", "invalid page freed"),
    Row("vm_pageout_scan_inactive", "cache", "937-943", "clean page cached"),
    Row("vm_pageout_scan_inactive", "second-chance", "944-969", "dirty page cycles once more"),
    Row("vm_pageout_scan_inactive", "no-launder", "998-1014", "policy or dead object: skipped"),
    Row("vm_pageout_scan_inactive", "vget-timeout", "1059-1066", "vnode not locked in time"),
    Row("vm_pageout_scan_inactive", "vget-nowait", "1059-1066", "vnode failed before: only tried"),
    Row("vm_pageout_scan_inactive", "moved", "1075-1083", "page or object changed while waiting"),
    Row("vm_pageout_scan_inactive", "busied-meanwhile", "1091-1095", "page busied while waiting"),
    Row("vm_pageout_scan_inactive", "held-meanwhile", "1105-1118", "page held while waiting"),
    Row("vm_pageout_scan_inactive", "launder", "1135-1143", "dirty page written"),
    Row("vm_pageout_scan_inactive", "launder-limit", "1144-1146", "launder limit reached"),
    Row("vm_pageout_scan_inactive", "stop-early", "1166-1173", "memory is plentiful again"),
    Row("vm_pageout_scan_active", "marker", "1242-1243", "met another scan's marker", _MARKER),
    Row("vm_pageout_scan_active", "busy", "1249-1250", "busy page passed over"),
    Row("vm_pageout_scan_active", "held", "1264-1277", "held page to the tail"),
    Row("vm_pageout_scan_active", "referenced", "1307-1318", "used page to the tail"),
    Row("vm_pageout_scan_active", "cache", "1353-1356", "idle clean page cached, memory short"),
    Row("vm_pageout_scan_active", "deactivate", "1357-1364", "idle page to the inactive queue"),
    Row("vm_pageout_scan_active", "declined", "1366-1377", "unused page aged"),
    Row("vm_pageout_scan_cache", "busy", "1444-1448", "busy cache page deactivated"),
    Row("vm_pageout_scan_cache", "unfreeable", "1457-1463", "held or wired page deactivated"),
    Row("vm_pageout_scan_cache", "freed", "1464-1468", "cache page freed"),
    Row("vm_pageout_scan_cache", "idle-swap", "1475-1482", "swap-out of idle processes requested"),
    Row("vm_pageout_scan_cache", "speedup-syncer", "1491-1492", "syncer woken"),
    Row("vm_pageout_scan_cache", "swapout", "1494-1497", "swap daemon woken"),
    Row("vm_pageout_scan_cache", "low-memory-swap", "1513-1519", "warning on the console"),
    Row("vm_pageout_scan_cache", "kill", "1533-1541", "biggest process killed"),
    Row("vm_pageout_page_stats", "no-shortage", "1617-1618", "no shortage expected"),
    Row("vm_pageout_page_stats", "full", "1627-1629", "full scan of the queue"),
    Row("vm_pageout_page_stats", "marker", "1657-1658", "met another scan's marker", _MARKER),
    Row("vm_pageout_page_stats", "busy", "1663-1664", "busy page passed over"),
    Row("vm_pageout_page_stats", "held", "1679-1682", "held page passed over"),
    Row("vm_pageout_page_stats", "referenced", "1697-1713", "used page to the tail"),
    Row("vm_pageout_page_stats", "deactivate", "1715-1730", "idle page to the inactive queue"),
    Row("vm_pageout_page_stats", "declined", "1731-1743", "unused page aged"),
    Row("vm_pageout_thread", "stats", "1902-1908", "timed out: statistics"),
    Row("vm_pageout_thread", "delay-swap-full", "2025-2027", "more requests, swap full: delay"),
    Row("vm_pageout_thread", "retry-at-once", "2028", "more requests: retry at once"),
    Row("vm_pageout_thread", "delay", "2029-2036", "short again: delay until a wakeup"),
    Row("vm_pageout_thread", "delay-forced", "2037-2041", "ten rounds short: forced delay"),
    Row("vm_pageout_thread", "delay-catastrophe", "2042-2048", "and swap full: delay of a second"),
    Row("vm_pageout_thread", "wake-waiters", "2057-2061", "enough memory: waiters woken"),
    Row("vm_pageout_thread", "still-short", "2057-2058", "shortage met, still below the minimum"),
    Row("pagedaemon_wakeup", "wake", "2095-2097", "no request pending: daemon woken"),
    Row("pagedaemon_wakeup", "hint", "2098-2100", "request pending: count raised"),
    Row("vm_req_vmdaemon", "too-soon", "2115", "requested within the last second"),
    Row("vm_daemon", "swapout", "2134-2137", "swap-out requested"),
    Row("vm_daemon_callback", "skip", "2158-2170", "system, exiting or stopped process"),
    Row("vm_daemon_callback", "over-limit", "2189-2191", "over its limit: pages deactivated"),
)
"""In the order of the C, function by function."""


def _functions() -> tuple[CName, ...]:
    """The C functions that the model has, in the order of the C."""
    found = {
        n
        for cls in (*Pageout.__mro__, *VmDaemon.__mro__)
        for f in vars(cls).values()
        if isinstance(f, FunctionType)
        for n in MARKS.of(f.__code__).c
        if n.file == SOURCE and not n.part
    }
    return tuple(sorted(found, key=lambda n: n.first))


def _table() -> tuple[Row, ...]:
    rows = []
    for f in _functions():
        if f.name not in UNCOUNTED:
            rows.append(Row(f.name, "", f.where.partition(":")[2]))
            rows += [row for row in BRANCHES if row.function == f.name]
    return tuple(rows)


COVERAGE: Final = _table()

FUNCTIONS: Final = tuple(row.name for row in COVERAGE if not row.branch)
"""The functions that are counted (PQAVERAGE, an inline, is not)."""


def report(counts: Mapping[str, int]) -> list[tuple[Row, int]]:
    """Each row with the number of times it was run."""
    return [(row, counts.get(row.name, 0)) for row in COVERAGE]


def missed(counts: Mapping[str, int], *, branches: bool = False) -> list[Row]:
    """Reachable functions (with *branches*, branches too) that were never run."""
    return [
        row
        for row, n in report(counts)
        if n == 0 and not row.unreachable and (branches or not row.branch)
    ]
