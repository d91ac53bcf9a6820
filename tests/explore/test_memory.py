"""Memory models: the litmus tests have the published outcomes, and no others."""

from __future__ import annotations

import pytest

from smpvm.explore.engine import Settings
from smpvm.explore.search import Search, SearchPlan, SearchReport
from tests.explore.litmus import LITMUS, Litmus, outcomes_of


@pytest.mark.parametrize("name", LITMUS)
@pytest.mark.parametrize("memory", ["sc", "tso"])
@pytest.mark.parametrize("strategy", ["dpor", "all"])
def test_litmus(name: str, memory: str, strategy: str) -> None:
    litmus = LITMUS[name]
    if strategy == "all" and litmus.big:
        pytest.skip("more interleavings than are worth running")
    got, report = outcomes_of(litmus, memory, strategy)
    assert report.proven, report.lines()
    assert got == (litmus.tso if memory == "tso" else litmus.sc)
