"""Who waits for whom: a deadlock is a cycle, and it is reported when it closes.

A blocked thread has an edge to each thread that can end its wait: the owners of the lock, the
thread that has the page busy, those that raised paging_in_progress, the users of an I/O slot.  The
owners are determined anew whenever the graph is walked, so no edge is out of date.  A wait with a
timeout breaks the cycle that it is part of; such a deadlock is *masked*, and still reported unless
the source accepts it (``lockrules.MEANT``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, Site, site_of
from smpvm.check.held import BUSY, ThreadState, describe_held
from smpvm.check.lockrules import meant_wait
from smpvm.check.stacks import RawStack, capture, exact, functions


class Wait:
    """One wait of one thread: for a lock, a page, paging_in_progress, or an I/O slot."""

    __slots__ = ("ends_with_sleep", "kind", "mode", "res", "seq", "stack", "timo")

    def __init__(
        self, kind: str, res: Any, mode: str, timo: int, seq: int, stack: RawStack
    ) -> None:
        self.kind = kind
        self.res = res
        self.mode = mode
        self.timo = timo
        self.seq = seq
        self.stack = stack
        self.ends_with_sleep = kind != "lock"

    def __str__(self) -> str:
        what = f"{BUSY} {self.res}" if self.kind == "page" else str(self.res)
        if self.kind == "pip":
            what = f"paging_in_progress of {self.res}"
        mode = " (shared)" if self.mode == "shared" else ""
        timer = f", timeout {self.timo} ticks" if self.timo else ""
        return f"{what}{mode}{timer}"


class WaitFor(Checker):
    """The waits-for graph of a tracker's threads."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.confirm = 0.03
        """Host seconds that a cycle among free-running threads must last to be reported."""
        self._mutex = threading.Lock()
        self._pip: dict[Any, list[ThreadState]] = {}
        self._io: dict[Any, ThreadState] = {}
        self._in_flight: dict[int, int] = {}
        self.tracker.on_block = self.blocked

    # -- edges

    def blocked(self, st: ThreadState, res: Any, mode: str, timo: int) -> None:
        """*st* is about to wait for a lock (mode excl or shared) or a page (busy or soft)."""
        kind = "page" if mode in ("busy", "soft") else "lock"
        self._wait(st, Wait(kind, res, mode, timo, st.seq + 1, capture(3)))

    def pip_block(self, td: Any, obj: Any) -> None:
        st = self.tracker.state(td)
        self._wait(st, Wait("pip", obj, "", 0, st.seq + 1, capture(2)))

    def sleep(self, td: Any, ident: Any, wmesg: str, timo: int, cond: Any) -> None:
        """A sleep on something that has owners (an I/O slot) is a wait for them.

        A thread that sleeps on a resource of its own (the page it reads in) waits for I/O.
        """
        st = self.tracker.state(td)
        if st.waiting is None and hasattr(ident, "owners") and td not in ident.owners():
            self._wait(st, Wait("slot", ident, "", timo, st.seq + 1, capture(2)))

    def _wait(self, st: ThreadState, wait: Wait) -> None:
        st.seq = wait.seq
        st.waiting = wait
        cycle = self._cycle(st)
        if cycle and self._lasts(cycle):
            self._report(cycle)

    def pip_add(self, td: Any, obj: Any, n: int) -> None:
        st = self.tracker.state(td)
        with self._mutex:
            self._pip.setdefault(obj, []).extend([st] * n)

    def pip_wakeup(self, td: Any, obj: Any, n: int) -> None:
        st = self.tracker.state(td)
        with self._mutex:
            adders = self._pip.get(obj, [])
            for _ in range(min(n, len(adders))):
                adders.remove(st if st in adders else adders[0])
            if not adders:
                self._pip.pop(obj, None)

    def io_submit(self, td: Any, io: Any) -> None:
        """While a thread has I/O in flight, the device may lower the count that it raised."""
        with self._mutex:
            self._io[io] = self.tracker.state(td)
            self._in_flight[td.tid] = self._in_flight.get(td.tid, 0) + 1

    def io_complete(self, td: Any, io: Any) -> None:
        with self._mutex:
            st = self._io.pop(io, None)
            if st is not None:
                left = self._in_flight.pop(st.td.tid) - 1
                if left:
                    self._in_flight[st.td.tid] = left

    # -- walking

    def blockers(self, st: ThreadState) -> list[ThreadState]:
        """The threads that must act before *st* can continue, as far as they are known."""
        wait = st.waiting
        if wait is None:
            return []
        if wait.kind == "page":
            owner = self.tracker.owner_of_page(wait.res)
            return [owner] if owner is not None else []
        if wait.kind == "pip":
            with self._mutex:
                adders = list(self._pip.get(wait.res, ()))
                return [a for a in adders if not self._in_flight.get(a.td.tid)]
        if wait.mode == "shared" and not _exclusive(wait.res):
            return list(self._exclusive_waiters(wait.res))
        owners = [self.tracker.state(td) for td in wait.res.owners()]
        if getattr(wait.res, "kind", "") == "token":
            # A thread that waits gives up its tokens, at the latest when this hook returns.
            owners = [owner for owner in owners if owner.waiting is None]
        return owners

    def _exclusive_waiters(self, lock: Any) -> Iterator[ThreadState]:
        """A shared request for a lock held shared waits behind waiting exclusive requests."""
        for other in self.tracker.all_states():
            wait = other.waiting
            if wait is not None and wait.res is lock and wait.mode == "excl":
                yield other

    def _cycle(self, start: ThreadState) -> list[ThreadState]:
        """A cycle through *start* in which each waits for the next; empty if there is none."""
        path: list[ThreadState] = [start]
        todo = [iter(self.blockers(start))]
        seen = {start.td.tid}
        while todo:
            for st in todo[-1]:
                if st is start:
                    # A thread waits for itself only if it wants what it already holds.
                    if len(path) > 1 or self._own(start):
                        return path
                elif st.td.tid not in seen and st.waiting is not None:
                    seen.add(st.td.tid)
                    path.append(st)
                    todo.append(iter(self.blockers(st)))
                    break
            else:
                todo.pop()
                path.pop()
        return []

    def _own(self, st: ThreadState) -> bool:
        return any(h.res is st.waiting.res and not h.gone for h in st.held)

    def _lasts(self, cycle: list[ThreadState]) -> bool:
        """With free-running threads an edge may be about to vanish; a deadlock stays."""
        k = self.tracker.k
        if k is None or k.carrier.serial:
            return True
        before = [(st, st.seq) for st in cycle]
        for _ in range(3):
            time.sleep(self.confirm / 3)
            for n, (st, seq) in enumerate(before):
                after = cycle[(n + 1) % len(cycle)]
                if st.waiting is None or st.seq != seq or after not in self.blockers(st):
                    return False
        return not k.carrier.stopping

    # -- reporting

    def _report(self, cycle: list[ThreadState]) -> None:
        timed = [st for st in cycle if st.waiting.timo]
        if not any(self._meant(st) for st in timed):
            self.log.add(self._finding(cycle, "masked-deadlock" if timed else "deadlock"))

    def _meant(self, st: ThreadState) -> bool:
        """Does the source accept that the timed wait of *st* may be part of a deadlock?"""
        wait = st.waiting
        if not self.accepted.heeded:
            return False
        meant = meant_wait([h.cls for h in st.held], wait.res, wait.stack)
        if meant is None:
            return False
        self.accepted.tally(meant.declared("masked-deadlock")).count += 1
        return True

    def _finding(self, cycle: list[ThreadState], kind: str) -> Finding:
        first = min(range(len(cycle)), key=lambda n: cycle[n].td.tid)
        cycle = cycle[first:] + cycle[:first]
        waits = [st.waiting for st in cycle]
        sites: list[Site] = []
        evidence = []
        for n, (st, wait) in enumerate(zip(cycle, waits, strict=True)):
            after = cycle[(n + 1) % len(cycle)]
            evidence.append(
                f"{st.td.name} holds {describe_held(st)}; waits for {wait}, held by {after.td.name}"
            )
            if wait.timo:
                evidence.append(f"the timeout of {st.td.name}'s wait will break the cycle")
            for held in list(st.held):
                if any(w.res is held.res for w in waits):
                    taken_at = exact(held.node.stack, wait.stack)
                    sites.append(site_of(st.td, f"took {held}", taken_at))
            sites.append(site_of(st.td, f"waits for {wait}", wait.stack))
        parts = sorted(
            f"{wait.kind} {getattr(wait.res, 'cls', '')} {' '.join(functions(wait.stack, 1))}"
            for wait in waits
        )
        return Finding(
            kind,
            ", ".join(
                f"{st.td.name} waits for {after.td.name} ({wait})"
                for st, after, wait in zip(cycle, cycle[1:] + cycle[:1], waits, strict=True)
            ),
            sites=sites,
            objects=[str(wait.res) for wait in waits],
            evidence=evidence,
            identity=tuple(parts),
        )

    # -- when the machine makes no progress

    def idle(self) -> None:
        self._analyse()

    def stalled(self) -> list[str]:
        """Report the deadlocks; returns lines on who waits for what."""
        self._analyse()
        return self.describe()

    def at_rest(self) -> None:
        self._analyse()

    def _analyse(self) -> None:
        """Look at every wait once; report each cycle.

        For a machine that makes no progress, and for serial carriers, where an acquire that must
        wait is no event: the lock that a thread waits for is then taken from the thread itself.
        """
        states = self.tracker.all_states()
        for st in states:
            waiting = st.td.waiting
            if st.waiting is None and waiting is not None:
                st.seq += 1
                st.waiting = Wait("lock", waiting, "excl", 0, st.seq, ())
        done: set[int] = set()
        for st in states:
            if st.waiting is None or st.td.tid in done:
                continue
            cycle = self._cycle(st)
            if cycle:
                done.update(member.td.tid for member in cycle)
                self._report(cycle)

    def describe(self) -> list[str]:
        """Who waits for what, one line for each waiting thread."""
        lines = []
        for st in self.tracker.all_states():
            if st.waiting is not None:
                by = ", ".join(b.td.name for b in self.blockers(st)) or "an unknown thread"
                lines.append(
                    f"{st.td.name} waits for {st.waiting}, held by {by}; holds {describe_held(st)}"
                )
        return lines


def _exclusive(lock: Any) -> bool:
    """Is the lock held exclusively now?"""
    return getattr(lock, "owner", None) is not None or getattr(lock, "holder", None) is not None
