"""The docs are accurate: every example runs, every command and link exists."""

import re
import shlex
from pathlib import Path

import click
import examples
import pytest

from smpvm.check.finding import KINDS
from smpvm.cli import cli
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.repairs.catalogue import REPAIRS

ROOT = examples.ROOT
PAGES = examples.pages()
CODE = ("sh", "console", "python")


def text_of(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def named(paths):
    return pytest.mark.parametrize("page", paths, ids=lambda p: p.name)


@named(PAGES)
def test_the_examples_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", examples.WIDTH)
    session = examples.Session(tmp_path)
    for block in examples.blocks(page.read_text(encoding="utf-8")):
        assert block.kind or block.language not in CODE, f"line {block.start}: no comment before it"
        if block.kind == "imports":
            assert block.lines == examples.picture(block.lines)
        for (_, printed), ran in zip(block.commands(), session.do(block), strict=True):
            got = examples.shown(ran.output, block.options)
            assert examples.same(printed, got), (
                f"line {block.start}: $ {ran.command}: other output (if it is right, "
                f"`python docs/examples.py {page.name}` writes it anew)\n" + "\n".join(got)
            )


def test_the_picture_of_the_imports_shows_all_and_points_down():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (shown,) = (b.lines for b in examples.blocks(text) if b.kind == "imports")
    order = [line.split()[0] for line in shown]
    beside = re.search(r"^((?:`\w+`[, and]*)+) stand beside", text, re.M)[1]
    beside = set(re.findall(r"`(\w+)`", beside))
    real = examples.imports()
    assert set(order) | beside == set(real)
    for at, part in enumerate(order):
        assert real[part] <= {*order[at + 1 :], *beside}, part
    assert all(real[part] <= beside for part in beside)


def commands_in(text):
    """Every smpvm command that is named in running text, a table or a block."""
    yield from re.findall(r"`(smpvm [a-z][^`\n]*)`", text)
    for block in examples.blocks(text):
        if block.language in ("console", "sh"):
            for line in block.lines:
                yield from re.findall(r"^(?:\$ )?(smpvm [a-z].*)", line)


@named(PAGES)
def test_commands_and_options_exist(page):
    for line in commands_in(page.read_text(encoding="utf-8")):
        words = shlex.split(line)[1:]
        words = words[: words.index("|") if "|" in words else None]
        assert words[0] in cli.commands, line
        command = cli.commands[words[0]]
        known = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        known |= {o for p in command.params for o in getattr(p, "secondary_opts", ())}
        known |= {"-h", "--help"}
        for word in words[1 : words.index("--") if "--" in words else None]:
            if word.startswith("-"):
                assert word.partition("=")[0] in known, line


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


@named(PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        if anchor:
            assert anchor in anchors(to), target


def test_every_kind_of_finding_has_its_section():
    assert set(KINDS) <= anchors(ROOT / "docs" / "findings.md")


def test_every_strategy_has_its_section():
    try:
        make_strategy("none of them")
    except ValueError as why:
        names = str(why).rpartition("known are ")[2].split(", ")
    assert set(names) <= anchors(ROOT / "docs" / "strategies.md")


def test_every_page_is_in_the_index():
    index = text_of("index.md")
    for page in Path(ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name}" in index, page.name


@pytest.mark.parametrize(
    ("printed", "output", "alike"),
    [
        (["a 1", "b"], ["a 22", "b"], True),
        (["a", "..."], ["a", "b", "c"], True),
        (["a", "...", "c"], ["a", "b", "c"], True),
        (["...", "b", "..."], ["a", "b", "c"], True),
        (["a", "...", "c"], ["a", "b", "d"], False),
        (["a"], ["a", "b"], False),
        (["a", "...", "x", "...", "c"], ["a", "b", "c"], False),
        (["race: n of b"], ["race: n of a"], False),
    ],
)
def test_how_output_is_compared(printed, output, alike):
    assert examples.same(printed, output) is alike


PROVEN = re.findall(r"^\| ([a-z-]+) \| ([\d,]+) \|$", text_of("proven.md"), re.M)


@pytest.mark.parametrize(("name", "executions"), [p for p in PROVEN if len(p[1]) <= 3][:4])
def test_a_proof_takes_as_many_executions_as_the_table_says(name, executions, tmp_path):
    ran = examples.Session(tmp_path).command(f"smpvm explore {name} --strategy dpor --repair all")
    assert ran.code == 0
    assert f" {executions} executions, " in ran.output[0]


ROW = re.compile(r"^\| ([a-z-]+) \| ([^|]+) \|.* \| ([^|]*) \|$", re.M)
DEFECTS = [row for row in ROW.findall(text_of("defects.md")) if row[0] != "repair"]
"""(repair, place in the C, how to see it)"""
EXPLORED = [(name, see.strip("`")) for name, _, see in DEFECTS if "smpvm explore" in see]


def test_every_repair_is_in_the_table_of_defects_with_its_place():
    assert sorted(name for name, _, _ in DEFECTS) == sorted(REPAIRS)
    for name, where, _ in DEFECTS:
        assert re.match(r"\w+\.c:\d+", where), name


@pytest.mark.parametrize(("name", "command"), EXPLORED, ids=[name for name, _ in EXPLORED])
def test_a_defect_shows_and_is_gone_with_its_repair(name, command, tmp_path):
    session = examples.Session(tmp_path)
    shows = session.command(f"{command} --no-shrink")
    assert shows.code == 1
    needed = re.search(r"([\d,]+) execution", shows.output[0])[1].replace(",", "")
    repaired = session.command(f"{command} --no-shrink --repair {name} --schedules {needed}")
    assert repaired.code != 1, "\n".join(repaired.output)


def test_every_defect_can_be_seen():
    for name, _, see in DEFECTS:
        path, _, test = see.strip("`").partition("::")
        if path.startswith("tests/"):
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), name
    assert not [name for name, _, see in DEFECTS if see == "not shown"]
