"""Litmus tests: what two to four threads may see of each other's plain accesses.

A test is a line: threads divided by ``|``, accesses by ``;``.  Names that begin with r are
registers.  ``never`` is the outcome that sequential consistency forbids; ``tso = "assertion"`` says
that x86-TSO allows it.  Classes: each pair of conflicting accesses comes either way round, less the
combinations that make a cycle with the program order.
"""

from smpvm import Scenario

WHY = "the races are the point of a litmus test"
OWENS = "Owens, Sarkar, Sewell: A better x86 memory model: x86-TSO, 2009"
HERD = "Alglave, Maranget, Tautschnig: Herding cats, 2014 (names and outcomes)"


class Litmus(Scenario):
    "Runs the line ``program``."

    program = ""
    never = ""
    source = ""
    expect = ""
    tso = ""
    classes = 3

    def setup(self):
        threads = [[op.strip() for op in t.split(";")] for t in self.program.split("|")]
        names = set(self.program.replace(";", " ").replace("=", " ").replace("|", " ").split())
        names = {n for n in names if n.isidentifier() and n not in ("fence", "swap")}
        fields = sorted(n for n in names if not n.startswith("r"))
        self.m = self.shared(benign=dict.fromkeys(fields, WHY), **dict.fromkeys(fields, 0))
        self.r = self.shared(**{n: 0 for n in sorted(names) if n.startswith("r")})
        for i, ops in enumerate(threads):
            self.thread(f"p{i}", self.run, tuple(ops))

    def run(self, ops):
        for op in ops:
            if op == "fence":
                self.fence()
                continue
            left, right = op.split("=")
            if right.startswith("swap "):
                _, field, value = right.split()
                setattr(self.r, left, self.atomic.swap_int(self.m, field, int(value)))
            elif left.startswith("r"):
                setattr(self.r, left, getattr(self.m, right))
            else:
                setattr(self.m, left, int(right))

    def check(self):
        pairs = [pair.split("=") for pair in self.never.split()]
        cells = [(self.r if name.startswith("r") else self.m, name, n) for name, n in pairs]
        same = all(getattr(cell, name) == int(n) for cell, name, n in cells)
        assert not same, f"{self.never}"


class SB(Litmus):
    "Store buffering."

    program = "x=1; r0=y | y=1; r1=x"
    never = "r0=0 r1=0"
    tso = "assertion"
    source = OWENS


class SBFenced(SB):
    "Store buffering with a fence in both."

    program = "x=1; fence; r0=y | y=1; fence; r1=x"
    tso = ""


class SBOneFence(SB):
    "Store buffering with a fence in one only."

    program = "x=1; fence; r0=y | y=1; r1=x"


class SBSwap(SB):
    "Store buffering with locked exchanges for stores."

    program = "r2=swap x 1; r0=y | r3=swap y 1; r1=x"
    tso = ""


class LB(Litmus):
    "Load buffering."

    program = "r0=x; y=1 | r1=y; x=1"
    never = "r0=1 r1=1"
    source = HERD


class MP(Litmus):
    "Message passing."

    program = "x=1; y=1 | r0=y; r1=x"
    never = "r0=1 r1=0"
    source = HERD


class IRIW(Litmus):
    "Independent reads of independent writes."

    program = "x=1 | y=1 | r0=x; r1=y | r2=y; r3=x"
    never = "r0=1 r1=0 r2=1 r3=0"
    classes = 15
    source = "Boehm, Adve: Foundations of the C++ memory model, 2008; allowed by neither model here"


class TwoPlusTwoW(Litmus):
    "2+2W: two writes each, crosswise."

    name = "2+2W"
    program = "x=1; y=2 | y=1; x=2"
    never = "x=1 y=1"
    source = HERD


class R(Litmus):
    "R: writes, then a write and a read."

    program = "x=1; y=1 | y=2; r0=x"
    never = "y=2 r0=0"
    tso = "assertion"
    source = HERD


class S(Litmus):
    "S: writes, then a read and a write."

    program = "x=2; y=1 | r0=y; x=1"
    never = "r0=1 x=2"
    source = HERD


class CoRR(Litmus):
    "Coherence of two reads."

    program = "x=1 | r0=x; r1=x"
    never = "r0=1 r1=0"
    source = HERD


class CoWR(Litmus):
    "Coherence of a write and a read behind it."

    program = "x=1; r0=x | x=2"
    never = "r0=2 x=1"
    source = HERD


class CoRW(Litmus):
    "Coherence of a read and a write behind it."

    program = "r0=x; x=1 | x=2"
    never = "r0=2 x=2"
    source = HERD


class CoRR2(Litmus):
    "Two readers agree on the order of two writes: 2 orders, 6 places of each pair of reads."

    program = "x=1 | x=2 | r0=x; r1=x | r2=x; r3=x"
    never = "r0=1 r1=2 r2=2 r3=1"
    classes = 72
    source = HERD


class WRC(Litmus):
    "Write to read causality."

    program = "x=1 | r0=x; y=1 | r1=y; r2=x"
    never = "r0=1 r1=1 r2=0"
    classes = 7
    source = HERD


class RWC(Litmus):
    "Read to write causality."

    program = "x=1 | r0=x; r1=y | y=1; r2=x"
    never = "r0=1 r1=0 r2=0"
    tso = "assertion"
    classes = 7
    source = HERD


class ISA2(Litmus):
    "Message passing over three threads."

    program = "x=1; y=1 | r0=y; z=1 | r1=z; r2=x"
    never = "r0=1 r1=1 r2=0"
    classes = 7
    source = HERD


class WRWC(Litmus):
    "W+RWC: read to write causality behind a message."

    name = "W+RWC"
    program = "x=1; y=1 | r0=y; r1=z | z=1; r2=x"
    never = "r0=1 r1=0 r2=0"
    tso = "assertion"
    classes = 7
    source = HERD


class SB3(Litmus):
    "3.SB: store buffering in a ring of three."

    name = "3.SB"
    program = "x=1; r0=y | y=1; r1=z | z=1; r2=x"
    never = "r0=0 r1=0 r2=0"
    tso = "assertion"
    classes = 7
    source = HERD


class LB3(Litmus):
    "3.LB: load buffering in a ring of three."

    name = "3.LB"
    program = "r0=x; y=1 | r1=y; z=1 | r2=z; x=1"
    never = "r0=1 r1=1 r2=1"
    classes = 7
    source = HERD


class ThreeTwoW(Litmus):
    "3.2W: two writes each, in a ring of three."

    name = "3.2W"
    program = "x=1; y=2 | y=1; z=2 | z=1; x=2"
    never = "x=1 y=1 z=1"
    classes = 7
    source = HERD


class N6(Litmus):
    "n6: a thread sees its own write before all others do."

    program = "x=1; r0=x; r1=y | y=2; x=2"
    never = "r0=1 r1=0 x=1"
    tso = "assertion"
    classes = 4
    source = OWENS


class N7(Litmus):
    "n7: two readers see two writes in different orders, one of them its own."

    program = "x=1; r0=x; r1=y | y=1 | r2=y; r3=x"
    never = "r0=1 r1=0 r2=1 r3=0"
    tso = "assertion"
    classes = 7
    source = OWENS


class Forwarding(Litmus):
    "Both see their own writes first (iwp2.4)."

    program = "x=1; r0=x; r1=y | y=1; r2=y; r3=x"
    never = "r0=1 r1=0 r2=1 r3=0"
    tso = "assertion"
    source = OWENS


class MPBackwards(Litmus):
    "A message whose flag comes first: what MP forbids is seen."

    program = "y=1; x=1 | r0=y; r1=x"
    never = "r0=1 r1=0"
    expect = "assertion"
    tso = "assertion"
    source = "MP with its writes exchanged: 4 orders of two pairs, none a cycle"
    classes = 4
