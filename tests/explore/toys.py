"""Small programs with known numbers of classes, and with known bugs."""

from smpvm import Scenario


class Counter(Scenario):
    """Two threads, an unprotected read-modify-write each: four classes."""

    def setup(self):
        self.c = self.shared(n=0)
        for name in "ab":
            self.thread(name, self.count)

    def count(self):
        self.c.n = self.c.n + 1

    def check(self):
        assert self.c.n == 2, "an update is lost"


class Locked(Scenario):
    """Three threads, each twice inside one lock: 6! / (2!)^3 = 90 classes."""

    names = "abc"

    def setup(self):
        self.c = self.shared(n=0)
        self.l = self.spinlock("l")
        for name in self.names:
            self.thread(name, self.twice)

    def twice(self):
        for _ in range(2):
            self.l.lock()
            self.c.n = self.c.n + 1
            self.l.unlock()

    def check(self):
        assert self.c.n == 6, "an update is lost"


class Philosophers(Scenario):
    """N philosophers take the left fork first: 2^N - 1 classes, one of them the deadlock."""

    n = 3
    sizes = {"n": 2}  # noqa: RUF012

    def setup(self):
        self.forks = [self.spinlock(f"fork {i}", cls="fork") for i in range(self.n)]
        for i in range(self.n):
            self.thread(f"p{i}", self.eat, self.forks[i], self.forks[(i + 1) % self.n])

    def eat(self, left, right):
        left.lock()
        right.lock()
        right.unlock()
        left.unlock()


class Message(Scenario):
    """One writes data, then a flag; the other awaits the flag: two classes."""

    def setup(self):
        self.m = self.shared(benign={"flag": "published", "data": "published"}, flag=0, data=0)
        self.thread("writer", self.write)
        self.thread("reader", self.read)

    def write(self):
        self.m.data = 42
        self.m.flag = 1

    def read(self):
        while not self.m.flag:
            self.relax(self.m)
        assert self.m.data == 42, "the flag came before the data"


class MessageBackwards(Message):
    """The same with the flag first."""

    def write(self):
        self.m.flag = 1
        self.m.data = 42


class MissedWakeup(Scenario):
    """Looks, and then sleeps: a wakeup in between is lost."""

    def setup(self):
        self.f = self.shared(benign={"done": "the point of it"}, done=0)
        self.thread("sleeper", self.sleep)
        self.thread("waker", self.wake)

    def sleep(self):
        if not self.f.done:
            self.tsleep("done", cond=lambda: self.f.done)

    def wake(self):
        self.f.done = 1
        self.wakeup("done")


class NoWakeupMissed(MissedWakeup):
    """The same with the interlock."""

    def sleep(self):
        self.tsleep_interlock("done")
        if not self.f.done:
            self.tsleep("done", cond=lambda: self.f.done, flags=self.INTERLOCKED)


class Livelock(Scenario):
    """Each awaits the other's flag before it sets its own."""

    def setup(self):
        self.f = self.shared(a=0, b=0)
        self.thread("x", self.wait, "a", "b")
        self.thread("y", self.wait, "b", "a")

    def wait(self, mine, other):
        while not getattr(self.f, other):
            self.relax(self.f)
        setattr(self.f, mine, 1)


class Depth2(Scenario):
    """A bug of depth 2: one ordering constraint between two threads, amid other steps."""

    def setup(self):
        self.c = self.shared(benign={"ptr": "the point of it", "pad": "padding"}, ptr=1, pad=0)
        self.thread("user", self.use)
        self.thread("killer", self.kill)

    def use(self):
        for _ in range(4):
            self.c.pad = 0
        if self.c.ptr:
            assert self.c.ptr, "gone between test and use"

    def kill(self):
        for _ in range(4):
            self.c.pad = 0
        self.c.ptr = 0


class MarkerScan(Scenario):
    """A scan of a queue of three pages against a thread that moves the page it stands on.

    The scanner keeps its place with a marker; ``keep_next`` is the mistake of remembering the next
    page over the unlock instead.
    """

    keep_next = False

    def setup(self):
        self.q = self.shared(order=("m", 1, 2, 3))
        self.lock = self.spinlock("queue")
        self.seen = []
        self.thread("scanner", self.scan)
        self.thread("mover", self.move)

    def scan(self):
        self.lock.lock()
        page = self.after("m")
        for _ in range(3):
            if page is None:
                break
            self.seen.append(page)
            follows = self.after(page)
            if not self.keep_next:
                self.place("m", page)
            self.lock.unlock()
            self.lock.lock()
            page = follows if self.keep_next else self.after("m")
        self.lock.unlock()

    def move(self):
        self.lock.lock()
        order = [p for p in self.q.order if p != 2]
        self.q.order = (*order, 2)
        self.lock.unlock()

    def after(self, what):
        order = self.q.order
        at = order.index(what) + 1
        return order[at] if at < len(order) else None

    def place(self, what, behind):
        order = [p for p in self.q.order if p != what]
        order.insert(order.index(behind) + 1, what)
        self.q.order = tuple(order)

    def check(self):
        assert {1, 3} <= set(self.seen), "a page that stayed was not visited"


class NextKept(MarkerScan):
    """The mistake."""

    keep_next = True


class Sharers(Scenario):
    """Two threads share a token so that one of them always has it; a third wants it for itself."""

    rounds = 10**9

    def setup(self):
        self.t = self.token("t")
        self.f = self.shared(benign={"a": "polled", "b": "polled"}, a=0, b=0)
        self.thread("a", self.share, "a", "b", 0)
        self.thread("b", self.share, "b", "a", 1)
        self.thread("writer", self.write)

    def share(self, mine, other, ahead):
        for n in range(1, self.rounds + 1):
            self.t.get_shared()
            setattr(self.f, mine, n)
            while getattr(self.f, other) < min(n + ahead, self.rounds):
                self.relax(self.f)
            self.t.release()

    def write(self):
        self.t.get()
        self.t.release()
