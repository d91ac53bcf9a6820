"""What a lock says of its place in the lock order, as in Linux's lockdep.

- *cls*: the order is one between classes; the locks of one class are alike.
- *subclass*: locks of one class at different levels (directories, then files) are taken in one
  order between the levels: each level is a class of its own in the order, ``cls/1`` for level 1.
  What holds of the class (the rules of check/lockrules.py) holds of each.
- *under*: the gate lock.  Locks with the same gate may be taken together in any order by who
  holds the gate exclusively (lockdep's nest_lock), and by nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel


class Ordered:
    """A lock of any kind: its name, which tells it from its like, and its place in the order."""

    __slots__ = ("cls", "k", "name", "seen", "under")

    kind: ClassVar[str]
    noun: ClassVar[str]

    def __init__(
        self, k: Kernel, cls: str, name: str = "", *, subclass: int = 0, under: Any = None
    ) -> None:
        self.k = k
        self.cls = f"{cls}/{subclass}" if subclass else cls
        self.name = name
        self.under = under
        self.seen: Any = None  # an observer's

    def __str__(self) -> str:
        return f"{self.noun} {self.cls} {self.name}".rstrip()


def family_class(cls: str) -> str:
    """The class whose level *cls* is."""
    return cls.partition("/")[0]
