"""How many plausible mistakes in the kernel code are detected?  Tries one mistake at a time.

    python stress/mutants.py FILE [--ids 7.6,7.9] [--seconds N] [--jobs N] [--fuzz] [--json]

FILE is a JSON list of mutants: ``id``, ``class``, ``file``, ``old`` and ``new`` (lists of text
pairs), ``equivalent`` (considered harmless: it must not be detected).  If ``file`` has moved, the
only file that contains every old text is used.  Each mutant is applied to a scratch copy of
smpvm/.  Then the built-in suite explores it with all repairs for N seconds, first all scenarios
briefly, then each in turn for longer; with --fuzz generated programs run for the same time; a
mutant that is still undetected is run with the stress profiles.  The first finding ends the mutant.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIRST = 4
"""Schedules per scenario in the first round; each later round has four times as many."""
PROFILES = ("thrash", "fork-storm", "rss-limit", "file-heavy", "oom", "default")
PROFILE_SECONDS = 4.0


class MutantError(Exception):
    """A mutant that cannot be applied: one line."""


@dataclass
class Row:
    """The result of one mutant."""

    id: str
    noticed_by: str = ""
    """``explore SCENARIO``, ``fuzz``, ``stress PROFILE``, ``error``, ``stale``; "" for nothing."""
    kind: str = ""
    seconds: float = 0.0
    cls: str = ""
    equivalent: bool = False

    @property
    def ok(self) -> bool:
        """Is it harmful and detected, or harmless and not detected?"""
        return bool(self.noticed_by) != self.equivalent and self.noticed_by != "stale"


# -- applying a mutant


def texts(value: Any) -> list[str]:
    """``old`` and ``new`` are one text or a list of them."""
    return [value] if isinstance(value, str) else list(value)


RENAMED = (
    ("vm.map.vmspace_", "vm.vmspace."),
    ("self.vmspace_", "self."),
    ("self.walk(space", "self.vm.map.walk(space"),
)
"""Texts of a3ac495 → current texts: tried if a mutant does not fit unchanged."""
COMMENTS = r"\n(?:[ \t]*(?:#[^\n]*|@\w+(?:\((?:[^()]|\([^()]*\))*\))?)\n)*"
"""The end of a line, and following lines of comments or marks, which may be new."""


def pattern(old: str) -> re.Pattern[str]:
    """A pattern for *old* that allows changed comments and added marks."""
    lines = [line for line in old.split("\n") if not line.lstrip().startswith("#")]
    return re.compile(COMMENTS.join(map(re.escape, lines)))


def today(mutant: dict[str, Any]) -> dict[str, Any]:
    """The mutant with current names."""

    def carried(text: str) -> str:
        for before, after in RENAMED:
            text = text.replace(before, after)
        return text

    return mutant | {side: [carried(t) for t in texts(mutant[side])] for side in ("old", "new")}


def file_of(mutant: dict[str, Any], root: Path) -> Path:
    """The file under *root* that contains every old text once.  Raises MutantError."""
    olds = [pattern(old) for old in texts(mutant["old"])]

    def fits(path: Path) -> bool:
        text = path.read_text()
        return all(len(old.findall(text)) == 1 for old in olds)

    named = root / mutant["file"]
    if named.is_file() and fits(named):
        return named
    found = [path for path in sorted((root / "smpvm").rglob("*.py")) if fits(path)]
    if len(found) != 1:
        why = "no file has" if not found else f"{len(found)} files have"
        raise MutantError(f"mutant {mutant['id']}: {why} its old text")
    return found[0]


def apply(mutant: dict[str, Any], root: Path) -> None:
    """Change the tree at *root*.  Raises MutantError."""
    try:
        path = file_of(mutant, root)
    except MutantError:
        mutant = today(mutant)
        path = file_of(mutant, root)
    text = path.read_text()
    for old, new in zip(texts(mutant["old"]), texts(mutant["new"]), strict=True):
        start, end = span(pattern(old), text)
        text = text[:start] + new + text[end:]
    path.write_text(text)


def span(old: re.Pattern[str], text: str) -> tuple[int, int]:
    """The position of *old*."""
    match = old.search(text)
    assert match is not None
    return match.span()


# -- looking for it: runs in a process of its own, with the changed tree first on its path


def rounds(seconds: float) -> Iterator[tuple[Any, Any, int, int]]:
    """(name, scenario, first schedule, schedules): all scenarios briefly, then for longer."""
    import smpvm.scenarios
    from smpvm.explore.registry import builtin

    suite = builtin(smpvm.scenarios)
    end, first, count = time.monotonic() + seconds, 0, FIRST
    while True:
        for name, scenario in suite.items():
            if time.monotonic() > end:
                return
            yield name, scenario, first, count
        first, count = first + count, count * 4


def explore(seconds: float) -> tuple[str, str]:
    """The first finding of the suite: (scenario, kind)."""
    from smpvm.explore.engine import Settings
    from smpvm.explore.search import Search, SearchPlan

    end = time.monotonic() + seconds
    for name, scenario, first, count in rounds(seconds):
        plan = SearchPlan(
            first=first,
            schedules=count,
            seconds=max(end - time.monotonic(), 0.1),
            stop_on_first=True,
            shrink=False,
            traces=False,
            settings=Settings(repairs=tuple(scenario.repairs), digest=False),
        )
        report = Search(scenario, plan).run()
        if report.findings:
            return name, report.findings[0].kind
    return "", ""


def look(seconds: float, fuzz: bool) -> tuple[str, str]:
    """(detected by, kind) for the tree that this process imports."""
    name, kind = explore(seconds)
    if name:
        return f"explore {name}", kind
    if fuzz and (kind := fuzzed(seconds)):
        return "fuzz", kind
    for profile in PROFILES:
        if kind := stressed(profile):
            return f"stress {profile}", kind
    return "", ""


def command(*args: str, timeout: float) -> dict[str, Any]:
    """The JSON document printed by a smpvm command; findings of kind ``error`` if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "smpvm", *args, "--json"],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"findings": [{"kind": "error"}]}
    return document


def fuzzed(seconds: float) -> str:
    """The kind of the first finding of generated programs; "" for none."""
    args = ("fuzz", "--seconds", str(seconds), "--repair", "all", "--stop-on-first")
    found = command(*args, timeout=seconds * 3 + 60)["findings"]
    return str(found[0]["kind"]) if found else ""


def stressed(profile: str) -> str:
    """The kind of the first finding of a profile; "" for none."""
    seconds = str(PROFILE_SECONDS)
    args = ("stress", "--profile", profile, "--seconds", seconds, "--repair", "all")
    try:
        document = command(*args, timeout=180)
    except subprocess.TimeoutExpired:
        return "stall"
    if document["findings"]:
        return str(document["findings"][0]["kind"])
    if document.get("stall"):
        return "stall"
    return "stale-data" if document.get("words_lost") else ""


# -- all of them


def notice(mutant: dict[str, Any], seconds: float, fuzz: bool) -> Row:
    """Apply one mutant to a scratch copy, and see whether it is detected."""
    row = Row(mutant["id"], cls=mutant["class"], equivalent=mutant["equivalent"])
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="smpvm-mutant-") as place:
        root = Path(place)
        shutil.copytree(ROOT / "smpvm", root / "smpvm")
        try:
            apply(mutant, root)
        except MutantError as why:
            print(why, file=sys.stderr)
            row.noticed_by = "stale"
            return row
        row.noticed_by, row.kind = run_inside(root, seconds, fuzz)
    row.seconds = round(time.monotonic() - began, 1)
    return row


def run_inside(root: Path, seconds: float, fuzz: bool) -> tuple[str, str]:
    """``look`` in a process that imports the tree at *root*."""
    args = [sys.executable, __file__, "--inside", "--seconds", str(seconds)]
    env = {**os.environ, "PYTHONPATH": str(root)}
    limit = seconds * (4 if fuzz else 2) + 600
    try:
        done = subprocess.run(
            args + ["--fuzz"] * fuzz,
            capture_output=True,
            text=True,
            cwd=root,
            env=env,
            timeout=limit,
            check=False,
        )
        by, kind = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return "hang", "stall"
    except (ValueError, IndexError):
        return "error", (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
    return by, kind


def table(rows: Sequence[Row]) -> list[str]:
    """By class: harmful ones detected, harmless ones reported."""
    lines = [f"{'class':<28} harmful noticed  harmless reported"]
    for cls in [*dict.fromkeys(r.cls for r in rows), "all"]:
        mine = [r for r in rows if cls in (r.cls, "all") and r.noticed_by != "stale"]
        bad = [r for r in mine if not r.equivalent]
        good = [r for r in mine if r.equivalent]
        noticed, reported = sum(map(bool, (r.noticed_by for r in bad))), sum(not r.ok for r in good)
        lines.append(f"{cls:<28} {noticed:>3} of {len(bad):<9} {reported:>3} of {len(good)}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="How many mistakes in kernel code are noticed?")
    parser.add_argument("file", nargs="?", type=Path, help="JSON list of mutants")
    parser.add_argument("--ids", default="", help="only these, joined by commas")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the suite, per mutant")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tried at the same time")
    parser.add_argument("--fuzz", action="store_true", help="generated programs, too")
    parser.add_argument("--json", action="store_true", help="one JSON list on standard output")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(look(options.seconds, options.fuzz)))
        return 0
    if options.file is None:
        parser.error("FILE is missing")
    wanted = set(filter(None, options.ids.split(",")))
    mutants = [m for m in json.loads(options.file.read_text()) if not wanted or m["id"] in wanted]
    if unknown := wanted - {m["id"] for m in mutants}:
        parser.error(f"{options.file} has no mutant {', '.join(sorted(unknown))}")
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda m: notice(m, options.seconds, options.fuzz), mutants):
            rows.append(row)
            said = row.noticed_by or "nothing"
            flag = "" if row.ok else "  <-- wrong"
            print(
                f"{row.id:<6} {said:<32} {row.kind:<22} {row.seconds:6.1f} s{flag}", file=sys.stderr
            )
    if options.json:
        keep = ("id", "noticed_by", "kind", "seconds")
        print(
            json.dumps([{k: v for k, v in asdict(r).items() if k in keep} for r in rows], indent=1)
        )
    else:
        print("\n".join(table(rows)))
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
