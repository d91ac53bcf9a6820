"""Locks, barriers, philosophers: the classic programs, right and with their mistakes."""

from smpvm import Scenario

USUAL = "the usual mistake"
ANDREWS = "Andrews: Concurrent programming, 1991"


class Philosophers(Scenario):
    "Three philosophers, left fork first: 2^3 - 1 classes, one of them the deadlock."

    source = "Dijkstra: Hierarchical ordering of sequential processes, 1971; classes derived"
    expect = "deadlock"
    also = "lock-order"
    classes = 7
    n = 3

    def setup(self):
        forks = [self.spinlock(f"fork {i}") for i in range(self.n)]
        for i in range(self.n):
            self.thread(f"p{i}", self.eat, *self.order(forks, i))

    def order(self, forks, i):
        return forks[i], forks[(i + 1) % self.n]

    def eat(self, one, other):
        one.lock()
        other.lock()
        other.unlock()
        one.unlock()


class PhilosophersOrdered(Philosophers):
    "The lower fork first: of the 2^3 orders the two rings cannot be."

    source = "Dijkstra 1971; classes derived"
    expect = also = ""
    classes = 6

    def order(self, forks, i):
        a, b = sorted((i, (i + 1) % self.n))
        return forks[a], forks[b]


class PhilosophersTwo(Philosophers):
    "Two of them: 3 classes."

    n = 2
    classes = 3


class PhilosophersTry(Philosophers):
    "Two who put the first fork back when the second is taken, and try again when it is free."

    source = ANDREWS + " (a try adds nothing to the lock order)"
    expect = also = ""
    n = 2
    classes = 0

    def eat(self, one, other):
        while True:
            one.lock()
            if other.trylock():
                break
            one.unlock()
            self.relax(other)
        other.unlock()
        one.unlock()


class Waiter(Scenario):
    """Two philosophers and one seat.

    The lock order is told, as lockdep would: nothing says that the semaphore is a gate.
    """

    source = "Dijkstra 1971 (the footman)"
    expect = ""
    also = "lock-order"
    schedules = 3000

    def setup(self):
        self.seats = self.semaphore("seats", 1)
        forks = [self.lock(f"fork {i}") for i in (0, 1)]
        self.thread("p0", self.eat, forks[0], forks[1])
        self.thread("p1", self.eat, forks[1], forks[0])

    def eat(self, one, other):
        self.seats.acquire()
        one.lock()
        other.lock()
        other.unlock()
        one.unlock()
        self.seats.release()


class Recursion(Scenario):
    "Takes a lock that it has."

    source = USUAL
    expect = "recursion"

    def setup(self):
        self.l = self.lock("l")
        self.thread("a", self.go)

    def go(self):
        self.l.lock()
        self.l.lock()


class WriteWhileReading(Recursion):
    "Asks to write with the lock held for reading: waits for itself."

    expect = "recursion/deadlock"

    def setup(self):
        self.l = self.rwlock("l")
        self.thread("a", self.go)

    def go(self):
        self.l.read()
        self.l.write()


class Upgrade(Scenario):
    "Reads, upgrades, and writes what it read: of two one lets the other write in between."

    source = USUAL
    expect = "assertion"
    again = False

    def setup(self):
        self.l, self.m = self.rwlock("l"), self.shared(n=0)
        for name in "ab":
            self.thread(name, self.add)

    def add(self):
        self.l.read()
        n = self.m.n
        self.l.upgrade()
        if self.again:
            n = self.m.n
        self.m.n = n + 1
        self.l.release()

    def check(self):
        assert self.m.n == 2, "an update is lost"


class UpgradeAgain(Upgrade):
    "Looks again after the upgrade."

    source = "the repair of it"
    expect = ""
    again = True


class TokenSleep(Scenario):
    "A token is given up in a sleep."

    source = "DragonFly token(9)"
    expect = "assertion"

    def setup(self):
        self.t, self.m = self.token("t"), self.shared(n=0)
        for name in "ab":
            self.thread(name, self.add)

    def add(self):
        self.t.get()
        n = self.m.n
        self.tsleep("x", timo=1)
        self.m.n = n + 1
        self.t.release()

    def check(self):
        assert self.m.n == 2, "an update is lost"


class SleepHolding(Scenario):
    "Sleeps with a spinlock held."

    source = USUAL
    expect = "sleep-with-spinlock"

    def setup(self):
        self.l = self.spinlock("l")
        self.thread("a", self.go)

    def go(self):
        self.l.lock()
        self.tsleep("x", timo=1)
        self.l.unlock()


class BarrierReused(Scenario):
    "A counter for a barrier, used again before all have left it."

    source = "Hensgen, Finkel, Manber: Two algorithms for barrier synchronization, 1988"
    expect = "livelock"
    senses = False

    def setup(self):
        fields = dict.fromkeys(("count", "sense"), "each access is atomic in the original")
        self.b = self.shared(benign=fields, count=0, sense=0)
        for name in "ab":
            self.thread(name, self.go)

    def go(self):
        for sense in (1, 0):
            self.wait(sense)

    def wait(self, sense):
        if self.atomic.fetchadd_int(self.b, "count", 1) == 1:
            self.b.count = 0
            self.b.sense = sense
            return
        while self.b.sense != sense if self.senses else self.b.count:
            self.relax(self.b)


class BarrierSense(BarrierReused):
    "The same with a sense that turns."

    source = "Hensgen, Finkel, Manber 1988"
    expect = ""
    senses = True


class BarrierPhases(Scenario):
    "Two phases of two threads with a barrier in between."

    source = "textbook"
    expect = ""

    def setup(self):
        self.b, self.done = self.barrier("b", 2), self.array(2, 0)
        for i in (0, 1):
            self.thread(f"t{i}", self.go, i)

    def go(self, i):
        self.done[i] = 1
        self.b.wait()
        assert self.done[1 - i], "the other's phase is not over"


class DoubleChecked(Scenario):
    "The flag is set after the data."

    source = "Schmidt, Harrison: Double-checked locking, 1996"
    expect = ""
    backwards = False

    def setup(self):
        why = dict.fromkeys(("ready", "data"), "looked at without lock on purpose")
        self.l, self.m = self.spinlock("l"), self.shared(benign=why, ready=0, data=0)
        for name in "ab":
            self.thread(name, self.use)

    def use(self):
        if not self.m.ready:
            self.l.lock()
            if not self.m.ready:
                self.make()
            self.l.unlock()
        assert self.m.data == 7, "used before it was made"

    def make(self):
        if self.backwards:
            self.m.ready = 1
        self.m.data = 7
        self.m.ready = 1


class DoubleCheckedBackwards(DoubleChecked):
    "The flag is set before the data."

    source = "Bacon et al.: The double-checked locking is broken declaration, 2001 (as seen there)"
    expect = "assertion"
    backwards = True


class ReadersWriters(Scenario):
    "The first reader locks the writers out, the last one lets them in."

    source = "Courtois, Heymans, Parnas: Concurrent control with readers and writers, 1971"
    expect = ""
    schedules = 4000

    def setup(self):
        self.l, self.room = self.spinlock("l"), self.semaphore("room", 1)
        self.m = self.shared(readers=0)
        self.d = self.shared(x=0, y=0)
        self.thread("writer", self.write)
        self.thread("reader", self.read)

    def write(self):
        self.room.acquire()
        self.d.x = 1
        self.d.y = 1
        self.room.release()

    def count(self, by):
        self.l.lock()
        self.m.readers = n = self.m.readers + by
        self.l.unlock()
        return n

    def read(self):
        if self.count(1) == 1:
            self.room.acquire()
        assert self.d.x == self.d.y, "read while it was written"
        if self.count(-1) == 0:
            self.room.release()


class LockRace(Scenario):
    "A counter, once with its lock and once without."

    source = "Savage et al.: Eraser, 1997"
    expect = "race assertion"

    def setup(self):
        self.l, self.m = self.spinlock("l"), self.shared(n=0)
        self.thread("locked", self.locked)
        self.thread("bare", self.add)

    def locked(self):
        self.l.lock()
        self.add()
        self.l.unlock()

    def add(self):
        self.m.n = self.m.n + 1

    def check(self):
        assert self.m.n == 2, "an update is lost"


class ForkJoin(Scenario):
    "What is ordered by spawn and join needs no lock."

    source = "Flanagan, Freund: FastTrack, 2009 (fork and join order)"
    expect = ""
    classes = 1

    def setup(self):
        self.m = self.shared(n=0)
        self.thread("main", self.main)

    def main(self):
        self.m.n = 1
        self.join(self.spawn("child", self.add))
        assert self.m.n == 2
        self.m.n = 3

    def add(self):
        self.m.n = self.m.n + 1
