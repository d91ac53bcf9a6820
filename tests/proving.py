"""Exhaustive searches, for the tests of the scenario API."""

from smpvm.explore.search import Search, SearchPlan


def proof(scenario, **plan):
    """The report of an exhaustive search."""
    report = Search(scenario, SearchPlan("dpor", 6000, shrink=False, **plan)).run()
    assert report.executions < 6000, "not exhausted"
    return report


def proven(scenario):
    """How many executions the proof took; each a class of its own."""
    report = proof(scenario)
    assert report.findings == []
    assert report.verdict == "proven"
    assert report.executions == len(report.traces)
    return report.executions


def kinds(scenario):
    return {f.kind for f in proof(scenario).findings}


def titles(scenario):
    return " / ".join(f.title for f in proof(scenario).findings)
