"""The examples in the Markdown files: run them, compare them, write their output anew.

A fenced block of code follows a comment that says what is done with it::

    <!-- file: NAME -->          the block is written to NAME, in a directory of this page's own
    <!-- python -->              the block is run, in one namespace for the page
    <!-- run: OPTIONS -->        each line "$ COMMAND" is run there; what follows is its output
    <!-- skip: REASON -->        not run here
    <!-- ci: NAME -->            not run here, but by .ci/run
    <!-- imports -->             which part of smpvm imports which (ARCHITECTURE.md)

Options of ``run``: ``exit=1`` (the code of every command, or one for each, with commas), and what
of the output is shown: ``first=N`` and ``last=N`` lines, ``from=TEXT`` and ``to=TEXT`` (the first
line that has it), or ``quiet``: nothing.  What is left out shows as a line of three dots.

``python docs/examples.py [FILE ...]`` runs the examples of these files (default: all) and rewrites
the output in place; with ``--check`` it only says what differs.  Differences in numbers, checksums
and spacing are none.
"""

from __future__ import annotations

import ast
import contextlib
import glob
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOTS = "..."
MARK = re.compile(r"<!-- (file|python|run|skip|ci|imports)(?:: (.*))? -->")
WIDTH = "100"


@dataclass
class Block:
    """A fenced block and the comment before it."""

    kind: str
    """Of the comment; "" where there is none."""
    text: str
    language: str
    lines: list[str]
    start: int
    """Index of its first line in the file."""

    @property
    def options(self) -> dict[str, str]:
        """Of ``run``."""
        pairs = (word.partition("=") for word in shlex.split(self.text))
        return {name: value for name, _, value in pairs}

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command, and the output that is printed below it."""
        found: list[tuple[str, list[str]]] = []
        for line in self.lines if self.kind == "run" else ():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
        return found


@dataclass
class Ran:
    """What came of a command."""

    command: str
    code: int
    output: list[str] = field(default_factory=list)


def pages() -> list[Path]:
    """Every Markdown file with examples."""
    top = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
    return [*(ROOT / name for name in top), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].startswith("```"):
            at += 1
            continue
        mark = MARK.fullmatch(lines[at - 1]) if at else None
        end = lines.index("```", at + 1)
        yield Block(
            mark[1] if mark else "",
            (mark[2] or "") if mark else "",
            lines[at][3:],
            lines[at + 1 : end],
            at + 1,
        )
        at = end + 1


class Session:
    """Runs the blocks of one page, in order, in the directory *where*."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.names: dict[str, Any] = {"__name__": "example"}

    def do(self, block: Block) -> list[Ran]:
        """Run a block; raises AssertionError for a wrong exit code, and whatever Python raises."""
        if block.kind == "file":
            (self.where / block.text).write_text("\n".join(block.lines) + "\n", encoding="utf-8")
        elif block.kind == "python":
            with contextlib.chdir(self.where), contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n".join(block.lines), "example", "exec"), self.names)
        elif block.kind == "run":
            return self._run(block)
        return []

    def _run(self, block: Block) -> list[Ran]:
        wanted = block.options.get("exit", "0").split(",")
        done = []
        for n, (command, _) in enumerate(block.commands()):
            ran = self.command(command)
            code = int(wanted[min(n, len(wanted) - 1)])
            tail = "\n".join(ran.output[-40:])
            assert ran.code == code, f"{command}: exit code {ran.code}, not {code}\n{tail}"
            done.append(ran)
        return done

    def command(self, command: str) -> Ran:
        """Run one command line; smpvm itself in this process, which is quicker."""
        words = shlex.split(command)
        simple = not re.search(r"[|>&;]", re.sub(r"'[^']*'", "", command))
        with contextlib.chdir(self.where):
            if words[0] == "smpvm" and simple:
                code, text = self._smpvm(words[1:])
            else:
                code, text = self._shell(command)
        return Ran(command, code, [line.rstrip() for line in text.rstrip("\n").split("\n")])

    def _smpvm(self, words: list[str]) -> tuple[int, str]:
        from smpvm.cli import main

        argv = [path for word in words for path in (sorted(glob.glob(word)) or [word])]
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main(argv)
        return code, out.getvalue()

    def _shell(self, command: str) -> tuple[int, str]:
        import smpvm

        here = Path(sys.executable).parent
        env = {
            **os.environ,
            "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(smpvm.__file__).parents[1]),
            "COLUMNS": WIDTH,
        }
        smpvm_here = 'smpvm() { python -m smpvm "$@"; }; '
        done = subprocess.run(
            ["bash", "-c", smpvm_here + command],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


# -- what of the output is shown, and whether it is as printed


def shown(output: list[str], options: dict[str, str]) -> list[str]:
    """The part of *output* that a page prints."""
    if "quiet" in options:
        return []
    begin = _find(output, options["from"]) if "from" in options else 0
    end = _find(output, options["to"], begin) + 1 if "to" in options else len(output)
    part = output[begin:end]
    head, tail = int(options.get("first", 0)), int(options.get("last", 0))
    if (head or tail) and head + tail < len(part):
        part = [*part[:head], DOTS, *part[len(part) - tail :]]
    return [*([DOTS] if begin else []), *part, *([DOTS] if end < len(output) else [])]


def _find(output: list[str], text: str, begin: int = 0) -> int:
    found = next((n for n in range(begin, len(output)) if text in output[n]), None)
    assert found is not None, f"no line with {text!r} in:\n" + "\n".join(output)
    return found


_LOOSE = (
    (re.compile(r"'?s[12]/(access|sync)/\S+"), "SCHEDULE"),
    (re.compile(r"\b0x[0-9a-f]+"), "HEX"),
    (re.compile(r"\b(?=\w*\d)[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r"\d[\d,]*(\.\d+)?(e-?\d+)?"), "#"),
    (re.compile(r"-{4,}"), "----"),
    (re.compile(r"\s+"), " "),
)


def loose(line: str) -> str:
    """A line without what may differ."""
    for pattern, instead in _LOOSE:
        line = pattern.sub(instead, line)
    return line.strip()


def same(expected: list[str], output: list[str]) -> bool:
    """Whether *output* is what is printed; a line of three dots stands for any lines."""
    parts: list[list[str]] = [[]]
    for line in expected:
        if line.strip() == DOTS:
            parts.append([])
        else:
            parts[-1].append(loose(line))
    got = [loose(line) for line in output]
    if len(parts) == 1:
        return got == parts[0]
    if got[: len(parts[0])] != parts[0]:
        return False
    at = len(parts[0])
    for part in parts[1:-1]:
        while got[at : at + len(part)] != part:
            at += 1
            if at > len(got):
                return False
        at += len(part)
    last = parts[-1]
    return len(got) - len(last) >= at and got[len(got) - len(last) :] == last


# -- the picture of the imports


def imports() -> dict[str, set[str]]:
    """Part of smpvm → the parts that it imports when it runs (not for type checking only)."""
    import smpvm

    home = Path(smpvm.__file__).parent
    found: dict[str, set[str]] = {}
    for path in home.rglob("*.py"):
        part = path.relative_to(home).parts[0].removesuffix(".py")
        if not part.startswith("__"):
            found.setdefault(part, set()).update(_imported(ast.parse(path.read_text())) - {part})
    return found


def _imported(tree: ast.Module) -> set[str]:
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    modules = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node not in typing
        for alias in node.names
    }
    words = [module.split(".") for module in modules]
    return {w[1] for w in words if w[0] == "smpvm" and not w[1].startswith("__") and w[1].islower()}


def picture(lines: list[str]) -> list[str]:
    """The picture with each part's imports as they are; the order of the rows is kept."""
    order = [line.split()[0] for line in lines if line.strip()]
    real = imports()
    return [
        f"{part:<14} → {' '.join(p for p in order if p in real[part])}".rstrip(" →")
        for part in order
    ]


# -- rewriting


def rewrite(path: Path) -> str:
    """The page with its output as it is now."""
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    changes: list[tuple[int, int, list[str]]] = []
    with tempfile.TemporaryDirectory() as where:
        session = Session(Path(where))
        for block in blocks(text):
            ran = session.do(block)
            if block.kind == "run":
                parts = [(f"$ {r.command}", *shown(r.output, block.options)) for r in ran]
                body = [line for part in parts for line in part]
            elif block.kind == "imports":
                body = picture(block.lines)
            else:
                continue
            changes.append((block.start, block.start + len(block.lines), body))
    for start, end, body in reversed(changes):
        lines[start:end] = body
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Rewrite, or check, the files given."""
    check = "--check" in argv
    os.environ["COLUMNS"] = WIDTH
    named = [Path(name).resolve() for name in argv if name != "--check"]
    differ = 0
    for path in named or [p for p in pages() if p.exists()]:
        new = rewrite(path)
        if new != path.read_text(encoding="utf-8"):
            differ += 1
            print(f"{path}: {'differs' if check else 'written'}")
            if not check:
                path.write_text(new, encoding="utf-8")
    return 1 if check and differ else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
