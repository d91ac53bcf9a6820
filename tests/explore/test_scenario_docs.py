"""The examples in the documentation of scenarios run, and have the documented bugs."""

import inspect
import textwrap

from smpvm.explore import scenario as module


def test_the_ten_line_example(explored):
    doc = inspect.getdoc(module)
    example = doc.split("::\n", 1)[1].split("\n``smpvm explore", 1)[0]
    names = {"__name__": "example"}
    exec(textwrap.dedent(example), names)
    lost = names["LostUpdate"]
    assert lost.title == "Two threads count without a lock."
    assert explored(lost, "dpor").kinds["assertion"] == 2
