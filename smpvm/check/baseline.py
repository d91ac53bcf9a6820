"""A baseline: findings and lock-order edges that are known, and so not told again.

The file names each finding by its fingerprint (kind and title are for the reader), and each edge of
the lock order by its classes.  ``--write-baseline`` makes it of what a run found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from smpvm.check.finding import KINDS, Finding, write_atomic
from smpvm.check.undocumented import KIND, edge_fingerprint
from smpvm.config import ConfigError
from smpvm.files import MIB, document, naming
from smpvm.shape import Misfit, integer, list_of, matching, one_of, record, row, text

FORMAT: Final = "smpvm-baseline"
VERSION: Final = 1
MOST: Final = 4 * MIB

_KNOWN: Final = record(
    {"fingerprint": matching("[0-9a-f]{12}", "a fingerprint (12 hexadecimal digits)")},
    {"kind": one_of(KINDS), "title": text()},
)
_FILE: Final = record(
    {
        "format": one_of((FORMAT,)),
        "version": integer(VERSION, VERSION),
        "findings": list_of(_KNOWN),
        "edges": list_of(row(text(), text())),
    }
)


class Baseline:
    """What is known: nothing, or what the file *path* has.

    Raises ConfigError with one line naming the file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.findings: dict[str, dict[str, str]] = {}
        """Fingerprint → the entry of the file."""
        self.edges: set[tuple[str, str]] = set()
        if path is not None:
            self._read(path)

    def _read(self, path: Path) -> None:
        with naming(path, ConfigError):
            doc = document(path, MOST, ConfigError)
            try:
                _FILE(doc)
            except Misfit as why:
                raise ConfigError(f"not a baseline of smpvm: {why}") from None
        self.findings = {entry["fingerprint"]: entry for entry in doc["findings"]}
        self.edges = {(first, then) for first, then in doc["edges"]}

    @property
    def known(self) -> frozenset[str]:
        """The fingerprints of all that is known."""
        return frozenset({*self.findings, *(edge_fingerprint(*edge) for edge in self.edges)})

    def add(self, findings: Iterable[Finding]) -> None:
        """From now on these are known too."""
        for f in findings:
            if f.kind == KIND:
                self.edges.add((f.objects[0], f.objects[1]))
            else:
                entry = {"fingerprint": f.fingerprint, "kind": f.kind, "title": f.title}
                self.findings[f.fingerprint] = entry

    def write(self, path: Path) -> None:
        """Write it as the file *path*.  Raises OSError."""
        entries = self.findings.values()
        doc = {
            "format": FORMAT,
            "version": VERSION,
            "findings": sorted(entries, key=lambda e: (e.get("kind", ""), e["fingerprint"])),
            "edges": sorted(self.edges),
        }
        write_atomic(path, json.dumps(doc, indent=1) + "\n")


def write_baseline(before: Path | None, path: Path, findings: Iterable[Finding]) -> None:
    """Write *findings*, and what the baseline *before* has, as the baseline *path*.

    Raises ConfigError for *before*, OSError for *path*.
    """
    baseline = Baseline(before)
    baseline.add(findings)
    baseline.write(path)
