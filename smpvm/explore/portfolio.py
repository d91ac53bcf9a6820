"""The strategies by name, and the portfolio that alternates the random ones."""

from __future__ import annotations

from collections.abc import Callable

from smpvm.explore.bounded import Bounded
from smpvm.explore.dpor import Dpor
from smpvm.explore.pct import Pct
from smpvm.explore.pos import Pos
from smpvm.explore.random_walk import RandomWalk
from smpvm.explore.roundrobin import RoundRobin
from smpvm.explore.scheduler import Plain, Scheduler, SerialCarrier, Strategy


class Portfolio(Plain):
    """Random walk, PCT of depths 2 and 3, and POS in turn."""

    name = "portfolio"

    def __init__(self, seed: int = 0) -> None:
        self.parts: list[Strategy] = [
            RandomWalk(seed),
            Pct(seed, 2),
            Pos(seed),
            Pct(seed + 1, 3),
        ]
        self._now: Strategy = self.parts[0]

    def start(self, n: int) -> Scheduler | None:
        self._now = self.parts[n % len(self.parts)]
        return self._now.start(n)

    def done(self, carrier: SerialCarrier) -> None:
        self._now.done(carrier)

    def notes(self) -> list[str]:
        return [line for part in self.parts for line in part.notes()]


def make_strategy(
    name: str, *, seed: int = 0, depth: int | None = None, bound: int | None = None
) -> Strategy:
    """A strategy by its name.  Raises ValueError for an unknown one."""
    makers: dict[str, Callable[[], Strategy]] = {
        "random": lambda: RandomWalk(seed),
        "pct": lambda: Pct(seed, 3 if depth is None else depth),
        "pos": lambda: Pos(seed),
        "bounded": lambda: Bounded(2 if bound is None else bound),
        "all": lambda: Bounded(None),
        "dpor": Dpor,
        "roundrobin": RoundRobin,
        "portfolio": lambda: Portfolio(seed),
    }
    if name not in makers:
        raise ValueError(f"strategy {name!r}: unknown; known are {', '.join(makers)}")
    return makers[name]()


STRATEGIES = ("random", "pct", "pos", "bounded", "all", "dpor", "roundrobin", "portfolio")
