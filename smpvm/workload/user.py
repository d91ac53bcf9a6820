"""A process as its program sees it: its memory, and the system calls that it makes.

Every access goes through the model's faults and system calls, and every word that is read is
compared with the value that was written last.  All methods may block.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from smpvm.check.contents import FileWords, Ledger
from smpvm.config import PAGE_SHIFT, PAGE_SIZE
from smpvm.kern.errno import EINTR
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RETRY
from smpvm.kern.proc import Proc
from smpvm.kern.tsleep import PCATCH, Ident
from smpvm.kern.vnode import Vnode
from smpvm.vm.map.mmap import MAP_SHARED
from smpvm.vm.param import MADV_DONTNEED, MADV_FREE, MADV_WILLNEED, VM_PROT_READ, VM_PROT_WRITE

if TYPE_CHECKING:
    from smpvm.machine import Machine
    from smpvm.workload.runner import Runner, SharedFile

WORD_AT: Final = (0, 170, 341, 511)
"""The words of a page that processes use: the first, the last, and two in between."""
WORDS: Final = len(WORD_AT)
WORD_SIZE: Final = 8
WORDS_IN_PAGE: Final = PAGE_SIZE // WORD_SIZE
ADVICE: Final = {"dontneed": MADV_DONTNEED, "free": MADV_FREE, "willneed": MADV_WILLNEED}


class CallFailed(Exception):
    """A system call failed that the workload cannot do without."""


class Area:
    """A mapping: its address, its number of pages, and its file (None: anonymous memory).

    The expected values of a shared file are in ``file.words``; all others are in the ledger of the
    process.
    """

    __slots__ = ("base", "file", "pages", "vnode")

    def __init__(
        self, base: int, pages: int, file: SharedFile | None = None, vnode: Vnode | None = None
    ) -> None:
        self.base = base
        self.pages = pages
        self.file = file
        self.vnode = vnode

    def address(self, page: int, slot: int) -> int:
        """The address of a word; the ledger knows it by that."""
        return self.base + (page << PAGE_SHIFT) + WORD_AT[slot] * WORD_SIZE


class User:
    """The program of one process.  Only the thread of the process may use it."""

    def __init__(self, runner: Runner, p: Proc, ledger: Ledger, seed: str) -> None:
        self.runner = runner
        self.machine: Machine = runner.machine
        self.vm = self.machine.vm
        self.k = self.machine.k
        self.p = p
        self.ledger = ledger
        self.rng = random.Random(seed)
        self.seed = seed
        self.areas: list[Area] = []
        self.owned: list[tuple[SharedFile, int]] = []
        self.forks = 0
        self._idle = Ident(f"proc {p.p_pid} user")

    # -- going on

    def going(self) -> bool:
        """Return to user mode and compute for a tick; False when it is time to exit.

        The computing is a sleep: it takes time of the machine, but leaves the host's CPU to the
        kernel code.  Raises ProcessKilled.
        """
        self.vm.process.userret(self.p)
        if self.machine.closing.is_set():
            return False
        self.k.sleep.tsleep(self._idle, PCATCH, "user", 1, cond=lambda: False)
        while self.machine.frozen.is_set() and not self.machine.closing.is_set():
            self.k.sleep.tsleep(self._idle, PCATCH, "frozen", 1, cond=lambda: False)
        return not self.machine.closing.is_set()

    def pages(self, share: float) -> int:
        """*share* of the machine's physical pages, at least 1."""
        return max(1, int(self.machine.config.pages * share))

    def _called(self) -> None:
        self.k.curthread().hit("v_syscall")

    def _done(self) -> None:
        self.vm.process.userret(self.p)

    # -- memory

    def anonymous(self, pages: int) -> Area:
        """mmap anonymous memory, which reads as zeros."""
        self._called()
        error, base = self.vm.process.sys.mmap(self.p, 0, pages << PAGE_SHIFT)
        return self._mapped(error, Area(base, pages))

    def shared_file(self, name: str, pages: int) -> Area:
        """mmap the first *pages* of one of the runner's files, shared."""
        file = self.runner.files[name]
        pages = min(pages, file.pages)
        return self._map_file(file.vnode, pages, file)

    def own_file(self, pages: int) -> Area:
        """Make a file of zeros that only this process uses, and map it shared."""
        vnode = self.vm.vnode_pager.new_file(pages << PAGE_SHIFT, f"of process {self.p.p_pid}")
        self.runner.adopt(self.k.curthread(), vnode)
        return self._map_file(vnode, pages, None)

    def _map_file(self, vnode: Vnode, pages: int, file: SharedFile | None) -> Area:
        self._called()
        error, base = self.vm.process.sys.mmap(
            self.p,
            0,
            pages << PAGE_SHIFT,
            VM_PROT_READ | VM_PROT_WRITE,
            MAP_SHARED,
            vnode,
        )
        return self._mapped(error, Area(base, pages, file, vnode))

    def _mapped(self, error: int, area: Area) -> Area:
        if error:
            raise CallFailed(f"mmap of {area.pages} pages: errno {error}")
        self.areas.append(area)
        self._done()
        return area

    def read(self, area: Area, page: int, slot: int) -> None:
        """Read a word and compare it with the value written last."""
        va = area.base + (page << PAGE_SHIFT)
        word = WORD_AT[slot]
        if area.file is None:
            got = self.vm.process.user_read(self.p, va, word)
            self.ledger.check(self.k.curthread(), area.address(page, slot), got, self.where)
            return
        words, number = area.file.words, page * WORDS_IN_PAGE + word
        before = words.before_read(number)
        got = self.vm.process.user_read(self.p, va, word)
        words.check(self.k.curthread(), self.ledger, number, before, got, self.where(va))

    def write(self, area: Area, page: int, slot: int) -> None:
        """Write a value that no process has written before."""
        va = area.base + (page << PAGE_SHIFT)
        word = WORD_AT[slot]
        if area.file is not None:
            words, number = area.file.words, page * WORDS_IN_PAGE + word
            self.vm.process.user_write(self.p, va, word, words.begin(number))
            words.end(number)
            return
        value = self.ledger.fresh()
        self.vm.process.user_write(self.p, va, word, value)
        self.ledger.wrote(area.address(page, slot), value)

    def where(self, va: int) -> str:
        """The page that *va* is mapped to, as text for a finding."""
        m = self.vm.pmap.extract(self.p.p_vmspace.vm_pmap, va)
        return "" if m is None else str(m)

    def own_word(self, area: Area) -> int | None:
        """Claim the slot that this process may write in each page of a shared file.

        None if all slots are taken.
        """
        assert area.file is not None
        slot = area.file.claim(self.p.p_pid)
        if slot is not None:
            self.owned.append((area.file, slot))
        return slot

    # -- other calls

    def msync(self, area: Area) -> None:
        """msync the whole area, synchronously."""
        self._called()
        self.vm.process.sys.msync(self.p, area.base, area.pages << PAGE_SHIFT)
        self._done()

    def madvise(self, area: Area, first: int, count: int, advice: str) -> None:
        """madvise(*advice*) on *count* pages of *area*."""
        self._called()
        start = area.base + (first << PAGE_SHIFT)
        if advice == "free":
            self.ledger.freed(start, start + (count << PAGE_SHIFT))
        self.vm.process.sys.madvise(self.p, start, count << PAGE_SHIFT, ADVICE[advice])
        self._done()

    def mlock(self, area: Area, first: int, count: int) -> bool:
        """mlock *count* pages of *area*; False if the machine refuses."""
        self._called()
        start = area.base + (first << PAGE_SHIFT)
        error = self.vm.process.sys.mlock(self.p, start, count << PAGE_SHIFT)
        self._done()
        return error == 0

    def munlock(self, area: Area, first: int, count: int) -> None:
        """munlock *count* pages of *area*."""
        self._called()
        start = area.base + (first << PAGE_SHIFT)
        self.vm.process.sys.munlock(self.p, start, count << PAGE_SHIFT)
        self._done()

    def raw_io(self, area: Area, pages: Iterable[int], ticks: int) -> None:
        """Raw I/O from some pages, as physio does it; takes *ticks* ticks.

        The kernel holds the pages meanwhile.  A held page may be unmapped and even freed, but it
        must not be reused before it is released.
        """
        self._called()
        td = self.k.curthread()
        held = []
        for page in pages:
            va = area.base + (page << PAGE_SHIFT)
            m, _ = self.vm.fault.page_quick(va, VM_PROT_READ)
            if m is not None:
                held.append((page, m))
        self.k.sleep.tsleep(self._idle, PCATCH, "physio", ticks, cond=lambda: False)
        for page, m in held:
            contents = m.contents or {}
            for slot, word in enumerate(WORD_AT if area.file is None else ()):
                got = contents.get(word, 0)
                self.ledger.check(td, area.address(page, slot), got, lambda va, m=m: str(m))  # type: ignore[misc]
            self.vm.page.unhold(m)
        self._done()

    def truncate(self, area: Area, pages: int) -> None:
        """ftruncate a private file; pages cut off read as zeros when the file grows again."""
        self._called()
        assert area.vnode is not None
        start = area.base + (pages << PAGE_SHIFT)
        end = area.base + (area.pages << PAGE_SHIFT)
        self.k.vnode.vn_lock(area.vnode, LK_EXCLUSIVE | LK_RETRY)
        self.vm.vnode_pager.truncate(area.vnode, pages << PAGE_SHIFT)
        self.k.vnode.vn_unlock(area.vnode)
        self.ledger.zeroed(start, end)
        self._done()

    def limit_rss(self, pages: int) -> None:
        """setrlimit(RLIMIT_RSS), in pages."""
        self._called()
        self.p.p_rlimit_rss_cur = pages << PAGE_SHIFT

    def sleep(self, seconds: float) -> None:
        """nanosleep for *seconds* of the machine's time."""
        self._called()
        ticks = max(1, int(seconds * self.k.hz))
        self.k.sleep.tsleep(self._idle, PCATCH, "user nanslp", ticks, cond=lambda: False)
        self._done()

    # -- processes

    def exec(self) -> None:
        """exec: the process loses all of its mappings."""
        self._called()
        self.vm.process.exec(self.p)
        self.areas.clear()
        self.ledger.words.clear()
        self._done()

    def fork(self, body: Callable[..., None], *args: Any) -> int:
        """fork; the child runs ``body(child, *args)``.  Returns the child's pid."""
        self._called()
        self.forks += 1
        child = self.runner.fork(self, body, args)
        self._done()
        return child

    def wait(self, children: Iterable[int]) -> None:
        """Wait for each of *children* to exit, and reap it."""
        for pid in children:
            self._called()
            error, _, _ = self.vm.process.wait(self.p, pid)
            while error == EINTR:
                self._done()  # raises if it was killed
                error, _, _ = self.vm.process.wait(self.p, pid)
        self._done()

    # -- the end

    def read_back(self) -> None:
        """Before the process exits, read every word that it has written."""
        for area in self.areas:
            if area.file is None:
                last = area.base + (area.pages << PAGE_SHIFT)
                for va in sorted(self.ledger.within(area.base, last)):
                    page, offset = divmod(va - area.base, PAGE_SIZE)
                    self.read(area, page, WORD_AT.index(offset // WORD_SIZE))
            else:
                mine = [slot for file, slot in self.owned if file is area.file]
                for page in range(area.pages):
                    for slot in mine:
                        self.read(area, page, slot)

    def close_files(self) -> None:
        """fsync private files and compare the blocks on disk with what was written.

        The runner removes the files later.
        """
        for area in self.areas:
            if area.vnode is None or area.file is not None:
                continue
            k, pager = self.k, self.vm.vnode_pager
            k.vnode.vn_lock(area.vnode, LK_EXCLUSIVE | LK_RETRY)
            pager.fsync(area.vnode)
            k.vnode.vn_unlock(area.vnode)
            if pager.disk.config.error_rate:
                continue  # an fsync that failed promises nothing
            blocks = pager.file(area.vnode).blocks
            for va in self.ledger.within(area.base, area.base + (area.pages << PAGE_SHIFT)):
                page, offset = divmod(va - area.base, PAGE_SIZE)
                got = blocks.get(page, {}).get(offset // WORD_SIZE, 0)
                self.ledger.check(k.curthread(), va, got, lambda va: "its file's block")


__all__ = ["WORDS", "Area", "CallFailed", "FileWords", "User"]
