"""The README says what there is: its commands, every repair, every profile's name."""

import re
from pathlib import Path

from smpvm.cli import cli, main
from smpvm.repairs.catalogue import REPAIRS
from smpvm.workload.profiles import PROFILES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_finds_each_command_once() -> None:
    for name in ("main", "tests"):
        marked = re.findall(rf"^<!-- ci: {name} -->\n```sh\n(.+?)^```$", README, re.M | re.S)
        assert len(marked) == 1, name
        assert README.count(marked[0]) == 1


def test_every_repair_is_argued() -> None:
    table = README.partition("## What it found in the kernel")[2]
    listed = re.findall(r"^\| ([a-z-]+) \|", table, re.M)
    assert set(listed) - {"repair", "library"} >= set(REPAIRS)
    for name in REPAIRS:
        row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert re.search(r"\w+\.c:\d+", row), name


def test_the_commands_it_names_exist() -> None:
    for name in re.findall(r"^    smpvm (\w+)", README, re.M):
        assert name in cli.commands, name
    assert set(PROFILES) >= {"default", "thrash", "oom", "file-heavy", "fork-storm"}


def test_the_scenario_of_the_readme_is_found_out(tmp_path: Path) -> None:
    """The example stands behind its marker, and explore finds what is wrong with it."""
    block = README.partition("<!-- example: scenario -->\n```python\n")[2].partition("```")[0]
    (tmp_path / "file.py").write_text(block)
    target = f"{tmp_path}/file.py:LostUpdate"
    assert main(["explore", target, "--strategy", "dpor", "--stop-on-first"]) == 1
