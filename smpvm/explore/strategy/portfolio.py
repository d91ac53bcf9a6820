"""The strategies by name, and the portfolio: an exhaustive strategy and random ones in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smpvm.explore.strategy.base import Plain, Scheduler, SerialCarrier, Strategy
from smpvm.explore.strategy.bounded import Bounded
from smpvm.explore.strategy.chosen import Chosen
from smpvm.explore.strategy.dpor import Dpor
from smpvm.explore.strategy.pct import Pct
from smpvm.explore.strategy.pos import Pos
from smpvm.explore.strategy.random_walk import RandomWalk
from smpvm.explore.strategy.roundrobin import RoundRobin
from smpvm.explore.strategy.surw import Surw


class Portfolio(Plain):
    """DPOR in every third execution; in the others, in turn, random walk, PCT of depths 2 and 3 (or
    *depth*), POS and SURW.

    DPOR's next execution follows from its previous one, so it cannot start in the middle: it runs
    only where schedule 0 is run (the first piece of a campaign, the first of several workers).
    Elsewhere its turns go to the random strategies.  The portfolio ends when DPOR has finished.
    """

    name = "portfolio"

    def __init__(self, seed: int = 0, depth: int | None = None) -> None:
        self.seed = seed
        self.dpor: Chosen | None = None
        self.parts: list[Strategy] = [
            RandomWalk(seed),
            Pct(seed, depth or 2),
            Pos(seed),
            Pct(seed + 1, depth or 3),
            Surw(seed),
        ]
        self._turns = 0
        """How many turns DPOR has had."""
        self._now: Strategy = self.parts[0]
        self._all_accesses = False

    @property
    def fair_after(self) -> bool:
        """That of the strategy whose turn it is."""
        return self._now.fair_after

    def start(self, n: int) -> Scheduler | None:
        if n == 0:
            self.dpor = Chosen(Dpor)
            self._turns = 0
        if n % 3 == 0 and self.dpor is not None:
            scheduler = self.dpor.start(self._turns)
            self._turns += 1
            if scheduler is not None:
                self._now = self.dpor
                return scheduler
            if self.claim():
                return None
            self.dpor = None
        self._now = self.parts[n % len(self.parts)]
        return self._now.start(n)

    def attach(self, carrier: SerialCarrier) -> None:
        self._all_accesses = carrier.access_points
        self._now.attach(carrier)

    def done(self, carrier: SerialCarrier) -> None:
        self._now.done(carrier)

    def claim(self) -> str:
        return self.dpor.claim() if self.dpor is not None and self._all_accesses else ""

    def notes(self) -> list[str]:
        parts = self.parts if self.dpor is None else [self.dpor, *self.parts]
        return [line for part in parts for line in part.notes()]


def make_strategy(
    name: str, *, seed: int = 0, depth: int | None = None, bound: int | None = None
) -> Strategy:
    """A strategy by its name.  Raises ValueError for an unknown name, and for options that do not
    apply or are out of range."""
    makers: dict[str, Callable[[], Strategy]] = {
        "random": lambda: RandomWalk(seed),
        "pct": lambda: Pct(seed, 3 if depth is None else depth),
        "pos": lambda: Pos(seed),
        "surw": lambda: Surw(seed),
        "bounded": lambda: Chosen(lambda: Bounded(2 if bound is None else bound)),
        "all": lambda: Chosen(lambda: Bounded(None)),
        "dpor": lambda: Chosen(Dpor if bound is None else lambda: Bounded(bound, reduced=True)),
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
