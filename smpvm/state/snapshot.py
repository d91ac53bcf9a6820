"""Snapshots: the memory of a machine in a file, from which another machine can resume.

The document is JSON (gzip when the file's name ends in .gz)::

    {"format": "smpvm-state", "version": 1, "smpvm": "0.1.0",
     "config": {...},   the machine: the fields of smpvm.config.Config
     "state": {...},    pages, queues, objects, vnodes, procs, maps, counts, variables:
                        FORMAT.md section 3, in full
     "more": {...}}     what a running machine needs beyond FORMAT.md:
        "contents": {page: {word: value}}        words of resident pages
        "swap": [[object, index, {word: value}]] pages on swap
        "files": {vnode: {"name", "size", "references", "blocks": {index: {word: value}}}}
        "offsets": {object: bytes}               where in its backing object an object begins
        "entries": {map: [[offset, protection, max_protection, eflags, inheritance], ...]}

A snapshot is taken, and restored, at rest: no page is busy, no I/O in progress, no lock held.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import smpvm
from smpvm.config import Config, ConfigError, DiskConfig, Sysctl
from smpvm.files import MIB, document, naming
from smpvm.kern.proc import SZOMB, Proc
from smpvm.kern.token import Token
from smpvm.shape import Misfit, Shape, anything, integer, real, record, text
from smpvm.state.dump import dump
from smpvm.state.load import load
from smpvm.state.more import ENTRY, at_rest, check_snapshot
from smpvm.state.roster import Roster
from smpvm.state.rules import State, StateError, check
from smpvm.text import quoted
from smpvm.vm.page.struct import PG_SWAPPED
from smpvm.vm.pager.vnode_io import File
from smpvm.vm.param import OBJT_VNODE
from smpvm.vm.proc.process import Family
from smpvm.vm.vm import Vm

FORMAT: Final = "smpvm-state"
VERSION: Final = 1

MOST: Final = 128 * MIB
"""Of a snapshot, unpacked."""

PARTS: Final[Mapping[str, Any]] = {
    "swap_disk": DiskConfig,
    "file_disk": DiskConfig,
    "sysctl": Sysctl,
}
"""The parts of a Config that are dataclasses of their own."""

Words = Mapping[str, int]


@dataclass
class Snapshot:
    """A machine's configuration and its memory."""

    config: Config
    state: State
    more: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "smpvm": smpvm.__version__,
            "config": asdict(self.config),
            "state": self.state,
            "more": self.more,
        }


# -- files


def write(path: Path, snapshot: Snapshot) -> int:
    """Write a snapshot; returns the size of the file in bytes.  Raises StateError."""
    data = json.dumps(snapshot.to_json(), separators=(",", ":")).encode() + b"\n"
    if len(data) > MOST:
        raise StateError(f"{path}: {len(data) // MIB} MiB; a snapshot may have {MOST // MIB}")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    try:
        path.write_bytes(data)
    except OSError as why:
        raise StateError(f"{path}: {why.strerror or why}") from None
    return len(data)


def read(path: Path) -> Snapshot:
    """Read and check a snapshot.  Raises StateError, one line that names the file."""
    with naming(path, StateError):
        return parse(document(path, MOST, StateError))


def parse(document: object) -> Snapshot:
    """Check a document and return its snapshot.  Raises StateError."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise StateError(f"not a snapshot (format is not {FORMAT!r})")
    if document.get("version") != VERSION:
        raise StateError(f"version {quoted(document.get('version'))}; this smpvm reads {VERSION}")
    try:
        _DOCUMENT(document)
    except Misfit as why:
        raise StateError(str(why)) from None
    try:
        config = _config(document["config"])
    except ConfigError as why:
        raise StateError(f"config: {why}") from None
    state, more = check(document.get("state"), config.pq_l2_size), document.get("more", {})
    check_snapshot(config, state, more)
    return Snapshot(config, state, more)


def _shape_of(cls: type) -> Shape:
    """The shape of a dataclass whose fields are numbers, or such dataclasses."""
    kinds = {"int": integer(-(1 << 63), 1 << 63), "float": real}
    return record(
        {}, {f.name: kinds.get(str(f.type)) or _shape_of(PARTS[f.name]) for f in fields(cls)}
    )


_DOCUMENT: Final = record(
    {"format": text(), "version": integer(1, VERSION), "config": _shape_of(Config)},
    # "state" and "more" have rules of their own.
    {"smpvm": text(), "state": anything, "more": anything},
)


def _config(values: Mapping[str, Any]) -> Config:
    """Raises ConfigError."""
    return Config(**{k: PARTS[k](**v) if k in PARTS else v for k, v in values.items()})


def describe(snapshot: Snapshot) -> str:
    """One line that describes a snapshot."""
    state = snapshot.state
    queues = Counter(page["queue"] for page in state["pages"])
    on = ", ".join(f"{n} {queue}" for queue, n in sorted(queues.items()))
    swapped = len(snapshot.more.get("swap", ()))
    return (
        f"{len(state['pages'])} pages ({on}), {swapped} on swap, {len(state['objects'])} objects, "
        f"{len(state['procs'])} processes"
    )


# -- taking one


def take(vm: Vm) -> Snapshot:
    """Take the snapshot of a machine at rest.  Raises StateError if it is not at rest."""
    roster = Roster.of(vm)
    state = dump(roster)
    at_rest(state)
    with vm.k.quietly():
        return Snapshot(vm.config, state, _more(roster))


def _more(roster: Roster) -> dict[str, Any]:
    vm = roster.vm
    swap = []
    for n, obj in enumerate(roster.objects):
        for pindex, blk in vm.swap.blocks_of(obj):
            swap.append([n, pindex, _words(vm.swap.store.get(blk))])
    return {
        "contents": {str(n): _words(m.contents) for n, m in enumerate(roster.pages) if m.contents},
        "swap": swap,
        "files": {str(n): _file(vp) for n, vp in enumerate(roster.vnodes)},
        "offsets": {
            str(n): obj.backing_object_offset
            for n, obj in enumerate(roster.objects)
            if obj.backing_object_offset
        },
        "entries": {
            str(n): [[getattr(e, name) for name in ENTRY] for e in map_.entries()]
            for n, map_ in enumerate(roster.maps)
        },
    }


def _words(contents: Mapping[int, int] | None) -> dict[str, int]:
    return {str(word): value for word, value in sorted((contents or {}).items())}


def _file(vp: Any) -> dict[str, Any]:
    file: File = vp.data
    blocks = {str(n): _words(words) for n, words in sorted(file.blocks.items())}
    return {
        "name": file.name,
        "size": file.size,
        "references": vp.v_refcnt,
        "blocks": blocks,
    }


# -- restoring one


def restore(vm: Vm, snapshot: Snapshot) -> Roster:
    """Restore *snapshot* into *vm*, which is fresh and has the snapshot's configuration.

    Afterwards its processes exist, with their address spaces, but have no threads.  Raises
    StateError for a snapshot that a machine cannot resume from.
    """
    check_snapshot(vm.config, snapshot.state, snapshot.more)
    swap_size = vm.glob.vm_swap_size
    roster = load(vm, snapshot.state)
    vm.glob.vm_swap_size = swap_size
    with vm.k.quietly():
        _restore(roster, snapshot.more)
    return roster


def _restore(roster: Roster, more: Mapping[str, Any]) -> None:
    vm, k = roster.vm, roster.k
    for n, words in more.get("contents", {}).items():
        roster.pages[int(n)].contents = _numbers(words)
    for obj in roster.objects:
        behind = obj.backing_object
        if behind is not None and behind.type != OBJT_VNODE:
            behind.shadow_head[obj] = None
        obj.swblock_count = 0
    for n, offset in more.get("offsets", {}).items():
        roster.objects[int(n)].backing_object_offset = offset
    for n, rows in more.get("entries", {}).items():
        for entry, row in zip(roster.maps[int(n)].entries(), rows, strict=True):
            for name, value in zip(ENTRY, row, strict=True):
                setattr(entry, name, value)
    for n, file in more.get("files", {}).items():
        vp = roster.vnodes[int(n)]
        vp.data = File(Token(k, "v_token", str(vp)), file["name"], file["size"])
        vp.data.blocks = {int(at): _numbers(words) for at, words in file["blocks"].items()}
        vp.v_refcnt = file["references"]
    for n, pindex, words in more.get("swap", []):
        _swap_in_place(vm, roster.objects[n], pindex, _numbers(words))
    for p in roster.procs:
        vm.process.families[p] = k.new(Family, k, p)
        p.p_lock = 0
        k.reserve_ids("pid", p.p_pid + 1)
    for p in [p for p in roster.procs if p.p_stat == SZOMB]:
        _reap(vm, p)
        roster.procs.remove(p)


def _reap(vm: Vm, p: Proc) -> None:
    """Reap a zombie: its parent is not in the snapshot."""
    p.p_token.get()
    vm.k.proc.remove_zombie(p)
    vm.vmspace.exitfree(p)
    p.p_token.release()
    del vm.process.families[p]


def _swap_in_place(vm: Vm, obj: Any, pindex: int, words: dict[int, int]) -> None:
    """Put one page of an object on swap."""
    vm.object.hold(obj)
    blk = vm.swap.getswapspace(obj, 1)
    if blk < 0:
        raise StateError("more: the swapped pages do not fit into the machine's swap")
    vm.swap.meta_build(obj, pindex, blk)
    if words:
        vm.swap.store[blk] = words
    m = obj.rb_memq.lookup(pindex)
    if m is not None:
        m.flags |= PG_SWAPPED
    vm.object.drop(obj)


def _numbers(words: Words) -> dict[int, int]:
    return {int(word): int(value) for word, value in words.items()}
