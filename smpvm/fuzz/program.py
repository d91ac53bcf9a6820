"""The text of a program, read and checked.

::

    start: x anon 2 inactive cow; swap full | a: fork write x+1; read x+0 | pageout: inactive 1

Sections are separated by ``|``.  ``start`` says what there is before any thread runs, every other
section is a thread: its name and its operations.  Errors are one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from smpvm.config import ConfigError, parse_sysctl
from smpvm.fuzz.operations import OPERATIONS, Operation
from smpvm.fuzz.shape import (
    COLOURS,
    DAEMONS,
    EVERYBODY,
    FILES,
    KINDS,
    MEMORY,
    MOST_PAGES,
    SHARERS,
    SHARING,
    STATES,
    Op,
    Program,
    Region,
    Start,
    ThreadOf,
    is_process,
)
from smpvm.text import brief, quoted, whole

MOST: Final = 2000
"""Characters of a program."""
MOST_THREADS: Final = 6
MOST_OPS: Final = 12
"""Of one thread."""
MOST_LOCKS: Final = 64
KERNEL: Final = ("pageout", "vmdaemon", "syncer", "kernel", "kernel2")
"""Threads that are no process's."""
REGION: Final = re.compile(r"[xyzfg]")
_TARGET: Final = re.compile(r"([xyzfg])(?:\+([0-9]))?")


class ProgramError(ValueError):
    """A text that is no program, or one that cannot be: one line."""


def parse(text: str) -> Program:
    """The program that *text* says.  Raises ProgramError."""
    if len(text) > MOST:
        raise ProgramError(f"program: longer than {MOST} characters")
    start, threads = Start(), []
    for n, section in enumerate(text.split("|")):
        name, colon, body = section.strip().partition(":")
        if not colon:
            raise ProgramError(f"program: {quoted(section.strip())}: write it as thread: operation")
        items = [" ".join(item.split()) for item in body.split(";")]
        if name == "start" and n == 0:
            for item in items:
                start = _item(start, item)
        else:
            threads.append(ThreadOf(name, tuple(_op(name, item) for item in items if item)))
    program = Program(start, tuple(threads))
    for why in problems(program):
        raise ProgramError(f"program: {why}")
    return program


# -- the start


def _item(start: Start, item: str) -> Start:
    words = item.split()
    if not words:
        return start
    first, rest = words[0], words[1:]
    if REGION.fullmatch(first):
        return replace(start, regions=(*start.regions, _region(first, rest, item)))
    try:
        if first == "sysctl" and len(rest) == 1:
            return replace(start, sysctls=(*start.sysctls, parse_sysctl(rest[0])))
    except ConfigError as why:
        raise ProgramError(f"program: {why}") from None
    if first == "colours" and len(rest) == 1:
        return replace(start, colours=_number(rest[0], COLOURS, item))
    if first == "locks" and len(rest) == 1:
        return replace(start, locks=_number(rest[0], range(1, MOST_LOCKS + 1), item))
    if first == "memory" and len(rest) == 1 and rest[0] in MEMORY:
        return replace(start, memory=rest[0])
    if item == "swap full":
        return replace(start, swap_full=True)
    if first == "daemon" and len(rest) == 1 and rest[0] in DAEMONS:
        return replace(start, daemons=(*start.daemons, rest[0]))
    raise ProgramError(
        f"program: start: {quoted(item)}: allowed are a region (x anon 1 resident), colours N, "
        f"locks N, memory {'|'.join(MEMORY)}, swap full, daemon {'|'.join(DAEMONS)}, "
        "sysctl NAME=VALUE"
    )


def _number(text: str, allowed: range | tuple[int, ...], item: str) -> int:
    try:
        n = whole(text)
    except ValueError as why:
        raise ProgramError(f"program: {quoted(item)}: {why}") from None
    if n not in allowed:
        every = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else str(allowed)
        raise ProgramError(f"program: {quoted(item)}: out of range, allowed {every}")
    return n


def _region(name: str, words: list[str], item: str) -> Region:
    if not 3 <= len(words) <= 4:
        raise ProgramError(
            f"program: region {quoted(item)}: write it as NAME KIND PAGES STATE [SHARING]"
        )
    kind, pages, state, *sharing = words
    for what, given, known in (
        ("kind", kind, KINDS),
        ("state", state, STATES),
        ("sharing", (sharing or ["own"])[0], SHARING),
    ):
        if given not in known:
            raise ProgramError(
                f"program: region {name}: {what} {brief(given)}: known are {', '.join(known)}"
            )
    n = _number(pages, range(1, MOST_PAGES + 1), item)
    return Region(name, kind, n, state, (sharing or ["own"])[0])


# -- operations


def _op(thread: str, item: str) -> Op:
    words = item.split()
    op = _words(thread, words)
    if words:
        raise ProgramError(f"program: {thread}: {quoted(item)}: {brief(words[0])} is too much")
    return op


def _words(thread: str, words: list[str]) -> Op:
    """Take an operation from the front of *words*."""
    name = words.pop(0)
    operation = OPERATIONS.get(name)
    if operation is None:
        known = ", ".join(n for n, o in OPERATIONS.items() if o.kernel != is_process(thread))
        raise ProgramError(f"program: {thread}: {brief(name)}: unknown; known are {known}")
    region, page, word, child = "", None, "", None
    if operation.target != "none" and words and (found := _TARGET.fullmatch(words[0])):
        words.pop(0)
        region, page = found[1], None if found[2] is None else int(found[2])
    if operation.words and words and words[0] in operation.words:
        word = words.pop(0)
    if operation.child and words:
        child = _words(thread, words)
    return Op(name, region, page, word, child)


# -- what must hold


def problems(program: Program) -> Iterator[str]:
    """What is wrong with *program*, one line each."""
    start = program.start
    names = [r.name for r in start.regions]
    if len(set(names)) != len(names):
        yield "two regions have one name"
    if not program.threads:
        yield "no thread"
    if len(program.threads) > MOST_THREADS:
        yield f"more than {MOST_THREADS} threads"
    if twice := [td.name for td in program.threads if td.name in start.daemons]:
        yield f"{twice[0]} is a whole daemon already"
    if len({td.name for td in program.threads}) != len(program.threads):
        yield "two threads have one name"
    if sum(r.state == "busy" for r in start.regions) > 1:
        yield "only one region may be busy: there are few I/O buffers"
    for region in start.regions:
        yield from _region_problems(program, region)
    for td in program.threads:
        if not (is_process(td.name) or td.name in KERNEL):
            yield f"thread {brief(td.name)}: allowed are a, b, c, d, a2, ..., {', '.join(KERNEL)}"
        elif not td.ops:
            yield f"{td.name}: no operation"
        elif len(td.ops) > MOST_OPS:
            yield f"{td.name}: more than {MOST_OPS} operations"
        for op in td.ops:
            yield from (f"{td.name}: {op}: {why}" for why in op_problems(program, td, op))
    yield from _memory_problems(program)


def _region_problems(program: Program, region: Region) -> Iterator[str]:
    is_file = region.kind in FILES
    what = f"region {region}"
    if is_file != (region.name in "fg"):
        yield f"{what}: files are f and g, other memory x, y and z"
    if region.kind in ("file", "shared") and region.sharing != "own":
        yield f"{what}: it is shared by all, so there is no copy-on-write"
    if region.state == "unmapped" and region.sharing != "own":
        yield f"{what}: nothing is there that could be shared"
    if region.state == "touched" and region.sharing in ("chain2", "chain3"):
        yield f"{what}: a chain has pages that were written"
    if region.kind == "stack" and region.state not in ("empty", "resident", "unmapped"):
        yield f"{what}: a stack is unmapped, empty or resident"
    if program.start.swap_full and not is_file and region.state in ("busy",):
        yield f"{what}: nothing can be written to a swap that is full"


def op_problems(program: Program, td: ThreadOf, op: Op, child: bool = False) -> Iterator[str]:
    """What is wrong with one operation."""
    operation = OPERATIONS[op.name]
    if operation.kernel == is_process(td.name):
        yield "only for " + ("kernel threads" if operation.kernel else "threads of processes")
    elif operation.only not in ("", td.name):
        yield f"only for the thread {operation.only}"
    yield from _target_problems(program, td, op, operation)
    if operation.words and not op.word and operation.word_needed:
        yield f"a word is wanted: {', '.join(operation.words)}"
    if op.name in ("exec", "vfork") and not child and _threads(program, td.process) > 1:
        yield "its process has several threads"
    if op.name == "kill" and op.word not in program.processes():
        yield "there is no such process"
    if op.child is not None:
        if child:
            yield "a child has no children"
        if op.child.name in ("fork", "vfork"):
            yield "a child does not fork"
        yield from op_problems(program, td, op.child, child=True)


def _threads(program: Program, process: str) -> int:
    return sum(td.process == process for td in program.threads)


def _target_problems(program: Program, td: ThreadOf, op: Op, operation: Operation) -> Iterator[str]:
    if operation.target == "none":
        return
    region = program.region(op.region)
    if region is None:
        yield f"a region is wanted, one of {', '.join(r.name for r in program.start.regions)}"
        return
    if operation.target == "page" and op.page is None:
        yield "a page is wanted, as in x+0"
    if operation.target == "region" and op.page is not None:
        yield "a whole region is wanted"
    beyond = operation.beyond
    if op.page is not None and op.page >= region.pages + beyond:
        yield f"{region.name} has {region.pages} pages"
    if operation.files and region.kind not in FILES:
        yield f"{region.name} is no file"
    if not (operation.files or operation.kernel or has(td.process, region)):
        yield f"process {td.process} does not have {region.name}"


def has(process: str, region: Region) -> bool:
    """Does *process* have *region* mapped at the start (or may map it)?"""
    return region.kind in EVERYBODY or process in SHARERS[region.sharing]


def _memory_problems(program: Program) -> Iterator[str]:
    """Where memory is short, somebody must be able to make some free."""
    start = program.start
    short = start.memory != "plenty" or program.has("memory")
    if not short:
        return
    if "pagedaemon" not in start.daemons:
        yield "memory is short: daemon pagedaemon is wanted"
    if start.swap_full:
        yield "memory is short and swap is full: nobody could go on"
    if program.has("mlock", "vslock") or any(r.state == "wired" for r in start.regions):
        yield "memory is short: nothing may be wired"
    if any(td.name == "pageout" for td in program.threads):
        yield "memory is short: the page-out daemon is a whole one, not rounds of its own"
    if program.has("fail"):
        yield "memory is short: I/O must not fail"
