"""What has deceived smpvm, or could: the kinds of issue 13, each small."""

import random

from smpvm import Scenario

ISSUE = "issue 13"


class AtomicPlainStore(Scenario):
    "An atomic OR against a plain store: the request is lost."

    source = ISSUE + " (an atomic against a plain write is a race)"
    expect = "race assertion"

    def setup(self):
        self.s = self.shared(req=0)
        self.thread("ask", self.atomic.set_int, self.s, "req", 1)
        self.thread("take", self.take)

    def take(self):
        if self.s.req == 0:
            self.s.req = 0

    def check(self):
        assert self.s.req == 1, "the request is lost"


class AtomicPlainAdd(AtomicPlainStore):
    "An atomic addition against a plain one."

    def setup(self):
        self.s = self.shared(n=0)
        self.thread("atomic", self.atomic.add_int, self.s, "n", 1)
        self.thread("plain", self.add)

    def add(self):
        self.s.n = self.s.n + 1

    def check(self):
        assert self.s.n == 2, "an update is lost"


class AtomicStoreOnly(AtomicPlainStore):
    "A plain store of a constant against an atomic addition: a race, if no assertion."

    expect = "race"

    def setup(self):
        self.s = self.shared(n=0)
        self.thread("atomic", self.atomic.add_int, self.s, "n", 1)
        self.thread("plain", self.put)

    def put(self):
        self.s.n = 5

    def check(self):
        assert self.s.n in (5, 6)


class AtomicPlainRead(AtomicStoreOnly):
    "A plain read of what changes atomically, not declared."

    source = ISSUE + " (... against a plain read only where the field is not declared)"

    def put(self):
        assert self.s.n in (0, 1)

    def check(self):
        assert self.s.n == 1


class AtomicReadDeclared(AtomicPlainRead):
    "The same, declared: 2 classes."

    expect = ""
    classes = 2

    def setup(self):
        self.s = self.shared(benign={"n": "read without lock: any value will do"}, n=0)
        self.thread("atomic", self.atomic.add_int, self.s, "n", 1)
        self.thread("plain", self.put)


class AtomicOnly(AtomicStoreOnly):
    "Two atomic additions: no race, 2 classes."

    expect = ""
    classes = 2

    def setup(self):
        self.s = self.shared(n=0)
        for name in "ab":
            self.thread(name, self.atomic.add_int, self.s, "n", 1)

    def check(self):
        assert self.s.n == 2


class LongRun(Scenario):
    "Two threads, 25,000 writes each to a field of its own: it ends."

    source = ISSUE + " (livelock, and exit 1)"
    expect = ""
    schedules = 2

    def setup(self):
        self.s = self.shared(a=0, b=0)
        for field in "ab":
            self.thread(field, self.run, field)

    def run(self, field):
        for i in range(25_000):
            setattr(self.s, field, i)


class SpinBare(Scenario):
    "A spin without relax, in a program whose flag comes first."

    source = ISSUE + " (blames chance)"
    expect = "assertion/race"
    also = "assertion race"
    schedules = 20
    first = "flag"

    def setup(self):
        self.make()
        self.thread("reader", self.read)
        self.thread("writer", self.write)

    def make(self):
        self.s = self.shared(data=0, flag=0)

    def read(self):
        while not self.s.flag:
            pass
        assert self.s.data == 1, "flag before data"

    def write(self):
        setattr(self.s, self.first, 1)
        setattr(self.s, "data" if self.first == "flag" else "flag", 1)


class SpinBareOk(SpinBare):
    "The same with the data first: it ends under any fair scheduler, and nobody is to be accused."

    expect = also = ""
    first = "data"

    def make(self):
        why = {"data": "published by the flag", "flag": "the flag"}
        self.s = self.shared(benign=why, data=0, flag=0)


class RelaxNothing(Scenario):
    "relax() without what to watch."

    source = ISSUE
    expect = "refused"

    def setup(self):
        self.s = self.shared(flag=0)
        self.thread("r", self.spin)

    def spin(self):
        while not self.s.flag:
            self.relax()


class GeneratorBody(RelaxNothing):
    "A body that is a generator: nothing would run."

    def spin(self):
        yield self.s.flag


class NoThread(RelaxNothing):
    "No thread that must end."

    def setup(self):
        self.s = self.shared(flag=0)
        self.daemon("r", self.spin)


class CheckFalse(Scenario):
    "check returns False."

    source = ISSUE
    expect = "assertion"

    def setup(self):
        self.s = self.shared(n=0)
        self.thread("a", self.atomic.add_int, self.s, "n", 1)

    def check(self):
        return self.s.n == 99


class Chance(Scenario):
    "Rolls dice: the same schedule does not do the same."

    source = "docs/scenario.md, rule 3"
    expect = "unproven"
    seen = 0

    def setup(self):
        self.s = self.shared(benign={"n": "only its order matters"}, n=0)
        for name in "ab":
            self.thread(name, self.go)

    def go(self):
        for _ in range(random.randrange(4)):
            self.s.n = 1


class LeftBehind(Chance):
    "Does something else after the first execution."

    def go(self):
        type(self).seen += 1
        for _ in range(min(type(self).seen, 5)):
            self.s.n = 1


class OrderedClass(Scenario):
    "Two locks of one class, always in one order, which the program states."

    source = ISSUE + " (lock nesting); lockdep's subclasses"
    expect = ""

    def setup(self):
        self.make()
        for name in "xy":
            self.thread(name, self.both)

    def make(self):
        self.a = self.spinlock("row1", cls="row")
        self.b = self.spinlock("row2", cls="row", subclass=1)

    def both(self):
        self.a.lock()
        self.b.lock()
        self.b.unlock()
        self.a.unlock()


class UnderGate(OrderedClass):
    "Two locks of one class in either order, under a gate."

    source = ISSUE + " (lock nesting); lockdep's nest_lock"

    def make(self):
        self.gate = self.spinlock("gate")
        self.a = self.spinlock("row1", cls="row", under=self.gate)
        self.b = self.spinlock("row2", cls="row", under=self.gate)

    def setup(self):
        self.make()
        for name, pair in (("x", (self.a, self.b)), ("y", (self.b, self.a))):
            self.thread(name, self.gated, *pair)

    def gated(self, one, other):
        self.gate.lock()
        one.lock()
        other.lock()
        other.unlock()
        one.unlock()
        self.gate.unlock()


class NestedAcross(OrderedClass):
    "Two locks of one class, one in the other, with a token taken in between; no order is stated."

    source = ISSUE + " (nesting within one class)"
    expect = "lock-order"
    also = "deadlock"

    def setup(self):
        self.a, self.b = (self.lock(n, cls="row") for n in ("row1", "row2"))
        self.l = self.token("between")
        self.thread("x", self.three)

    def three(self):
        self.a.lock()
        self.l.get()
        self.b.lock()
        self.b.unlock()
        self.l.release()
        self.a.unlock()


class TimedDeadlock(Scenario):
    "Two locks in either order, one wait with a limit: only the timer breaks the ring."

    source = ISSUE + " (a deadlock that only a timer breaks)"
    expect = "masked-deadlock"
    also = "lock-order"

    def setup(self):
        self.a, self.b = self.lock("a"), self.lock("b")
        self.thread("x", self.plain)
        self.thread("y", self.timed)

    def plain(self):
        self.a.lock()
        self.b.lock()
        self.b.unlock()
        self.a.unlock()

    def timed(self):
        self.b.lock()
        if self.a.lock(timo=5):
            self.a.unlock()
        self.b.unlock()


class TimedWakeup(Scenario):
    "Looks, then sleeps with a limit: only the timer ends what the wakeup missed."

    source = "issue 13 (the masked lost wakeup)"
    expect = "masked-lost-wakeup"

    def setup(self):
        self.m = self.shared(benign={"ready": "looked at without lock"}, ready=0)
        self.thread("sleeper", self.sleep)
        self.thread("waker", self.wake)

    def sleep(self):
        if not self.m.ready:
            self.tsleep("x", timo=5, cond=lambda: self.m.ready)

    def wake(self):
        self.m.ready = 1
        self.wakeup("x")


class IfForWhile(Scenario):
    "A sleep with if: right unless sleeps may end early (--spurious)."

    source = ISSUE + " (spurious wakeups; none are asked for here)"
    expect = ""

    def setup(self):
        self.l, self.s = self.spinlock("l"), self.shared(ready=0)
        self.thread("waiter", self.wait)
        self.thread("setter", self.set)

    def wait(self):
        self.l.lock()
        if not self.s.ready:
            self.tsleep_interlock("cv")
            self.l.unlock()
            self.tsleep("cv", cond=lambda: self.s.ready, flags=self.INTERLOCKED)
            self.l.lock()
        assert self.s.ready
        self.l.unlock()

    def set(self):
        self.l.lock()
        self.s.ready = 1
        self.l.unlock()
        self.wakeup("cv")
