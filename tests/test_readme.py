"""The README: short, with the two commands that CI runs, and every command of smpvm."""

import re
from pathlib import Path

from smpvm.cli import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_ci_finds_each_command_once() -> None:
    for name in ("main", "tests"):
        marked = re.findall(rf"^<!-- ci: {name} -->\n```sh\n(.+?)^```$", README, re.M | re.S)
        assert len(marked) == 1, name
        assert README.count(marked[0]) == 1


def test_every_command_is_listed() -> None:
    assert set(re.findall(r"^    smpvm (\w+)", README, re.M)) == set(cli.commands)


def test_it_stays_short() -> None:
    assert len(README.splitlines()) <= 140
