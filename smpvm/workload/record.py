"""Record the page references of programs: run one under valgrind's lackey, reduce as it runs.

Each process that valgrind follows connects to a socket of ours and sends its log there: the logs,
which are huge, never touch the disk, and those of several processes do not mix.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from smpvm.workload.trace import Reducer, Trace, TraceError

GRACE: Final = 3.0
"""Host seconds between SIGTERM and SIGKILL."""
MOST: Final = 1000
"""Processes of one recording that get a trace."""
_PID: Final = re.compile(rb"==([0-9]{1,10})==")
_COMMAND: Final = re.compile(rb"==[0-9]+== Command: (.*)\n")


@dataclass
class Recording:
    """What came of it."""

    status: int
    """The exit status of the command; minus the signal that ended it."""
    traces: list[Trace] = field(default_factory=list)
    """One for each process, in the order in which they began."""
    interrupted: bool = False
    """A signal ended it before its time."""
    left_out: int = 0
    """Processes beyond MOST."""


def record(
    command: Sequence[str], *, window: int = 8, limit: int = 200_000, follow: bool = True
) -> Recording:
    """Run *command* to its end, and with *follow* the programs that it starts, too.

    A process that has given *limit* references is ended.  The program keeps its standard streams.
    SIGINT, SIGTERM and SIGHUP end all of its processes; what was recorded is kept.  A child that
    forks and starts no other program counts as its parent.  Blocks until all processes have
    ended.  Raises TraceError when valgrind or the program is missing, or nothing was seen.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise TraceError("record: valgrind is not installed (Debian: apt-get install valgrind)")
    if not command:
        raise TraceError("record: no command given")
    if shutil.which(command[0]) is None:
        raise TraceError(f"record: {command[0]}: no such program")
    with _signals() as signals, _listener() as listener:
        lackey = [
            "--tool=lackey",
            "--trace-mem=yes",
            f"--trace-children={'yes' if follow else 'no'}",
            f"--log-socket=127.0.0.1:{listener.getsockname()[1]}",
        ]
        try:
            child = subprocess.Popen([valgrind, *lackey, "--", *command], start_new_session=True)
        except OSError as why:
            raise TraceError(f"record: {why.strerror or why}") from None
        try:
            collector = Collector(child, listener, signals, window, limit)
            collector.run()
        except BaseException:
            _end_all(child, signal.SIGKILL)
            child.wait()
            raise
    found = collector.result(command)
    if not found.traces and not found.interrupted:
        raise TraceError(f"record: {command[0]}: valgrind saw no memory references")
    return found


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that have come that ask for an end.  Elsewhere than in the main thread, none."""
    come: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        come.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield come
        return
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in asking}
    try:
        yield come
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _listener() -> Iterator[socket.socket]:
    """A socket on which the processes' valgrinds can be heard.  Raises TraceError."""
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            # Without a loopback, valgrind would write its log to the program's standard error.
            with socket.create_connection(listener.getsockname(), timeout=GRACE):
                listener.accept()[0].close()
        except OSError as why:
            raise TraceError(f"record: loopback interface: {why.strerror or why}") from None
        listener.setblocking(False)
        yield listener


def _end_all(child: subprocess.Popen[bytes], number: int) -> None:
    """A signal to the command and to everything that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _words(command: str) -> list[str]:
    """The arguments of a command as valgrind says it, with backslashes before what is special."""
    try:
        return shlex.split(command) or ["?"]
    except ValueError:
        return [command]


class Stream:
    """The log of one process, on its way into a reducer."""

    def __init__(self, reducer: Reducer | None) -> None:
        self.reducer = reducer
        """None: one process too many; its log is thrown away."""
        self.pid = 0
        self.command = ""
        self.cut = False
        """Was it still running when a signal ended all?"""
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """More of the log.  A line that is cut off at its end is no line."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if self.reducer is None or self.reducer.full:
            return
        lines = [line + b"\n" for line in whole]
        if not self.command:
            self._learn(lines)
        self.reducer.feed(lines)

    def _learn(self, lines: list[bytes]) -> None:
        """The process's number and command, which valgrind says before all else."""
        for line in lines:
            if not self.pid and (found := _PID.match(line)):
                self.pid = int(found[1])
            if found := _COMMAND.fullmatch(line):
                self.command = found[1].decode(errors="replace")
                return


class Collector:
    """Hears all processes of one command until they have ended."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        listener: socket.socket,
        signals: list[int],
        window: int,
        limit: int,
    ) -> None:
        self.child = child
        self.streams: list[Stream] = []
        self._listener = listener
        self._signals = signals
        self._window, self._limit = window, limit
        self._selector = selectors.DefaultSelector()
        self._kill_at: dict[int, float] = {}
        """Process (0: all of them) → when it is killed, as it was asked to end and did not."""

    def run(self) -> None:
        """Until the command and everybody heard has ended."""
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        ended = False
        while not ended or len(self._selector.get_map()) > 1:
            ready = self._selector.select(0.1)
            for key, _ in ready:
                if key.data is None:
                    self._accept()
                else:
                    self._receive(key.fileobj, key.data)
            self._end_those_asked_to()
            # Only with nothing left to hear: a child's connection may still wait to be accepted.
            ended = not ready and self.child.poll() is not None
        self._selector.close()
        self.child.wait()

    def result(self, command: Sequence[str]) -> Recording:
        """The traces of those that had references."""
        found = Recording(self.child.returncode, interrupted=bool(self._signals))
        found.left_out = sum(stream.reducer is None for stream in self.streams)
        for n, stream in enumerate(self.streams):
            words = list(command) if n == 0 else _words(stream.command)
            with suppress(TraceError):  # it had no references
                if stream.reducer is not None:
                    trace = stream.reducer.trace(Path(words[0]).name[:100], words)
                    trace.whole = trace.whole and not stream.cut
                    found.traces.append(trace)
        return found

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            few = len(self.streams) < MOST
            stream = Stream(Reducer(self._window, self._limit, strict=False) if few else None)
            self.streams.append(stream)
            self._selector.register(connection, selectors.EVENT_READ, stream)

    def _receive(self, connection: object, stream: Stream) -> None:
        assert isinstance(connection, socket.socket)
        try:
            data = connection.recv(1 << 18)
        except OSError:
            data = b""
        stream.feed(data)
        full = stream.reducer is not None and stream.reducer.full
        if full:
            self._ask(stream.pid)
        if full or not data:
            self._selector.unregister(connection)
            connection.close()

    def _ask(self, pid: int) -> None:
        """A process has given enough."""
        if self._signal(pid, signal.SIGTERM):
            self._kill_at[pid] = time.monotonic() + GRACE

    def _signal(self, pid: int, number: int) -> bool:
        """To one of the command's processes, if it still is one: its number is from a log."""
        with suppress(ProcessLookupError, PermissionError):
            if pid and os.getsid(pid) == self.child.pid:
                os.kill(pid, number)
                return True
        return False

    def _end_those_asked_to(self) -> None:
        now = time.monotonic()
        if self._signals and 0 not in self._kill_at:
            for key in self._selector.get_map().values():
                if key.data is not None:
                    key.data.cut = True
            _end_all(self.child, signal.SIGTERM)
            self._kill_at[0] = now + GRACE
        for pid, at in list(self._kill_at.items()):
            if pid == 0 and (now >= at or len(self._signals) > 1):
                _end_all(self.child, signal.SIGKILL)
                self._forget_all()
            elif pid and now >= at:
                del self._kill_at[pid]
                self._signal(pid, signal.SIGKILL)

    def _forget_all(self) -> None:
        """Whoever is heard now has left the group of processes: it is not waited for."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Stream) and isinstance(key.fileobj, socket.socket):
                self._selector.unregister(key.fileobj)
                key.fileobj.close()
