"""Programs whose number of Mazurkiewicz traces is published, or follows from a formula."""

from smpvm import Scenario

WHY = "only the orders are counted"
POPL14 = "Abdulla, Aronis, Jonsson, Sagonas: Optimal dynamic partial order reduction, 2014"
NIDHUGG = "benchmarks of Nidhugg"


class Readers(Scenario):
    "One writes, n read: 2^n."

    classes = 16
    source = POPL14
    n = 4

    def setup(self):
        self.m = self.shared(benign={"x": WHY}, x=0)
        self.thread("writer", setattr_of(self.m, "x"), 1)
        for i in range(self.n):
            self.thread(f"r{i}", self.read)

    def read(self):
        assert self.m.x in (0, 1)


def setattr_of(cell, field):
    def put(value):
        setattr(cell, field, value)

    return put


class LastZero(Scenario):
    "n threads copy their left neighbour plus one; one looks for the last zero: (n + 3) 2^(n - 2)."

    classes = 64
    source = POPL14 + " (lastzero)"
    n = 5

    def setup(self):
        self.a = self.array(self.n + 1, 0, benign=WHY)
        self.thread("looker", self.look)
        for i in range(1, self.n + 1):
            self.thread(f"t{i}", self.copy, i)

    def look(self):
        i = self.n
        while self.a[i] != 0:
            i -= 1

    def copy(self, i):
        self.a[i] = self.a[i - 1] + 1


class LastZero7(LastZero):
    "The same for 7: 320."

    n = 7
    classes = 320


class Sigma(Scenario):
    "Each of n threads writes where an index points that its maker moves on: 1·3·5 ..."

    classes = 105
    source = NIDHUGG + " (sigma, after SV-COMP); each placing counts the orders of equal places"
    n = 4

    def setup(self):
        self.m = self.shared(benign={"index": WHY}, index=-1)
        self.a = self.array(self.n, 0, benign=WHY)
        self.thread("main", self.main)

    def main(self):
        tds = []
        for i in range(self.n):
            self.m.index = i
            tds.append(self.spawn(f"t{i}", self.put))
        for td in tds:
            self.join(td)

    def put(self):
        self.a[self.m.index] = 1


class CasRot(Scenario):
    "Thread i of n sets x from i to i + 1: the sum over k of k (k + 1)^(n - k - 1), and 1."

    classes = 43
    source = NIDHUGG + " (casrot)"
    n = 5

    def setup(self):
        self.m = self.shared(x=0)
        for i in range(self.n):
            self.thread(f"t{i}", self.atomic.cmpset_int, self.m, "x", i, i + 1)


class CasRot8(CasRot):
    "The same for 8: 2,048."

    n = 8
    classes = 2048


class Fibonacci(Scenario):
    "Two threads add to each other's number, n times each: counted without smpvm."

    classes = 19
    source = "SV-COMP fib_bench; classes enumerated by a separate program"
    n = 2

    def setup(self):
        self.m = self.shared(benign={"i": WHY, "j": WHY}, i=1, j=1)
        self.thread("a", self.add, "i", "j")
        self.thread("b", self.add, "j", "i")

    def add(self, mine, other):
        for _ in range(self.n):
            setattr(self.m, mine, getattr(self.m, mine) + getattr(self.m, other))

    def check(self):
        most = (1, 3, 8, 21, 55)[self.n]
        assert max(self.m.i, self.m.j) <= most, "more than the Fibonacci number"


class Fibonacci3(Fibonacci):
    "The same three times each."

    n = 3
    classes = 141


class FibonacciBad(Fibonacci):
    "The same with a bound that is reached."

    expect = "assertion"

    def check(self):
        assert max(self.m.i, self.m.j) < 8, "the Fibonacci number is reached"


class Alone(Scenario):
    "Three threads that share nothing: 1."

    classes = 1
    source = "derived"

    def setup(self):
        self.m = self.shared(a=0, b=0, c=0)
        for name in "abc":
            self.thread(name, self.go, name)

    def go(self, name):
        for i in range(3):
            setattr(self.m, name, i)


class Writers(Scenario):
    "n threads write one field: n!."

    classes = 24
    source = "derived; Aronis et al.: Optimal DPOR with observers, 2018 (lastwrite)"
    n = 4

    def setup(self):
        self.m = self.shared(benign={"x": WHY}, x=0)
        for i in range(self.n):
            self.thread(f"t{i}", setattr_of(self.m, "x"), i)


class FloatingRead(Writers):
    "n write one field, one reads it: (n + 1)!."

    source = "derived; Optimal DPOR with observers, 2018 (floating_read)"
    n = 3

    def setup(self):
        super().setup()
        self.thread("reader", lambda: self.m.x)


class Counters(Scenario):
    "Three threads add one in two steps: 36."

    classes = 36
    expect = "assertion race"
    source = "enumerated by a separate program"

    def setup(self):
        self.m = self.shared(x=0)
        for name in "abc":
            self.thread(name, self.go)

    def go(self):
        self.m.x = self.m.x + 1

    def check(self):
        assert self.m.x == 3, "an update is lost"


class Adders(Scenario):
    "Three threads add one atomically, twice each: 90."

    classes = 90
    source = "derived: the orders of the additions"

    def setup(self):
        self.m = self.shared(x=0)
        for name in "abc":
            self.thread(name, self.go)

    def go(self):
        for _ in range(2):
            self.atomic.add_int(self.m, "x", 1)

    def check(self):
        assert self.m.x == 6


class Indexer(Scenario):
    "n threads put four messages each into a hash table: 1 up to 11 threads, 8 with 12."

    classes = 8
    source = POPL14 + " (indexer, after Flanagan and Godefroid 2005)"
    n = 12

    def setup(self):
        self.table_ = self.array(128)
        for i in range(self.n):
            self.thread(f"t{i}", self.put, i)

    def put(self, tid):
        for m in range(1, 5):
            w = m * 11 + tid
            h = w * 7 % 128
            while not self.atomic.cmpset_int(self.table_, self.table_.at(h), 0, w):
                h = (h + 1) % 128


class FileSystem(Scenario):
    "n threads look for a free block each, from places of which 13 differ: 2^(n - 13)."

    classes = 2
    source = POPL14 + " (filesystem, after Flanagan and Godefroid 2005)"
    n = 14

    def setup(self):
        self.locki = [self.spinlock(f"inode {i}", cls="inode") for i in range(32)]
        self.lockb = [self.spinlock(f"block {i}", cls="block") for i in range(26)]
        self.inode, self.busy = self.array(32), self.array(26)
        for i in range(self.n):
            self.thread(f"t{i}", self.find, i)

    def find(self, tid):
        i = tid % 32
        self.locki[i].lock()
        if self.inode[i] == 0:
            b = i * 2 % 26
            while not self.taken(i, b):
                b = (b + 1) % 26
        self.locki[i].unlock()

    def taken(self, i, b):
        self.lockb[b].lock()
        free = not self.busy[b]
        if free:
            self.busy[b] = 1
            self.inode[i] = b + 1
        self.lockb[b].unlock()
        return free


class FileSystem16(FileSystem):
    "The same with 16 threads: 8."

    n = 16
    classes = 8
