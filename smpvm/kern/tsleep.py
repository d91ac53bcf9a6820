"""Sleep and wakeup on an identity (kern_synch.c), with the interlock that closes the gap between
the test and the sleep.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from smpvm.host.carrier import HOLDING, SLEEP, WAKEUP
from smpvm.kern.cname import c, holds, own
from smpvm.kern.errno import EINTR, EWOULDBLOCK

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread

PCATCH: Final = 0x00000100
"""A kill signal interrupts the sleep (EINTR)."""
PINTERLOCKED: Final = 0x00000400
"""The caller has called tsleep_interlock: a wakeup since then is not missed."""


class Ident:
    """The identity of a sleep on ``&variable``; *name* is the variable's name in the C."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


class Addr(NamedTuple):
    """The identity of a sleep on ``&object->field``."""

    obj: Any
    field: str

    def __str__(self) -> str:
        return f"{self.obj}.{self.field}"


class Sleeper:
    """A thread's entry on a sleep queue, from tsleep_interlock or tsleep to the wakeup."""

    __slots__ = ("asleep", "cond", "flags", "ident", "since", "td", "timo", "wmesg")

    def __init__(self, td: Thread, ident: Any, flags: int) -> None:
        self.td = td
        self.ident = ident
        self.flags = flags
        self.asleep = False  # TDF_TSLEEP_DESCHEDULED: not just interlocked
        self.wmesg = ""
        self.timo = 0  # ticks, 0: no timer
        self.since = 0  # tick at which it fell asleep
        self.cond: Callable[[], bool] | None = None

    def __str__(self) -> str:
        timer = f", {self.timo} ticks" if self.timo else ""
        return f"{self.td} sleeps on {self.ident} ({self.wmesg}{timer})"


class SleepQueue:
    """The sleep queues of one machine.  Any object that is hashable by identity can be slept on."""

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self._guard = threading.Lock()  # protects _queues and td.sleeper of every thread
        self._queues: dict[Hashable, list[Sleeper]] = {}
        self.pick: Callable[[int], int] | None = None
        """Whom of so many wakeup_one takes (0: who has slept longest); None: the C's order."""
        self.early: Callable[[], object] | None = None
        """Does this sleep end without a wakeup?  None: they never do."""

    # -- the queues; _guard held

    @c("_tsleep_interlock", "kern_synch.c:353-376")
    def _enqueue(self, s: Sleeper) -> None:
        self._remove(s.td)
        self._queues.setdefault(s.ident, []).append(s)
        s.td.sleeper = s

    @c("_tsleep_remove", "kern_synch.c:388-407")
    def _remove(self, td: Thread) -> None:
        """_tsleep_remove (kern_synch.c:389)."""
        s = td.sleeper
        if s is None:
            return
        td.sleeper = None
        queue = self._queues[s.ident]
        queue.remove(s)
        if not queue:
            del self._queues[s.ident]

    @c("tsleep_remove", "kern_synch.c:409-413")
    def tsleep_remove(self, td: Thread) -> None:
        """tsleep_remove (kern_synch.c:410).

        Take *td* off the queue that an interlock has put it on.
        """
        with self._guard:
            self._remove(td)

    # -- sleeping

    @c("tsleep_interlock", "kern_synch.c:378-382")
    @holds("", "on the queue of ident")
    def tsleep_interlock(self, ident: Any, flags: int = 0, *, step: bool = True) -> None:
        """tsleep_interlock (kern_synch.c:379): join the queue of *ident* without sleeping yet.

        A thread is on at most one queue.  Does not block; any lock may be held.  *step*, here
        and below: it is a step of its own, not part of the one that the caller has announced.
        """
        k = self.k
        td = k.curthread()
        if step and (p := k.point) is not None:
            p(SLEEP, ident, "interlock")
        with self._guard:
            self._enqueue(Sleeper(td, ident, flags))
        if (f := k.probe.sleep_interlock) is not None:
            f(td, ident)

    @c("tsleep", "kern_synch.c:435-714", blocks=True)
    @holds(
        "no spinlock; interlocked if PINTERLOCKED",
        "no spinlock; interlocked if PINTERLOCKED (tokens released while asleep)",
    )
    def tsleep(
        self,
        ident: Any,
        flags: int,
        wmesg: str,
        timo: int,
        cond: Callable[[], bool] | None = None,
        *,
        step: bool = True,
    ) -> int:
        """tsleep (kern_synch.c:436).

        Sleep until wakeup(*ident*), at most *timo* ticks (0: no limit).

        Blocks.  No spinlock may be held (Misuse); tokens are released while asleep and reacquired
        before return.  *cond* lets a checker test whether the awaited condition already holds.
        Returns 0, EWOULDBLOCK on timeout, or EINTR (PCATCH and a kill signal).
        """
        k = self.k
        td = k.curthread()
        if td.spins:
            k.misuse("sleep-with-spinlock", f"{td} sleeps ({wmesg}) with {td.spins[-1]} held")
        if ident is None:
            k.panic("sleep-no-ident", wmesg)
        catch = flags & PCATCH and td.lwp_token is not None
        interlocked = flags & PINTERLOCKED
        if step and (p := k.point) is not None and not (catch and interlocked):
            p(
                SLEEP, ident, HOLDING if td.toks else ""
            )  # before the queue changes: a wakeup may come before or after that
        s = td.sleeper
        if not interlocked:
            with self._guard:
                self._enqueue(Sleeper(td, ident, flags))
        elif s is not None and s.ident != ident:
            k.misuse("sleep-interlock", f"{td} interlocked {s.ident}, sleeps on {ident}")
        sleep = partial(self._sleep, td, ident, flags, wmesg, timo, cond)
        error = self._catching(td, ident, sleep) if catch else sleep()
        if (f := k.probe.sleep_done) is not None:
            f(td, ident, wmesg, error == EWOULDBLOCK)
        return error

    @c("tsleep", "kern_synch.c:515-556,690-709", part=True, blocks=True)
    @holds("on the queue of ident; no spinlock", "off the queue")
    def _catching(self, td: Thread, ident: Any, sleep: Callable[[], int]) -> int:
        """The sleep of a process with PCATCH (kern_synch.c:515-556, :688-709).

        lwp_token is held except while asleep: a kill comes either before the test here, or it finds
        LWP_SINTR set.  A killed thread leaves the queue; in the C it stays there until its next
        sleep, and a wakeup that picks it there wakes nobody.
        """
        k = self.k
        token = td.lwp_token
        assert token is not None
        token.get()
        killed = self.signalled(td)
        if (p := k.point) is not None:
            p(SLEEP, ident, HOLDING)
        if killed:
            self.tsleep_remove(td)
            error = EINTR
        else:
            td.sintr = td.sleeper
            error = sleep()
            td.sintr = None
            if not error and self.signalled(td):
                error = EINTR
        token.release()
        return error

    @c("tsleep", "kern_synch.c:584-684", part=True, blocks=True)
    @holds("on the queue of ident; no spinlock", "off the queue")
    def _sleep(
        self,
        td: Thread,
        ident: Any,
        flags: int,
        wmesg: str,
        timo: int,
        cond: Callable[[], bool] | None,
    ) -> int:
        k = self.k
        with self._guard:
            s = td.sleeper
            if s is None:
                return 0  # a wakeup came between the interlock and here
            s.wmesg, s.timo, s.cond = wmesg, timo, cond
            s.flags |= flags
            s.since = k.carrier.ticks()
            s.asleep = True
        td.wchan, td.wmesg = ident, wmesg
        td.hit("v_swtch")
        if (f := k.probe.sleep) is not None:
            f(td, ident, wmesg, timo, cond)
        if td.toks:
            k.token.drop_all(td)
        timed_out = self._wait(td, s)
        td.wchan, td.wmesg = None, ""
        if td.toks:
            k.token.regain_all(td)
        return EWOULDBLOCK if timed_out else 0

    @c("tsleep", "kern_synch.c:605-672", part=True, blocks=True)
    @holds("on the queue; no token, no spinlock", "off the queue")
    def _wait(self, td: Thread, s: Sleeper) -> bool:
        """Park until a wakeup removes *s* from its queue; True on timeout."""
        carrier = self.k.carrier
        if self.early is not None and self.early():
            self._ends_early(td, s)
            return False
        end = s.since + s.timo if s.timo else None
        while td.sleeper is s:
            left = None if end is None else end - carrier.ticks()
            if (left is None or left > 0) and carrier.park(left):
                continue
            if left is None:
                continue  # a spurious return
            with self._guard:
                if td.sleeper is not s:
                    return False  # the wakeup came first
                self._remove(td)
                return True
        return False

    @own
    def _ends_early(self, td: Thread, s: Sleeper) -> None:
        """Nobody has to wake the thread; a wakeup may still come first."""
        if (p := self.k.point) is not None:
            p(SLEEP, s.ident, "early")
        with self._guard:
            if td.sleeper is s:
                self._remove(td)

    @c("CURSIG", "signal2.h:70")
    @c("__cursig", "signal2.h:84-112")
    def signalled(self, td: Thread) -> bool:
        """CURSIG (signal2.h:85): has the thread's process been killed?  No lock needed."""
        return td.proc is not None and td.proc.killed

    # -- waking

    @c("wakeup", "kern_synch.c:974-998")
    @c("_wakeup", "kern_synch.c:908-969")
    def wakeup(
        self, ident: Any, first: Callable[[], object] | None = None, *, step: bool = True
    ) -> None:
        """wakeup (kern_synch.c:975).

        Wake every sleeper on *ident*; not remembered for later sleepers.

        *first* is called in the same step, before anybody is woken.  Does not block; any lock may
        be held.
        """
        k = self.k
        if step and (p := k.point) is not None:
            p(WAKEUP, ident)
        if first is not None:
            first()
        with self._guard:
            queue = self._queues.pop(ident, None)
            woken = queue or []
            for s in woken:
                s.td.sleeper = None
        if step and not woken and first is None and k.point is not None:
            k.carrier.in_vain()
        if (f := k.probe.wakeup) is not None:
            f(k.curthread(), ident, [s.td for s in woken])
        self._run(woken)

    @c("wakeup_one", "kern_synch.c:1003-1009", uncalled=True)
    @c("_wakeup", "kern_synch.c:908-969")
    def wakeup_one(self, ident: Any) -> None:
        """wakeup_one (kern_synch.c:1004): wake one sleeper of this CPU, else one of each other CPU.

        The C asks all other CPUs at once, so each of them may wake one.
        """
        k = self.k
        if (p := k.point) is not None:
            p(WAKEUP, ident)
        td = k.curthread()
        woken: list[Sleeper] = []
        with self._guard:
            queue = list(self._queues.get(ident, ()))
            done = self._wake_first([s for s in queue if s.td.cpu == td.cpu], woken)
            if not done:
                for cpu in sorted({s.td.cpu for s in queue} - {td.cpu}):
                    self._wake_first([s for s in queue if s.td.cpu == cpu], woken)
        if not woken and k.point is not None:
            k.carrier.in_vain()
        if (f := k.probe.wakeup) is not None:
            f(td, ident, [s.td for s in woken])
        self._run(woken)

    @c("_wakeup", "kern_synch.c:924-939", part=True)
    def _wake_first(self, queue: list[Sleeper], woken: list[Sleeper]) -> bool:
        """_wakeup with PWAKEUP_ONE on one CPU (kern_synch.c:909).

        Also dequeues interlocked threads.  With ``pick`` any of those who sleep may be the one.
        """
        asleep = [s for s in queue if s.asleep]
        if self.pick is not None and len(asleep) > 1:
            one = asleep[self.pick(len(asleep))]
            queue = [*queue[: queue.index(asleep[0])], one]
        for s in queue:
            self._remove(s.td)
            woken.append(s)
            if s.asleep:
                return True
        return False

    @c("setrunnable", "kern_synch.c:1132-1149")
    @holds("lwp_token of td")
    def setrunnable(self, td: Thread) -> None:
        """setrunnable (kern_synch.c:1133): end a sleep of *td* that uses PCATCH.

        The caller holds the lwp_token of *td*.  Does not block.
        """
        s = td.sintr
        if s is None:
            return
        if (p := self.k.point) is not None:
            p(WAKEUP, s.ident)
        with self._guard:
            if td.sleeper is not s:
                return  # it has been woken already, but has not run yet
            self._remove(td)
        self._run([s])

    @c("_wakeup", "kern_synch.c:932-933", part=True)
    def _run(self, woken: list[Sleeper]) -> None:
        if woken and (drain := self.k.drain) is not None:
            drain()  # the message to the other CPU is sent by locked instructions
        unpark = self.k.carrier.unpark
        for s in woken:
            if s.asleep:
                unpark(s.td)

    # -- for reports and checkers

    @own
    def sleepers(self) -> list[Sleeper]:
        """All sleeping threads' entries, in the order of their threads."""
        found = [td.sleeper for td in self.k.live_threads()]
        return [s for s in found if s is not None and s.asleep]

    @own
    def waiting_on(self, ident: Any) -> list[Thread]:
        """The threads on *ident*'s queue in order of arrival, including interlocked ones."""
        with self._guard:
            return [s.td for s in self._queues.get(ident, ())]
