"""Markers: does a scan visit every page that it should, and does it remove its marker?

A marker page holds a scan's place in a queue.  What can go wrong: the marker skips a page that was
never examined (a *hop-over*, as when the scanner kept ``next`` while the queue was unlocked), the
marker is left on the queue, it is taken for a page, or a whole scan ends without having visited
a page that was on the queue from the start and never moved.

The last case is counted: a scan starts with the length of its queue; each page visited, and each
page that leaves or moves before it was visited, reduces the count, which must be 0 at the end.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, site_of
from smpvm.check.stacks import RawStack, capture, functions
from smpvm.kern.shared import peek
from smpvm.text import plural

SITES: Final = {
    "hop-over": "moved its marker past a page",
    "unvisited": "ended its scan",
    "stale": "left its marker on the queue",
}
"""What is wrong → what the scanner did at the place where it shows."""


class ScanRecord:
    """One scan in progress."""

    __slots__ = ("following", "left", "marker", "met", "q", "stack", "start", "steps", "td")

    def __init__(self, td: Any, q: Any, marker: Any, start: int, stack: RawStack) -> None:
        self.td = td
        self.q = q
        self.marker = marker
        self.start = start
        """The scan need not visit pages that were queued later than this."""
        self.left: int = peek(q, "lcnt")
        """How many pages it must still visit."""
        self.met: set[Any] = set()
        self.steps = 0
        self.following: Any = None
        """The page behind the marker when the marker was last removed."""
        self.stack = stack


class Markers(Checker):
    """The marker checker.  ``_scans`` is guarded by the queue spinlock, held at each event."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.scans_seen = 0
        self._count = itertools.count(1)
        self._joined: dict[Any, int] = {}
        """Page → when it was last queued or moved within a queue."""
        self._scans: dict[Any, list[ScanRecord]] = {}
        """Queue → the scans in progress on it."""
        self._markers: dict[Any, ScanRecord] = {}

    # -- scans

    def scan_begin(self, td: Any, q: Any, marker: Any, maxscan: int) -> None:
        scan = ScanRecord(td, q, marker, next(self._count), capture(2))
        for other in self._scans.setdefault(q, []):
            if other.td is td:
                self._stale(other, "begins another scan")
        self._scans[q].append(scan)
        self._joined.pop(marker, None)  # it was queued before it was known as a marker
        self._markers[marker] = scan
        self.scans_seen += 1

    def marker_hop(self, td: Any, q: Any, marker: Any, m: Any) -> None:
        scan = self._markers.get(marker)
        if scan is None:
            return
        scan.steps += 1
        if scan.following is not None and scan.following is not m:
            self._hop_over(scan, m)
        if m in self._markers:
            return
        if self._joined.get(m, 0) < scan.start and m not in scan.met:
            scan.met.add(m)
            scan.left -= 1

    def scan_end(self, td: Any, q: Any, marker: Any, why: str) -> None:
        scan = self._markers.get(marker)
        if scan is None:
            return
        if why == "queue" and scan.left > 0:
            self._unvisited(scan)
        self._scans[q].remove(scan)
        if self._on_queue(scan):
            self._stale(scan, "ends the scan")
        if peek(marker, "object") is not None:
            self._misplaced(td, marker, "owned", f"belongs to {peek(marker, 'object')}")
        del self._markers[marker]

    @staticmethod
    def _on_queue(scan: ScanRecord) -> bool:
        """Is its marker still linked into the queue?"""
        marker = scan.marker
        return (
            peek(marker, "q_next") is not None
            or peek(marker, "q_prev") is not None
            or peek(scan.q, "head") is marker
        )

    # -- changes of the queue during a scan

    def queue_insert(self, td: Any, q: Any, m: Any, at_head: bool) -> None:
        scan = self._markers.get(m)
        if scan is None:
            self._joined[m] = next(self._count)
        elif scan.td is not td:
            self._misplaced(td, m, "moved", f"is moved by {td.name}, which does not own it")

    def queue_remove(self, td: Any, q: Any, m: Any) -> None:
        scans = self._scans.get(q)
        if not scans:
            return
        mine = self._markers.get(m)
        if mine is not None:
            mine.following = peek(m, "q_next")
            if mine.td is not td:
                self._misplaced(td, m, "moved", f"is moved by {td.name}, which does not own it")
            return
        self._moved(scans, m)

    def queue_requeue(self, td: Any, q: Any, m: Any) -> None:
        scans = self._scans.get(q)
        if scans:
            self._moved(scans, m)
        self._joined[m] = next(self._count)

    def _moved(self, scans: list[ScanRecord], m: Any) -> None:
        joined = self._joined.get(m, 0)
        for scan in scans:
            if joined < scan.start and m not in scan.met:
                scan.left -= 1

    # -- markers are not pages

    def page_alloc(self, td: Any, m: Any) -> None:
        if m in self._markers:
            self._misplaced(td, m, "allocated", "is allocated")

    def page_free(self, td: Any, m: Any) -> None:
        if m in self._markers:
            self._misplaced(td, m, "freed", "is freed")

    def page_busied(self, td: Any, m: Any) -> None:
        if m in self._markers:
            self._misplaced(td, m, "busied", "is busied as if it were a page")

    def thread_exit(self, td: Any) -> None:
        k = self.tracker.k
        if k is not None and k.carrier.stopping:
            return
        for scan in [s for s in list(self._markers.values()) if s.td is td]:
            self._stale(scan, "exits")
            self._markers.pop(scan.marker, None)
            scans = self._scans.get(scan.q, [])
            if scan in scans:
                scans.remove(scan)

    def at_rest(self) -> None:
        """Report the markers left by scans that never ended."""
        for scan in [s for s in self._markers.values() if self._on_queue(s)]:
            self._stale(scan, "is at rest")

    def summary(self) -> dict[str, Any]:
        return {"scans_followed": self.scans_seen}

    # -- reporting

    def _hop_over(self, scan: ScanRecord, m: Any) -> None:
        passed: list[str] = []
        node = scan.following
        while node is not None and node is not m and len(passed) < 8:
            passed.append(str(node))
            node = peek(node, "q_next")
        self._add(
            scan,
            "hop-over",
            f"the marker of {scan.td.name} on {scan.q} skips pages: it moves to {m}",
            f"the page behind the marker was {passed[0]}, not {m}"
            if node is None
            else f"skipped without being examined: {', '.join(passed)}",
            [str(scan.q), str(m), *passed],
        )

    def _unvisited(self, scan: ScanRecord) -> None:
        missed = [
            str(m)
            for m in scan.q.pages()
            if m not in scan.met and m not in self._markers and self._joined.get(m, 0) < scan.start
        ]
        self._add(
            scan,
            "unvisited",
            f"{scan.td.name} scanned {scan.q} to its end without visiting {', '.join(missed[:4])}",
            f"{plural(scan.left, 'page')} on the queue from the start, never moved, not visited "
            f"in {plural(scan.steps, 'step')}",
            [str(scan.q), *missed[:8]],
        )

    def _stale(self, scan: ScanRecord, when: str) -> None:
        self._add(
            scan,
            "stale",
            f"{scan.td.name} {when} with its marker still on {scan.q}",
            f"the scan took {plural(scan.steps, 'step')}",
            [str(scan.q)],
        )

    def _misplaced(self, td: Any, marker: Any, how: str, what: str) -> None:
        stack = capture(3)
        self.log.add(
            Finding(
                "marker",
                f"a marker {what}",
                sites=[site_of(td, "uses the marker", stack)],
                objects=[str(marker)],
                evidence=["a marker only holds a place on a queue; it must not be used as a page"],
                identity=("misplaced", how, *functions(stack)),
            )
        )

    def _add(self, scan: ScanRecord, what: str, title: str, why: str, objects: list[str]) -> None:
        self.log.add(
            Finding(
                "marker",
                title,
                sites=[
                    site_of(scan.td, f"began its scan of {scan.q}", scan.stack),
                    site_of(scan.td, SITES[what], capture(3)),
                ],
                objects=objects,
                evidence=[why],
                identity=(what, *functions(scan.stack)),
            )
        )
