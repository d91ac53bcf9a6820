"""The serial carrier: one thread runs at a time, and the scheduler decides every switch.

The schedule point comes before the operation, so that at each decision the next operation of every
thread is known (``SerialThread.op``).  The *log* is what has been executed: one ``Op`` per step, in
order.  Time is virtual: when no thread can run, it advances to the earliest timer.

A thread that spins is not runnable until something that it read has been written by another; a
thread with a pending acquire is not runnable while its ``ready()`` is false.  So an execution ends
when all threads have ended, or it is *stuck*: no thread can run, and no timer will change that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smpvm.host.carrier import ACQUIRE_SHARED, READ, WRITE, YIELD, Access, Carried, Peek, Stopped
from smpvm.host.deciding import Deciding
from smpvm.host.runnable import Runnable
from smpvm.host.serialthread import (
    AWAIT,
    CLOCK,
    RESUME,
    TIMER,
    Change,
    Ending,
    Op,
    Scheduler,
    SerialThread,
    unchanged,
)
from smpvm.host.switcher import make_switcher
from smpvm.host.virtualtime import VirtualTime


class SerialCarrier(Deciding):
    """Runs the threads of one machine, one at a time.  A carrier is used for one execution.

    *limit* is the number of steps after which *fair* replaces the scheduler, which may be unfair;
    if the execution has not ended after as many steps again, it is a livelock (``livelock``).
    Without *fair* it is abandoned at the limit (``limit``).
    """

    serial = True
    tick = 0.0

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        access_points: bool = True,
        switcher: str = "auto",
        limit: int = 100_000,
        fair: Scheduler | None = None,
    ) -> None:
        super().__init__(access_points)
        self.stopping = False
        self.inert = True
        """True while the boot thread runs alone (set-up, audit): points do nothing."""
        self.errors: list[tuple[Carried, BaseException]] = []
        self.stuck = Ending.ENDED
        """Why the execution ended."""
        self.on_block: Callable[[Any, Any, str, int], None] | None = None
        """Called once for each acquire that must wait: thread, lock, mode, 0 (no timeout)."""
        self.on_idle: Callable[[], object] | None = None
        """Called when no thread can run, before time advances."""
        self.on_rest: Callable[[], None] | None = None
        """Called in the boot thread when all but the daemons have ended, before these are ended."""
        self.on_stuck: Callable[[], None] | None = None
        """Called in the boot thread when the run is stuck, before the threads are ended."""
        self.threads: list[SerialThread] = []
        self.left: list[tuple[Op, bool]] = []
        """The pending operations of the threads that had not ended, each with whether it had to
        wait for ``ready``."""
        self.failed = False
        """A failure of one thread ended the execution before the others had ended."""
        self.steps_before_fair: int | None = None
        self._choose = scheduler.choose
        self._every = scheduler.every
        self._fair = fair
        self._limit = limit
        self._span = limit
        self._switcher = make_switcher(switcher)
        self._able = Runnable(self)
        self._time = VirtualTime()
        self.boot: SerialThread
        """The thread that runs the set-up, then waits."""
        self._me: SerialThread

    # -- threads

    def adopt(self, td: Carried) -> None:
        """The boot thread: it runs the set-up, then waits in ``join`` while the others run."""
        boot = SerialThread(td)
        boot.started = True
        boot.go = self._switcher.here()
        td.carrier_data = boot
        self.boot = self._me = boot

    def spawn(self, td: Carried) -> None:
        """*td* is runnable from now on; it starts when the scheduler chooses it."""
        thread = SerialThread(td)
        td.carrier_data = thread
        thread.cause = len(self.log) - 1
        thread.go = self._switcher.make(lambda: self._body(thread))
        self.threads.append(thread)
        self._able.enable(thread)

    def _body(self, me: SerialThread) -> None:
        me.started = True
        try:
            if not self.stopping:
                self._step(me)
                me.td.main()
        except Stopped:
            pass
        except BaseException as error:
            self.errors.append((me.td, error))
            self.stop()
        me.done = True
        if me.runnable:
            self._able.disable(me)
        self._next = None if self.stopping else self._pick(None)

    def set_daemon(self, td: Carried) -> None:
        """*td* need not end for the execution to be over."""
        thread: SerialThread = td.carrier_data
        thread.daemon = True
        self._time.daemons.add(td.tid)

    def current(self) -> Carried:
        """The running thread."""
        return self._me.td

    # -- the schedule point

    def point(
        self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
    ) -> None:
        """Announce the operation, let the scheduler choose, and return when chosen."""
        me = self._me
        if self.inert:
            self._inert_point(me, ready)
            return
        op = me.op = (me.tid, kind, obj, field)
        able = self._able
        if ready is not None:
            self._wait_ready(me, ready)
        elif able.slow:
            nxt = self._pick(me)
            if nxt is not me:
                self._switch(nxt)
        elif self._every or len(able.threads) > 1:
            nxt = self._choose(able.threads, me)
            if nxt is not me:
                if nxt is None:
                    self.stuck = Ending.CUT
                    nxt = self.boot
                self._me = nxt
                nxt.go()
                if self.stopping:
                    raise Stopped
        log = self.log
        log.append(op)
        if len(log) >= self._limit:
            self._over(me)

    def access_points_of(self, kind: str, seen: Access | None, peek: Peek) -> Access:
        """The function called before plain accesses of one kind: ``point``, then *seen*.

        *peek* reads the field without an access event.

        The common case is written inline: accesses are very frequent.
        """
        able, log, point = self._able, self.log, self.point
        runnable, watching = able.threads, able.watching
        writes = kind == WRITE

        def access(obj: Any, field: str, new: object = None) -> None:
            me = self._me
            if self.inert:
                if self.stopping and me is not self.boot:
                    raise Stopped
                return
            if able.slow or not (self._every or len(runnable) > 1):
                point(kind, obj, field)
            else:
                op = me.op = (me.tid, kind, obj, field)
                nxt = self._choose(runnable, me)
                if nxt is not me:
                    if nxt is None:
                        self.stuck = Ending.CUT
                        nxt = self.boot
                    self._me = nxt
                    nxt.go()
                    if self.stopping:
                        raise Stopped
                log.append(op)
                if len(log) >= self._limit:
                    self._over(me)
            if seen is not None:
                seen(obj, field, new, me.td)
            if writes and watching:
                if peek(obj, field) == new:
                    self.idle.add(len(log) - 1)
                else:
                    able.wake(len(log) - 1, obj)

        return access

    def _wait_ready(self, me: SerialThread, ready: Callable[[], bool]) -> None:
        """The point of an acquire: returns when the thread is chosen and ``ready()`` is true."""
        me.ready = ready
        able, nxt = self._able, None
        if not able.slow and ready():  # the usual case: no other thread waits
            several = self._every or len(able.threads) > 1
            nxt = self._choose(able.threads, me) if several else me
            if nxt is me:
                me.ready = None
                self.gates.append(len(self.log))
                return
            if nxt is None:
                self.stuck = Ending.CUT
                nxt = self.boot
        able.gate(me, ready)
        while True:
            nxt = nxt or self._pick(me)
            if nxt is not me:
                self._switch(nxt)
            nxt = None
            if not me.tell:
                break
            me.tell = False
            if self.on_block is not None:
                _, kind, lock, _ = me.op
                self.on_block(me.td, lock, "shared" if kind == ACQUIRE_SHARED else "excl", 0)
                if self.stopping:
                    raise Stopped
        self._able.ungate(me, ready)
        me.ready = None
        me.blocked = False
        self.gates.append(len(self.log))

    def _inert_point(self, me: SerialThread, ready: Callable[[], bool] | None) -> None:
        if me is not self.boot:
            if self.stopping:
                raise Stopped
        elif ready is not None and not ready():
            raise RuntimeError("the boot thread waits for a lock that no thread will release")

    def _step(self, me: SerialThread) -> None:
        """Log the pending operation of *me* as executed, with the step that enabled it."""
        if me.cause >= 0:
            self.causes[len(self.log)] = me.cause
            me.cause = CLOCK
        self.log.append(me.op)
        if len(self.log) >= self._limit:
            self._over(me)

    def _switch(self, nxt: SerialThread | None) -> None:
        """Pass control to *nxt* (None: the boot thread); returns when control comes back."""
        self._me = nxt = nxt or self.boot
        nxt.go()
        if self.stopping:
            raise Stopped

    def _pick(self, current: SerialThread | None) -> SerialThread | None:
        """The next thread to run; None when the execution is over."""
        able = self._able
        runnable = able.threads
        while True:
            if able.slow:
                able.ask()
                if (teller := able.to_tell()) is not None:
                    return teller
            if runnable:
                break
            if not self._advance():
                return None
        if len(runnable) == 1 and not self._every:
            return runnable[0]
        if current is not None and not current.runnable:
            current = None
        nxt = self._choose(runnable, current)
        if nxt is None:
            self.stuck = Ending.CUT
        return nxt

    # -- the end of a turn

    def _advance(self) -> bool:
        """No thread can run: advance time to the earliest timer.  False: the execution is over."""
        waiting = [s for s in self.threads if not s.done]
        wanted = [s for s in waiting if not s.daemon]
        if not wanted and not self.boot.parked:
            return False
        now = self._time.next((*waiting, self.boot), self.log)
        if now is None:
            self.stuck = Ending.STUCK
            return False
        if self.on_idle is not None:
            self.on_idle()
        self._time.move(now, self.log)
        self.log.append((CLOCK, TIMER, None, ""))
        for thread in (*waiting, self.boot):
            if thread.deadline is not None and thread.deadline <= now:
                thread.deadline = None
                thread.cause = len(self.log) - 1
                ident = getattr(thread.td, "wchan", None)
                thread.op = (thread.tid, RESUME, thread.td if ident is None else ident, "")
                self._able.enable(thread)
        return True

    def _over(self, me: SerialThread) -> None:
        if self._fair is not None and self.steps_before_fair is None:
            self.steps_before_fair = len(self.log)
            self._choose = self._fair.choose
            self._every = self._fair.every
            self._limit = len(self.log) + self._span
            return
        self.stuck = Ending.LIMIT if self._fair is None else Ending.LIVELOCK
        if me is self.boot:
            raise Stopped
        self._switch(None)

    # -- waiting

    def park(self, timeout: int | None) -> bool:
        """Not runnable until ``unpark`` or *timeout* ticks from now."""
        me = self._me
        if self.stopping:
            raise Stopped
        if me.permit:
            me.permit = False
            return True
        me.op = (me.tid, RESUME, me.td, "")
        me.parked = True
        if timeout is not None:
            me.deadline = self._time.now + max(timeout, 1)
        if me is self.boot:
            self._run()
            if not me.runnable:
                raise Stopped
        else:
            self._able.disable(me)
            nxt = self._pick(None)
            if nxt is not me:
                self._switch(nxt)
        me.parked = False
        if me is self.boot:
            self._able.disable(me)
            self.inert = True
        self._step(me)
        woken, me.permit = me.permit, False
        me.deadline = None
        return woken

    def unpark(self, td: Carried) -> None:
        """Let *td* return from ``park``; one is remembered."""
        thread: SerialThread = td.carrier_data
        if thread.permit:
            return
        thread.permit = True
        if thread.parked and not thread.runnable:
            thread.deadline = None
            thread.cause = len(self.log) - 1
            self._able.enable(thread)

    def relax(self, *watched: object) -> None:
        """Not runnable until another thread writes something that this one read of *watched*."""
        me = self._me
        if self.inert:
            if me is self.boot and not self.stopping:
                raise RuntimeError("the boot thread spins on a value that no thread will change")
            raise Stopped
        me.watched, since = self.looks(me, watched)
        me.op = (me.tid, AWAIT, me.watched, "")
        me.cause = self.touched_since(me, since)
        if me.cause < 0:
            self._able.disable(me)
            self._able.watch(me)
        nxt = self._pick(me)
        if nxt is not me:
            self._switch(nxt)
        self._step(me)
        me.looked = len(self.log)

    def updates(self, value: Callable[[], Any], op: Change) -> None:
        """The effect of the atomic that the thread is about to announce."""
        self._me.update = (value, op)

    def updated(self, obj: object, old: Any, op: Change) -> None:
        """The atomic has been executed; if it changed nothing, it is logged as a read."""
        me = self._me
        me.update = None
        if self.inert:
            return
        at = len(self.log) - 1
        self.updates_at[at] = (old, op)
        if unchanged(old, op):
            self.log[at] = (me.tid, READ, obj, self.log[at][3])
        else:
            self.touched(obj)

    def in_vain(self) -> None:
        """The running step is a wakeup that found no thread to wake."""
        if not self.inert:
            self.vain.add(len(self.log) - 1)

    def touched(self, obj: object) -> None:
        """The current step writes *obj*: threads that wait for that can run again."""
        if self.inert:
            return
        at = len(self.log) - 1
        self.touches.append((at, obj))
        self._able.wake(at, obj)

    def yield_(self) -> None:
        """A schedule point that accesses nothing."""
        if self.stopping:
            raise Stopped
        self.point(YIELD, self._me.td)

    def slice_over(self) -> bool:
        """Every yield is a decision of the scheduler."""
        return True

    # -- time and the end

    def ticks(self) -> int:
        """Virtual ticks since boot."""
        return self._time.now

    def stop(self) -> None:
        """Stop the run: the threads are unwound when control returns to the boot thread."""
        self.stopping = True
        self.inert = True

    _next: SerialThread | None = None

    def _run(self) -> None:
        """In the boot thread: run the others until the execution is over or boot can continue."""
        self.inert = False
        self._able.tells = self.on_block is not None
        self._able.ask_all()
        self._next = self._pick(None)
        while (nxt := self._next) is not None and nxt is not self.boot:
            self._next = None
            self._me = nxt
            nxt.go()
            if self.boot.runnable and self._me is self.boot:
                break
        self._me = self.boot
        self.inert = True

    def join(self, timeout: float | None = None) -> list[Carried]:
        """Run until every thread has ended or the run is stuck; unwind those that did not end.

        Returns the threads that had not ended (daemons apart).
        """
        if not self.stopping:
            self._run()
        left = [s.td for s in self.threads if not s.done and not s.daemon]
        ended = self.on_stuck if self.stuck else self.on_rest
        if ended is not None and not self.stopping and self.stuck not in (Ending.CUT, Ending.LIMIT):
            ended()
        self.unwind()
        return left

    def forget(self) -> None:
        """Break the reference cycles, so that the carrier is freed without the garbage collector.
        It cannot be used afterwards."""
        for thread in (*self.threads, self.boot):
            thread.td.forget()
        vars(self).clear()

    def unwind(self) -> None:
        """Raise Stopped in every thread that has not ended, and release the host contexts."""
        self.failed = self.stopping and any(not s.done for s in self.threads)
        self.stop()
        self.left = [(s.op, s.ready is not None) for s in self.threads if not s.done]
        for thread in self.threads:
            if thread.started and not thread.done:
                self._me = thread
                thread.go()
        self._me = self.boot
        self._switcher.close()
