"""Progress: nothing hangs, and yet somebody gets nowhere.

- One colour of a queue is never scanned while others are, again and again (vm_pageout.c:1936).
- A daemon makes rounds without sleep and without change: it scans, and no page moves
  (vm_pageout.c:2018).
- An exclusive waiter is overtaken by more acquisitions than ``OVERTAKEN`` (lwkt_token.c:666).

Smallest programs: ``scan(inactive[0])`` for ever with pages on ``inactive[1]``; ``while True:
scan(q)`` over busy pages; two threads that share a token in turn while a third wants it alone.
Their twins scan every colour, sleep between rounds, or leave a gap.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Final

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import rule_broken
from smpvm.check.stacks import RawStack, capture
from smpvm.kern.shared import peek

KIND: Final = "progress"
SCANS: Final = 256
"""Scans of one colour after which another with pages must have been scanned too."""
ROUNDS: Final = 1000
"""Scans of one thread, without sleep or change, that are too many."""
OVERTAKEN: Final = 20_000
"""Acquisitions of a lock while an exclusive waiter waits that are too many."""


class Progress(Checker):
    """Counts scans and acquisitions; the bounds are attributes."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.scans, self.rounds, self.overtaken = SCANS, ROUNDS, OVERTAKEN
        self._scanned: dict[str, Counter[Any]] = {}
        """Kind of queue → scans of each colour since all had one."""
        self._queues: dict[str, set[Any]] = {}
        self._idle: Counter[Any] = Counter()
        """Thread → scans since it last slept, or a page moved."""
        self._waiting: dict[Any, list[Any]] = {}
        """Lock → [thread, stack, acquisitions since] of who waits for it exclusively."""
        self._mutex = threading.Lock()

    # -- scans

    def queue_insert(self, td: Any, q: Any, m: Any, at_head: bool) -> None:
        self._queues.setdefault(q.counter, set()).add(q)
        if m.idx >= 0 and self._idle:
            self._idle.clear()

    def scan_begin(self, td: Any, q: Any, marker: Any, maxscan: int) -> None:
        counts = self._scanned.setdefault(q.counter, Counter())
        counts[q] += 1
        self._idle[td] += 1
        if self._idle[td] == self.rounds:
            self._tell(
                td,
                "busy-rounds",
                f"{td.name} scans and scans, and nothing changes",
                f"vm_pageout.c:2018; {self.rounds} scans without sleep, and no page moved",
            )
        if counts[q] >= self.scans:
            self._colours(td, q, counts)
            counts.clear()

    def _colours(self, td: Any, q: Any, counts: Counter[Any]) -> None:
        left = [o for o in self._queues.get(q.counter, ()) if o not in counts and peek(o, "lcnt")]
        if left:
            other = min(left, key=lambda o: str(o.name))
            self._tell(
                td,
                "colour",
                f"{other} is never scanned, and {q} was {counts[q]} times",
                f"vm_pageout.c:1936; {peek(other, 'lcnt')} pages are on it; "
                f"{len(left)} colours are left out",
            )

    def sleep(self, td: Any, ident: Any, wmesg: str, timo: int, cond: Any) -> None:
        self._idle.pop(td, None)

    # -- waiters

    def lock_block(self, td: Any, lock: Any, mode: str, timo: int) -> None:
        if mode == "excl":
            self._waiting.setdefault(lock, [td, capture(2), 0])

    def lock_acquired(self, td: Any, lock: Any, mode: str, how: int) -> None:
        if not self._waiting or (wait := self._waiting.get(lock)) is None:
            return
        if wait[0] is td:
            self._waiting.pop(lock, None)
            return
        wait[2] += 1
        if wait[2] == self.overtaken:
            who, stack = wait[0], wait[1]
            title = f"{who.name} waits for {lock} alone, and others get it again and again"
            why = f"lwkt_token.c:666; overtaken {wait[2]} times"
            self._tell(who, "overtaken", title, why, stack)

    def lock_failed(self, td: Any, lock: Any, mode: str, error: int) -> None:
        wait = self._waiting.get(lock)
        if wait is not None and wait[0] is td:
            self._waiting.pop(lock, None)

    def _tell(
        self, td: Any, rule: str, title: str, why: str, stack: RawStack | None = None
    ) -> None:
        stack = capture(3) if stack is None else stack
        self.log.add(rule_broken(KIND, rule, title, why, td, stack))
