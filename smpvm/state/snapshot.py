"""Snapshots: the memory of a machine in a file, from which another one can go on.

The document is JSON (gzip when the file's name ends in .gz)::

    {"format": "smpvm-state", "version": 1, "smpvm": "0.1.0",
     "config": {...},   the machine: the fields of smpvm.config.Config
     "state": {...},    pages, queues, objects, vnodes, procs, maps, counts, variables:
                        FORMAT.md section 3, in full
     "more": {...}}     what FORMAT.md leaves out, and a running machine needs; may be missing:
        "contents": {page: {word: value}}        words of resident pages
        "swap": [[object, index, {word: value}]] pages on swap
        "files": {vnode: {"name", "size", "references", "blocks": {index: {word: value}}}}
        "offsets": {object: bytes}               where in its backing object an object begins
        "entries": {map: [[offset, protection, max_protection, eflags, inheritance], ...]}

A state without "more" (a test vector's ``before``, say) can be loaded and looked at, but processes
cannot go on in it.  A snapshot is taken, and restored, at rest: no page busy, no I/O, no lock held.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import smpvm
from smpvm.config import Config, ConfigError, DiskConfig, Sysctl
from smpvm.kern.proc import SZOMB, Proc
from smpvm.kern.token import Token
from smpvm.state.dump import dump
from smpvm.state.load import load
from smpvm.state.roster import Roster
from smpvm.state.rules import StateError, check
from smpvm.vm.page.struct import PG_SWAPPED
from smpvm.vm.pager.vnode_io import File
from smpvm.vm.param import OBJT_VNODE
from smpvm.vm.proc.process import Family
from smpvm.vm.vm import Vm

FORMAT: Final = "smpvm-state"
VERSION: Final = 1

ENTRY: Final = ("offset", "protection", "max_protection", "eflags", "inheritance")

Words = Mapping[str, int]


@dataclass
class Snapshot:
    """A machine's configuration and its memory."""

    config: Config
    state: dict[str, Any]
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
    """Write a snapshot; returns the bytes written.  Raises StateError."""
    data = json.dumps(snapshot.to_json(), separators=(",", ":")).encode() + b"\n"
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    try:
        path.write_bytes(data)
    except OSError as why:
        raise StateError(f"{path}: {why.strerror or why}") from None
    return len(data)


def read(path: Path) -> Snapshot:
    """Read a snapshot and check it.  Raises StateError, one line that names the file."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        document = json.loads(data)
    except OSError as why:
        raise StateError(f"{path}: {why.strerror or why}") from None
    except (EOFError, zlib.error):
        raise StateError(f"{path}: damaged or truncated gzip data") from None
    except ValueError:
        raise StateError(f"{path}: not a JSON document") from None
    try:
        return parse(document)
    except StateError as why:
        raise StateError(f"{path}: {why}") from None


def parse(document: object) -> Snapshot:
    """A snapshot from its document.  Raises StateError."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise StateError(f"not a snapshot (format is not {FORMAT!r})")
    if document.get("version") != VERSION:
        raise StateError(f"version {document.get('version')!r}; this smpvm reads {VERSION}")
    try:
        config: Config = _config(Config, document.get("config"), "config")
    except ConfigError as why:
        raise StateError(f"config: {why}") from None
    state = document.get("state")
    check(state, config.pq_l2_size)
    more = document.get("more", {})
    if not isinstance(more, dict):
        raise StateError("more: not an object")
    assert isinstance(state, dict)
    return Snapshot(config, state, more)


def _config(cls: Any, values: object, where: str) -> Any:
    if not isinstance(values, dict):
        raise StateError(f"{where}: missing or not an object")
    parts = {"swap_disk": DiskConfig, "file_disk": DiskConfig, "sysctl": Sysctl}
    known = {f.name: f for f in fields(cls)}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise StateError(f"{where}: unknown field {name!r}")
        if name in parts:
            value = _config(parts[name], value, f"{where} {name}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise StateError(f"{where} {name}: {value!r} is not a number")
        given[name] = value
    made = cls(**given)
    assert is_dataclass(made)
    return made


def describe(snapshot: Snapshot) -> str:
    """One line on what is in a snapshot."""
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
    """The snapshot of a machine at rest.  Raises StateError when it is not."""
    roster = Roster.of(vm)
    state = dump(roster)
    at_rest(state)
    with vm.k.quietly():
        return Snapshot(vm.config, state, _more(roster))


def at_rest(state: Mapping[str, Any]) -> None:
    """Raises StateError for the first thing that is still going on in *state*."""
    for page in state["pages"]:
        busy = {"BUSY", "SBUSY", "WANTED", "SWAPINPROG", "MARKER"} & set(page.get("flags", []))
        if busy:
            raise StateError(f"page {page['id']}: {min(busy)}: the machine is not at rest")
        if page.get("hold_count"):
            raise StateError(f"page {page['id']}: held: the machine is not at rest")
    for obj in state["objects"]:
        if obj["paging_in_progress"] or obj["hold_count"] or obj.get("token_held_by_other"):
            raise StateError(f"object {obj['id']}: in use: the machine is not at rest")
    for part in ("vnodes", "maps"):
        for each in state[part]:
            if each["locked_by_other"]:
                raise StateError(f"{part[:-1]} {each['id']}: locked: the machine is not at rest")
    for name, count in state["phantom"].items():
        if count:
            raise StateError(f"phantom {name}: {count} pages are counted that are not there")


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


# -- going on from one


def restore(vm: Vm, snapshot: Snapshot) -> Roster:
    """Give *vm*, fresh and of the snapshot's configuration, the snapshot's memory.

    Its processes are there, with their address spaces, but nothing runs in them yet.  Raises
    StateError for a snapshot that a running machine cannot go on from.
    """
    at_rest(snapshot.state)
    if "entries" not in snapshot.more and snapshot.state["procs"]:
        raise StateError("the snapshot has processes, but not what they need to go on ('more')")
    pages = sum("MARKER" not in p.get("flags", []) for p in snapshot.state["pages"])
    if pages != vm.config.pages:
        raise StateError(f"the snapshot has {pages} pages, the machine {vm.config.pages}")
    swap_size = vm.glob.vm_swap_size
    roster = load(vm, snapshot.state)
    vm.glob.vm_swap_size = swap_size
    try:
        with vm.k.quietly():
            _restore(roster, snapshot.more)
    except (LookupError, TypeError, ValueError, AttributeError) as why:
        raise StateError(f"more: not of the known form ({why!r})") from None
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
        vm.process.families[p] = k.new(Family, p.p_pid)
        p.p_lock = 0
        k.reserve_ids("pid", p.p_pid + 1)
    for p in [p for p in roster.procs if p.p_stat == SZOMB]:
        _reap(vm, p)
        roster.procs.remove(p)


def _reap(vm: Vm, p: Proc) -> None:
    """Nobody is left who would wait for this one."""
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
