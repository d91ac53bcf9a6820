"""How many classes the primitives make: a lock has the orders of its sections, and no more."""

from smpvm import Scenario


class Sections(Scenario):
    "n threads, each m times in the section of one spinlock: (nm)! / (m!)^n."

    classes = 90
    source = "derived: the orders of the sections"
    n, m = 3, 2

    def setup(self):
        self.make()
        for i in range(self.n):
            self.thread(f"t{i}", self.go)

    def make(self):
        self.l = self.spinlock("l")

    def go(self):
        for _ in range(self.m):
            self.l.lock()
            self.l.unlock()


class Sections2x4(Sections):
    "Two threads, four times each: 70."

    n, m = 2, 4
    classes = 70


class Sections5x1(Sections):
    "Five threads, once each: 120."

    n, m = 5, 1
    classes = 120


class TokenSections(Sections):
    "The same with a token, two threads twice: 6."

    n, m = 2, 2
    classes = 6

    def make(self):
        self.l = self.token("l")


class LockmgrTwo(Sections):
    "The same with a lockmgr lock, two threads once: 2."

    n, m = 2, 1
    classes = 2
    source = "derived; issue 13 (10 executions)"

    def make(self):
        self.l = self.lock("l")


class LockmgrThree(LockmgrTwo):
    "Three threads once: 6."

    n = 3
    classes = 6
    source = "derived; issue 13 (11,274 executions)"


class LockmgrTwice(LockmgrTwo):
    "Two threads twice: 6."

    m = 2
    classes = 6


class SemaphoreTwo(Scenario):
    "Two threads in the section of a semaphore of one: 2."

    classes = 2
    source = "derived: the orders of the sections; issue 13"

    def setup(self):
        self.s = self.semaphore("s", 1)
        for name in "ab":
            self.thread(name, self.go)

    def go(self):
        self.s.acquire()
        self.s.release()


class SemaphoreFree(SemaphoreTwo):
    "Two threads and a semaphore of two: nobody has to wait."

    classes = 0
    source = "ours; how many classes there are depends on what of the semaphore is seen"

    def setup(self):
        self.s = self.semaphore("s", 2)
        for name in "ab":
            self.thread(name, self.go)


class BarrierTwo(Scenario):
    "Two threads at a barrier: 2, by who comes last."

    classes = 2
    source = "derived: the orders of the arrivals; issue 13"

    def setup(self):
        self.b = self.barrier("b", 2)
        for name in "ab":
            self.thread(name, self.b.wait)


class JoinTwo(Scenario):
    "A thread makes two that take one lock, and joins both: 2."

    classes = 2
    source = "derived: the orders of the two sections; issue 13 (54 executions)"

    def setup(self):
        self.l = self.spinlock("l")
        self.thread("main", self.main)

    def main(self):
        for td in [self.spawn(name, self.go) for name in "ab"]:
            self.join(td)

    def go(self):
        self.l.lock()
        self.l.unlock()


class JoinOne(JoinTwo):
    "A thread makes one, and joins it: 1."

    classes = 1
    source = "derived: nothing can come another way round"

    def main(self):
        self.join(self.spawn("a", self.go))


class ReadersOfLock(Scenario):
    "A writer and two readers of a reader/writer lock: 4, by which reader comes first."

    classes = 4
    source = "derived: readers commute"

    def setup(self):
        self.l, self.m = self.rwlock("l"), self.shared(x=0)
        self.thread("writer", self.write)
        for name in "ab":
            self.thread(name, self.read)

    def write(self):
        self.l.write()
        self.m.x = 1
        self.l.release()

    def read(self):
        self.l.read()
        assert self.m.x in (0, 1)
        self.l.release()


class WakeNobody(Scenario):
    "A wakeup that wakes nobody, of another identity: commutes with all."

    classes = 1
    source = "derived; issue 13 (a wakeup that wakes nobody commutes with what it does not touch)"

    def setup(self):
        self.m = self.shared(x=0)
        self.thread("waker", self.wakeup, "nobody")
        self.thread("writer", self.put)

    def put(self):
        self.m.x = 1


class WakeTwice(WakeNobody):
    "Two wakeups of one identity that wake nobody."

    def setup(self):
        for name in "ab":
            self.thread(name, self.wakeup, "nobody")
