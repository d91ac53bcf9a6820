"""The event log of locks: every acquire, release, block and wake, as JSON lines through loguru.

Events are collected in a list per thread and written in batches by one writer thread, so that an
event costs the run one ``append``.  If the writer cannot keep up, whole batches are dropped and
counted; the count is in the last line of the log.  Edges of the lock order are written at once and
never dropped: the graph in the log is the checker's graph.

Each line carries ``"v": 1`` and can be read alone, so a rotated or truncated file is usable.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from contextlib import nullcontext, suppress
from glob import escape
from pathlib import Path
from typing import Any, Final, TextIO

from loguru import logger

from smpvm.check.held import HeldTracker, ThreadState
from smpvm.check.lockorder import LockEdge, LockOrder, edge_sites
from smpvm.unwritten import Unwritten

VERSION: Final = 1
LOG_NAME: Final = "lockorder.jsonl"
"""The name of the log in a run directory."""
BATCH: Final = 512
"""How many events a thread collects before it hands them to the writer."""

Event = tuple[int, str, Any, str, tuple[Any, ...]]


class LockTrace:
    """Writes the log of one run.

    *path* is the JSONL file (None: no file); it is rotated at *max_bytes*, and *keep* old files
    are kept.  If *events* is false, only the edges of the lock order are written.  *terminal* gets
    readable lines from *level* on (a loguru level; TRACE shows every event).
    """

    def __init__(
        self,
        path: Path | None,
        *,
        events: bool = True,
        level: str = "WARNING",
        terminal: TextIO | None = None,
        max_bytes: int = 64 << 20,
        keep: int = 4,
        backlog: int = 400,
        unwritten: Unwritten | None = None,
    ) -> None:
        self.path = path
        self.events = events and path is not None
        self.written = 0
        self.dropped = 0
        self._backlog = backlog
        self._queue: queue.SimpleQueue[tuple[str, list[Event]] | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._tracker: HeldTracker | None = None
        self._order: LockOrder | None = None
        self._names: dict[Any, str] = {}
        self._ids: list[int] = []
        self._log = logger.bind(smpvm=self)
        self._unwritten = Unwritten() if unwritten is None else unwritten
        self._trace_all = terminal is not None and level.upper() == "TRACE"
        with suppress(ValueError):
            logger.remove(0)  # loguru's default terminal handler must not print these lines
        if path is not None:
            self._add_file(path, max_bytes, keep)
        if terminal is not None:
            self._ids.append(
                logger.add(
                    terminal,
                    level=level.upper(),
                    format="<level>{level: <7}</level> {message}",
                    filter=lambda r: r["extra"].get("smpvm") is self and not r["extra"].get("file"),
                )
            )
        self._writer: threading.Thread | None = None
        if self.events:
            self._writer = threading.Thread(target=self._write, name="locklog", daemon=True)
            self._writer.start()

    def _add_file(self, path: Path, max_bytes: int, keep: int) -> None:
        """Raises OSError when the file cannot be written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("w").close()
        for old in rotated(path):
            old.unlink()
        self._ids.append(
            logger.add(
                path,
                level=0,
                format="{message}",
                filter=lambda r: r["extra"].get("smpvm") is self and bool(r["extra"].get("file")),
                rotation=max_bytes,
                retention=keep,
                encoding="utf-8",
                catch=False,  # errors are handled here, not printed by loguru
            )
        )
        self._file = self._log.bind(file=True)

    # -- events

    def follow(self, tracker: HeldTracker, order: LockOrder | None) -> None:
        """Attach to a tracker and, if there is one, to the lock-order checker."""
        self._tracker = tracker
        self._order = order
        if self.events or self._trace_all:
            tracker.on_event = self.event
            tracker.on_exit = self._ended
        if order is not None:
            order.on_edge.append(self.edge)

    def event(self, st: ThreadState, what: str, res: Any, mode: str) -> None:
        """Record one event of one thread; called in that thread."""
        if self.events:
            kept = st.log
            if kept is None:
                kept = st.log = []
            kept.append((time.monotonic_ns(), what, res, mode, tuple(st.held)))
            if len(kept) >= BATCH:
                self._hand_over(st)
        if self._trace_all:
            self._log.trace("{} {} {} {}", st.td.name, what, "" if res is None else res, mode)

    def _ended(self, st: ThreadState) -> None:
        if st.log:
            self._hand_over(st)

    def _hand_over(self, st: ThreadState) -> None:
        kept, st.log = st.log or [], []
        if self._queue.qsize() >= self._backlog:
            with self._mutex:
                self.dropped += len(kept)
        else:
            self._queue.put((st.td.name, kept))

    def edge(self, edge: LockEdge) -> None:
        """A new edge of the lock order: written now, and shown at level DEBUG."""
        self._log.debug(
            "lock order {} → {} ({} at {})",
            edge.first,
            edge.then,
            edge.td.name,
            next((str(s) for s in edge_sites(edge)[1].stack if "kern/" not in s.file), "?"),
        )
        if self.path is not None:
            self._line(edge_record(edge))

    def say(self, level: str, text: str) -> None:
        """Print a line on the terminal."""
        self._log.log(level.upper(), "{}", text)

    def _line(self, record: dict[str, Any]) -> None:
        self._put(json.dumps(record, separators=(",", ":")) + "\n")

    def _put(self, lines: str) -> None:
        """Write whole lines; if the disk is full, the log ends early and the run continues."""
        assert self.path is not None
        with self._unwritten.writing(self.path):
            self._file.opt(raw=True).info(lines)

    # -- the writer thread

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            self._batch(*item)

    def _batch(self, name: str, events: list[Event]) -> None:
        tick, start, first = self._clock()
        who = json.dumps(name)
        lines = []
        for ns, what, res, mode, held in events:
            at = first + int((ns - start) / tick) if tick else first
            has = ",".join(self._name(h.res) for h in held)
            cls = "" if res is None else getattr(res, "cls", "busy")
            thing = "null" if res is None else self._name(res)
            lines.append(
                f'{{"v":1,"ev":"{what}","tick":{at},"ns":{ns},"td":{who},"cls":"{cls}",'
                f'"lock":{thing},"mode":"{mode}","held":[{has}]}}\n'
            )
        self._put("".join(lines))
        self.written += len(lines)

    def _name(self, res: Any) -> str:
        text = self._names.get(res)
        if text is None:
            if len(self._names) > 100_000:
                self._names.clear()
            text = self._names[res] = json.dumps(str(res))
        return text

    def _clock(self) -> tuple[float, int, int]:
        """(host ns per tick or 0, a host time in ns, the tick at that time)."""
        k = None if self._tracker is None else self._tracker.k
        if k is None:
            return 0.0, 0, 0
        return k.carrier.tick * 1e9, time.monotonic_ns(), k.carrier.ticks()

    def close(self) -> None:
        """Write what is left, every edge once more, and the last line; idempotent."""
        if self._tracker is not None:
            for st in self._tracker.all_states():
                if st.log:
                    self._hand_over(st)
            self._tracker.on_event = None
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None
        if self.path is not None and self._ids:
            self._end()
        for handler in self._ids:
            with nullcontext() if self.path is None else self._unwritten.writing(self.path):
                logger.remove(handler)
        self._ids = []

    def _end(self) -> None:
        edges = [] if self._order is None else list(self._order.graph.edges.values())
        for edge in edges:
            self._line(edge_record(edge))
        k = None if self._tracker is None else self._tracker.k
        self._line(
            {
                "v": VERSION,
                "ev": "end",
                "written": self.written,
                "dropped": self.dropped,
                "acquired": {} if k is None else dict(sorted(k.lock_acquires().items())),
                "contended": {} if k is None else dict(sorted(k.lock_contention().items())),
            }
        )
        if self.dropped:
            self.say("WARNING", f"the lock log dropped {self.dropped} events")


def rotated(path: Path) -> list[Path]:
    """The rotated files of the log at *path*, as loguru names them, oldest first."""
    return sorted(path.parent.glob(f"{escape(path.stem)}.????-??-??_*{escape(path.suffix)}"))


def edge_record(edge: LockEdge) -> dict[str, Any]:
    """An edge as a line of the log: both ends with the stacks that first showed it."""
    first, then = edge_sites(edge)
    return {
        "v": VERSION,
        "ev": "edge",
        "first": edge.first,
        "then": edge.then,
        "binding": edge.binding,
        "td": edge.td.name,
        "held": edge.held,
        "first_stack": [str(frame) for frame in first.stack],
        "then_stack": [str(frame) for frame in then.stack],
    }
