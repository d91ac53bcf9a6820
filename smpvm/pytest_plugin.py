"""A pytest plugin: tests that run a scenario under many schedules.

::

    @pytest.mark.smpvm(strategy="pos", schedules=500)
    def test_counter(smpvm):
        smpvm.explore(Counter)

A failure shows the interleaving and a line that reproduces it: the marker with
``schedule="s1/..."``, which runs that one schedule.  Failing schedules are kept in pytest's cache
and replayed first by the next run.
"""

from __future__ import annotations

from typing import Any

import pytest

from smpvm.explore.campaign import Campaign, Plan, Report
from smpvm.explore.engine import Settings
from smpvm.explore.schedule import Schedule
from smpvm.report.explore import Shown, run_schedule

MARK = "smpvm"
KEY = "smpvm/failures"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--smpvm-seed``."""
    group = parser.getgroup("smpvm")
    group.addoption("--smpvm-seed", type=int, default=0, help="seed of the schedules that are run")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "smpvm(strategy='portfolio', schedules=200, seconds=None, granularity='access', "
        "depth=None, bound=None, schedule=None): how the smpvm fixture explores",
    )


class Explorer:
    """The fixture's value."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._config = request.config
        self._node = request.node.nodeid
        mark = request.node.get_closest_marker(MARK)
        self._options: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}

    def explore(self, scenario: Any, **options: Any) -> Report | None:
        """Run *scenario* as the marker says; the test fails with the first finding.

        Returns the campaign's report; None where only one given schedule was run.
        """
        options = {**self._options, **options}
        blob = options.pop("schedule", None)
        if blob is not None:
            self._replay(scenario, blob)
            return None
        granularity = options.pop("granularity", "access")
        settings = Settings(granularity=granularity)
        known = self._failures()
        if self._node in known and self._shows(scenario, known[self._node]):
            self._replay(scenario, known[self._node])
        plan = Plan(
            strategy=options.pop("strategy", "portfolio"),
            schedules=options.pop("schedules", 200),
            seed=options.pop("seed", self._config.getoption("--smpvm-seed")),
            settings=settings,
            stop_on_first=True,
            **options,
        )
        report = Campaign(scenario, plan).run()
        if report.findings:
            blob = report.findings[0].schedule
            assert blob is not None
            self._remember(blob)
            self._replay(scenario, blob)
        elif self._node in known:
            self._remember(None)
        return report

    # -- known failures

    def _failures(self) -> dict[str, str]:
        cache = self._config.cache
        return {} if cache is None else dict(cache.get(KEY, {}))

    def _remember(self, blob: str | None) -> None:
        known = self._failures()
        known.pop(self._node, None)
        if blob is not None:
            known[self._node] = blob
        if self._config.cache is not None:
            self._config.cache.set(KEY, known)

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
        lines += shown.lanes(tail=40)
        lines += ["", "again:", f'    @pytest.mark.smpvm(schedule="{blob}")']
        return lines


@pytest.fixture
def smpvm(request: pytest.FixtureRequest) -> Explorer:
    """Explores scenarios: see the module."""
    return Explorer(request)
