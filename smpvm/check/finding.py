"""The record of a defect of any kind, written to disk as soon as it is found.

``Finding`` is what checkers, audits and the explorer report.  ``FindingLog`` collects those of one
run.  It is thread-safe, keeps one record per fingerprint with a count, and writes each to the run
directory at once, by rename, so that a killed run loses none.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from smpvm.check import finding_v1
from smpvm.check.stacks import Frame, RawStack, frames_from_json, functions, place, resolve
from smpvm.files import MIB, document, naming
from smpvm.repairs.catalogue import REPAIRS, shown
from smpvm.shape import (
    Misfit,
    integer,
    list_of,
    matching,
    nullable,
    one_of,
    record,
    row,
    text,
)
from smpvm.text import printable, quoted
from smpvm.unwritten import Unwritten

FORMAT: Final = "smpvm-finding"
VERSION: Final = 2
MOST: Final = 16 * MIB
"""The largest file of a finding that is read."""
SCHEDULE_MOST: Final = 4 * MIB

KINDS: Final = (
    "lock-order",
    "deadlock",
    "masked-deadlock",
    "sleep-with-spinlock",
    "recursion",
    "wrong-release",
    "lost-wakeup",
    "masked-lost-wakeup",
    "spurious-wakeup",
    "race",
    "marker",
    "unguarded-access",
    "undocumented-order",
    "policy",
    "request",
    "progress",
    "assertion",
    "audit",
    "stale-data",
    "lifetime",
    "page-rule",
    "count",
    "livelock",
    "starvation",
    "stall",
)


class FindingError(ValueError):
    """A finding file cannot be read: one line with the file and what is wrong."""


@dataclass(frozen=True)
class Site:
    """One place in the kernel code that takes part: which thread did what there, and its stack."""

    thread: str
    role: str
    what: str
    stack: tuple[Frame, ...] = ()

    def lines(self) -> list[str]:
        """As text: what the thread did, then the stack below it."""
        who = self.thread if self.role in ("", self.thread) else f"{self.thread} ({self.role})"
        return [f"{who} {self.what}", *(f"    {frame}" for frame in self.stack)]


class Failure(str):
    """What a scenario's check found wrong, as text, with the ``identity`` of the finding."""

    __slots__ = ("identity",)
    identity: tuple[str, ...]

    @classmethod
    def of(cls, words: str, *identity: str) -> Failure:
        """A failure with the text *words* and a given identity."""
        failure = cls(words)
        failure.identity = identity
        return failure

    @classmethod
    def raised(cls, error: BaseException, words: str) -> Failure:
        """A failure identified by the place that raised *error*, not by its text."""
        return cls.of(words, type(error).__name__, *place(error))


@dataclass
class Finding:
    """A defect: what it is, which threads take part, where, and how to reproduce it."""

    kind: str
    title: str
    sites: list[Site] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    threads: list[tuple[str, str]] = field(default_factory=list)
    """(name, role); filled from the sites when empty."""
    schedule: str | None = None
    """The schedule that reproduces it, in the explorer's text form; None from a free run."""
    identity: tuple[str, ...] = ()
    """What was found, independent of wording: C functions, lock classes, fields, codes."""
    fingerprint: str = ""
    """A hash of kind and identity: the same in every run that finds this defect."""
    command: str = ""
    """The command line that reproduces it."""
    count: int = 1
    source_hash: str = ""
    """SHA-256 of the scenario's file, if it is the user's own."""
    known: tuple[str, ...] = ()
    """The repairs of the known defects that it shows; empty: a new one."""
    written_as: int = field(default=VERSION, init=False, compare=False)
    """The format version of the file that it was read from."""

    def __post_init__(self) -> None:
        if not self.threads:
            self.threads = list(dict.fromkeys((s.thread, s.role) for s in self.sites))
        if not self.fingerprint:
            identity = self.identity or tuple(
                f.c or f.name for s in self.sites for f in s.stack[:1]
            )
            self.fingerprint = fingerprint(self.kind, *identity)

    def to_json(self) -> dict[str, Any]:
        """A JSON document with its format and version."""
        doc = {"format": FORMAT, "version": VERSION, **asdict(self)}
        del doc["written_as"]
        return doc

    @classmethod
    def from_json(cls, doc: Any) -> Finding:
        """The finding of a document.  Raises FindingError."""
        if not isinstance(doc, dict) or doc.get("format") != FORMAT:
            raise FindingError("not a finding of smpvm")
        if doc.get("version") not in (1, VERSION):
            raise FindingError(
                f"format version {quoted(doc.get('version'))}; "
                f"this smpvm reads versions 1 and {VERSION}"
            )
        given = {k: v for k, v in doc.items() if k not in ("format", "version")}
        try:
            _FINDING(given)
        except Misfit as why:
            raise FindingError(f"damaged finding: {why}") from None
        given["sites"] = [
            Site(s["thread"], s["role"], s["what"], frames_from_json(s["stack"]))
            for s in given["sites"]
        ]
        given["threads"] = [(name, role) for name, role in given["threads"]]
        given["identity"] = tuple(given.get("identity", ()))
        given["known"] = tuple(given.get("known", shown(given["fingerprint"])))
        found = cls(**given)
        if doc["version"] == 1:
            found = replace(found, identity=finding_v1.identity(found), fingerprint="")
            found.written_as = 1
            found.known = shown(found.fingerprint)
        return found

    def shows_again(self, other: Finding) -> bool:
        """Is *other*, found in a step-by-step replay of this one's schedule, the same finding?

        A version 1 file does not tell which assertion failed, so a finding of the same kind about
        the same objects counts as the same.
        """
        if other.fingerprint == self.fingerprint:
            return True
        return self.written_as == 1 and (other.kind, other.objects) == (self.kind, self.objects)

    def lines(self) -> list[str]:
        """As text: title, evidence, stacks, command."""
        out = [f"{self.kind}: {self.title}"]
        if self.count > 1:
            out.append(f"  seen {self.count} times")
        out += [f"  {line}" for line in self.known_lines()]
        out += [f"  {line}" for line in self.evidence]
        for site in self.sites:
            out += ["", *(f"  {line}" for line in site.lines())]
        if self.objects:
            out += ["", f"  objects: {', '.join(self.objects)}"]
        out += ["", f"  fingerprint {self.fingerprint}"]
        if self.command:
            out.append(f"  again: {self.command}")
        return [printable(line) for line in out]

    def known_lines(self) -> list[str]:
        """The defects that it shows, and what repairs them."""
        return [
            f"known: {name} ({REPAIRS[name].where if name in REPAIRS else 'not of this version'}); "
            f"--repair {name}"
            for name in self.known
        ]


_FRAME_FIELDS: Final = {
    f.name: integer(0, 1 << 31) if f.type == "int" else text() for f in fields(Frame)
}
_FRAME: Final = record(
    {f.name: _FRAME_FIELDS[f.name] for f in fields(Frame) if f.default is MISSING},
    {f.name: _FRAME_FIELDS[f.name] for f in fields(Frame) if f.default is not MISSING},
)
_SITE: Final = record({"thread": text(), "role": text(), "what": text(), "stack": list_of(_FRAME)})
_FINDING: Final = record(
    {
        "kind": one_of(KINDS),
        "title": text(),
        "sites": list_of(_SITE),
        "objects": list_of(text()),
        "evidence": list_of(text()),
        "threads": list_of(row(text(), text())),
        "schedule": nullable(text(SCHEDULE_MOST)),
        # It becomes part of a file name.
        "fingerprint": matching("[0-9a-f]{12}", "a fingerprint (12 hexadecimal digits)"),
        "command": text(2 * SCHEDULE_MOST),
        "count": integer(1, 1 << 62),
    },
    {
        "identity": list_of(text()),
        "known": list_of(text()),
        "source_hash": matching("([0-9a-f]{64})?", "a SHA-256 (64 hexadecimal digits)"),
    },
)


def site_of(td: Any, what: str, raw: RawStack = ()) -> Site:
    """A site from a kernel thread (None if unknown) and a raw stack."""
    if td is None:
        return Site("?", "", what, resolve(raw))
    return Site(str(td.name), str(getattr(td, "role", "")), what, resolve(raw))


def rule_broken(kind: str, rule: str, title: str, why: str, td: Any, stack: RawStack) -> Finding:
    """*td* broke *rule* at *stack*; *why*: the reason of the rule, with its line in the C."""
    return Finding(
        kind,
        f"{rule}: {title}",
        sites=[site_of(td, rule, stack)],
        evidence=[why],
        identity=(rule, *functions(stack, 1)),
    )


def fingerprint(kind: str, *parts: str) -> str:
    """Twelve hex digits from the kind and the parts of the identity."""
    return hashlib.sha256("\n".join((kind, *parts)).encode(errors="backslashreplace")).hexdigest()[
        :12
    ]


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees either the old text or the new one, never a part.

    If several threads or processes write the same path, the last one wins.
    """
    tmp = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(tmp, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(tmp, path)
    except OSError:
        with suppress(OSError):
            tmp.unlink()
        raise


def save(finding: Finding, path: Path) -> None:
    """Write one finding to *path*."""
    write_atomic(path, json.dumps(finding.to_json(), indent=1) + "\n")


def load(path: Path) -> Finding:
    """Read one finding.  Raises FindingError with one line naming the file."""
    with naming(path, FindingError):
        return Finding.from_json(document(path, MOST, FindingError))


def load_all(run: Path) -> list[Finding]:
    """The findings of a run directory, sorted by file name.  Raises FindingError."""
    return [load(path) for path in sorted((run / "findings").glob("*.json"))]


class FindingLog:
    """The findings of one run, shared by all its checkers.

    *run* is the run directory (None: keep them in memory only), *command* the command line that
    reproduces them; *on_new* is called for each new finding (in the thread that found it).
    *repairs* are those of the run: a finding there does not show their defects.  Those
    whose fingerprints are in *baseline* are dropped.
    """

    def __init__(
        self,
        run: Path | None = None,
        *,
        command: str = "",
        on_new: Callable[[Finding], None] | None = None,
        unwritten: Unwritten | None = None,
        repairs: Iterable[str] = (),
        baseline: frozenset[str] = frozenset(),
    ) -> None:
        self._repairs = frozenset(repairs)
        self._baseline = baseline
        self._mutex = threading.Lock()
        self._found: dict[str, Finding] = {}
        self._written: dict[str, int] = {}
        self._dir = None if run is None else run / "findings"
        self._command = command
        self._on_new = on_new
        self._unwritten = Unwritten() if unwritten is None else unwritten
        if self._dir is not None:
            with self._unwritten.writing(self._dir):
                self._dir.mkdir(parents=True, exist_ok=True)

    def add(self, finding: Finding) -> Finding:
        """Add a finding; returns the one that is kept: the first with its fingerprint."""
        if finding.fingerprint in self._baseline:
            return finding
        with self._mutex:
            known = self._found.get(finding.fingerprint)
            if known is not None:
                known.count += finding.count
                if known.count >= 4 * self._written.get(known.fingerprint, 1):
                    self._write(known)
                return known
            finding.command = finding.command or self._command
            finding.known = shown(finding.fingerprint, self._repairs)
            self._found[finding.fingerprint] = finding
            self._write(finding)
        if self._on_new is not None:
            self._on_new(finding)
        return finding

    def replace(self, finding: Finding) -> None:
        """Replace the finding kept with this fingerprint by *finding*, which tells more."""
        with self._mutex:
            self._found[finding.fingerprint] = finding
            self._write(finding)

    def seen(self, fingerprint: str) -> Finding | None:
        """Count a known finding once more; None if it is not known (then build and ``add`` it).

        Saves checkers the cost of building a record for something that occurs often.
        """
        with self._mutex:
            known = self._found.get(fingerprint)
            if known is not None:
                known.count += 1
            return known

    def _write(self, finding: Finding) -> None:
        if self._dir is not None:
            path = self._dir / f"{finding.kind}-{finding.fingerprint}.json"
            with self._unwritten.writing(path):
                save(finding, path)
            self._written[finding.fingerprint] = finding.count

    @property
    def findings(self) -> list[Finding]:
        """Every finding so far, oldest first."""
        with self._mutex:
            return list(self._found.values())

    def kinds(self) -> list[str]:
        """The kind of each finding so far."""
        return [f.kind for f in self.findings]

    def __len__(self) -> int:
        return len(self._found)

    def finish(self) -> None:
        """Write the final counts."""
        with self._mutex:
            for finding in self._found.values():
                if self._written.get(finding.fingerprint) != finding.count:
                    self._write(finding)


def new_first(findings: Iterable[Finding]) -> list[Finding]:
    """Those that nobody knows yet before those of the catalogue; else in their order."""
    return sorted(findings, key=lambda finding: bool(finding.known))


def hidden_lines(hidden: Mapping[str, int]) -> list[str]:
    """What ``--known hide`` has left out: repairs whose defects were seen, and how often."""
    return [f"hidden, because known: {names} ({n:,})" for names, n in sorted(hidden.items())]


def show(findings: Iterable[Finding]) -> str:
    """Several findings as one text, the new ones first."""
    return "\n\n".join("\n".join(f.lines()) for f in new_first(findings))
