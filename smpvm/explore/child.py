"""Runs a function in a process of its own, which can be ended whatever the function does.

A scenario's code may block, spin or crash.  The child's watchdog notices that, sends the partial
result, and ends the child; if the watchdog itself cannot run (C code that keeps the interpreter
lock) or is late, the parent ends the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from smpvm.check.stacks import HOME
from smpvm.explore.registry import ScenarioError
from smpvm.explore.watchdog import HANG, Watchdog
from smpvm.text import quoted

T = TypeVar("T")

GRACE: Final = 5.0
"""Host seconds that the parent waits beyond the time that the watchdog should need."""
_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG


class Hung(Exception):
    """The child did not return: one line, and its partial result (or None)."""

    def __init__(self, why: str, partial: Any = None) -> None:
        super().__init__(why)
        self.partial = partial


class WorkerError(RuntimeError):
    """smpvm failed in a child process: type, text and location of the exception."""


class Worker(Watchdog):
    """The argument of the function in the child: its watchdog."""

    unfinished: Callable[[], Any] = staticmethod(lambda: None)
    """Called if the function does not return; its value is sent to the parent as partial result."""


class Child(Generic[T]):
    """*call* in a child process.  ``poll`` until ``done``, then ``result``; ``end`` in any case.

    Where processes can be forked, *call* need not be picklable, but its result must be.
    """

    def __init__(
        self,
        call: Callable[[Worker], T],
        hang: float = HANG,
        until: float | None = None,
        slack: float = 0.0,
    ) -> None:
        """*hang*: the watchdog's timeout in seconds.  After *until* (``time.monotonic``) it is
        shorter, and *slack* host seconds later the child is ended."""
        self._hang = hang
        self._last = None if until is None else until + slack + GRACE
        self._message: tuple[str, Any, Any] | None = None
        self._dump = tempfile.NamedTemporaryFile(prefix="smpvm-", suffix=".stacks")  # noqa: SIM115
        mine, its = multiprocessing.Pipe(duplex=False)
        self.connection = mine
        forks = "fork" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("fork" if forks else None)
        self._process = context.Process(
            target=_run, args=(its, call, hang, until, self._dump.name), daemon=True
        )
        with warnings.catch_warnings():
            # The child does not need the other threads of this process (a test runner's).
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        its.close()
        self._last_beat = time.monotonic()
        self._cpu = 0.0

    @property
    def done(self) -> bool:
        """Has it returned, failed, or been ended?"""
        return self._message is not None

    def poll(self) -> None:
        """Receive what it has sent; end it if it is overdue."""
        while not self.done:
            try:
                if not self.connection.poll():
                    break
                message = self.connection.recv()
            except (EOFError, OSError):
                self._gone()
                return
            except Exception as why:  # what the child has sent cannot be loaded here
                message = ("failed", WorkerError(f"{type(why).__name__}: {why}"), None)
            if message[0] == "beat":
                self._last_beat, self._cpu = time.monotonic(), self._cpu_time()
            else:
                self._message = message
        now = time.monotonic()
        if self.done:
            return
        if self._last is not None and now > self._last:
            self.kill("the time limit was exceeded")
        # The watchdog acts first, unless it cannot run.
        late = 2 * self._hang + 1.0
        if now - self._last_beat > late and self._cpu_time() - self._cpu > late:
            self.kill(f"the interpreter was blocked for {self._hang:.0f} s")

    def _cpu_time(self) -> float:
        """CPU seconds of the child; wall-clock time if they cannot be read."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return time.monotonic()

    def _gone(self) -> None:
        self._process.join(GRACE)
        code = self._process.exitcode
        how = f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"
        self._message = ("hung", f"the worker process ended early ({how})", None)

    def kill(self, why: str) -> None:
        """End it, and report where it was."""
        place = self._stack()
        self._process.kill()
        self._message = ("hung", why + (f" ({place})" if place else ""), None)

    def _stack(self) -> str:
        """Where the child is; works even while its interpreter lock is held."""
        assert self._process.pid is not None
        with contextlib.suppress(OSError, AttributeError):
            os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(0.3)
            for file, line in re.findall(r'File "(.+?)", line (\d+)', self._dumped()):
                if not file.startswith((HOME, os.path.dirname(os.__file__), "<")):
                    return f"{file}:{line}"
        return ""

    def _dumped(self) -> str:
        return Path(self._dump.name).read_text(errors="replace")

    def result(self) -> T:
        """What the function returned; raises what it raised, or Hung."""
        assert self._message is not None
        kind, value, rest = self._message
        if kind == "hung":
            raise Hung(value, rest)
        if kind == "failed":
            raise value
        return value  # type: ignore[no-any-return]

    def end(self) -> None:
        """Make sure that the process has ended."""
        if not self.done:
            self._process.kill()
        self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self.connection.close()
        self._dump.close()


def wait_any(children: Sequence[Child[Any]], seconds: float) -> None:
    """Sleep until one of them has sent something, at most *seconds*."""
    wait_for([child.connection for child in children if not child.done], timeout=seconds)


def alone(
    call: Callable[[Worker], T],
    hang: float = HANG,
    until: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> T:
    """*call* in a child; returns its result.  Raises what it raises, and Hung."""
    child = Child(call, hang, until)
    try:
        while not child.done:
            wait_any([child], 0.2)
            child.poll()
            if stop() and not child.done:
                child.kill("interrupted")
        return child.result()
    finally:
        child.end()


# -- in the child


def _run(
    connection: Connection,
    call: Callable[[Worker], Any],
    hang: float,
    until: float | None,
    dump: str,
) -> None:
    _settle(dump)
    mutex = threading.Lock()
    parent = os.getppid()

    def send(kind: str, value: Any = None, rest: Any = None) -> None:
        data = _pickled(kind, value, rest)
        with mutex, contextlib.suppress(OSError):  # the parent is gone
            connection.send_bytes(data)

    def beat() -> None:
        if os.getppid() != parent:
            os._exit(1)
        send("beat")

    def hung(why: str) -> None:
        rest = None
        with contextlib.suppress(Exception):
            rest = worker.unfinished()
        send("hung", why, rest)
        os._exit(1)

    def hurry() -> bool:
        return until is not None and time.monotonic() > until

    worker = Worker(hang, hung, beat=beat, hurry=hurry)
    with worker.watching():
        try:
            answer = ("done", call(worker))
        except KeyboardInterrupt as why:  # not from a signal: the scenario raised it
            answer = ("failed", ScenarioError(f"the scenario raises {_located(why)}"))
        except ValueError as why:
            answer = ("failed", why if type(why) is not ValueError else _foreign(why))
        except BaseException as why:
            answer = ("failed", _foreign(why))
    send(*answer)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)  # at once: a thread started by the scenario must not keep the process alive


def _settle(dump: str) -> None:
    """Ignore Ctrl-C and the SIGTERM of timeout(1), which reach the whole process group: the parent
    tells the child to stop, so that no finding is lost.  It dies with its parent (Linux), and
    writes its stacks to *dump* on SIGUSR1."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        faulthandler.register(signal.SIGUSR1, file=open(dump, "w"), all_threads=True)  # noqa: SIM115


def _pickled(kind: str, value: Any, rest: Any) -> bytes:
    try:
        data = pickle.dumps((kind, value, rest))
        if kind == "failed":
            pickle.loads(data)  # some exceptions can be pickled but not unpickled
        return data
    except Exception:
        return pickle.dumps(("failed", WorkerError(f"cannot be pickled: {quoted(value)}"), None))


def _foreign(why: BaseException) -> WorkerError:
    return WorkerError(_located(why))


def _located(why: BaseException) -> str:
    """Type and text of an exception, and its innermost location outside smpvm."""
    frames = traceback.extract_tb(why.__traceback__)
    own = [f for f in frames if not f.filename.startswith(("<", HOME))] or frames
    text = f"{type(why).__name__}: {why}".rstrip(": ")
    return f"{text} ({own[-1].filename}:{own[-1].lineno})" if own else text
