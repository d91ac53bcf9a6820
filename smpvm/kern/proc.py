"""Processes (struct proc, kern_proc.c): the process lists, holds, limits, and process exit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from smpvm.host.carrier import ATOMIC, READ
from smpvm.kern.cname import c, holds, own
from smpvm.kern.guard import FREE, Guard, guarded
from smpvm.kern.shared import Site, peek, shared
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.token import Token
from smpvm.kern.tsleep import PINTERLOCKED, Addr

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

# p_stat
SIDL: Final = 1
SACTIVE: Final = 2
SSTOP: Final = 3
SZOMB: Final = 4
SCORE: Final = 5
STAT_NAMES: Final = {SIDL: "SIDL", SACTIVE: "SACTIVE", SSTOP: "SSTOP", SZOMB: "SZOMB"} | {
    SCORE: "SCORE"
}

# p_flags (sys/proc.h:354-389)
P_SWAPPEDOUT: Final = 0x00000004
P_SYSTEM: Final = 0x00000200
P_WEXIT: Final = 0x00002000
P_LOWMEMKILL: Final = 0x00010000
P_SWAPWAIT: Final = 0x00040000

RLIM_INFINITY: Final = 2**63 - 1
PRIO_MIN: Final = -20
PRIO_MAX: Final = 20

# p_lock
PLOCK_ZOMB: Final = 0x20000000
PLOCK_WAITING: Final = 0x40000000
PLOCK_MASK: Final = 0x1FFFFFFF

ALLPROC_HSIZE: Final = 256


_KNOWN = (
    Site("p_stat", "kern_wait", "kern_exit.c:959", "holds it and looks again with p_token"),
    Site("p_stat", "allproc_scan", "kern_proc.c:1275", "a zombie is only passed over the sooner"),
    Site("p_stat", "start_forked_proc", "kern_fork.c:834", "readers pass SIDL over", "write"),
    Site("p_flags", "swappable", "vm_glue.c:456", "a guess; the state is judged with p_token"),
    Site("p_flags", "vm_pageout_scan_callback", "vm_pageout.c:1555", "P_SYSTEM never changes"),
    Site("p_flags", "scheduler_callback", "vm_glue.c:402", "asked again in the next turn"),
    Site("p_flags", "vm_wait_pfault", "vm_page.c:2040", "its own process, asked again each turn"),
    Site("p_flags", "vm_wait", "vm_page.c:2040", "the same, asked before the sleep by a repair"),
    Site("p_flags", "userret", "trap.c:297", "its own process, asked again at the next trap"),
    Site("p_nice", "vm_pageout_scan_cache", "vm_pageout.c:1533", "a child may get either", "write"),
    Site("killed", "userret", "signal2.h:45", "lwp_sigpend needs no lock: races end in an AST"),
)


_YOUNG = (Site("p_stat", "fork1", "kern_fork.c:834", "it has not been started", "write"),)
_ALONE = (
    Site("p_vmspace", "proc_add_allproc", "kern_proc.c:976", "on no list yet", "write"),
    Site("p_vmspace", "vmspace_exitfree", "vm_map.c:409", "a zombie off the lists", "write"),
)
_ONE = (
    Site("threads", "vm_fault", "vm_fault.c:512", "its own process: one stays one"),
    Site("threads", "scheduler_callback", "vm_glue.c:398", "PHOLD only; here no thread leaves it"),
    Site("threads", "swapout_procs_callback", "vm_glue.c:518", "the same"),
)
_EMPTY = Site("first", "allproc_scan", "kern_proc.c:1271", "an empty list is only passed over")


def _bucket_token(k: Kernel, p: Proc, new: object) -> Token:
    """The token of the list that *p* is on."""
    return k.proc.bucket(p.p_pid).proc_token


@guarded(
    Guard("next", _bucket_token, "kern_proc.c:1056, 1147, 1273"),
    Guard("prev", _bucket_token, "kern_proc.c:1056, 1147"),
    Guard("p_stat", "p_token", "kern_exit.c:519", read=FREE, sites=_YOUNG),
    Guard("p_flags", "p_token", "vm_glue.c:585", read=FREE),
    Guard("p_vmspace", "p_token", "kern_exec.c:830", read=FREE, sites=_ALONE),
    Guard("threads", "p_token", "kern_fork.c:749", container=True, sites=_ONE),
)
@shared(
    "p_stat",
    "p_flags",
    "p_nice",
    "p_lock",
    "p_vmspace",
    "killed",
    benign=_KNOWN,
    atomic={"p_lock": "PHOLD and PRELE are atomic (kern_proc.c), and look before they compare"},
)
class Proc:
    """struct proc.  Limits in bytes; ``p_lock`` counts the holds on the process."""

    __slots__ = (
        "killed",
        "next",
        "p_flags",
        "p_lock",
        "p_nice",
        "p_pid",
        "p_pptr",
        "p_rlimit_rss_cur",
        "p_rlimit_rss_max",
        "p_stat",
        "p_swtime",
        "p_token",
        "p_vmspace",
        "prev",
        "threads",
    )

    p_flags: int
    p_lock: int
    p_nice: int
    p_stat: int
    p_vmspace: Any

    def __init__(self, k: Kernel, pid: int) -> None:
        self.p_pid = pid
        self.p_stat = SIDL
        self.p_flags = 0
        self.p_nice = 0
        self.p_lock = 0
        self.p_token = Token(k, "p_token", f"proc {pid}")
        self.p_rlimit_rss_cur = RLIM_INFINITY
        self.p_rlimit_rss_max = RLIM_INFINITY
        self.p_vmspace = None
        self.p_pptr: Proc | None = None
        self.p_swtime = 0
        self.threads: list[Thread] = k.container(list, self, "threads")
        self.killed = False  # SIGKILL is pending: set once, never cleared
        self.next: Proc | None = None  # p_list, protected by the bucket's token
        self.prev: Proc | None = None

    def __str__(self) -> str:
        return f"proc {self.p_pid}"


@guarded(Guard("first", "proc_token", "kern_proc.c:1056, 1147, 1273", sites=(_EMPTY,)))
class ProcGlob:
    """One bucket of the process hash: its list and its token (procglob_t)."""

    __slots__ = ("first", "proc_token")

    def __init__(self, token: Token) -> None:
        self.proc_token = token
        self.first: Proc | None = None

    def __str__(self) -> str:
        return f"processes of {self.proc_token.name}"


class Procs:
    """All processes of the machine."""

    def __init__(self, k: Kernel, hsize: int = ALLPROC_HSIZE) -> None:
        self.k = k
        self.procglob: list[ProcGlob | None] = [None] * hsize  # each created at first use
        self._guard = threading.Lock()
        self.nprocs = 1  # process 0, which is on no list here

    def __str__(self) -> str:
        return "procs"

    # -- the list

    @c("ALLPROC_HASH", "kern_proc.c:64")
    def bucket(self, pid: int) -> ProcGlob:
        """The bucket of *pid*."""
        slot = pid % len(self.procglob)
        with self._guard:
            prg = self.procglob[slot]
            if prg is None:
                token = Token(self.k, "allproc", f"bucket {slot}")
                prg = self.procglob[slot] = self.k.new(ProcGlob, token)
        return prg

    def _empty_point(self) -> None:
        """Schedule point before a step that changes whether a bucket is empty.

        Scans test that without the bucket's token.
        """
        if (p := self.k.point) is not None:
            p(ATOMIC, self, "empty")

    @c("proc_add_allproc", "kern_proc.c:975-985", blocks=True)
    @c("proc_makepid", "kern_proc.c:997-1099")
    @holds("no spinlock", "")
    def new(self, pid: int, vmspace: Any = None) -> Proc:
        """A process on the list, in state SIDL (proc_add_allproc, kern_proc.c:976).  May block."""
        k = self.k
        p = k.new(Proc, k, pid)
        p.p_vmspace = vmspace
        prg = self.bucket(pid)
        k.atomic.add_int(self, "nprocs", 1)
        prg.proc_token.get()
        if prg.first is None:
            self._empty_point()
        p.next = prg.first
        if prg.first is not None:
            prg.first.prev = p
        prg.first = p
        prg.proc_token.release()
        return p

    @c("proc_makepid", "kern_proc.c:1018-1026", part=True)
    def new_pid(self) -> int:
        """The next process number (proc_makepid, kern_proc.c:999, without reuse)."""
        return self.k.next_id("pid") + 1

    @c("lwp_fork", "kern_fork.c:661-761")
    @holds("p_token of p")
    def lwp_fork(self, p: Proc, td: Thread) -> None:
        """lwp_fork (kern_fork.c:661-761): make *td* a thread of *p*."""
        td.proc = p
        td.lwp_token = Token(self.k, "lwp_token", td.name)
        td.lwp_spin = Spinlock(self.k, "lwp_spin", td.name)
        p.threads.append(td)

    @c("allproc_scan", "kern_proc.c:1256-1293", blocks=True)
    @holds("no spinlock", "")
    def allproc_scan(self, callback: Callable[[Proc, Any], int], data: Any) -> None:
        """allproc_scan (kern_proc.c:1256-1293): call *callback* for every process except zombies.

        Around each call, which may block, the process is held and its bucket's token owned: a held
        process stays on the list.  A negative result ends the scan.  The number of calls is limited
        to the number of processes (and CPUs) at the start.
        """
        if (point := self.k.point) is not None:
            point(READ, self, "nprocs")
        limit = self.nprocs + self.k.ncpus
        looked = False
        for slot in range(len(self.procglob)):
            prg = self.procglob[slot]
            if point is not None and not looked and (prg is None or prg.first is None):
                # The C takes the token of each bucket, only to find most of them empty.
                point(READ, self, "empty")
                looked = True
                prg = self.procglob[slot]
            if prg is None or prg.first is None:
                continue
            looked = False
            prg.proc_token.get()
            p: Proc | None = prg.first
            while p is not None:
                if p.p_stat != SZOMB:
                    self.phold(p)
                    r = callback(p, data)
                    self.prele(p)
                    limit -= 1
                    if r < 0 or limit < 0:
                        break
                p = p.next
            prg.proc_token.release()
            if p is not None:
                return

    @c("pfind", "kern_proc.c:447-481", blocks=True)
    @holds("no spinlock", "the process returned held (PHOLD)")
    def pfind(self, pid: int) -> Proc | None:
        """pfind (kern_proc.c:447-481): find a process by number, held for the caller; no zombies.

        The caller's own process is found without searching.  Blocks (the bucket's token, shared).
        """
        mine = self.k.curthread().proc
        if mine is not None and mine.p_pid == pid:
            self.phold(mine)
            return mine
        prg = self.bucket(pid)
        prg.proc_token.get_shared()
        p = prg.first
        while p is not None and (p.p_pid != pid or p.p_stat == SZOMB):
            p = p.next
        if p is not None:
            self.phold(p)
        prg.proc_token.release()
        return p

    @own
    def all(self) -> list[Proc]:
        """All processes on the lists, including zombies, in scan order; for reports (takes no
        token).
        """
        found = []
        for prg in self.procglob:
            each = None if prg is None else prg.first
            while each is not None:
                found.append(each)
                each = each.next
        return found

    # -- holds

    @c("phold", "kern_proc.c:290-294")
    @c("PHOLD", "proc.h:488")
    @holds("something that keeps p (p_token, the bucket's token, a hold)", "p held")
    def phold(self, p: Proc) -> None:
        """PHOLD, phold (kern_proc.c:291)."""
        self.k.atomic.add_int(p, "p_lock", 1)

    @c("prele", "kern_proc.c:300-326")
    @c("PRELE", "proc.h:489")
    @holds("p held", "hold released")
    def prele(self, p: Proc) -> None:
        """PRELE, prele (kern_proc.c:301).

        Drop a hold and wake threads that wait for the last one.
        """
        k = self.k
        if k.atomic.cmpset_int(p, "p_lock", 1, 0):
            return
        while True:
            old = p.p_lock
            k.kassert(old & PLOCK_MASK, "prele-unheld", str(p))
            if k.atomic.cmpset_int(p, "p_lock", old, (old - 1) & ~PLOCK_WAITING):
                if old & PLOCK_WAITING:
                    k.sleep.wakeup(Addr(p, "p_lock"))
                return

    @c("pstall", "kern_proc.c:253-288", blocks=True)
    @c("PSTALL", "proc.h:492-493")
    @holds("something that keeps p; no spinlock", "")
    def pstall(self, p: Proc, wmesg: str, count: int) -> None:
        """PSTALL, pstall (kern_proc.c:254): sleep until at most *count* holds are left."""
        k = self.k
        ident = Addr(p, "p_lock")
        while (old := p.p_lock) & PLOCK_MASK > count:
            k.sleep.tsleep_interlock(ident)
            if k.atomic.cmpset_int(p, "p_lock", old, old | PLOCK_WAITING):
                k.sleep.tsleep(
                    ident, PINTERLOCKED, wmesg, 0, lambda: p.p_lock & PLOCK_MASK <= count
                )

    # -- the end of a process

    @c("proc_move_allproc_zombie", "kern_proc.c:1110-1126", blocks=True)
    @holds("p_token")
    def move_allproc_zombie(self, p: Proc) -> None:
        """proc_move_allproc_zombie (kern_proc.c:1111): make it SZOMB once nobody holds it.

        The caller holds p_token.  Blocks.
        """
        token = self.bucket(p.p_pid).proc_token
        self.pstall(p, "reap1", 0)
        token.get()
        self.pstall(p, "reap1a", 0)
        p.p_stat = SZOMB
        token.release()

    @c("proc_remove_zombie", "kern_proc.c:1137-1155", blocks=True)
    @holds("p_token")
    def remove_zombie(self, p: Proc) -> None:
        """proc_remove_zombie (kern_proc.c:1138): take it off the list once nobody holds it.

        The caller holds p_token.  Blocks.
        """
        prg = self.bucket(p.p_pid)
        self.pstall(p, "reap2", 0)
        prg.proc_token.get()
        self.pstall(p, "reap2a", 0)
        if p.prev is None:
            if p.next is None:
                self._empty_point()
            prg.first = p.next
        else:
            p.prev.next = p.next
        if p.next is not None:
            p.next.prev = p.prev
        p.p_pptr = None
        prg.proc_token.release()
        self.k.atomic.add_int(self, "nprocs", -1)

    # -- signals and priorities

    @c("killproc", "kern_sig.c:2177-2184", blocks=True)
    @holds("p held (PHOLD)")
    def killproc(self, p: Proc, why: str) -> None:
        """killproc (kern_sig.c:2178): SIGKILL, noticed when the process next returns to user mode.

        May block (p_token).
        """
        k = self.k
        if (f := k.probe.call) is not None:
            f(k.curthread(), "killproc", pid=p.p_pid, why=why)
        self.ksignal(p)

    @c("ksignal", "kern_sig.c:1067-1071", blocks=True)
    @holds("something that keeps p; no spinlock", "")
    def ksignal(self, p: Proc) -> None:
        """ksignal (kern_sig.c:1067-1071) of SIGKILL: not sent to an exiting process.

        Interrupts sleeps with PCATCH.  May block (p_token, lwp_token).  The C picks one thread,
        whose exit takes care of the others; here all threads are signalled.
        """
        self.phold(p)
        p.p_token.get()
        if not p.p_flags & P_WEXIT:
            for td in p.threads:
                self.lwpsignal(p, td)
            if not p.threads:
                p.killed = True  # p_siglist: the thread does not exist yet
        p.p_token.release()
        self.prele(p)

    @c("lwpsignal", "kern_sig.c:1082-1372", blocks=True)
    @c("lwp_signotify", "kern_sig.c:1395-1461")
    @holds("p_token")
    def lwpsignal(self, p: Proc, td: Thread) -> None:
        """lwpsignal, lwp_signotify (kern_sig.c:1082-1372): signal one thread.

        p_token held.  May block (lwp_token).
        """
        token, spin = td.lwp_token, td.lwp_spin
        assert token is not None
        assert spin is not None
        token.get()
        if p.p_nice > 0:
            p.p_nice = 0  # so that it can exit soon
        spin.lock()
        p.killed = True
        spin.unlock()
        self.k.sleep.setrunnable(td)
        token.release()

    @c("dfly_resetpriority", "usched_dfly.c:1006-1178")
    @holds("p held (PHOLD)")
    def resetpriority(self, p: Proc) -> None:
        """p_usched->resetpriority: tell the scheduler that p_nice has changed."""
        k = self.k
        if (f := k.probe.call) is not None:
            f(k.curthread(), "resetpriority", pid=p.p_pid, nice=peek(p, "p_nice"))
