"""Structures without locks, published ones and their known mistakes."""

from smpvm import Scenario

WHY = "each access is atomic in the original"


class SafeStack(Scenario):
    "A stack of indices whose pop may take an element that another has: five preemptions."

    source = "SCTBench SafeStack (Vyukov's puzzle, 2010; Thomson et al. 2016: 5 preemptions)"
    expect = "assertion"
    also = "race"
    preemptions = 5
    schedules = 20_000

    def setup(self):
        self.m = self.shared(benign={"head": WHY, "count": WHY}, head=0, count=3)
        self.next = self.array(3, 0, benign=WHY)
        self.value = self.array(3, -1, benign="that two have it is what the assertion tells")
        for i in range(3):
            self.next[i] = i + 1 if i < 2 else -1
        for i in range(3):
            self.thread(f"t{i}", self.go, i)

    def swap(self, i, value):
        return self.atomic.swap_int(self.next, self.next.at(i), value)

    def pop(self):
        while True:
            while self.m.count <= 1:
                self.relax(self.m)
            head = self.m.head
            follows = self.swap(head, -1)
            if follows < 0:
                self.yield_()
            elif self.atomic.cmpset_int(self.m, "head", head, follows):
                self.atomic.add_int(self.m, "count", -1)
                return head
            else:
                self.swap(head, follows)

    def push(self, i):
        while True:
            head = self.m.head
            self.next[i] = head
            if self.atomic.cmpset_int(self.m, "head", head, i):
                break
        self.atomic.add_int(self.m, "count", 1)

    def go(self, me):
        for _ in range(2):
            i = self.pop()
            self.value[i] = me
            assert self.value[i] == me, "two have one element"
            self.push(i)


class WorkSteal(Scenario):
    "The THE queue: the owner pops at the tail, a thief steals at the head under a lock."

    source = "Frigo, Leiserson, Randall: Cilk-5, 1998 (the THE protocol); SCTBench chess.WSQ"
    expect = ""
    tso = "assertion"
    fenced = False
    items = 2

    def setup(self):
        self.l = self.spinlock("thieves")
        self.q = self.shared(benign={"head": WHY, "tail": WHY}, head=0, tail=self.items)
        self.taken = self.array(self.items, 0)
        self.thread("owner", self.own)
        self.thread("thief", self.steal)

    def barrier_(self):
        if self.fenced:
            self.fence()

    def own(self):
        for _ in range(self.items):
            self.took(self.pop())

    def steal(self):
        self.took(self.stolen())

    def took(self, i):
        if i >= 0:
            self.atomic.add_int(self.taken, self.taken.at(i), 1)

    def pop(self):
        t = self.q.tail - 1
        self.q.tail = t
        self.barrier_()
        if self.q.head <= t:
            return t
        self.q.tail = t + 1
        self.l.lock()
        self.q.tail = t
        if self.q.head > t:
            self.q.tail = t + 1
            t = -1
        self.l.unlock()
        return t

    def stolen(self):
        self.l.lock()
        h = self.q.head
        self.q.head = h + 1
        self.barrier_()
        if h + 1 > self.q.tail:
            self.q.head = h
            h = -1
        self.l.unlock()
        return h

    def check(self):
        assert all(self.taken[i] <= 1 for i in range(self.items)), "an item is taken twice"


class WorkStealFenced(WorkSteal):
    "The same with its fences."

    fenced = True
    tso = ""


class WorkStealLate(WorkSteal):
    "The owner looks at the head before it lowers the tail."

    source = "SCTBench chess.WSQ (the kind); the mistake is ours"
    expect = tso = "assertion"

    def pop(self):
        t = self.q.tail - 1
        if self.q.head > t:
            return -1
        self.q.tail = t
        return t


class WorkStealNoLock(WorkSteal):
    "Two thieves, and no lock between them."

    source = "SCTBench chess.InterlockedWSQ (the kind); the mistake is ours"
    expect = tso = "assertion"

    def setup(self):
        super().setup()
        self.thread("thief2", self.steal)

    def stolen(self):
        h = self.q.head
        self.q.head = h + 1
        if h + 1 > self.q.tail:
            self.q.head = h
            return -1
        return h


class Treiber(Scenario):
    "Two push and pop on Treiber's stack; no element is used again."

    source = "Treiber: Systems programming: coping with parallelism, 1986"
    expect = ""
    pushed = (1, 2)

    def setup(self):
        self.m = self.shared(benign={"top": WHY}, top=-1)
        self.next = self.array(3, -1, benign="written before it is pushed")
        self.got = self.array(3, 0)
        for i in self.pushed:
            self.thread(f"t{i}", self.go, i)

    def push(self, i):
        while True:
            top = self.m.top
            self.next[i] = top
            if self.put(top, i):
                return

    def put(self, old, new):
        return self.atomic.cmpset_int(self.m, "top", old, new)

    def pop(self):
        while True:
            top = self.m.top
            if top < 0:
                return -1
            if self.put(top, self.next[top]):
                return top

    def go(self, i):
        self.push(i)
        got = self.pop()
        assert got >= 0, "pushed, and found empty"
        self.atomic.add_int(self.got, self.got.at(got), 1)

    def check(self):
        assert all(self.got[i] == 1 for i in self.pushed), "popped twice, or never"


class TreiberPlain(Treiber):
    "The same with a look and a store for the compare-and-set."

    source = "the usual mistake"
    expect = "assertion"
    also = "livelock"

    def put(self, old, new):
        if self.m.top != old:
            return False
        self.m.top = new
        return True


class AbaStack(Scenario):
    "One pops slowly while another pops two and pushes the first again."

    source = "IBM System/370 Principles of Operation, 1983 (the ABA problem)"
    expect = "assertion"
    tagged = False

    def setup(self):
        self.m = self.shared(benign={"top": WHY}, top=(0, 0))
        self.next = self.array(3, -1, benign=WHY)
        self.free = self.array(3, 0, benign=WHY)
        self.next[0], self.next[1] = 1, 2
        self.thread("slow", self.slow)
        self.thread("fast", self.fast)

    def put(self, old, new):
        tag = old[1] + 1 if self.tagged else 0
        return self.atomic.cmpset_int(self.m, "top", old, (new, tag))

    def pop(self):
        while True:
            top = self.m.top
            follows = self.next[top[0]]
            if self.put(top, follows):
                return top[0]

    def slow(self):
        self.pop()

    def check(self):
        top = self.m.top[0]
        assert top < 0 or not self.free[top], "the top of the stack is in somebody's hand"

    def fast(self):
        a = self.pop()
        b = self.pop()
        self.free[b] = 1
        while True:
            top = self.m.top
            self.next[a] = top[0]
            if self.put(top, a):
                return


class AbaTagged(AbaStack):
    "The same with a tag that counts."

    expect = ""
    tagged = True


class Seqlock(Scenario):
    "A writer counts before and after; a reader looks at the count twice."

    source = "Hemminger's seqlock, Linux 2003; Boehm: Can seqlocks get along, 2012"
    expect = ""
    looks = True

    def setup(self):
        why = dict.fromkeys(("seq", "a", "b"), "read without lock, and again if the count moved")
        self.m = self.shared(benign=why, seq=0, a=0, b=0)
        self.thread("writer", self.write)
        self.thread("reader", self.read)

    def write(self):
        self.m.seq = 1
        self.m.a = 1
        self.m.b = 1
        self.m.seq = 2

    def read(self):
        while True:
            seq = self.m.seq
            if seq & 1:
                self.relax(self.m)
                continue
            a, b = self.m.a, self.m.b
            if not self.looks or self.m.seq == seq:
                break
        assert a == b, "half of a write is seen"


class SeqlockOnce(Seqlock):
    "The reader does not look again."

    source = "the usual mistake"
    expect = "assertion"
    looks = False


class RefCount(Scenario):
    "Takes a reference only if there is one left; the last one out frees."

    source = "textbook; Linux kref_get_unless_zero"
    expect = ""
    careful = True

    def setup(self):
        self.o = self.shared(benign={"refs": WHY}, refs=1, freed=0)
        self.thread("owner", self.put)
        self.thread("other", self.use)

    def put(self):
        if self.atomic.fetchadd_int(self.o, "refs", -1) == 1:
            self.o.freed = 1

    def get(self):
        while self.careful:
            n = self.o.refs
            if n == 0:
                return False
            if self.atomic.cmpset_int(self.o, "refs", n, n + 1):
                return True
        self.atomic.add_int(self.o, "refs", 1)
        return True

    def use(self):
        if self.get():
            assert not self.o.freed, "used when it was freed"
            self.put()


class RefCountBlind(RefCount):
    "Takes one whatever the count is."

    source = "the usual mistake"
    expect = "assertion"
    also = "race"
    careful = False


class Ring(Scenario):
    "One producer and one consumer on a ring of two places, with no lock."

    source = "Lamport: Proving the correctness of multiprocess programs, 1977"
    expect = ""
    size = 2

    def setup(self):
        self.m = self.shared(benign={"head": WHY, "tail": WHY}, head=0, tail=0)
        self.ring = self.array(2, 0, benign="the indices tell whose it is")
        self.thread("producer", self.produce)
        self.thread("consumer", self.consume)

    def produce(self):
        for i in range(1, 4):
            while self.m.tail - self.m.head == self.size:
                self.relax(self.m)
            self.ring[self.m.tail % 2] = i
            self.m.tail = self.m.tail + 1

    def consume(self):
        for i in range(1, 4):
            while self.m.tail == self.m.head:
                self.relax(self.m)
            assert self.ring[self.m.head % 2] == i, "overwritten before it was read"
            self.m.head = self.m.head + 1


class RingTooFull(Ring):
    "Takes one place more than there is."

    source = "the usual mistake"
    expect = "assertion"
    size = 3
