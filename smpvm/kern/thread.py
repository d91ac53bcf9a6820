"""A kernel thread (struct thread) and the exceptions that end one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from smpvm.host.carrier import Carried
from smpvm.kern.cname import SKIP

if TYPE_CHECKING:
    from smpvm.kern.lockmgr import Lock
    from smpvm.kern.proc import Proc
    from smpvm.kern.spinlock import Spinlock
    from smpvm.kern.token import Token, TokRef
    from smpvm.kern.tsleep import Sleeper

FRAMES: Final = SKIP

TDF_SYSTHREAD = 0x00000100
"""The thread may use more of the free reserve (the page-out daemon sets it for itself)."""
TDF_DEADLKTREAT = 0x00001000
"""Shared lockmgr requests overtake waiting exclusive ones: uiomove sets it while it copies, because
it may fault with a vnode locked (kern_subr.c)."""


class Panic(Exception):
    """The kernel stopped itself: a KASSERT, KKASSERT or panic, or a NULL dereference.

    *code* is a short stable name (``cache-dirty``), *kind* is ``"panic"`` or ``"fault"``.
    """

    def __init__(self, code: str, message: str = "", kind: str = "panic") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.kind = kind


class Misuse(Panic):
    """A primitive was used in violation of its contract: sleep with a spinlock, recursion, ..."""


class End:
    """The end of a thread, as join waits for it: like a lock that the thread holds until then."""

    __slots__ = ("td",)

    kind = cls = "end"
    under = None

    def __init__(self, td: Thread) -> None:
        self.td = td

    def __str__(self) -> str:
        return f"end of {self.td}"

    @property
    def owner(self) -> Thread | None:
        """The thread, while it has not ended."""
        return None if self.td.exited else self.td

    def owners(self) -> list[Thread]:
        """The same, as the waits-for graph asks for it."""
        return [] if self.td.exited else [self.td]


class Thread(Carried):
    """struct thread: the thread, what it holds, and its share of the per-CPU counters.

    ``spins`` are the spinlocks held, oldest first; ``toks`` the token references, oldest first;
    ``cnt`` stands for the per-CPU gd_cnt: only its owner writes it, sums are taken at rest.
    ``acquired`` and ``contended`` count lock acquisitions by lock class in the same way.
    """

    __slots__ = (
        "acquired",
        "cnt",
        "contended",
        "cpu",
        "end_of",
        "exited",
        "flags",
        "locks",
        "lwp_spin",
        "lwp_token",
        "observed",
        "proc",
        "quiet",
        "role",
        "sintr",
        "sleeper",
        "spins",
        "toks",
        "toks_dropped",
        "waiting",
        "wchan",
        "wmesg",
    )

    def __init__(
        self, tid: int, name: str, main: Callable[[], None], *, role: str = "", cpu: int = 0
    ) -> None:
        super().__init__(tid, name, main)
        self.role = role or name
        self.cpu = cpu
        self.flags = 0
        self.exited = False
        self.end_of: End | None = None  # of a thread that may be joined: its end, to wait for
        self.proc: Proc | None = None
        self.lwp_token: Token | None = None  # only for a thread of a process; protects its signals
        self.lwp_spin: Spinlock | None = None
        self.spins: list[Spinlock] = []
        self.toks: list[TokRef] = []
        self.toks_dropped = False  # blocked: the references stay, the tokens are released
        self.locks: list[Lock] = []  # lockmgr locks held, one entry for each count
        self.waiting: Any = None  # for an acquire
        self.sleeper: Sleeper | None = None  # the place on a sleep queue
        self.sintr: Sleeper | None = None  # LWP_SINTR: the sleep that a signal interrupts
        self.wmesg = ""
        self.wchan: Any = None
        self.quiet = 0  # > 0: reads belong to a checker, not to the model
        self.cnt: defaultdict[str, int] = defaultdict(int)
        self.acquired: defaultdict[str, int] = defaultdict(int)
        self.contended: defaultdict[str, int] = defaultdict(int)
        self.observed: Any = None  # for observers: per-thread state, keyed by them

    def forget(self) -> None:
        """Let go of what knows it in turn."""
        super().forget()
        self.end_of = None

    def hit(self, what: str) -> None:
        """Count one run of a function or branch (gd_cnt, and the coverage table)."""
        self.cnt[what] += 1
