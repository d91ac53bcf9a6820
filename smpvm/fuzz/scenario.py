"""A program as a scenario, so that explore, replay and shrinking work on it.  Its spec is
``fuzz:TEXT``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from smpvm.check.finding import Failure
from smpvm.explore.scenario import ScenarioClass
from smpvm.fuzz.actor import Actor, Life
from smpvm.fuzz.operations import OPERATIONS
from smpvm.fuzz.program import parse
from smpvm.fuzz.shape import EVERYBODY, FILES, Program, Region
from smpvm.fuzz.start import StartState, body_of
from smpvm.fuzz.words import Oracle, Space, StaleData
from smpvm.kern.cname import KEEP
from smpvm.kern.proc import Proc
from smpvm.repairs.catalogue import REPAIRS
from smpvm.vm.map.mmap import MAP_ANON, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, MAP_STACK, PROT_RW

FRAMES: Final = KEEP
PREFIX: Final = "fuzz:"
FLAGS: Final = {
    "anon": MAP_ANON | MAP_PRIVATE,
    "shared": MAP_ANON | MAP_SHARED,
    "file": MAP_SHARED,
    "private": MAP_PRIVATE,
    "stack": MAP_STACK,
}


class FuzzProgram(StartState):
    """A program; a saved one is a class with its text::

    class Found(FuzzProgram):
        "page 0 is wired without an owner"
        text = "start: x anon 1 wired | a: exec"
    """

    text: ClassVar[str] = ""
    program: ClassVar[Program]
    repairs = tuple(REPAIRS)

    def __init_subclass__(cls) -> None:
        if "program" not in vars(cls):
            cls.program = parse(cls.text)
        for name, value in body_of(cls.program).items():
            setattr(cls, name, value)
        super().__init_subclass__()

    def setup(self) -> None:
        """The start, then a thread for each of the program's."""
        self.numbers = len(self.program.threads)
        self.oracle = Oracle(self.program, self.looser)
        self.reclaimed: list[str] = []
        self.make_start()
        for number, td in enumerate(self.program.threads, 1):
            life = self.lives.get(td.process)
            actor = Actor(self, number, life)
            if life is not None:
                life.threads += 1
                self.thread(td.name, actor.live, td.ops, process=life.p)
            elif td.name == "pageout":
                self.pagedaemon(lambda actor=actor, ops=td.ops: actor.run(ops))
            else:
                made = self.thread(td.name, actor.run, td.ops)
                if td.name == "vmdaemon":
                    self.vm.vmdaemon.vmthread = made

    # -- for actors

    def known(self, name: str) -> Region:
        """The region of that name."""
        region = self.program.region(name)
        assert region is not None
        return region

    def next_number(self) -> int:
        """The word of a child."""
        self.numbers += 1
        return self.numbers

    def map_region(self, p: Proc, region: Region) -> None:
        """mmap at the region's own address; what is there is replaced."""
        sys, vp = self.vm.process.sys, self.vnodes.get(region.name)
        flags, size = FLAGS[region.kind] | MAP_FIXED, self.bytes_of(region)
        if region.kind == "stack":
            sys.munmap(p, self.bottom(region), size)
        sys.mmap(p, self.bottom(region), size, PROT_RW, flags, vp)

    def looser(self, region: str) -> str:
        """What the program allows for words of *region*: see ``Operation.loosens``."""
        kind = self.known(region).kind if region else ""
        found = {OPERATIONS[op.name].loosens for op in self._about(region)}
        if region and self.known(region).state == "unmapped":
            found.add("access")
        if kind in FILES and self.program.has("fail"):
            found.add("words")
        return "access" if "access" in found else "words" if "words" in found else ""

    def _about(self, region: str) -> Any:
        return [op for op in self.program.ops() if op.region in ("", region)]

    def may_fail(self, region: str) -> bool:
        """May an access to *region* be refused?"""
        return not region or self.looser(region) == "access" or self.program.has("fail")

    # -- the end

    def check(self) -> None:
        """Every word of the processes that are left, from memory, swap, or file."""
        for life in self.lives.values():
            if life.gone or life.p.killed:
                continue
            for space in (life.space, self.oracle.common):
                for key in self.oracle.keys(space):
                    if space is life.space or self.known(key[0]).kind in EVERYBODY:
                        self._check_word(life, space, key)

    def _check_word(self, life: Life, space: Space, key: tuple[str, int, int]) -> None:
        region, page, word = key
        va = self.va(region, page)
        if self.looser(region) == "access" or not self.sees(life.p, va):
            return
        since = self.oracle.since(space, key)
        self.oracle.check(None, space, key, since, self.see(life.p, va, word), "at the end")

    def failures(self) -> list[Failure]:
        """As of every VM scenario; a lost word is what it is."""
        found = super().failures()
        if any(StaleData.__name__ in f.identity for f in found):
            self.failure_kind = StaleData.kind
        return found


def scenario_of(spec: str) -> ScenarioClass:
    """The scenario of a program, ``fuzz:TEXT`` or only TEXT.  Raises ProgramError."""
    return of_program(parse(spec.removeprefix(PREFIX)))


def of_program(program: Program) -> ScenarioClass:
    """The scenario of a program."""
    body: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": "A generated program.",
        "name": "fuzz",
        "spec": f"{PREFIX}{program.text}",
        "text": program.text,
        "program": program,
    }
    return type("FuzzProgram", (FuzzProgram,), body)  # type: ignore[return-value]


def saved(programs: Iterable[tuple[str, Program]]) -> str:
    """The text of a scenario file with these programs, each with a title."""
    out = ['"""Programs that ``smpvm fuzz`` found something in."""', ""]
    out += ["from smpvm.fuzz.scenario import FuzzProgram", ""]
    for n, (title, program) in enumerate(programs, 1):
        out += ["", f"class Found{n}(FuzzProgram):", f"    {title!r}", ""]
        out += [f"    text = {program.text!r}", ""]
    return "\n".join(out)
