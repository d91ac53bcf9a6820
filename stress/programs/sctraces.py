"""The CS programs of SCTBench whose defect is an order of accesses; see sctbench.py."""

from smpvm import Scenario

SCT = "SCTBench CS."


class Bluetooth(Scenario):
    "A driver is stopped between the look at its flag and the count of pending I/O."

    source = SCT + "bluetooth_driver_bad (Qadeer and Wu: KISS, 2004)"
    expect = "assertion"
    also = "race"

    def setup(self):
        self.d = self.shared(pending=1, stopping=0, event=0, stopped=0)
        self.thread("stop", self.stop)
        self.thread("add", self.add)

    def enter(self):
        if self.d.stopping:
            return False
        self.atomic.add_int(self.d, "pending", 1)
        return True

    def put(self):
        if self.atomic.fetchadd_int(self.d, "pending", -1) == 1:
            self.d.event = 1

    def add(self):
        if self.enter():
            assert not self.d.stopped, "the driver works, and is stopped"
        self.put()

    def stop(self):
        self.d.stopping = 1
        self.put()
        if self.d.event:
            self.d.stopped = 1


class BluetoothOk(Bluetooth):
    "Counts first, and gives back only what it has counted."

    source = "the repair in KISS, 2004"
    expect = also = ""

    def setup(self):
        why = dict.fromkeys(("stopping", "event", "stopped"), "atomic by its protocol")
        self.d = self.shared(benign=why, pending=1, stopping=0, event=0, stopped=0)
        self.thread("stop", self.stop)
        self.thread("add", self.add)

    def enter(self):
        self.atomic.add_int(self.d, "pending", 1)
        return not self.d.stopping


class Fsbench(Scenario):
    "27 threads, and 26 locks."

    source = SCT + "fsbench_bad (the last thread's lock is out of bounds)"
    expect = "assertion"
    schedules = 50

    def setup(self):
        self.locks = [self.lock(f"inode {i}", cls="inode") for i in range(26)]
        for i in range(27):
            self.thread(f"t{i}", self.go, i)

    def go(self, i):
        self.locks[i].lock()
        self.locks[i].unlock()


class Reorder(Scenario):
    "n - 1 threads set a, then b; one asserts that it sees both or none."

    source = SCT + "reorder_3_bad"
    expect = "assertion"
    also = "race"
    n = 3

    def setup(self):
        self.m = self.shared(a=0, b=0)
        for i in range(self.n - 1):
            self.thread(f"set{i}", self.set)
        self.thread("check", self.look)

    def set(self):
        self.m.a = 1
        self.m.b = -1

    def look(self):
        none = self.m.a == 0 and self.m.b == 0
        assert none or (self.m.a == 1 and self.m.b == -1), "a half is seen"


class Reorder4(Reorder):
    "The same with 4."

    source = SCT + "reorder_4_bad"
    n = 4


class Reorder5(Reorder):
    "The same with 5."

    source = SCT + "reorder_5_bad"
    n = 5


class Reorder10(Reorder):
    "The same with 10."

    source = SCT + "reorder_10_bad"
    n = 10


class TokenRing(Scenario):
    "Three pass a value on, in any order; the fourth expects one order."

    source = SCT + "token_ring_bad"
    expect = "assertion"

    def setup(self):
        self.l = self.spinlock("atomic")
        self.m = self.shared(x1=1, x2=2, x3=1, done=0)
        for mine, from_ in (("x1", "x3"), ("x2", "x1"), ("x3", "x2")):
            self.thread(mine, self.pass_on, mine, from_)
        self.thread("check", self.look)

    def pass_on(self, mine, from_):
        self.l.lock()
        value = getattr(self.m, from_)
        setattr(self.m, mine, (value + 1) % 4 if mine == "x1" else value)
        self.m.done = self.m.done + 1
        self.l.unlock()

    def look(self):
        self.l.lock()
        assert self.m.done < 3 or self.m.x1 == self.m.x2 == self.m.x3
        self.l.unlock()


class Twostage(Scenario):
    "Two values change in two sections; who reads between them sees one."

    source = SCT + "twostage_bad"
    expect = "assertion"
    n = 1

    def setup(self):
        self.l1, self.l2 = self.lock("l1"), self.lock("l2")
        self.m = self.shared(d1=0, d2=0)
        for i in range(self.n):
            self.thread(f"a{i}", self.write)
        self.thread("b", self.read)

    def write(self):
        self.l1.lock()
        self.m.d1 = 1
        self.l1.unlock()
        self.l2.lock()
        self.m.d2 = self.m.d1 + 1
        self.l2.unlock()

    def read(self):
        self.l1.lock()
        first = self.m.d1
        self.l1.unlock()
        if not first:
            return
        self.l2.lock()
        second = self.m.d2
        self.l2.unlock()
        assert second == first + 1, "the second stage is not done"


class Twostage100(Twostage):
    "The same with 99 writers."

    source = SCT + "twostage_100_bad"
    also = "race"
    n = 99


class Wronglock(Scenario):
    "One thread takes a lock, seven others take another."

    source = SCT + "wronglock_bad"
    expect = "assertion"
    also = "race"
    n = 7

    def setup(self):
        self.right, self.wrong, self.m = self.lock("right"), self.lock("wrong"), self.shared(n=0)
        self.thread("a", self.one)
        for i in range(self.n):
            self.thread(f"b{i}", self.other)

    def one(self):
        self.right.lock()
        x = self.m.n
        self.m.n = self.m.n + 1
        assert self.m.n == x + 1, "somebody else wrote"
        self.right.unlock()

    def other(self):
        self.wrong.lock()
        self.m.n = self.m.n + 1
        self.wrong.unlock()


class Wronglock3(Wronglock):
    "The same with three others."

    source = SCT + "wronglock_3_bad"
    n = 3
