"""Requests: who asks for work is heard, and a scan does no more than it was asked to.

- The page-out daemon does not sleep without a timer's help while paging is needed and threads wait
  for it: looked at when no thread can run, and at rest (vm_pageout.c:1898, 2059).
- What was taken from ``vm_pageout_req_swapout`` is acted on: nothing is asked of the vmdaemon while
  it sleeps at rest (vm_pageout.c:2133).
- A scan makes no more page visits than its queue was long as it began (vm_pageout.c:785).

Smallest program: ``vm_pages_needed = 0`` while a thread sleeps in vm_wait and free memory is below
the minimum, and the daemon sleeps; its twin leaves the request there.
"""

from __future__ import annotations

from typing import Any, Final

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, site_of
from smpvm.check.stacks import RawStack, capture, functions
from smpvm.kern.shared import peek

KIND: Final = "request"


class Requests(Checker):
    """Listens to sleeps and scans."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._vm: Any = None
        self._asleep: dict[Any, tuple[str, Any, RawStack]] = {}
        """Thread → its sleep: message, identity, stack."""
        self._scans: dict[Any, list[int]] = {}
        """Marker → visits so far, and the most there may be."""

    def attach_vm(self, vm: Any) -> None:
        self._vm = vm

    # -- sleeps

    def sleep(self, td: Any, ident: Any, wmesg: str, timo: int, cond: Any) -> None:
        self._asleep[td] = (wmesg, ident, capture(2))

    def sleep_done(self, td: Any, ident: Any, wmesg: str, timed_out: bool) -> None:
        self._asleep.pop(td, None)

    def idle(self) -> None:
        """Nobody can run: who asked for memory must have a request that still stands."""
        vm = self._vm
        if vm is None or (daemon := vm.pageout.pagethread) is None:
            return
        sleep = self._asleep.get(daemon)
        if sleep is None or sleep[0] != "psleep" or peek(vm.glob, "vm_pages_needed"):
            return
        waiting = [
            (td, stack)
            for td, (_, ident, stack) in list(self._asleep.items())
            if ident is vm.idents.v_free_count
        ]
        with self.tracker.k.quietly():
            short = vm.meter.paging_needed() and vm.meter.count_min(0)
        if waiting and short:
            td, stack = waiting[0]
            self.log.add(
                Finding(
                    KIND,
                    "unheard: the page-out daemon sleeps, the request is cleared, and "
                    f"{td.name}, who made it, still waits",
                    sites=[
                        site_of(td, "waits for memory", stack),
                        site_of(daemon, "sleeps", sleep[2]),
                    ],
                    evidence=[
                        "vm_pageout.c:2059: a request is cleared when those who wait are woken",
                        f"{len(waiting)} threads wait for memory; only timers end this",
                    ],
                    identity=("unheard", *functions(stack, 1)),
                )
            )

    def at_rest(self) -> None:
        self.idle()

    # -- scans

    def scan_begin(self, td: Any, q: Any, marker: Any, maxscan: int) -> None:
        self._scans[marker] = [0, max(maxscan, peek(q, "lcnt"))]

    def marker_hop(self, td: Any, q: Any, marker: Any, m: Any) -> None:
        scan = self._scans.get(marker)
        if scan is None:
            return
        scan[0] += 1
        if scan[0] == scan[1] + 1:
            stack = capture(2)
            self.log.add(
                Finding(
                    KIND,
                    f"too-long: {td.name} visits more pages of {q} than it had",
                    sites=[site_of(td, f"scans {q}", stack)],
                    evidence=[
                        f"{scan[1]} pages were there as the scan began, {scan[0]} were visited",
                        "vm_pageout.c:785: a scan takes as many steps as its queue was long",
                    ],
                    identity=("too-long", *functions(stack, 1)),
                )
            )

    def scan_end(self, td: Any, q: Any, marker: Any, why: str) -> None:
        self._scans.pop(marker, None)
