"""Hard cases from the literature, in our own words: smpvm explore stress/hard.py:SafeStack."""

from smpvm import Scenario


class SafeStack(Scenario):
    "A lock-free stack of cells that threads pop and push; two get one cell (5 preemptions)."

    n = 3

    def setup(self):
        k = {f"next{i}": i + 1 for i in range(self.n)}
        k[f"next{self.n - 1}"] = -1
        self.s = self.shared(head=0, count=self.n, **k)
        own = [f"own{i}" for i in range(self.n)]
        benign = dict.fromkeys(own, "what is to be shown")
        self.v = self.shared(benign=benign, **dict.fromkeys(own, -1))
        for i in range(3):
            self.thread(f"t{i}", self.work, i)

    def pop(self):
        a, s = self.atomic, self.s
        while s.count > 1:
            head1 = s.head
            next1 = a.swap_int(s, f"next{head1}", -1) if head1 >= 0 else -1
            if next1 >= 0:
                if a.cmpset_int(s, "head", head1, next1):
                    a.fetchadd_int(s, "count", -1)
                    return head1
                a.swap_int(s, f"next{head1}", next1)
        return -1

    def push(self, i):
        a, s = self.atomic, self.s
        while True:
            head1 = s.head
            setattr(s, f"next{i}", head1)
            if a.cmpset_int(s, "head", head1, i):
                break
        a.fetchadd_int(s, "count", 1)

    def work(self, me):
        for _ in range(2):
            e = self.pop()
            if e < 0:
                continue
            setattr(self.v, f"own{e}", me)
            assert getattr(self.v, f"own{e}") == me, "two have the same cell"
            self.push(e)


class TwoStage(Scenario):
    "SCTBench's twostage (own words): one writes under one lock, then the other under another."

    n = 100

    def setup(self):
        self.s = self.shared(a=0, b=0)
        self.la, self.lb = self.spinlock("la"), self.spinlock("lb")
        for i in range(self.n - self.n // 10):
            self.thread(f"w{i}", self.write)
        for i in range(self.n // 10):
            self.thread(f"r{i}", self.read)

    def write(self):
        self.la.lock()
        self.s.a = 1
        self.la.unlock()
        self.lb.lock()
        self.s.b = self.s.a + 1
        self.lb.unlock()

    def read(self):
        self.la.lock()
        if self.s.a == 0:
            self.la.unlock()
            return
        t = self.s.a
        self.la.unlock()
        self.lb.lock()
        u = self.s.b
        self.lb.unlock()
        assert u == t + 1, "stage two not done"
