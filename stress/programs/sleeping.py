"""Condition variables, semaphores, sleeps: the classic programs, right and with mistakes."""

from smpvm import Scenario

USUAL = "the usual mistake"
ANDREWS = "Andrews: Concurrent programming, 1991"


class BoundedBuffer(Scenario):
    "Two condition variables, and each waits in a loop."

    source = "Hoare: Monitors, 1974; Lampson, Redell: Experience with processes and monitors, 1980"
    expect = ""
    loops = True
    broadcasts = False
    pairs = 2

    def setup(self):
        self.l, self.m = self.spinlock("l"), self.shared(n=0)
        self.some, self.room = self.condvar("some"), self.condvar("room")
        for i in range(self.pairs):
            self.thread(f"put{i}", self.put)
            self.thread(f"take{i}", self.take)

    def until(self, condvar, true):
        if self.loops:
            while not true():
                condvar.wait(self.l, cond=true)
        elif not true():
            condvar.wait(self.l, cond=true)

    def tell(self, condvar):
        if self.broadcasts:
            condvar.broadcast()
        else:
            condvar.signal()

    def put(self):
        self.l.lock()
        self.until(self.room, lambda: self.m.n == 0)
        self.m.n = self.m.n + 1
        self.tell(self.some)
        self.l.unlock()

    def take(self):
        self.l.lock()
        self.until(self.some, lambda: self.m.n > 0)
        assert self.m.n > 0, "nothing is there to take"
        self.m.n = self.m.n - 1
        self.tell(self.room)
        self.l.unlock()


class BoundedBufferIf(BoundedBuffer):
    "Waits with if: another may take what was signalled."

    source = USUAL + " (Lampson, Redell 1980: a signal is a hint)"
    expect = "assertion"
    loops = False


class OneCondvar(BoundedBuffer):
    "One condition variable for both, and signal: it may wake the wrong one."

    source = "Extreme Programming challenge 14 (Buhr's bounded buffer), 2005"
    expect = "lost-wakeup/stall"

    def setup(self):
        super().setup()
        self.room = self.some


class OneCondvarBroadcast(OneCondvar):
    "The same with broadcast."

    source = "the repair of it"
    expect = ""
    broadcasts = True


class CheckThenSleep(Scenario):
    "Looks, then sleeps: the wakeup comes in between."

    source = USUAL
    expect = "lost-wakeup"
    interlocks = False

    def setup(self):
        self.m = self.shared(benign={"ready": "looked at without lock"}, ready=0)
        self.thread("sleeper", self.sleep)
        self.thread("waker", self.wake)

    def sleep(self):
        if self.interlocks:
            self.tsleep_interlock("x")
        if not self.m.ready:
            flags = self.INTERLOCKED if self.interlocks else 0
            self.tsleep("x", cond=lambda: self.m.ready, flags=flags)

    def wake(self):
        self.m.ready = 1
        self.wakeup("x")


class Interlocked(CheckThenSleep):
    "The same with the interlock."

    source = "tsleep(9)"
    expect = ""
    interlocks = True


class WakeFirst(CheckThenSleep):
    "Wakes, then says why."

    source = USUAL
    interlocks = True

    def wake(self):
        self.wakeup("x")
        self.m.ready = 1


class SignalUnseen(Scenario):
    "Waits for a signal, not for a condition: it may have come before."

    source = USUAL
    expect = "stall/lost-wakeup"

    def setup(self):
        self.l, self.cv = self.spinlock("l"), self.condvar("cv")
        self.thread("waiter", self.wait)
        self.thread("signaller", self.cv.signal)

    def wait(self):
        self.l.lock()
        self.cv.wait(self.l)
        self.l.unlock()


class OneForTwo(Scenario):
    "Two wait for a flag, one signal comes."

    source = USUAL
    expect = "lost-wakeup"
    all_ = False

    def setup(self):
        self.l, self.cv, self.m = self.spinlock("l"), self.condvar("cv"), self.shared(go=0)
        for name in "ab":
            self.thread(name, self.wait)
        self.thread("starter", self.start)

    def wait(self):
        self.l.lock()
        while not self.m.go:
            self.cv.wait(self.l, cond=lambda: self.m.go)
        self.l.unlock()

    def start(self):
        self.l.lock()
        self.m.go = 1
        self.l.unlock()
        if self.all_:
            self.cv.broadcast()
        else:
            self.cv.signal()


class AllForTwo(OneForTwo):
    "The same with broadcast."

    source = "the repair of it"
    expect = ""
    all_ = True


class NestedMonitor(Scenario):
    "Waits in an inner monitor with the outer one held, which the signaller needs."

    source = "Lister: The problem of nested monitor calls, 1977"
    expect = "stall/deadlock/lost-wakeup"

    def setup(self):
        self.outer, self.inner = self.lock("outer"), self.lock("inner")
        self.cv, self.m = self.condvar("cv"), self.shared(ready=0)
        self.thread("waiter", self.wait)
        self.thread("setter", self.set)

    def wait(self):
        self.outer.lock()
        self.inner.lock()
        while not self.m.ready:
            self.cv.wait(self.inner, cond=lambda: self.m.ready)
        self.inner.unlock()
        self.outer.unlock()

    def set(self):
        self.outer.lock()
        self.inner.lock()
        self.m.ready = 1
        self.cv.signal()
        self.inner.unlock()
        self.outer.unlock()


class MutexThenSemaphore(Scenario):
    "The consumer waits for an item with the mutex held, without which no item comes."

    source = ANDREWS + "; " + USUAL
    expect = "stall/deadlock"
    first = True

    def setup(self):
        self.l, self.items = self.lock("l"), self.semaphore("items", 0)
        self.thread("producer", self.produce)
        self.thread("consumer", self.consume)

    def produce(self):
        self.l.lock()
        self.items.release()
        self.l.unlock()

    def consume(self):
        if self.first:
            self.l.lock()
        self.items.acquire()
        if not self.first:
            self.l.lock()
        self.l.unlock()


class SemaphoreThenMutex(MutexThenSemaphore):
    "The other way round."

    source = "Dijkstra 1965"
    expect = ""
    first = False
