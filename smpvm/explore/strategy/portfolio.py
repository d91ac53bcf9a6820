"""The strategies by name, and the portfolio that alternates the random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smpvm.explore.strategy.base import Plain, Scheduler, SerialCarrier, Strategy
from smpvm.explore.strategy.bounded import Bounded
from smpvm.explore.strategy.dpor import Dpor
from smpvm.explore.strategy.pct import Pct
from smpvm.explore.strategy.pos import Pos
from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.explore.strategy.roundrobin import RoundRobin


class Portfolio(Plain):
    """Random walk, PCT of depths 2 and 3 (or *depth*), and POS in turn.

    Not the exhaustive ones: what they do next follows from the execution before, so that it could
    neither be numbered nor be spread over workers.
    """

    name = "portfolio"

    def __init__(self, seed: int = 0, depth: int | None = None) -> None:
        self.parts: list[Strategy] = [
            RandomWalk(seed),
            Pct(seed, depth or 2),
            Pos(seed),
            Pct(seed + 1, depth or 3),
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
    """A strategy by its name.  Raises ValueError for an unknown one, and for options that cannot
    be."""
    makers: dict[str, Callable[[], Strategy]] = {
        "random": lambda: RandomWalk(seed),
        "pct": lambda: Pct(seed, 3 if depth is None else depth),
        "pos": lambda: Pos(seed),
        "bounded": lambda: Bounded(2 if bound is None else bound),
        "all": lambda: Bounded(None),
        "dpor": Dpor if bound is None else lambda: Bounded(bound, reduced=True),
        "roundrobin": RoundRobin,
        "portfolio": lambda: Portfolio(seed, depth),
    }
    if name not in makers:
        raise ValueError(f"strategy {name!r}: unknown; known are {', '.join(makers)}")
    _see("depth", depth, 1, 10, name, ("pct", "portfolio"))
    _see("bound", bound, 0, 100, name, ("bounded", "dpor"))
    return makers[name]()


def _see(what: str, value: int | None, least: int, most: int, name: str, of: Sequence[str]) -> None:
    if value is None:
        return
    if not least <= value <= most:
        raise ValueError(f"{what}={value}: from {least} to {most}")
    if name not in of:
        raise ValueError(f"{what}={value}: not for strategy {name!r}, only for {', '.join(of)}")
