"""A pytest plugin: tests that run a scenario under many schedules.

::

    @pytest.mark.smpvm(strategy="pos", schedules=500)
    def test_counter(smpvm):
        smpvm.explore(Counter)

``smpvm`` is the fixture.  A failure shows the interleaving and the command that reproduces it:
``pytest TEST --smpvm-schedule s1/...`` runs only that schedule, and so does the marker's
``schedule="s1/..."``.  Failing schedules are kept in pytest's cache, by test and scenario, and the
next run replays them first.  Exhaustive strategies run to their end unless a limit is given, and
warn if they do not reach it.
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pytest

from smpvm.check.finding import Finding
from smpvm.check.suite import checks_text, parse_checks
from smpvm.commands.replay import PACKAGE, Shown, run_schedule
from smpvm.config import ConfigError
from smpvm.explore.engine import Settings
from smpvm.explore.registry import ScenarioError, check_class, find
from smpvm.explore.search import EXHAUSTIVE, PROVING, Search, SearchPlan, SearchReport
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.trace.schedule import Schedule, ScheduleError
from smpvm.repairs.catalogue import choose
from smpvm.text import quoted

MARK = "smpvm"
NONE = type(None)
OPTIONS: dict[str, tuple[type, ...]] = {
    "strategy": (str,),
    "schedules": (int, NONE),
    "seconds": (float, int, NONE),
    "seed": (int,),
    "depth": (int, NONE),
    "bound": (int, NONE),
    "granularity": (str,),
    "memory": (str,),
    "spurious": (int,),
    "wakeup_order": (str,),
    "checks": (str,),
    "repairs": (str, tuple, list),
    "schedule": (str, NONE),
}
KEY = "smpvm/failures"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--smpvm-seed`` and ``--smpvm-schedule``."""
    group = parser.getgroup("smpvm")
    group.addoption("--smpvm-seed", type=int, default=0, help="seed for all random choices")
    group.addoption("--smpvm-schedule", default=None, help="run only this schedule (s1/...)")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "smpvm(strategy='portfolio', schedules=200 (exhaustive strategies: None), seconds=None, "
        "granularity='access', memory='sc', spurious=0, wakeup_order='', depth=None, bound=None, "
        "seed=0, checks='all', repairs=(), schedule=None): how the smpvm fixture explores",
    )


class Inconclusive(pytest.PytestWarning):
    """An exhaustive search ended before it had proven anything."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a marked test that does not use the fixture: it would pass without running anything."""
    marked = any(mark.name == MARK for mark in getattr(item, "own_markers", ()))
    if marked and MARK not in getattr(item, "fixturenames", ()):
        fail("the test has the marker smpvm, but does not use the fixture smpvm")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that has the fixture and explores nothing."""
    yield
    explorer = getattr(item, "funcargs", {}).get(MARK)
    if isinstance(explorer, Explorer):
        explorer.see_that_it_ran()


class Explorer:
    """The value of the fixture."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._config = request.config
        self._node = request.node.nodeid
        mark = request.node.get_closest_marker(MARK)
        self._options: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}
        self._ran: list[str] = []
        """Names of the scenarios that were run."""
        self._other: list[str] = []
        """Names of those that were not, because the given schedule is of another scenario."""
        if mark is not None and mark.args:
            fail(f"options must be given by name, got {quoted(mark.args)}")

    def explore(self, scenario: Any, **options: Any) -> SearchReport | None:
        """Search *scenario*, a class or a name as for ``smpvm explore``, with the marker's options.

        The test fails at the first finding.  Returns the report; None if only one given schedule
        was run.
        """
        options = {**self._options, **options}
        try:
            scenario = _scenario(scenario)
            plan = self._plan(options, scenario)
            blob = options.get("schedule") or self._config.getoption("--smpvm-schedule")
            if blob is None:
                return self._campaign(scenario, plan)
            self._one(scenario, plan, blob)
            return None
        except (ScenarioError, ScheduleError, ConfigError) as why:
            fail(str(why))

    def see_that_it_ran(self) -> None:
        """Fail or skip the test if nothing was run."""
        if self._ran:
            return
        if not self._other:
            fail("the test uses the fixture smpvm but explores nothing")
        blob = self._config.getoption("--smpvm-schedule")
        given = Schedule.parse(self._options.get("schedule") or blob).scenario
        why = f"the schedule is of {given}, but the test explores {', '.join(self._other)}"
        if self._options.get("schedule"):
            fail(why)
        pytest.skip(f"smpvm: {why}")

    def _plan(self, options: dict[str, Any], scenario: Any) -> SearchPlan:
        """The search that the options ask for; the test fails with one line if they are wrong."""
        try:
            _check(options)
            repairs = options.get("repairs", ())
            repairs = (repairs,) if isinstance(repairs, str) else tuple(repairs)
            choose(repairs)
            exhaustive = options.get("strategy") in EXHAUSTIVE
            settings = Settings(
                granularity=options.get("granularity", "access"),
                memory=options.get("memory", "sc"),
                spurious=options.get("spurious", 0),
                wakeup_order=options.get("wakeup_order", ""),
                checks=parse_checks(options.get("checks", "all")),
                repairs=tuple(scenario.repairs) if "all" in repairs else repairs,
            )
            plan = SearchPlan(
                strategy=options.get("strategy", "portfolio"),
                schedules=options.get("schedules", None if exhaustive else 200),
                seconds=options.get("seconds"),
                seed=options.get("seed", self._config.getoption("--smpvm-seed")),
                depth=options.get("depth"),
                bound=options.get("bound"),
                settings=settings,
                stop_on_first=True,
            )
            make_strategy(plan.strategy, seed=plan.seed, depth=plan.depth, bound=plan.bound)
        except ValueError as why:
            fail(str(why))
        return plan

    # -- what is run

    def _one(self, scenario: Any, plan: SearchPlan, blob: str) -> None:
        """Run the given schedule, if it is of *scenario*: a test may explore several."""
        path, _, name = Schedule.parse(blob).scenario.partition("?")[0].rpartition(":")
        if name not in (scenario.name, scenario.__name__) and (path or not name.endswith(".py")):
            self._other.append(scenario.name)
            return
        self._ran.append(scenario.name)
        shown = _run(scenario, plan, blob)
        if shown.outcome.findings:
            self._fail(shown, plan, blob)
        if shown.replay.diverged:
            fail(f"the schedule no longer fits: {shown.replay.diverged}")

    def _campaign(self, scenario: Any, plan: SearchPlan) -> SearchReport:
        """Replay the schedule that failed last time, then search as *plan* says."""
        self._ran.append(scenario.name)
        key = f"{self._node} {scenario.name}"
        known = self._failures().get(key)
        if known is not None:
            shown = _again(scenario, plan, known)
            if shown is not None and shown.outcome.findings:
                self._fail(shown, plan, known)
        report = Search(scenario, plan).run()
        if report.findings:
            finding = _worst(report.findings)
            blob = finding.schedule
            assert blob is not None
            self._remember(key, blob)
            shown = _run(scenario, plan, blob)
            if shown.outcome.findings:
                self._fail(shown, plan, blob)
            self._not_repeatable(finding, shown)
        elif known is not None:
            self._remember(key, None)
        if plan.strategy in PROVING and report.verdict == "inconclusive":
            self._request.node.warn(Inconclusive("\n".join(report.lines())))
        return report

    # -- failing

    def _fail(self, shown: Shown, plan: SearchPlan, blob: str) -> NoReturn:
        """Fail with the findings, the interleaving, and the command that reproduces them."""
        lines = []
        for finding in shown.outcome.findings:
            lines += [*finding.lines()[:-2], ""]
        lines += shown.lanes(about=_worst(shown.outcome.findings))
        argv = shlex.join(["pytest", self._node, "--smpvm-schedule", blob])
        checks = checks_text(plan.settings.checks)
        also = "" if checks == "all" else f', checks="{checks}"'
        lines += ["", f"again: {argv}"]
        lines += ["or", f'    @pytest.mark.smpvm(schedule="{blob}"{also})']
        pytest.fail("\n".join(lines), pytrace=False)

    def _not_repeatable(self, finding: Finding, shown: Shown) -> NoReturn:
        """Fail with a finding that its own schedule does not reproduce."""
        lines = [
            *finding.lines()[:-2],
            "",
            "not reproduced by its own schedule: something besides the schedule decides "
            "(state left by earlier executions, randomness, time)",
        ]
        if shown.replay.diverged:
            lines.append(f"it diverges at {shown.replay.diverged}")
        pytest.fail("\n".join(lines), pytrace=False)

    # -- known failures

    def _failures(self) -> dict[str, str]:
        cache = getattr(self._config, "cache", None)
        return {} if cache is None else dict(cache.get(KEY, {}))

    def _remember(self, key: str, blob: str | None) -> None:
        known = self._failures()
        known.pop(key, None)
        if blob is not None:
            known[key] = blob
        cache = getattr(self._config, "cache", None)
        if cache is not None:
            cache.set(KEY, known)


def _scenario(what: Any) -> Any:
    """The scenario class.  Raises ScenarioError."""
    if isinstance(what, str):
        return find(what, importlib.import_module(PACKAGE))
    if not (isinstance(what, type) and hasattr(what, "failures") and hasattr(what, "name")):
        raise ScenarioError(f"{quoted(what)} is not a scenario: give a class or a name")
    check_class(what, what.name)
    return what


def _check(options: dict[str, Any]) -> None:
    """Raises ValueError for an unknown option or a value of the wrong type or range."""
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(f"unknown option {name!r}; known are {', '.join(sorted(OPTIONS))}")
        if not isinstance(value, OPTIONS[name]) or isinstance(value, bool):
            kinds = " or ".join("None" if k is NONE else k.__name__ for k in OPTIONS[name])
            raise ValueError(f"{name}={quoted(value)}: must be {kinds}")
    if (granularity := options.get("granularity", "access")) not in ("access", "sync"):
        raise ValueError(f"granularity {quoted(granularity)}: known are access, sync")
    if (memory := options.get("memory", "sc")) not in ("sc", "tso"):
        raise ValueError(f"memory {quoted(memory)}: known are sc, tso")
    if (order := options.get("wakeup_order", "")) not in ("", "c"):
        raise ValueError(f"wakeup_order {quoted(order)}: known is c")
    if (spurious := options.get("spurious", 0)) < 0:
        raise ValueError(f"spurious={spurious}: 0 or more")
    for amount in ("schedules", "seconds"):
        if (value := options.get(amount)) is not None and value <= 0:
            raise ValueError(f"{amount}={value}: must be more than 0, or nothing would run")


def _run(scenario: Any, plan: SearchPlan, blob: str) -> Shown:
    settings = plan.settings
    return run_schedule(
        Schedule.parse(blob),
        scenario=scenario,
        checks=settings.checks,
        benign=settings.benign,
        limit=settings.limit,
    )


def _again(scenario: Any, plan: SearchPlan, blob: str) -> Shown | None:
    """Run a schedule kept from an earlier run; None if it no longer fits the test."""
    try:
        return _run(scenario, plan, blob)
    except (ScheduleError, ScenarioError, ConfigError):
        return None


def _worst(findings: Sequence[Finding]) -> Finding:
    """The most telling finding: a failure rather than the race or lock order behind it."""
    return min(findings, key=lambda f: f.kind in ("race", "lock-order"))


def fail(why: str) -> NoReturn:
    """Fail the test with one line."""
    raise pytest.fail.Exception(f"smpvm: {why}", pytrace=False) from None


@pytest.fixture
def smpvm(request: pytest.FixtureRequest) -> Explorer:
    """Explores scenarios; see the docstring of smpvm.pytest_plugin."""
    return Explorer(request)
