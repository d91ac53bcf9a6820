"""Record a program's page references: run it under valgrind's lackey and reduce on the fly."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from smpvm.workload.trace import Reducer, Trace, TraceError


def record(command: Sequence[str], *, window: int = 8, limit: int = 200_000) -> tuple[Trace, int]:
    """Run *command* to its end (or to *limit* references); its trace and its exit status.

    The program keeps its own standard streams; lackey's log never touches the disk.
    Raises TraceError when valgrind or the program is missing, or nothing was seen.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise TraceError("record: valgrind is not installed (Debian: apt-get install valgrind)")
    if not command:
        raise TraceError("record: no command given")
    if shutil.which(command[0]) is None:
        raise TraceError(f"record: {command[0]}: no such program")
    reducer = Reducer(window, limit)
    readable, writable = os.pipe()
    lackey = ["--tool=lackey", "--trace-mem=yes", f"--log-fd={writable}"]
    try:
        child = subprocess.Popen([valgrind, *lackey, "--", *command], pass_fds=(writable,))
    except OSError as why:
        os.close(readable)
        os.close(writable)
        raise TraceError(f"record: {why.strerror or why}") from None
    os.close(writable)
    try:
        with open(readable, "rb", buffering=1 << 20) as log:
            reducer.feed(log)
            if reducer.full:
                child.terminate()
        status = child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    try:
        return reducer.trace(Path(command[0]).name, command), status
    except TraceError:
        raise TraceError(f"record: {command[0]}: valgrind saw no memory references") from None
