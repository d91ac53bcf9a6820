"""The documented lock order, with the line of the kernel's source that states each rule.

``DOCUMENTED`` (in documented.py) are the edges that the source intends; ``FORBIDDEN`` are those
that it rules out: each occurrence is a finding, whether or not anything hangs; ``NESTING`` are the
classes of which one thread may hold two at once, and in which order; ``MEANT`` are the deadlocks
that the source leaves to a timeout to resolve.

Class names are those of the locks (``lock.cls``); ``busy`` is a page's hard busy bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from smpvm.check.accepted import Declared
from smpvm.check.documented import DOCUMENTED, Order
from smpvm.check.held import BUSY, LOCKMGR, SPIN, TOKEN
from smpvm.check.stacks import RawStack, c_functions
from smpvm.kern.order import family_class
from smpvm.kern.shared import peek


@dataclass(frozen=True)
class Forbidden:
    """While *first* is held, no blocking acquire of *then* (a class or a family).

    With *inside* the rule applies only in the C functions of these names, and *first* may be
    empty: then it applies whatever is held.
    """

    name: str
    first: str
    then: str
    source: str
    why: str
    kind: str = "lock-order"
    inside: frozenset[str] = frozenset()
    may_time: bool = False
    """Is a wait with a timeout allowed?"""


FORBIDDEN: Final = (
    Forbidden(
        "queue-then-page",
        "queue",
        "page",
        "vm_page.c:550",
        "a queue's spinlock comes after the page's: a thread that holds it may only try a page",
    ),
    Forbidden(
        "pool-alias",
        "page",
        "page",
        "kern_spinlock.c:345",
        "page spinlocks come from a pool: two pages may hash to one lock, and the second acquire"
        " then waits for the first",
    ),
    Forbidden(
        "busy-then-vnode",
        BUSY,
        "vnode",
        "vm_pageout.c:1054",
        "who has a page busy must not wait for a vnode lock: its holder may wait for the page",
    ),
    Forbidden(
        "spin-then-token",
        SPIN,
        TOKEN,
        "lwkt_thread.c:617",
        "acquiring a token may block, and a thread that holds a spinlock must not block",
        kind="sleep-with-spinlock",
    ),
    Forbidden(
        "spin-then-lockmgr",
        SPIN,
        LOCKMGR,
        "kern_lock.c:123",
        "acquiring a lockmgr lock may block, and a thread that holds a spinlock must not block",
        kind="sleep-with-spinlock",
    ),
    Forbidden(
        "spin-then-busy",
        SPIN,
        BUSY,
        "lwkt_thread.c:617",
        "busying a page may sleep, and a thread that holds a spinlock must not block",
        kind="sleep-with-spinlock",
    ),
    Forbidden(
        "deactivate-waits-for-map",
        "",
        "map",
        "vm_pageout.c:642",
        "the deactivation scan takes the map lock with NOWAIT: its owner may wait for memory",
        inside=frozenset({"vm_pageout_map_deactivate_pages"}),
    ),
    Forbidden(
        "daemon-waits-for-vnode",
        "",
        "vnode",
        "vm_pageout.c:1031",
        "the page-out daemon waits for a vnode only with a timeout: its holder may wait for memory",
        inside=frozenset({"vm_pageout_scan_inactive"}),
        may_time=True,
    ),
)


def without_gate(gate: Any) -> Forbidden:
    """The rule that only a thread holding *gate* may nest the locks declared ``under`` it."""
    return Forbidden(
        "outside-the-gate",
        "",
        "",
        f"declared under {gate}",
        f"unless {gate} is held exclusively, another thread may take them in the opposite order",
    )


@dataclass(frozen=True)
class Meant:
    """A wait with a timeout that may close a cycle, which the timeout then breaks.

    The C function *function* waits for a lock of class *then* while it holds one of class *first*
    ("" in the declaration of a scenario's lock: whatever is held).
    """

    first: str
    then: str
    function: str
    at: str
    why: str

    def declared(self, kind: str) -> Declared:
        """The declaration, as shown in verdicts."""
        what = f"{self.first} then {self.then}" if self.first else self.then
        return Declared(kind, what, self.function, self.at, self.why)


MEANT: Final = (
    Meant(
        BUSY,
        "map",
        "relock_map",
        "vm_fault.c:196",
        "'can fail due to a deadlock against the caller's holding of a vm_page BUSY'",
    ),
    Meant(
        "vnode",
        "map",
        "relock_map",
        "vm_fault.c:1959",
        "the same wait: the vnode of the fault stays locked until unlock_things",
    ),
)


def meant_wait(held: Iterable[str], res: Any, stack: RawStack) -> Meant | None:
    """The declaration that covers a timed wait for the lock *res* at *stack* by a thread that holds
    locks of the classes *held*; None if there is none."""
    if why := getattr(res, "meant", ""):
        return Meant("", res.cls, "", "", why)
    then = family_class(getattr(res, "cls", BUSY))
    having = {family_class(cls) for cls in held}
    known = [meant for meant in MEANT if meant.then == then and meant.first in having]
    functions = c_functions(stack) if known else ()
    return next((meant for meant in known if meant.function in functions), None)


@dataclass(frozen=True)
class Nesting:
    """Two locks of one class may be held at once if ``allowed(held, new)``."""

    cls: str
    source: str
    why: str
    allowed: Callable[[Any, Any], bool]


def _backs(upper: Any, lower: Any) -> bool:
    """Is *lower* somewhere in the chain of objects that backs *upper*?"""
    obj = upper
    for _ in range(1000):
        if obj is None:
            return False
        if obj is lower:
            return True
        obj = peek(obj, "backing_object")
    return False


def _deeper(held: Any, new: Any) -> bool:
    """A page of the same object with a higher index, or of an object behind the held page's."""
    upper, lower = peek(held, "object"), peek(new, "object")
    if upper is None or lower is None:
        return True  # just off the free queue: no other thread can wait for it
    if upper is lower:
        return bool(peek(held, "pindex") < peek(new, "pindex"))
    return _backs(upper, lower)


NESTING: Final = (
    Nesting(BUSY, "vm_fault.c:1359", "the front object's page, then a page that backs it", _deeper),
    Nesting(
        "map",
        "vm_map.c:3431",
        "fork: the parent's map, then the child's, which no other thread can reach yet",
        lambda held, new: True,
    ),
)


def matches(rule: str, cls: str, family: str) -> bool:
    """Does a rule's class or family name cover a resource?"""
    return rule in (cls, family_class(cls), family)


__all__ = ["DOCUMENTED", "FORBIDDEN", "MEANT", "NESTING", "Forbidden", "Meant", "Nesting", "Order"]
