"""The command ``smpvm``, and ``python -m smpvm``: what must be settled before the first import.

Old versions of Python must be able to compile this file, so that they get a line and no traceback.
"""

# signal would import enum: milliseconds in which an interrupt would still print a traceback.
import _signal  # type: ignore[import-not-found]
import os
import sys

TOO_OLD = sys.version_info < (3, 11)


def main() -> int:
    """Run one command; returns its exit code, or ends the process with it."""
    if TOO_OLD:
        found = ".".join(map(str, sys.version_info[:2]))
        sys.stderr.write(f"smpvm: Python {found} is too old: install smpvm with 3.11 or newer\n")
        return 2
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, interrupted)
    open_standard_streams()
    try:
        from smpvm.cli import main as run
        from smpvm.interrupt import leave
    except ModuleNotFoundError as why:
        sys.stderr.write(
            f"smpvm: the Python module {why.name} is not installed: "
            f"python -m pip install {why.name}\n"
        )
        return 2
    return leave(run())


def interrupted(number: int, frame: object) -> None:
    """The signal handler until a command sets its own: nothing has been done that is worth keeping.

    3 is ``exits.INCONCLUSIVE``, which may not have been imported yet.
    """
    try:  # noqa: SIM105  contextlib would have to be imported
        os.write(2, b"smpvm: interrupted\n")
    except OSError:
        pass
    os._exit(3)


def open_standard_streams() -> None:
    """Put /dev/null in place of standard streams that the caller has closed.

    Otherwise the next file that is opened would take its number, and get what is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
