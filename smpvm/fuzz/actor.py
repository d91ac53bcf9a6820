"""One thread of a program at work: what operations are written with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from smpvm.config import PAGE_SIZE
from smpvm.fuzz.operations import OPERATIONS
from smpvm.fuzz.shape import FILES, Op
from smpvm.fuzz.words import BASE, Lost, Space
from smpvm.kern.cname import KEEP
from smpvm.kern.errno import EINTR
from smpvm.kern.proc import Proc
from smpvm.vm.proc.process import SIGKILL, SIGSEGV, ProcessKilled, SegFault

if TYPE_CHECKING:
    from smpvm.fuzz.scenario import FuzzProgram
    from smpvm.kern.vnode import Vnode
    from smpvm.vm.page.pages import Page

FRAMES: Final = KEEP


class Life:
    """A process of the program: its address space's words, and which of its threads are left."""

    def __init__(self, p: Proc, space: Space) -> None:
        self.p = p
        self.space = space
        self.threads = 0
        """Threads that have not ended."""
        self.leaving = False
        """One of them has called exit, or got a signal; the last one to end does the rest."""
        self.gone = False


class Actor:
    """A thread and its place in the machine.  For a kernel thread *life* is None."""

    def __init__(self, w: FuzzProgram, number: int, life: Life | None) -> None:
        self.w = w
        self.vm = w.vm
        self.k = w.k
        self.sys = w.vm.process.sys
        self.number = number
        """The word of each page that it writes."""
        self.life = life

    @property
    def p(self) -> Proc:
        """Its process."""
        assert self.life is not None
        return self.life.p

    # -- running

    def run(self, ops: Sequence[Op]) -> None:
        """The body of a kernel thread."""
        for op in ops:
            OPERATIONS[op.name].run(self, op)

    def live(self, ops: Sequence[Op]) -> None:
        """The body of a thread of a process: the operations, unless a signal ends it.

        The process lives on when all is done, so that its memory can be looked at.
        """
        status = self.work(ops)
        life = self.life
        assert life is not None
        life.p.p_token.get()  # as lwp_exit has it
        life.threads -= 1
        life.p.p_token.release()
        if life.leaving and not life.threads:
            life.gone = True
            self.vm.process.exit1(life.p, status)

    def work(self, ops: Sequence[Op]) -> int:
        """The operations, then wait for children; the status that it exits with."""
        life = self.life
        assert life is not None
        status = 0
        try:
            for op in ops:
                if life.leaving:
                    break
                OPERATIONS[op.name].run(self, op)
                self.vm.process.userret(life.p)
            while not life.leaving and self.vm.process.wait(life.p)[0] in (0, EINTR):
                self.vm.process.userret(life.p)
        except ProcessKilled:
            life.leaving, status = True, SIGKILL
        except SegFault as fault:
            self.refused(fault)
            life.leaving, status = True, SIGSEGV
        return status

    def refused(self, fault: SegFault) -> None:
        """An access has failed.  Raises Lost if nothing in the program explains it."""
        region = self.w.region_at(fault.va)
        if self.p.killed or self.w.may_fail(region):
            return
        raise Lost(f"an access to {region} fails (KERN {fault.rv}), and nothing explains it")

    # -- memory

    def va(self, region: str, page: int) -> int:
        """The address of a page."""
        return self.w.va(region, page)

    def range(self, op: Op) -> tuple[int, int]:
        """Address and bytes: one page, or the whole region."""
        pages = self.w.known(op.region).pages
        if op.page is None:
            return self.va(op.region, 0), pages * PAGE_SIZE
        return self.va(op.region, op.page), PAGE_SIZE

    def space(self, region: str) -> Space:
        """Where the words of *region* are kept."""
        if self.w.known(region).kind in ("shared", "file"):
            return self.w.oracle.common
        assert self.life is not None
        return self.life.space

    def load(self, region: str, page: int) -> None:
        """Read its own word, or the one that nobody writes; compare."""
        space, oracle = self.space(region), self.w.oracle
        mine = (region, page, self.number)
        key = mine if mine in space.words else (region, page, BASE)
        since = oracle.since(space, key)
        va = self.va(region, page)
        got = self.vm.process.user_read(self.p, va, key[2])
        m = self.vm.pmap.extract(self.p.p_vmspace.vm_pmap, va)
        oracle.check(self.k.curthread(), space, key, since, got, "" if m is None else str(m))

    def store(self, region: str, page: int) -> None:
        """Write its own word."""
        space, oracle = self.space(region), self.w.oracle
        key = (region, page, self.number)
        value = oracle.fresh(self.number)
        oracle.begin(space, key, value)
        self.vm.process.user_write(self.p, self.va(region, page), self.number, value)
        oracle.end(space, key)

    def store_file(self, region: str, page: int, m: Page) -> None:
        """Write its own word into busied page *m* of a file."""
        oracle, key = self.w.oracle, (region, page, self.number)
        words = dict(self.vm.pmap.read_contents(m) or {})
        value = words[self.number] = oracle.fresh(self.number)
        oracle.begin(oracle.common, key, value)
        self.vm.pmap.write_contents(m, words)
        oracle.end(oracle.common, key)

    def map(self, region: str) -> None:
        """mmap, at the region's own address."""
        self.w.map_region(self.p, self.w.known(region))

    def returns(self, op: Op, got: int, *allowed: int) -> None:
        """A system call may return one of these.  Raises Lost."""
        if got not in allowed:
            raise Lost(f"{op} returns {got}, allowed {' or '.join(map(str, allowed))}")

    # -- files

    def file(self, region: str) -> Vnode:
        """The vnode of a file's region."""
        assert self.w.known(region).kind in FILES
        return self.w.vnodes[region]

    def reclaim(self, region: str) -> None:
        """Clean the vnode, once."""
        if region not in self.w.reclaimed:
            self.w.reclaimed.append(region)
            self.vm.vnode_pager.reclaim(self.file(region))

    def first_page(self, region: str, page: int) -> Page | None:
        """The page that was there at the start."""
        return self.w.first.get((region, page))

    # -- processes

    def fork(self, first: Op | None, *, share: bool = False) -> None:
        """A child that does *first*, or exits at once."""
        life = self.life
        assert life is not None
        space = life.space if share else life.space.fork(self.number)
        actor = Actor(self.w, self.w.next_number(), None)

        def body(q: Proc) -> None:
            actor.work([] if first is None else [first])

        def before(q: Proc) -> None:
            actor.life = Life(q, space)

        self.vm.process.fork1(life.p, body, name="child", share=share, before=before)

    def exec(self) -> None:
        """Nothing is mapped afterwards."""
        life = self.life
        assert life is not None
        life.space = Space()
        self.vm.process.exec(life.p)

    def exit(self) -> None:
        """All threads of the process end; the last one calls exit1."""
        life = self.life
        assert life is not None
        life.leaving = True
        if life.threads > 1:
            self.k.proc.ksignal(life.p)  # killlwps

    def kill(self, name: str) -> None:
        """A signal that cannot be caught."""
        p = self.k.proc.pfind(self.w.lives[name].p.p_pid)
        if p is not None:
            self.k.proc.ksignal(p)
            self.k.proc.prele(p)

    def memory(self, word: str) -> None:
        """Move the limits."""
        self.w.memory(word)
