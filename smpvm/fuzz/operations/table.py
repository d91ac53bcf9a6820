"""What an operation is: its form in the text of a program, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpvm.fuzz.shape import Op

if TYPE_CHECKING:
    from smpvm.fuzz.actor import Actor

Run = Callable[["Actor", Op], None]


@dataclass(frozen=True)
class Operation:
    """One kind of operation.  ``run`` knows what its own calls return, nothing else."""

    name: str
    run: Run
    target: str = "none"
    """none, page, region, or either."""
    words: tuple[str, ...] = ()
    """The words that may follow."""
    word_needed: bool = False
    child: bool = False
    """An operation of the child may follow."""
    kernel: bool = False
    """For threads of the kernel; otherwise for those of processes."""
    only: str = ""
    """The only thread of the kernel that does this."""
    files: bool = False
    """The region must be a file."""
    beyond: int = 0
    """Pages behind the end of the region that may be named."""
    loosens: str = ""
    """What its region's words may be read as while it runs beside others, or afterwards: "" (what
    was written last), "words" (any value that was written once, or zero), "access" (the same, and
    an access may fail)."""
