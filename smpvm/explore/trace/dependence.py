"""Which operations of two threads do not commute.

Two operations depend on each other when they concern the same object and the same field, and are
not both reads (or both shared acquires).  The field "" means the whole object.  An operation that
may give up tokens in hand says so (``HOLDING``), and depends on operations on tokens; which it did
give up is known once it has been executed, from what was ``touched``.
"""

from __future__ import annotations

from typing import Any, Final

from smpvm.host.carrier import (
    ACQUIRE,
    ACQUIRE_SHARED,
    ATOMIC,
    HOLDING,
    READ,
    SLEEP,
    WAKEUP,
    WRITE,
    YIELD,
    Compound,
)
from smpvm.host.runnable import is_token
from smpvm.host.serialthread import AWAIT, RESUME, TIMER, Op

IDENTITY: Final = frozenset((SLEEP, WAKEUP, RESUME))
"""Kinds of steps that concern an object as the identity of sleeps."""
_FIELDS: Final = frozenset((READ, WRITE, ATOMIC))


def same(a: Any, b: Any) -> bool:
    """Are two operands one object?  (Identities of sleeps may be equal values.)"""
    return a is b or a == b


def conflict(a: Op, b: Op) -> bool:
    """May the order of *a* and *b*, of different threads, make a difference?"""
    return meet(a, b) or (gives_up(a) and is_token(b[2])) or (gives_up(b) and is_token(a[2]))


def gives_up(op: Op) -> bool:
    """May the operation give up tokens that it does not name?

    Whether an acquire or a sleep does depends on what came before, so what one execution shows is
    no proof that it does not.
    """
    return op[3] == HOLDING


def meet(a: Op, b: Op) -> bool:
    """The same for what the operations name: tokens that they give up beside are left out."""
    _, kind, obj, field = a
    _, kind2, obj2, field2 = b
    if type(obj) is Compound or type(obj2) is Compound:
        return any(meet(x, y) for x in parts(a) for y in parts(b))
    if kind == AWAIT or kind2 == AWAIT:
        return _awaits(a, b)
    if kind == YIELD or kind2 == YIELD:
        return TIMER in (kind, kind2)
    if obj is not obj2 and obj != obj2:
        return kind == TIMER or kind2 == TIMER
    if apart(kind, kind2):
        return False
    if kind in IDENTITY or kind2 in IDENTITY:
        return True
    if kind == kind2 and (kind == READ or shares(kind, obj)):
        return False
    return field == field2 or not field or not field2


def shares(kind: str, obj: Any) -> bool:
    """Is it an acquire that commutes with its like?"""
    return kind == ACQUIRE_SHARED


def parts(op: Op) -> tuple[Op, ...]:
    """The operation, or those that are one step."""
    tid, kind, obj, _ = op
    if type(obj) is not Compound:
        return (op,)
    return tuple((tid, kind, one, field) for one, field in obj.parts)


def named(op: Op) -> list[Any]:
    """The objects that it concerns; of an await, those that it looks at as a whole."""
    if op[1] == AWAIT:
        return [obj for obj, field in op[2] if not field]
    return [] if op[1] == YIELD else [part[2] for part in parts(op)]


def apart(kind: str, kind2: str) -> bool:
    """Is one a matter of an object as the identity of sleeps, the other of its fields?"""
    return (kind in IDENTITY and kind2 in _FIELDS) or (kind2 in IDENTITY and kind in _FIELDS)


def _awaits(a: Op, b: Op) -> bool:
    """An await whose loop reads announced fields only opens a gate; one on a whole object may also
    look at it, or take it, in the step that the await begins."""
    return TIMER in (a[1], b[1]) or any(same(x, y) for x in named(a) for y in named(b))


def writes(op: Op, obj: Any, field: str) -> bool:
    """May the operation change *field* of *obj* ("": anything of it)?"""
    return op[1] not in (READ, AWAIT) and any(
        same(one, obj) and (not field or name in ("", field)) for _, _, one, name in parts(op)
    )


def is_acquire(op: Op) -> bool:
    """An acquire, in either mode."""
    return op[1] in (ACQUIRE, ACQUIRE_SHARED)


def covers(op: Op, obj: Any) -> bool:
    """Is the write of *obj* in the step of *op* what *op* says already?"""
    _, kind, one, _ = op
    if kind in (AWAIT, READ):
        return False
    if type(one) is Compound:
        return any(same(part[2], obj) for part in parts(op))
    return same(one, obj)
