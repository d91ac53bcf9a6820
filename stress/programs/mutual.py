"""Mutual exclusion by reads and writes, and by atomic operations: published, and broken.

All accesses race on purpose: that at most one thread is inside is what each algorithm promises, and
what ``section`` looks at.  ``fenced`` puts a fence behind each store that a later load must not
pass; without it x86-TSO breaks the algorithm.
"""

from smpvm import Scenario

WHY = "the algorithm takes no lock; that it excludes is what is checked"


class Mutual(Scenario):
    "Two threads, each once inside."

    source = ""
    expect = ""
    tso = ""
    classes = 0
    fenced = False
    fields: tuple[str, ...] = ()
    first = 0

    def setup(self):
        fields = {**dict.fromkeys(self.fields, self.first), "inside": 0}
        self.m = self.shared(benign=dict.fromkeys(fields, WHY), **fields)
        for i in (0, 1):
            self.thread(f"p{i}", self.go, i)

    def barrier_(self):
        if self.fenced:
            self.fence()

    def section(self):
        assert not self.m.inside, "two are inside"
        self.m.inside = 1
        self.m.inside = 0

    def go(self, i):
        self.enter(i, 1 - i)
        self.section()
        self.leave(i)

    def get(self, name, i):
        return getattr(self.m, f"{name}{i}")

    def put(self, name, i, value):
        setattr(self.m, f"{name}{i}", value)

    def until(self, true):
        while not true():
            self.relax(self.m)


class Peterson(Mutual):
    "Peterson's algorithm."

    fields = ("flag0", "flag1", "turn")
    tso = "assertion"
    source = "Peterson: Myths about the mutual exclusion problem, 1981"

    def enter(self, i, j):
        self.put("flag", i, 1)
        self.m.turn = j
        self.barrier_()
        self.until(lambda: not self.get("flag", j) or self.m.turn == i)

    def leave(self, i):
        self.put("flag", i, 0)


class PetersonFenced(Peterson):
    "The same with a fence."

    fenced = True
    tso = ""


class PetersonBackwards(Peterson):
    "The turn is given away before the flag is up."

    expect = tso = "assertion"
    source = "Peterson's with its two stores exchanged: a known mistake, in most textbooks"

    def enter(self, i, j):
        self.m.turn = j
        self.put("flag", i, 1)
        self.until(lambda: not self.get("flag", j) or self.m.turn == i)


class FlagsOnly(Peterson):
    "Each puts its flag up and waits for the other's to go down: both wait for ever."

    expect = tso = "livelock"
    source = "Dijkstra: Cooperating sequential processes, 1965 (the third attempt)"

    def enter(self, i, j):
        self.put("flag", i, 1)
        self.until(lambda: not self.get("flag", j))


class LookFirst(Peterson):
    "Looks at the other's flag before it puts its own up: both go in."

    expect = tso = "assertion"
    source = "Dijkstra: Cooperating sequential processes, 1965 (the second attempt)"

    def enter(self, i, j):
        self.until(lambda: not self.get("flag", j))
        self.put("flag", i, 1)


class Dekker(Mutual):
    "Dekker's algorithm."

    fields = ("flag0", "flag1", "turn")
    tso = "assertion"
    source = "Dijkstra: Cooperating sequential processes, 1965"

    def enter(self, i, j):
        self.put("flag", i, 1)
        self.barrier_()
        while self.get("flag", j):
            if self.m.turn == i:
                self.relax(self.m)
                continue
            self.put("flag", i, 0)
            self.until(lambda: self.m.turn == i)
            self.put("flag", i, 1)
            self.barrier_()

    def leave(self, i):
        self.m.turn = 1 - i
        self.put("flag", i, 0)


class DekkerFenced(Dekker):
    "The same with fences."

    fenced = True
    tso = ""


class Hyman(Mutual):
    "Hyman's simplification, which does not exclude."

    fields = ("flag0", "flag1", "turn")
    expect = tso = "assertion"
    source = "Hyman: Comments on a problem in concurrent programming control, 1966; Knuth's reply"

    def enter(self, i, j):
        self.put("flag", i, 1)
        while self.m.turn != i:
            self.until(lambda: not self.get("flag", j))
            self.m.turn = i

    def leave(self, i):
        self.put("flag", i, 0)


class LamportFast(Mutual):
    "Lamport's fast mutual exclusion."

    fields = ("b0", "b1", "x", "y")
    first = -1
    tso = "assertion"
    source = "Lamport: A fast mutual exclusion algorithm, 1987"

    def enter(self, i, j):
        while not self.tried(i, j):
            pass

    def tried(self, i, j):
        self.put("b", i, 1)
        self.m.x = i
        self.barrier_()
        if self.m.y != -1:
            self.put("b", i, -1)
            self.until(lambda: self.m.y == -1)
            return False
        self.m.y = i
        self.barrier_()
        if self.m.x == i:
            return True
        self.put("b", i, -1)
        self.until(lambda: self.get("b", j) == -1)
        if self.m.y == i:
            return True
        self.until(lambda: self.m.y == -1)
        return False

    def leave(self, i):
        self.m.y = -1
        self.put("b", i, -1)


class LamportFastFenced(LamportFast):
    "The same with fences."

    fenced = True
    tso = ""


class Bakery(Mutual):
    "Lamport's bakery."

    fields = ("choosing0", "choosing1", "number0", "number1")
    tso = "assertion"
    source = "Lamport: A new solution of Dijkstra's concurrent programming problem, 1974"
    chooses = True

    def enter(self, i, j):
        if self.chooses:
            self.put("choosing", i, 1)
            self.barrier_()
        self.put("number", i, 1 + self.get("number", j))
        if self.chooses:
            self.put("choosing", i, 0)
        self.barrier_()
        if self.chooses:
            self.until(lambda: not self.get("choosing", j))
        self.until(lambda: self.first_is(i, j))

    def first_is(self, i, j):
        number = self.get("number", j)
        return number == 0 or (number, j) > (self.get("number", i), i)

    def leave(self, i):
        self.put("number", i, 0)


class BakeryFenced(Bakery):
    "The same with fences."

    fenced = True
    tso = ""


class BakeryHasty(Bakery):
    "The bakery without its choosing flags: both draw the same number, and one does not see it yet."

    chooses = False
    expect = tso = "assertion"
    source = "Lamport 1974 explains what the choosing flags are for"


class Szymanski(Mutual):
    "Szymanski's algorithm for two."

    fields = ("flag0", "flag1")
    tso = "assertion"
    source = "Szymanski: A simple solution to Lamport's problem with linear wait, 1988"

    def enter(self, i, j):
        self.put("flag", i, 1)
        self.barrier_()
        self.until(lambda: self.get("flag", j) < 3)
        self.put("flag", i, 3)
        self.barrier_()
        if self.get("flag", j) == 1:
            self.put("flag", i, 2)
            self.barrier_()
            self.until(lambda: self.get("flag", j) == 4)
        self.put("flag", i, 4)
        self.barrier_()
        if i:
            self.until(lambda: self.get("flag", j) < 2)

    def leave(self, i):
        if not i:
            self.until(lambda: self.get("flag", 1) not in (2, 3))
        self.put("flag", i, 0)


class SzymanskiFenced(Szymanski):
    "The same with fences."

    fenced = True
    tso = ""


class Burns(Mutual):
    "Burns's one-bit algorithm for two."

    fields = ("flag0", "flag1")
    tso = "assertion"
    source = "Burns, Lynch: Bounds on shared memory for mutual exclusion, 1993 (one bit each)"

    def enter(self, i, j):
        if i == 0:
            self.put("flag", 0, 1)
            self.barrier_()
            self.until(lambda: not self.get("flag", 1))
            return
        while True:
            self.until(lambda: not self.get("flag", 0))
            self.put("flag", 1, 1)
            self.barrier_()
            if not self.get("flag", 0):
                return
            self.put("flag", 1, 0)

    def leave(self, i):
        self.put("flag", i, 0)


class TestAndSet(Mutual):
    "A lock of compare-and-set, for three."

    fields = ("lock",)
    source = "textbook"
    threads = 3

    def setup(self):
        super().setup()
        if self.threads == 3:
            self.thread("p2", self.go, 2)

    def enter(self, i, j):
        while not self.atomic.cmpset_int(self.m, "lock", 0, 1):
            self.relax(self.m)

    def leave(self, i):
        self.m.lock = 0


class SwapLock(TestAndSet):
    "A lock of exchange, for three: an exchange that stores what is there wakes nobody."

    source = "textbook; issue 13 (tas3)"

    def enter(self, i, j):
        while self.atomic.swap_int(self.m, "lock", 1):
            self.relax(self.m)


class TestThenSet(TestAndSet):
    "Tests, then sets, in two steps."

    expect = tso = "assertion"
    source = "textbook"
    threads = 2

    def enter(self, i, j):
        while self.m.lock:
            self.relax(self.m)
        self.m.lock = 1


class Ticket(Scenario):
    "A ticket lock."

    source = "Mellor-Crummey, Scott: Algorithms for scalable synchronization, 1991"
    expect = ""
    atomic_draw = True

    def setup(self):
        self.t = self.shared(benign={"next": WHY, "serving": WHY}, next=0, serving=0)
        self.m = self.shared(benign={"n": "under the ticket lock"}, n=0)
        for name in "ab":
            self.thread(name, self.go)

    def draw(self):
        if self.atomic_draw:
            return self.atomic.fetchadd_int(self.t, "next", 1)
        mine = self.t.next
        self.t.next = mine + 1
        return mine

    def go(self):
        mine = self.draw()
        while self.t.serving != mine:
            self.relax(self.t)
        self.m.n = self.m.n + 1
        self.t.serving = mine + 1

    def check(self):
        assert self.m.n == 2, "an update is lost"


class TicketPlain(Ticket):
    "The ticket is drawn in two steps."

    source = "the usual mistake"
    expect = "assertion"
    also = "livelock"
    atomic_draw = False


class Mcs(Scenario):
    "A queue lock: each spins on a flag of its own."

    source = "Mellor-Crummey, Scott 1991 (the MCS lock)"
    expect = ""
    waits = True

    def setup(self):
        self.q = self.shared(benign={"tail": WHY}, tail=-1)
        self.next, self.locked = self.array(2, -1, benign=WHY), self.array(2, 0, benign=WHY)
        self.m = self.shared(benign={"n": "under the queue lock"}, n=0)
        for i in (0, 1):
            self.thread(f"t{i}", self.go, i)

    def go(self, i):
        self.locked[i] = 1
        before = self.atomic.swap_int(self.q, "tail", i)
        if before >= 0:
            self.next[before] = i
            while self.locked[i]:
                self.relax(self.locked)
        self.m.n = self.m.n + 1
        self.leave(i)

    def leave(self, i):
        if self.next[i] < 0:
            if self.atomic.cmpset_int(self.q, "tail", i, -1) or not self.waits:
                return
            while self.next[i] < 0:
                self.relax(self.next)
        self.locked[self.next[i]] = 0

    def check(self):
        assert self.m.n == 2, "an update is lost"


class McsHasty(Mcs):
    "Leaves without waiting for the one who has come, and is not linked yet."

    source = "the usual mistake"
    expect = "livelock"
    waits = False
