"""What threads share and no field declares: refused, or at least nothing claimed (issue 13)."""

from smpvm import Scenario

ISSUE = "issue 13"
BOX = {"n": 0}


class Undeclared(Scenario):
    "Two threads count in a plain attribute: nothing may be claimed."

    source = ISSUE + " (wrong proofs)"
    expect = "unproven"
    also = "assertion"

    def setup(self):
        self.n = 0
        self.make()
        for name in "ab":
            self.thread(name, self.count)

    def make(self):
        self.c = self.shared(steps=0)

    def count(self):
        n = self.n
        self.atomic.add_int(self.c, "steps", 1)
        self.n = n + 1


class UndeclaredYield(Undeclared):
    "The same, and they only yield."

    def count(self):
        n = self.n
        self.yield_()
        self.n = n + 1


class UndeclaredList(Undeclared):
    "The same in a list."

    def make(self):
        super().make()
        self.n = [0]

    def count(self):
        n = self.n[0]
        self.atomic.add_int(self.c, "steps", 1)
        self.n[0] = n + 1


class UndeclaredDict(Undeclared):
    "The same in a dict of the scenario."

    def make(self):
        super().make()
        self.n = {"n": 0}

    def count(self):
        n = self.n["n"]
        self.atomic.add_int(self.c, "steps", 1)
        self.n["n"] = n + 1


class UndeclaredClosure(Undeclared):
    "The same in a variable of setup."

    def setup(self):
        self.c = self.shared(steps=0)
        n = 0

        def count():
            nonlocal n
            was = n
            self.atomic.add_int(self.c, "steps", 1)
            n = was + 1

        for name in "ab":
            self.thread(name, count)


class UndeclaredGlobal(Undeclared):
    "The same in a dict of the module, made new by setup."

    def make(self):
        super().make()
        BOX["n"] = 0

    def count(self):
        n = BOX["n"]
        self.atomic.add_int(self.c, "steps", 1)
        BOX["n"] = n + 1


class UndeclaredFlag(Undeclared):
    "One sets an attribute, the other decides by it."

    def make(self):
        super().make()
        self.n = 0

    def setup(self):
        self.make()
        self.thread("set", self.set)
        self.thread("look", self.look)

    def set(self):
        self.atomic.add_int(self.c, "steps", 1)
        self.n = 1

    def look(self):
        if self.n:
            self.atomic.add_int(self.c, "steps", 1)


class DictInShared(Scenario):
    "A dict in a shared field."

    source = ISSUE + " (wrong proofs)"
    expect = "refused"

    def setup(self):
        self.s = self.shared(d=self.value())
        self.thread("a", self.go)

    def value(self):
        return {"n": 0}

    def go(self):
        return self.s.d


class ListInTuple(DictInShared):
    "A list in a tuple in a shared field."

    def value(self):
        return (1, [2])


class ListLater(DictInShared):
    "A list that a thread writes."

    def value(self):
        return ()

    def go(self):
        self.s.d = [1]
