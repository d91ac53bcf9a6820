"""Policy: what the page-out code must never choose, although nothing breaks at once.

- A process that is being killed is not killed again, nor one that is exiting chosen
  (vm_pageout.c:1529: the memory of one will soon be free); nobody is killed while twice the
  memory that paging is to reach is free, cached, or clean and idle (vm_pageout.c:1501).
- The vnode that timed out last is only tried, for the rest of the scan (vm_pageout.c:1045).
- A page is not written again and again although nobody has stored to it (vm_pageout.c:971).

Smallest programs: ``killproc(p)`` twice; ``vget`` of one vnode with a time limit twice in a scan,
after the first failed; ``put_pages`` of one unchanged page ``UNCHANGED`` times.  Their twins do it
once, or with LK_NOWAIT, or store in between.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import rule_broken
from smpvm.check.stacks import capture
from smpvm.kern.lockreq import LK_NOWAIT
from smpvm.kern.proc import P_LOWMEMKILL, P_WEXIT
from smpvm.kern.shared import peek
from smpvm.vm.page.struct import PG_BUSY
from smpvm.vm.param import VM_PAGER_OK, VM_PAGER_PEND

KIND: Final = "policy"
UNCHANGED: Final = 4
"""Writes of one unchanged page, one after the other, that are too many."""
ENOUGH: Final = 2
"""How many times the page-out target must be free, or freeable, for a kill to be wrong.

Not once: others free pages between the daemon's look and its kill.
"""


class Policy(Checker):
    """Listens to what the kernel calls: ``killproc``, ``vget``, ``put_pages``."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.unchanged = UNCHANGED
        self.enough = ENOUGH
        self._vm: Any = None
        self._dying: set[int] = set()
        """Numbers of the processes that were dying when the scan for a victim began."""
        self._failed: dict[Any, Any] = {}
        """Scanner → the vnode that timed out last in its scan."""
        self._written: dict[Any, tuple[Any, int]] = {}
        """Page → what it held when written last, and how often in a row it was that."""
        self._mutex = threading.Lock()

    def attach_vm(self, vm: Any) -> None:
        self._vm = vm

    def call(self, td: Any, what: str, **facts: Any) -> None:
        if what == "killproc":
            self._kill(td, facts["pid"])
        elif what == "vget":
            self._vget(td, facts["vnode"], facts["flags"], facts["result"])
        elif what == "put_pages":
            for m, status in zip(facts["pages"], facts["statuses"], strict=True):
                if status in (VM_PAGER_OK, VM_PAGER_PEND):
                    self._write(td, m)

    # -- kills

    def _kill(self, td: Any, pid: int) -> None:
        if pid in self._dying:
            self._tell(td, "kill-again", f"process {pid} is killed again", "vm_pageout.c:1529")
        self._dying = self._now_dying() | {pid}
        vm = self._vm
        if vm is None or td is not vm.pageout.pagethread:
            return
        able, want = self._freeable(vm), peek(vm.stats, "v_free_target")
        want += peek(vm.stats, "v_cache_min")
        if want and able > self.enough * want:
            self._tell(
                td,
                "kill-early",
                f"process {pid} is killed for lack of memory, of which there is enough",
                f"vm_pageout.c:1501; {able} pages are free, cached, or clean and idle; "
                f"{want} would be enough",
            )

    def _now_dying(self) -> set[int]:
        """Those that any later scan must pass over."""
        k = self.tracker.k
        if k is None:
            return set()
        flags = P_LOWMEMKILL | P_WEXIT
        with k.quietly():
            return {p.p_pid for p in k.proc.all() if p.p_flags & flags}

    def _freeable(self, vm: Any) -> int:
        """How many pages can be had at once."""
        able = 0
        for m in vm.page_array:
            queue = peek(m, "queue")
            if not queue:
                continue
            base = queue - m.pc
            idle = not (peek(m, "dirty") or peek(m, "busy") or peek(m, "flags") & PG_BUSY)
            held = peek(m, "hold_count") or peek(m, "wire_count") or peek(m, "pv_first")
            able += base in (vm.pq.FREE, vm.pq.CACHE) or (
                base == vm.pq.INACTIVE and idle and not held
            )
        return able

    # -- vnodes

    def scan_begin(self, td: Any, q: Any, marker: Any, maxscan: int) -> None:
        self._failed[td] = None

    def scan_end(self, td: Any, q: Any, marker: Any, why: str) -> None:
        self._failed.pop(td, None)

    def _vget(self, td: Any, vp: Any, flags: int, error: int) -> None:
        if td not in self._failed:
            return
        if vp is self._failed[td] and not flags & LK_NOWAIT:
            what = f"{td.name} waits again in one scan for {vp}, which timed out"
            self._tell(td, "wait-again", what, "vm_pageout.c:1045")
        if error:
            self._failed[td] = vp

    # -- writes

    def _write(self, td: Any, m: Any) -> None:
        words = m.contents
        now = (peek(m, "object"), peek(m, "pindex"), None if words is None else dict(words))
        with self._mutex:
            before, n = self._written.get(m, (None, 0))
            n = n + 1 if before == now else 1
            self._written[m] = (now, n)
        if n == self.unchanged:
            what = f"{m} is written for the {n}th time although nobody has stored to it"
            self._tell(td, "write-again", what, "vm_pageout.c:971")

    def io_complete(self, td: Any, io: Any) -> None:
        """What failed must be written again."""
        if io.error:
            for m in io.pages:
                self.page_free(td, m)

    def page_free(self, td: Any, m: Any) -> None:
        if m in self._written:
            with self._mutex:
                self._written.pop(m, None)

    def _tell(self, td: Any, rule: str, title: str, why: str) -> None:
        stack = capture(4)
        self.log.add(rule_broken(KIND, rule, title, why, td, stack))
