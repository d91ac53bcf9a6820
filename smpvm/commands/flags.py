"""Command-line options that several commands share, and how numbers are read.

Light on purpose: ``smpvm --help`` imports this, and nothing of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from smpvm.text import real, whole

Decorator = Callable[[Any], Any]


class Whole(click.ParamType[int]):
    """A whole number from *low* to *high* (None: no limit)."""

    name = "integer"

    def __init__(self, low: int | None = None, high: int | None = None) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """As ``text.whole``; out of range is an error of use."""
        try:
            number = value if isinstance(value, int) else whole(value)
        except ValueError as why:
            self.fail(str(why), param, ctx)
        _check(self, number, param, ctx)
        return number


class Seconds(click.ParamType[float]):
    """A number of host seconds from *low* to *high*."""

    name = "number"

    def __init__(self, low: float, high: float = 1e9) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """As ``text.real``; out of range is an error of use."""
        try:
            number = float(value) if isinstance(value, int | float) else real(value)
        except ValueError as why:
            self.fail(str(why), param, ctx)
        _check(self, number, param, ctx)
        return number


def _check(kind: Whole | Seconds, number: float, param: Any, ctx: Any) -> None:
    if kind.low is not None and number < kind.low:
        kind.fail(f"{number:g} is too small; the least is {kind.low:g}", param, ctx)
    if kind.high is not None and number > kind.high:
        kind.fail(f"{number:g} is too large; the most is {kind.high:g}", param, ctx)


FILE = click.Path(path_type=Path)


def missing(module: str) -> str:
    """What to do about a Python module that is not installed."""
    return f"the Python module {module} is not installed: python -m pip install {module}"


known_option: Decorator = click.option(
    "--known",
    type=click.Choice(["show", "hide"]),
    default="show",
    show_default=True,
    help="Report findings that show defects of the catalogue, or only count them.",
)
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
seed_option: Decorator = click.option(
    "--seed", type=Whole(), default=0, show_default=True, help="Seed for all random choices."
)
run_dir_option: Decorator = click.option(
    "--run-dir",
    type=FILE,
    metavar="DIR",
    help="Keep run.json, result.json and each finding in DIR, or in DIR-2, DIR-3, ... if DIR "
    "has an earlier run.",
)
carrier_option: Decorator = click.option(
    "--carrier",
    type=click.Choice(["auto", "greenlet", "thread"]),
    default="auto",
    show_default=True,
    help="What kernel threads run on: greenlets, or host threads (slower).  auto: greenlets "
    "where they are installed.",
)

hang_option: Decorator = click.option(
    "--hang",
    type=Seconds(0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Abandon an execution whose thread, set-up or check uses this much CPU time without a "
    "step, or waits outside the model for as long.",
)


def check_option(default: str) -> Decorator:
    """``--check``: the command's default differs, the meaning does not; and ``--no-benign``."""
    benign = click.option(
        "--no-benign",
        "benign",
        flag_value=False,
        default=True,
        help="Report also the races and timed waits that the source declares as meant.",
    )
    check = click.option(
        "--check",
        "checks",
        default=default,
        show_default=True,
        metavar="all|none|default|NAME,...",
        help="Which checkers watch: order, documented, waitfor, wakeup, race, marker, "
        "discipline, policy, request, progress, lifetime, page, count.",
    )
    return lambda command: check(benign(command))


def baseline_option(command: Any) -> Any:
    """``--baseline`` and ``--write-baseline``: findings and edges that are known."""
    read = click.option(
        "--baseline",
        type=FILE,
        metavar="FILE",
        help="Do not tell again the findings and lock-order edges that FILE has.",
    )
    write = click.option(
        "--write-baseline",
        type=FILE,
        metavar="FILE",
        help="Write what was found, beside what --baseline has, as the baseline FILE.",
    )
    return read(write(command))


def memory_option(default: str | None) -> Decorator:
    """``--memory``; None: what the schedule says."""
    return click.option(
        "--memory",
        type=click.Choice(["sc", "tso"]),
        default=default,
        show_default=default or "the schedule's",
        help="When others see a plain store: at once (sc, sequential consistency), or when it "
        "leaves the CPU's store buffer (tso, x86).",
    )


def spurious_option(default: int | None) -> Decorator:
    """``--spurious``; None: what the schedule says."""
    return click.option(
        "--spurious",
        type=Whole(0, 999_999),
        default=default,
        show_default="the schedule's" if default is None else True,
        metavar="N",
        help="Up to N sleeps of an execution may end without a wakeup; tsleep then returns 0.",
    )


def wakeup_order_option(command: Any) -> Any:
    """``--wakeup-order``: empty for what the scenario, or the schedule, says."""
    return click.option(
        "--wakeup-order",
        type=click.Choice(["c"]),
        help="c: wakeup_one wakes who has slept longest, as in the C.  [default: so in scenarios "
        "of the VM; in others any sleeper]",
    )(command)


def limit_option(command: Any) -> Any:
    """``--steps``: when an execution is given up as too long."""
    return click.option(
        "--steps",
        "limit",
        type=Whole(1, 1_000_000_000),
        default=200_000,
        show_default=True,
        metavar="N",
        help="An execution must end within this many steps, or twice as many if taken in turn.",
    )(command)


def repair_option(every: str) -> Decorator:
    """``--repair``; *every* says what ``all`` means to the command."""
    return click.option(
        "--repair",
        "repairs",
        multiple=True,
        metavar="NAME|all",
        help=f"Apply a repair of a kernel defect (see `smpvm repairs`); may be repeated.  {every}",
    )
