"""The examples in the documentation of scenarios are programs, and have their bugs."""

import inspect
import textwrap
from pathlib import Path

import pytest

from smpvm.explore import scenario as module
from smpvm.explore.search import Search, SearchPlan


def test_the_ten_line_example(explored):
    doc = inspect.getdoc(module)
    example = doc.split("::\n", 1)[1].split("\n``smpvm explore", 1)[0]
    names = {"__name__": "example"}
    exec(textwrap.dedent(example), names)
    lost = names["LostUpdate"]
    assert lost.title == "Two threads count without a lock."
    assert explored(lost, "dpor").kinds["assertion"] == 2


README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("Interlocked", set()),
        ("TokenGivenUp", {"assertion"}),
        ("Opposite", {"deadlock", "lock-order"}),
        ("Counted", set()),
    ],
)
def test_the_examples_of_the_readme(name, kinds):
    example = README.partition("<!-- example: at hand -->\n```python\n")[2].partition("```")[0]
    names = {"__name__": "example"}
    exec(example, names)
    report = Search(names[name], SearchPlan(strategy="dpor", schedules=None)).run()
    assert {f.kind for f in report.findings} == kinds
    assert report.verdict == ("findings" if kinds else "proven")
