"""A pytest plugin: tests that run a scenario under many schedules.

::

    @pytest.mark.smpvm(strategy="pos", schedules=500)
    def test_counter(smpvm):
        smpvm.explore(Counter)

``smpvm`` is the fixture.  A failure shows the interleaving and the command that reproduces it:
``pytest TEST --smpvm-schedule s1/...`` runs that one schedule; the marker takes it, too
(``schedule="s1/..."``).  Failing schedules are kept in pytest's cache, by test and scenario, and
replayed first by the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from smpvm.check.finding import Finding
from smpvm.check.suite import parse_checks
from smpvm.explore.campaign import Campaign, Plan, Report
from smpvm.explore.engine import Settings
from smpvm.explore.portfolio import make_strategy
from smpvm.explore.schedule import Schedule, ScheduleError
from smpvm.report.explore import Shown, run_schedule

MARK = "smpvm"
OPTIONS = frozenset(
    (
        *("strategy", "schedules", "seconds", "seed", "depth", "bound"),
        *("granularity", "checks", "schedule"),
    )
)
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
        "smpvm(strategy='portfolio', schedules=200, seconds=None, granularity='access', "
        "depth=None, bound=None, seed=None, checks='all', schedule=None): how the smpvm fixture "
        "explores",
    )


class Explorer:
    """The fixture's value."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._config = request.config
        self._node = request.node.nodeid
        mark = request.node.get_closest_marker(MARK)
        self._options: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}
        if mark is not None and mark.args:
            wrong(f"options have names, got {mark.args!r}")

    def explore(self, scenario: Any, **options: Any) -> Report | None:
        """Run *scenario* as the marker says; the test fails with the first finding.

        Returns the campaign's report; None where only one given schedule was run.
        """
        options = {**self._options, **options}
        if unknown := options.keys() - OPTIONS:
            wrong(f"unknown option {min(unknown)!r}; known are {', '.join(sorted(OPTIONS))}")
        blob = options.pop("schedule", None) or self._config.getoption("--smpvm-schedule")
        if blob is not None:
            if self._fits(scenario, blob):
                self._replay(scenario, blob)
            return None
        plan = self._plan(options)
        key = f"{self._node} {_names(scenario)[0]}"
        known = self._failures().get(key)
        if known is not None and self._shows(scenario, known):
            self._replay(scenario, known)
        report = Campaign(scenario, plan).run()
        if report.findings:
            blob = _worst(report.findings).schedule
            assert blob is not None
            self._remember(key, blob)
            self._replay(scenario, blob)
        elif known is not None:
            self._remember(key, None)
        return report

    def _plan(self, options: dict[str, Any]) -> Plan:
        """The campaign that a marker asks for; the test fails with one line if it cannot be."""
        try:
            checks = parse_checks(options.pop("checks", "all"))
            granularity = options.pop("granularity", "access")
            if granularity not in ("access", "sync"):
                raise ValueError(f"granularity {granularity!r}: known are access, sync")
            plan = Plan(
                strategy=options.pop("strategy", "portfolio"),
                schedules=options.pop("schedules", 200),
                seed=options.pop("seed", self._config.getoption("--smpvm-seed")),
                settings=Settings(granularity=granularity, checks=checks),
                stop_on_first=True,
                **options,
            )
            make_strategy(plan.strategy, seed=plan.seed, depth=plan.depth, bound=plan.bound)
            if plan.schedules is not None and plan.schedules < 1:
                raise ValueError(f"schedules={plan.schedules}: nothing would be run")
        except ValueError as why:
            wrong(str(why))
        return plan

    # -- known failures

    def _failures(self) -> dict[str, str]:
        cache = self._config.cache
        return {} if cache is None else dict(cache.get(KEY, {}))

    def _remember(self, key: str, blob: str | None) -> None:
        known = self._failures()
        known.pop(key, None)
        if blob is not None:
            known[key] = blob
        if self._config.cache is not None:
            self._config.cache.set(KEY, known)

    def _fits(self, scenario: Any, blob: str) -> bool:
        """Is the given schedule one of *scenario*?  A test may explore several."""
        try:
            return Schedule.parse(blob).scenario.partition("?")[0] in _names(scenario)
        except ScheduleError as why:
            wrong(str(why))

    def _shows(self, scenario: Any, blob: str) -> bool:
        try:
            shown = run_schedule(Schedule.parse(blob), scenario=scenario)
        except ValueError:
            return False
        return bool(shown.outcome.findings)

    def _replay(self, scenario: Any, blob: str) -> None:
        shown = run_schedule(Schedule.parse(blob), scenario=scenario)
        if shown.outcome.findings:
            pytest.fail("\n".join(self._failure(shown, blob)), pytrace=False)
        if shown.replay.diverged:
            pytest.fail(f"the schedule no longer fits: {shown.replay.diverged}", pytrace=False)

    def _failure(self, shown: Shown, blob: str) -> list[str]:
        lines = []
        for finding in shown.outcome.findings:
            lines += [*finding.lines()[:-2], ""]
        lines += shown.lanes(about=_worst(shown.outcome.findings))
        lines += ["", f"again: pytest '{self._node}' --smpvm-schedule '{blob}'"]
        lines += ["or", f'    @pytest.mark.smpvm(schedule="{blob}")']
        return lines


def _worst(findings: Sequence[Finding]) -> Finding:
    """Where a bug and the race behind it are found at once, the bug tells more."""
    return min(findings, key=lambda f: f.kind in ("race", "lock-order"))


def _names(scenario: Any) -> tuple[str, ...]:
    """What a schedule may call it; the first one is its name."""
    return (str(scenario.name), str(getattr(scenario, "spec", scenario.name)))


def wrong(why: str) -> NoReturn:
    """A marker or an option that cannot be: the test fails with one line."""
    raise pytest.fail.Exception(f"smpvm: {why}", pytrace=False) from None


@pytest.fixture
def smpvm(request: pytest.FixtureRequest) -> Explorer:
    """Explores scenarios: see the module."""
    return Explorer(request)
