"""The CS programs of SCTBench, told anew for smpvm; smaller where their loops are long.

Thomson, Donaldson, Betts: Concurrency testing using controlled schedulers, 2016.  ``Ok`` are the
benchmark's own mended programs, or ours.
"""

from smpvm import Scenario

SCT = "SCTBench CS."


class Account(Scenario):
    "A deposit, a withdrawal, and a check that expects another sum."

    source = SCT + "account_bad"
    expect = "assertion"
    wrong = True

    def setup(self):
        self.l, self.m = self.lock("l"), self.shared(balance=1, deposited=0, withdrawn=0)
        self.thread("check", self.look)
        self.thread("deposit", self.change, "deposited", 2)
        self.thread("withdraw", self.change, "withdrawn", -4)

    def change(self, done, by):
        self.l.lock()
        self.m.balance = self.m.balance + by
        setattr(self.m, done, 1)
        self.l.unlock()

    def look(self):
        self.l.lock()
        if self.m.deposited and self.m.withdrawn:
            assert self.m.balance == (1 - 2 - 4 if self.wrong else 1 + 2 - 4)
        self.l.unlock()


class AccountOk(Account):
    "The same with the right sum: 3 sections, 6 classes."

    source = SCT + "account_ok; classes derived"
    expect = ""
    wrong = False
    classes = 6


class ArithmeticProg(Scenario):
    "A producer and a consumer of one place; the sum of an arithmetic progression."

    source = SCT + "arithmetic_prog_bad"
    expect = "assertion"
    n = 3

    def setup(self):
        self.l = self.lock("l")
        self.empty, self.full = self.condvar("empty"), self.condvar("full")
        self.m = self.shared(num=0, total=0, flag=0)
        self.thread("producer", self.produce)
        self.thread("consumer", self.consume)

    def produce(self):
        for _ in range(self.n):
            self.l.lock()
            while self.m.num > 0:
                self.empty.wait(self.l, cond=lambda: self.m.num == 0)
            self.m.num = self.m.num + 1
            self.l.unlock()
            self.full.signal()

    def consume(self):
        for j in range(self.n):
            self.l.lock()
            while self.m.num == 0:
                self.full.wait(self.l, cond=lambda: self.m.num > 0)
            self.m.total = self.m.total + j
            self.m.num = self.m.num - 1
            self.l.unlock()
            self.empty.signal()
        self.m.total = self.m.total + self.n
        self.m.flag = 1

    def check(self):
        assert not self.m.flag or self.m.total != self.n * (self.n + 1) // 2


class ArithmeticProgOk(ArithmeticProg):
    "The same with the right sum."

    source = SCT + "arithmetic_prog_ok"
    expect = ""
    n = 2

    def check(self):
        assert self.m.total == self.n * (self.n + 1) // 2


class Carter01(Scenario):
    "Two kinds of threads share a room; its lock is taken with the mutex held."

    source = SCT + "carter01_bad"
    expect = "deadlock"
    also = "lock-order"

    def setup(self):
        self.l, self.room = self.lock("m"), self.lock("l")
        self.m = self.shared(a=0, b=0)
        for field in "ab":
            self.thread(f"{field}1", self.go, field)
            self.thread(f"{field}2", self.none)

    def none(self):
        pass

    def go(self, field):
        self.l.lock()
        n = getattr(self.m, field) + 1
        setattr(self.m, field, n)
        if n == 1:
            self.room.lock()
        self.l.unlock()
        self.l.lock()
        n = getattr(self.m, field) - 1
        setattr(self.m, field, n)
        if n == 0:
            self.room.unlock()
        self.l.unlock()


class CircularBuffer(Scenario):
    "A receiver that counts its turns even when there is nothing to receive."

    source = SCT + "circular_buffer_bad"
    expect = "assertion"
    n = 3

    def setup(self):
        self.l = self.lock("l")
        self.m = self.shared(first=0, next=0, send=1, receive=0)
        self.buffer = self.array(10)
        self.thread("sender", self.send)
        self.thread("receiver", self.receive)

    def send(self):
        for i in range(self.n):
            self.l.lock()
            if self.m.send:
                self.buffer[self.m.next] = i
                self.m.next = self.m.next + 1
                self.m.send, self.m.receive = 0, 1
            self.l.unlock()

    def receive(self):
        for i in range(self.n):
            self.l.lock()
            if self.m.receive:
                got = self.buffer[self.m.first]
                self.m.first = self.m.first + 1
                assert got == i, "another element was expected"
                self.m.send, self.m.receive = 1, 0
            self.l.unlock()


class Deadlock01(Scenario):
    "Two locks in either order."

    source = SCT + "deadlock01_bad"
    expect = "deadlock"
    also = "lock-order"

    def setup(self):
        a, b = self.lock("a"), self.lock("b")
        self.m = self.shared(n=1)
        self.thread("up", self.go, a, b, 1)
        self.thread("down", self.go, *self.other(a, b), -1)

    def other(self, a, b):
        return b, a

    def go(self, first, second, by):
        first.lock()
        second.lock()
        self.m.n = self.m.n + by
        second.unlock()
        first.unlock()


class Deadlock01Ok(Deadlock01):
    "Two locks in one order: 2 classes."

    source = "ours; classes derived"
    expect = also = ""
    classes = 2

    def other(self, a, b):
        return a, b


class Lazy01(Scenario):
    "Asserts that two others have not both been there before."

    source = SCT + "lazy01_bad"
    expect = "assertion"
    most = 3

    def setup(self):
        self.l, self.m = self.lock("l"), self.shared(data=0)
        self.thread("one", self.add, 1)
        self.thread("two", self.add, 2)
        self.thread("look", self.look)

    def add(self, n):
        self.l.lock()
        self.m.data = self.m.data + n
        self.l.unlock()

    def look(self):
        self.l.lock()
        assert self.m.data < self.most
        self.l.unlock()


class Lazy01Ok(Lazy01):
    "The same with a bound that holds: 6 classes."

    source = SCT + "lazy01_ok; classes derived"
    expect = ""
    most = 4
    classes = 6


class Phase01(Scenario):
    "A lock is never given back: the second thread waits for ever."

    source = SCT + "phase01_bad (a thread ends with a lock: told before the other hangs)"
    expect = "wrong-release/deadlock"
    gives = False

    def setup(self):
        self.x, self.y = self.lock("x"), self.lock("y")
        for name in "ab":
            self.thread(name, self.go)

    def go(self):
        self.x.lock()
        self.x.unlock()
        self.x.lock()
        self.y.lock()
        self.y.unlock()
        if self.gives:
            self.x.unlock()
        self.y.lock()
        self.y.unlock()


class Phase01Ok(Phase01):
    "The same, given back."

    source = SCT + "phase01_ok"
    expect = ""
    gives = True


class Queue(Scenario):
    "Who dequeues counts its turns even when there was nothing."

    source = SCT + "queue_bad"
    expect = "assertion"
    n = 3

    def setup(self):
        self.l = self.lock("l")
        self.m = self.shared(head=0, tail=0, enqueue=1, dequeue=0)
        self.q, self.stored = self.array(20), self.array(20)
        self.thread("in", self.fill)
        self.thread("out", self.empty)

    def put(self, value):
        self.q[self.m.tail] = value
        self.stored[value] = value
        self.m.tail = self.m.tail + 1

    def fill(self):
        self.l.lock()
        self.put(0)
        self.l.unlock()
        value = 0
        for _ in range(self.n - 1):
            self.l.lock()
            if self.m.enqueue:
                value += 1
                self.put(value)
                self.m.enqueue, self.m.dequeue = 0, 1
            self.l.unlock()

    def empty(self):
        for i in range(self.n):
            self.l.lock()
            if self.m.dequeue:
                got = self.q[self.m.head]
                self.m.head = self.m.head + 1
                assert got == self.stored[i], "another element was expected"
                self.m.enqueue, self.m.dequeue = 1, 0
            self.l.unlock()


class Stack(Scenario):
    "Pops when something was pushed once, though it may be gone."

    source = SCT + "stack_bad"
    expect = "assertion"
    n = 3
    looks = False

    def setup(self):
        self.l, self.m = self.lock("l"), self.shared(top=0, flag=0)
        self.thread("push", self.push)
        self.thread("pop", self.pop)

    def push(self):
        for _ in range(self.n):
            self.l.lock()
            self.m.top = self.m.top + 1
            self.m.flag = 1
            self.l.unlock()

    def pop(self):
        for _ in range(self.n):
            self.l.lock()
            if self.m.top if self.looks else self.m.flag:
                assert self.m.top > 0, "underflow"
                self.m.top = self.m.top - 1
            self.l.unlock()


class StackOk(Stack):
    "Looks at the top: the orders of 3 and 3 sections, 20."

    source = SCT + "stack_ok; classes derived"
    expect = ""
    looks = True
    classes = 20


class Sync01(Scenario):
    "Waits for a place that nobody empties."

    source = SCT + "sync01_bad"
    expect = "stall/deadlock"
    first, n, takes = 1, 1, 0

    def setup(self):
        self.l, self.m = self.lock("l"), self.shared(num=self.first)
        self.empty, self.full = self.condvar("empty"), self.condvar("full")
        self.thread("producer", self.produce)
        self.thread("consumer", self.consume)

    def produce(self):
        for _ in range(self.n):
            self.l.lock()
            while self.m.num > 0:
                self.empty.wait(self.l, cond=lambda: self.m.num == 0)
            self.m.num = self.m.num + 1
            self.l.unlock()
            self.full.signal()

    def consume(self):
        for _ in range(self.n):
            self.l.lock()
            while self.m.num == 0:
                self.full.wait(self.l, cond=lambda: self.m.num > 0)
            self.m.num = self.m.num - self.takes
            self.l.unlock()
            self.empty.signal()


class Sync01Ok(Sync01):
    "The same, emptied."

    source = SCT + "sync01_ok"
    expect = ""
    first, takes = 0, 1


class Sync02(Sync01):
    "Two places are full at first, so that two are produced too many."

    source = SCT + "sync02_bad"
    first, n, takes = 2, 2, 1


class Sync02Ok(Sync02):
    "None is full at first."

    source = SCT + "sync02_ok"
    expect = ""
    first = 0
