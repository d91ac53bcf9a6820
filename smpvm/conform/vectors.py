"""Reading vector files: JSON lines, plain or gzip, each vector validated before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from smpvm.conform.shapes import check_vector
from smpvm.files import MIB, lines, naming, parse_json
from smpvm.shape import Misfit
from smpvm.state import StateError, check
from smpvm.text import brief, printable, quoted

Vector = dict[str, Any]

LONGEST: Final = 16 * MIB
"""Bytes of one vector."""
TABLES: Final[Mapping[str, str]] = {
    "page": "pages",
    "object": "objects",
    "backing": "objects",
    "map": "maps",
    "vnode": "vnodes",
}
"""An argument of a call or a mutation that is a position → the list it is a position in."""


class VectorError(ValueError):
    """A file without vectors, or with damaged ones: one line that names it."""


def read_vectors(path: str | Path) -> Iterator[Vector]:
    """The vectors of one file, in order.  Raises VectorError where it is damaged."""
    seen: set[str] = set()
    with naming(Path(path), VectorError):
        for n, line in enumerate(lines(Path(path), VectorError, longest=LONGEST), 1):
            if not line.strip():
                continue
            vector = _vector(n, line)
            if vector["name"] in seen:
                raise VectorError(f"line {n}: {quoted(vector['name'])} is there twice")
            seen.add(vector["name"])
            yield vector
        if not seen:
            raise VectorError("no vectors in it")


def _vector(n: int, line: bytes) -> Vector:
    """The vector in line *n*.  Raises VectorError."""
    try:
        vector = parse_json(line)
    except ValueError as why:
        raise VectorError(f"line {n}: {why}") from None
    if not isinstance(vector, dict):
        raise VectorError(f"line {n}: not a vector")
    name = vector.get("name")
    at = f"line {n}" + (f": {brief(printable(name))}" if isinstance(name, str) else "")
    try:
        check_vector(vector)
        _check_before(vector)
        _check_references(vector)
    except (Misfit, StateError) as why:
        raise VectorError(f"{at}: {why}") from None
    return vector


def _check_before(vector: Vector) -> None:
    try:
        check(vector["before"], vector["config"]["pq_l2_size"], settled=False)
    except StateError as why:
        raise StateError(f"before: {why}") from None


def _check_references(vector: Vector) -> None:
    """Raises Misfit for arguments and mutations that name something not in ``before``."""
    before, args, l2 = vector["before"], vector["args"], vector["config"]["pq_l2_size"]
    _check_positions("args", args, before)
    for n in args.get("pages", ()):
        _check_positions("args", {"page": n}, before)
    if args.get("q", 0) >= l2:
        raise Misfit(f"args q: there is no colour {args['q']}, allowed 0 to {l2 - 1}")
    pids = [p["pid"] for p in before["procs"]]
    for key in ("proc", "bigproc"):
        if args.get(key) is not None and args[key] not in pids:
            raise Misfit(f"args {key}: there is no process {args[key]}")
    for n, entry in enumerate(vector.get("script", ())):
        for i, op in enumerate(entry.get("mutations", ())):
            _check_positions(f"script {n} mutation {i}", op, before)


def _check_positions(where: str, record: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    for key, table in TABLES.items():
        n = record.get(key)
        if n is not None and n >= len(before[table]):
            count = len(before[table])
            raise Misfit(f"{where} {key}: {n}, but before has {count} {table}, numbered from 0")
