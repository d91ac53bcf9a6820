"""Processes as the VM sees them: fork, exec, exit, wait (kern_fork.c, kern_exec.c, kern_exit.c),
and the boundary to user mode (trap.c).

For workloads.  A process is one thread that runs a *body*, a function of its ``Proc``::

    p = vm.process.create()              # empty address space with a stack
    vm.process.start(p, body)            # body(p) runs in its own thread, followed by exit1(0)

    # inside body, only from p's own thread:
    error, va = vm.process.sys.mmap(p, 0, size)           # mmap.py: munmap, msync, mlock, ...
    vm.process.user_write(p, va, word, value)             # one word of the page at va
    value = vm.process.user_read(p, va, word)             # never written: 0
    vm.process.userret(p)                                 # after a system call, or in a long loop
    child = vm.process.fork1(p, child_body)               # child_body(child) in its own thread
    error, pid, status = vm.process.wait(p)
    vm.process.exec(p)                                     # unmaps everything

``user_read``, ``user_write`` and ``userret`` raise ``ProcessKilled`` once *p* has been killed, and
``SegFault`` for an invalid access; the function that runs the body catches both and exits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from smpvm.config import PAGE_SHIFT, PAGE_SIZE
from smpvm.kern.cname import c, holds, own
from smpvm.kern.errno import ECHILD
from smpvm.kern.guard import Guard, guarded
from smpvm.kern.proc import P_SWAPPEDOUT, P_SWAPWAIT, P_WEXIT, SACTIVE, SIDL, SZOMB, Proc
from smpvm.kern.shared import shared
from smpvm.kern.thread import Thread
from smpvm.kern.tsleep import PCATCH, PINTERLOCKED
from smpvm.vm.fault.state import VM_FAULT_BURST, VM_FAULT_DIRTY, VM_FAULT_NORMAL
from smpvm.vm.map.entry import KERN_SUCCESS
from smpvm.vm.map.mmap import Mmap
from smpvm.vm.map.stack import SGROWSIZ
from smpvm.vm.param import VM_MAX_USER_ADDRESS, VM_PROT_ALL, VM_PROT_READ, VM_PROT_WRITE
from smpvm.vm.pmap.pte import MISS

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.vm import Vm

Body = Callable[[Proc], None]

SIGKILL: Final = 9
SIGSEGV: Final = 11

MAXSSIZ: Final = 512 * 1024 * 1024
"""Bytes kept free for the growth of a process's stack, at the top of its space."""
FIRST_PID: Final = 100
"""Lower numbers belong to init and system processes, which the kill scan exempts."""
WAITGEN_MASK: Final = 0x7FFFFFFF


class ProcessKilled(Exception):
    """The process noticed at the boundary to user mode that it has been killed."""


class SegFault(Exception):
    """An invalid access: the address, and the KERN_* code returned by vm_fault."""

    def __init__(self, p: Proc, va: int, rv: int) -> None:
        super().__init__(f"{p}: no access at {va:#x} (KERN {rv})")
        self.va = va
        self.rv = rv


@shared("waitgen", atomic={"waitgen": "atomic (kern_exit.c:1194); read to tell a change"})
@guarded(Guard("children", "p_token", "kern_fork.c:567, kern_exit.c:905", container=True))
class Family:
    """p_children of process *pid*, protected by its p_token, and p_waitgen."""

    __slots__ = ("children", "p_token", "pid", "waitgen")

    def __init__(self, k: Kernel, p: Proc) -> None:
        self.pid = p.p_pid
        self.p_token = p.p_token
        self.children: list[Proc] = k.container(list, self, "children")
        self.waitgen = 0

    def __str__(self) -> str:
        return f"children of {self.pid}"


class Processes:
    """The life cycle of processes.  ``sys`` has their memory system calls."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k
        self.sys = Mmap(vm)
        self.families: dict[Proc, Family] = {}

    # -- birth

    @own
    def create(self) -> Proc:
        """A process with an empty space and a stack, without a parent (so a child of init), not
        running.
        """
        p = self._new(None)
        p.p_token.get()  # already on the lists: the daemons can see it
        p.p_vmspace = self.vm.vmspace.alloc()
        self.new_stack(p)
        p.p_stat = SACTIVE
        p.p_token.release()
        return p

    @c("fork1", "kern_fork.c:380-425", part=True, blocks=True)
    @holds("p_token of parent, if any")
    def _new(self, parent: Proc | None) -> Proc:
        """The structure, in state SIDL, on the lists."""
        proc = self.k.proc
        p = proc.new(FIRST_PID + proc.new_pid())
        self.families[p] = self.k.new(Family, self.k, p)
        p.p_pptr = parent
        if parent is not None:
            self.families[parent].children.append(p)
        return p

    @own
    def start(self, p: Proc, body: Body, *, name: str = "", cpu: int = 0) -> Thread:
        """Create the thread of *p*: it runs *body*, then exits."""
        td = self._lwp(p, body, name, cpu)
        self.k.start(td)
        return td

    def _lwp(self, p: Proc, body: Body, name: str, cpu: int) -> Thread:
        name = name or f"proc{p.p_pid}"
        td = self.k.make_thread(name, lambda: self.run(p, body), role="process", cpu=cpu)
        self.k.proc.lwp_fork(p, td)
        return td

    @own
    def run(self, p: Proc, body: Body) -> None:
        """The thread of a process: run the body, then exit1 in any case."""
        status = 0
        try:
            body(p)
        except ProcessKilled:
            status = SIGKILL
        except SegFault as fault:
            status = SIGSEGV
            td = self.k.curthread()
            td.hit("sigsegv")
            if (f := self.k.probe.call) is not None:
                f(td, "sigsegv", pid=p.p_pid, va=fault.va, rv=fault.rv)
        self.exit1(p, status)

    @c("fork1", "kern_fork.c:248-659", blocks=True)
    @c("start_forked_proc", "kern_fork.c:815-861")
    @holds("no locks; called by p1's thread", "")
    def fork1(
        self,
        p1: Proc,
        body: Body,
        *,
        name: str = "",
        cpu: int = 0,
        share: bool = False,
        before: Callable[[Proc], None] | None = None,
    ) -> Proc:
        """fork1, start_forked_proc (kern_fork.c:248-659, :815-866).

        Create a child that runs *body*.

        Blocks: copies the space, waits while memory is severely short.  *share* is RFMEM: both use
        the same space.  *before* is called with the child just before it starts.
        """
        k = self.k
        k.curthread().hit("v_forks")
        p1.p_token.get()
        p2 = self._new(p1)
        p2.p_token.get()
        p2.p_nice = p1.p_nice
        p2.p_rlimit_rss_cur = p1.p_rlimit_rss_cur
        p2.p_rlimit_rss_max = p1.p_rlimit_rss_max
        k.proc.phold(p1)
        self.vm.glue.fork(p1, p2, share)
        td = self._lwp(p2, body, name, cpu)
        p2.p_token.release()
        p1.p_token.release()
        k.kassert(p2.p_stat == SIDL, "fork-not-sidl", str(p2))
        p2.p_stat = SACTIVE
        if before is not None:
            before(p2)
        k.start(td)
        k.proc.prele(p1)
        return p2

    @c("exec_new_vmspace", "kern_exec.c:846-856", part=True, blocks=True)
    @holds("p_token")
    def new_stack(self, p: Proc) -> None:
        """The stack of exec_new_vmspace: the last entry of every process (kern_exec.c:846-856)."""
        space = p.p_vmspace
        bottom = VM_MAX_USER_ADDRESS - MAXSSIZ
        self.vm.map.stack(space.vm_map, bottom, MAXSSIZ, True, VM_PROT_ALL, VM_PROT_ALL)
        space.vm_ssize = SGROWSIZ >> PAGE_SHIFT
        space.vm_maxsaddr = bottom

    @c("exec_new_vmspace", "kern_exec.c:773-859", blocks=True)
    @holds("no locks; called by p's thread", "")
    def exec(self, p: Proc) -> None:
        """exec_new_vmspace (kern_exec.c:773-859): an empty space with a new stack.

        Called by *p*'s thread.  Waits until nobody holds *p*.  An unshared space is emptied; a
        shared one is replaced by a new one.  Blocks.
        """
        k, vm = self.k, self.vm
        k.curthread().hit("exec")
        p.p_token.get()
        k.proc.pstall(p, "exec1", 0)
        space = p.p_vmspace
        if vm.vmspace.getrefs(space) == 1:
            self.vm.pmap.remove_pages(space.vm_pmap, 0, VM_MAX_USER_ADDRESS)
            vm.map.remove(space.vm_map, 0, VM_MAX_USER_ADDRESS)
        else:
            vm.vmspace.exec(p)
        self.new_stack(p)
        p.p_token.release()

    # -- death

    @c("exit1", "kern_exit.c:286-637", blocks=True)
    @c("lwp_exit", "kern_exit.c:644-759")
    @holds("no locks; called by p's thread", "")
    def exit1(self, p: Proc, status: int) -> None:
        """exit1, lwp_exit (kern_exit.c:286-637): exit of *p*, called by its own thread.

        Blocks.  Runs stage 1 of the space's termination, then becomes a zombie for the parent to
        reap.  Where the parent is init in the C, the thread itself does what init's wait would do.
        """
        k = self.k
        k.curthread().hit("exit1")
        p.p_token.get()
        if p.p_flags & P_WEXIT:
            k.panic("exit-twice", str(p))
        p.p_flags |= P_WEXIT
        p.p_token.release()
        self.vm.vmspace.relexit(p.p_vmspace)
        p.p_token.get()
        k.proc.move_allproc_zombie(p)
        parent = p.p_pptr
        if parent is not None:
            k.atomic.add_int(self.families[parent], "waitgen", 1)
            k.proc.phold(parent)
        self._orphan_children(p)
        if parent is not None:
            # ksignal(SIGCHLD): ignored by default, but it takes the parent's token before it finds
            # out.
            parent.p_token.get()
            parent.p_token.release()
            k.proc.prele(parent)
        p.p_token.release()
        if parent is not None:
            k.sleep.wakeup(parent)
        else:
            self.reap(p)

    @c("exit1", "kern_exit.c:538-569", part=True, blocks=True)
    @holds("p_token of p (lost while blocking)")
    def _orphan_children(self, p: Proc) -> None:
        """The children become init's: dead ones are reaped here, the others reap themselves.

        p_token of *p* is held, and released while blocked.
        """
        family = self.families[p]
        while family.children:
            q = family.children.pop()
            q.p_token.get()
            dead = q.p_stat == SZOMB
            if not dead:
                q.p_pptr = None
            q.p_token.release()
            if dead:
                self.reap(q)

    @c("kern_wait", "kern_exit.c:888-1208", blocks=True)
    @holds("no locks; called by q's thread", "")
    def wait(self, q: Proc, pid: int = -1, nohang: bool = False) -> tuple[int, int, int]:
        """kern_wait (kern_exit.c:888-1208): reap a child of *q* (*pid*, or any), waiting for one.

        Called by *q*'s thread.  Blocks.  Returns (errno, pid, 0): ECHILD without such a child,
        EINTR if *q* is killed while waiting; pid 0 with *nohang* if none is dead.
        """
        k = self.k
        family = self.families[q]
        q.p_token.get()
        error = pid_found = 0
        while True:
            waitgen = k.atomic.fetchadd_int(family, "waitgen", 1 << 31)
            mine = [p for p in family.children if pid in (-1, p.p_pid)]
            dead = next((p for p in mine if p.p_stat == SZOMB), None)
            if dead is not None:
                family.children.remove(dead)
                pid_found = dead.p_pid
                q.p_token.release()
                self.reap(dead)
                return 0, pid_found, 0
            if not mine:
                error = ECHILD
                break
            if nohang:
                break
            error = self._wait_sleep(q, family, waitgen)
            if error:
                break
        q.p_token.release()
        return error, pid_found, 0

    @c("kern_wait", "kern_exit.c:1194-1201", part=True, blocks=True)
    @holds("p_token of q (released while asleep)")
    def _wait_sleep(self, q: Proc, family: Family, waitgen: int) -> int:
        """Sleep until a child may have died since *waitgen* (kern_exit.c:1194-1201)."""
        k = self.k
        while waitgen & WAITGEN_MASK == family.waitgen & WAITGEN_MASK:
            k.sleep.tsleep_interlock(q, PCATCH)
            waitgen = k.atomic.fetchadd_int(family, "waitgen", 1 << 31)
            if waitgen & WAITGEN_MASK == family.waitgen & WAITGEN_MASK:
                return k.sleep.tsleep(
                    q,
                    PCATCH | PINTERLOCKED,
                    "wait",
                    0,
                    cond=lambda: any(p.p_stat == SZOMB for p in family.children),
                )
        return 0

    @c("kern_wait", "kern_exit.c:975-1120", part=True, blocks=True)
    @holds("no tokens", "")
    def reap(self, p: Proc) -> None:
        """Remove a zombie (kern_exit.c:975-1120) and run stage 2 of its space's termination.

        No tokens held.  Waits until nobody holds *p*.  PHOLDZOMB is left out: here only one thread
        can reap a process.
        """
        proc = self.k.proc
        p.p_token.get()
        proc.pstall(p, "reap3", 0)
        proc.remove_zombie(p)
        p.p_token.release()
        proc.pstall(p, "reap4", 0)
        self.vm.vmspace.exitfree(p)
        proc.pstall(p, "reap5", 0)
        del self.families[p]
        if (f := self.k.probe.freed) is not None:
            f(self.k.curthread(), p)

    # -- user mode

    @c("userret", "trap.c:223-320", blocks=True)
    @holds("no locks; called by p's thread", "")
    def userret(self, p: Proc) -> None:
        """userret (trap.c:223-320): on the way back to user mode.  Called by *p*'s thread.

        Raises ProcessKilled.  A swapped-out process sleeps here until the swapper swaps it in.
        """
        k = self.k
        while True:
            if p.killed:
                raise ProcessKilled(str(p))
            if not p.p_flags & P_SWAPPEDOUT:
                return
            k.curthread().hit("userret:swappedout")
            glue = self.vm.glue
            p.p_token.get()
            glue.mplock.get()
            p.p_flags |= P_SWAPWAIT
            glue.swapin_request()
            if p.p_flags & P_SWAPWAIT:
                k.sleep.tsleep(p, PCATCH, "SWOUT", 0, cond=lambda: not p.p_flags & P_SWAPWAIT)
            p.p_flags &= ~P_SWAPWAIT
            glue.mplock.release()
            p.p_token.release()

    @own
    def user_read(self, p: Proc, va: int, word: int) -> int:
        """A load by *p*'s thread: word number *word* of the page at *va*.  Blocks in faults."""
        return self._access(p, va, False, word, 0)

    @own
    def user_write(self, p: Proc, va: int, word: int, value: int) -> None:
        """A store by *p*'s thread; *value* must not be negative.  Blocks in faults."""
        self._access(p, va, True, word, value)

    def _access(self, p: Proc, va: int, write: bool, word: int, value: int) -> int:
        """Access through the MMU, with faults until it finds the page."""
        self.k.curthread().hit("user_access")
        pmap = self.vm.pmap
        while True:
            got = pmap.access(p.p_vmspace.vm_pmap, va, write, word, value)
            if got != MISS:
                return got
            self.trap_pfault(p, va, write)

    @c("trap_pfault", "trap.c:832-966", blocks=True)
    @holds("no locks; called by p's thread", "")
    def trap_pfault(self, p: Proc, va: int, write: bool) -> None:
        """trap_pfault (trap.c:832-966), and the return to user mode.

        *p* is held during the fault.
        """
        proc = self.k.proc
        ftype = VM_PROT_WRITE if write else VM_PROT_READ
        flags = VM_FAULT_BURST | (VM_FAULT_DIRTY if write else VM_FAULT_NORMAL)
        proc.phold(p)
        rv = self.vm.fault.fault(p.p_vmspace.vm_map, va & ~(PAGE_SIZE - 1), ftype, flags)
        proc.prele(p)
        self.userret(p)
        if rv != KERN_SUCCESS:
            raise SegFault(p, va, rv)


__all__ = ["Body", "ProcessKilled", "Processes", "SegFault"]
