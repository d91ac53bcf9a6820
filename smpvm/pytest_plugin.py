"""A pytest plugin: tests that run a scenario under many schedules.

::

    @pytest.mark.smpvm(strategy="pos", schedules=500)
    def test_counter(smpvm):
        smpvm.explore(Counter)

``smpvm`` is the fixture.  A failure shows the interleaving and the command that reproduces it:
``pytest TEST --smpvm-schedule s1/...`` runs that one schedule; the marker takes it, too
(``schedule="s1/..."``).  Failing schedules are kept in pytest's cache, by test and scenario, and
replayed first by the next run.  Exhaustive strategies go on to the end, where nothing else is said,
and warn if they do not come to it.
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pytest

from smpvm.check.finding import Finding
from smpvm.check.suite import checks_text, parse_checks
from smpvm.commands.explore import PACKAGE, Shown, run_schedule
from smpvm.config import ConfigError
from smpvm.explore.engine import Settings
from smpvm.explore.registry import ScenarioError, check_class, find
from smpvm.explore.search import EXHAUSTIVE, PROVING, Search, SearchPlan, SearchReport
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.trace.schedule import Schedule, ScheduleError
from smpvm.repairs.catalogue import choose

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
    "checks": (str,),
    "repairs": (str, tuple, list),
    "schedule": (str, NONE),
}
KEY = "smpvm/failures"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--smpvm-seed`` and ``--smpvm-schedule``."""
    group = parser.getgroup("smpvm")
    group.addoption("--smpvm-seed", type=int, default=0, help="seed of the schedules that are run")
    group.addoption("--smpvm-schedule", default=None, help="the one schedule to run (s1/...)")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "smpvm(strategy='portfolio', schedules=200 (exhaustive strategies: None), seconds=None, "
        "granularity='access', depth=None, bound=None, seed=0, checks='all', repairs=(), "
        "schedule=None): how the smpvm fixture explores",
    )


class Inconclusive(pytest.PytestWarning):
    """An exhaustive search has been ended before it had proven anything."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marked test without the fixture would pass, and nothing would be run."""
    marked = any(mark.name == MARK for mark in getattr(item, "own_markers", ()))
    if marked and MARK not in getattr(item, "fixturenames", ()):
        fail("the marker says how the fixture smpvm explores, and the test does not take it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What takes the fixture must not pass for want of anything that was run."""
    yield
    explorer = getattr(item, "funcargs", {}).get(MARK)
    if isinstance(explorer, Explorer):
        explorer.see_that_it_ran()


class Explorer:
    """The fixture's value."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._config = request.config
        self._node = request.node.nodeid
        mark = request.node.get_closest_marker(MARK)
        self._options: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}
        self._ran: list[str] = []
        """The scenarios that have been run."""
        self._other: list[str] = []
        """The scenarios that have not, because the schedule that was given is another's."""
        if mark is not None and mark.args:
            fail(f"options have names, got {mark.args!r}")

    def explore(self, scenario: Any, **options: Any) -> SearchReport | None:
        """Run *scenario*, a class or a name as for ``smpvm explore``, as the marker says; the test
        fails with the first finding.

        Returns the campaign's report; None where only one given schedule was run.
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
        """The test is over: it must not pass for want of anything that was run."""
        if self._ran:
            return
        if not self._other:
            fail("the test takes the fixture smpvm and explores nothing")
        blob = self._config.getoption("--smpvm-schedule")
        given = Schedule.parse(self._options.get("schedule") or blob).scenario
        why = f"the schedule is of {given}, and the test explores {', '.join(self._other)}"
        if self._options.get("schedule"):
            fail(why)
        pytest.skip(f"smpvm: {why}")

    def _plan(self, options: dict[str, Any], scenario: Any) -> SearchPlan:
        """The campaign that a marker asks for; the test fails with one line if it cannot be."""
        try:
            _see(options)
            repairs = options.get("repairs", ())
            repairs = (repairs,) if isinstance(repairs, str) else tuple(repairs)
            choose(repairs)
            exhaustive = options.get("strategy") in EXHAUSTIVE
            settings = Settings(
                granularity=options.get("granularity", "access"),
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
        """The one schedule that was given, if it is of *scenario*: a test may explore several."""
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
        """The schedule that failed last time, then all of *plan*."""
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
            self._moody(finding, shown)
        elif known is not None:
            self._remember(key, None)
        if plan.strategy in PROVING and report.verdict == "inconclusive":
            self._request.node.warn(Inconclusive("\n".join(report.lines())))
        return report

    # -- failing

    def _fail(self, shown: Shown, plan: SearchPlan, blob: str) -> NoReturn:
        """Findings, the interleaving, and how to run it again."""
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

    def _moody(self, finding: Finding, shown: Shown) -> NoReturn:
        """A finding that does not come again is one all the same."""
        lines = [
            *finding.lines()[:-2],
            "",
            "run again, its schedule shows nothing: the scenario goes by something else, too "
            "(what earlier executions left behind, chance, time)",
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
        raise ScenarioError(f"{what!r} is no scenario: a class or its name is wanted")
    check_class(what, what.name)
    return what


def _see(options: dict[str, Any]) -> None:
    """Raises ValueError for an option that there is not, or that cannot be so."""
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(f"unknown option {name!r}; known are {', '.join(sorted(OPTIONS))}")
        if not isinstance(value, OPTIONS[name]) or isinstance(value, bool):
            kinds = " or ".join("None" if k is NONE else k.__name__ for k in OPTIONS[name])
            raise ValueError(f"{name}={value!r}: {kinds} is wanted")
    if (granularity := options.get("granularity", "access")) not in ("access", "sync"):
        raise ValueError(f"granularity {granularity!r}: known are access, sync")
    for amount in ("schedules", "seconds"):
        if (value := options.get(amount)) is not None and value <= 0:
            raise ValueError(f"{amount}={value}: more than 0 is wanted, or nothing would be run")


def _run(scenario: Any, plan: SearchPlan, blob: str) -> Shown:
    settings = plan.settings
    return run_schedule(
        Schedule.parse(blob), scenario=scenario, checks=settings.checks, benign=settings.benign
    )


def _again(scenario: Any, plan: SearchPlan, blob: str) -> Shown | None:
    """A schedule of an earlier version of the test; None if it cannot be run any more."""
    try:
        return _run(scenario, plan, blob)
    except (ScheduleError, ScenarioError, ConfigError):
        return None


def _worst(findings: Sequence[Finding]) -> Finding:
    """Where a bug and the race behind it are found at once, the bug tells more."""
    return min(findings, key=lambda f: f.kind in ("race", "lock-order"))


def fail(why: str) -> NoReturn:
    """A marker or an option that cannot be: the test fails with one line."""
    raise pytest.fail.Exception(f"smpvm: {why}", pytrace=False) from None


@pytest.fixture
def smpvm(request: pytest.FixtureRequest) -> Explorer:
    """Explores scenarios: see the module."""
    return Explorer(request)
