"""Which operations of two threads do not commute.

Two operations depend on each other if they concern the same object and the same field, and are not
both reads (or both shared acquires).  The field "" means the whole object.  An operation that may
release its thread's tokens has the field ``HOLDING`` and depends on operations on tokens; which
tokens it released is known once it has been executed, from what was ``touched``.
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
"""Kinds of steps that use an object as a sleep identity."""
_FIELDS: Final = frozenset((READ, WRITE, ATOMIC))


def same(a: Any, b: Any) -> bool:
    """Are two operands the same object?  (Sleep identities may be equal values.)"""
    return a is b or a == b


def conflict(a: Op, b: Op) -> bool:
    """Can the order of *a* and *b*, of different threads, make a difference?"""
    return meet(a, b) or (gives_up(a) and is_token(b[2])) or (gives_up(b) and is_token(a[2]))


def gives_up(op: Op) -> bool:
    """Can the operation release tokens that it does not name?

    Whether an acquire or a sleep does so depends on what came before, so one execution in which it
    does not is no proof.
    """
    return op[3] == HOLDING


def meet(a: Op, b: Op) -> bool:
    """The same for the operands only, without tokens that the operations may release."""
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
    """Is it an acquire that commutes with others of its kind?"""
    return kind == ACQUIRE_SHARED


def parts(op: Op) -> tuple[Op, ...]:
    """The operation, or the operations that make up one step."""
    tid, kind, obj, _ = op
    if type(obj) is not Compound:
        return (op,)
    return tuple((tid, kind, one, field) for one, field in obj.parts)


def named(op: Op) -> list[Any]:
    """The objects that it concerns; for an await, those that it reads as a whole."""
    if op[1] == AWAIT:
        return [obj for obj, field in op[2] if not field]
    return [] if op[1] == YIELD else [part[2] for part in parts(op)]


def apart(kind: str, kind2: str) -> bool:
    """Does one use the object as a sleep identity and the other its fields?"""
    return (kind in IDENTITY and kind2 in _FIELDS) or (kind2 in IDENTITY and kind in _FIELDS)


def _awaits(a: Op, b: Op) -> bool:
    """An await whose loop reads only announced fields depends on nothing itself; one on a whole
    object may also read or take it in the step that the await begins."""
    return TIMER in (a[1], b[1]) or any(same(x, y) for x in named(a) for y in named(b))


def writes(op: Op, obj: Any, field: str) -> bool:
    """Can the operation change *field* of *obj* ("": any field)?"""
    return op[1] not in (READ, AWAIT) and any(
        same(one, obj) and (not field or name in ("", field)) for _, _, one, name in parts(op)
    )


def is_acquire(op: Op) -> bool:
    """An acquire, in either mode."""
    return op[1] in (ACQUIRE, ACQUIRE_SHARED)


def covers(op: Op, obj: Any) -> bool:
    """Is the write of *obj* in the step of *op* already implied by *op* itself?"""
    _, kind, one, _ = op
    if kind in (AWAIT, READ):
        return False
    if type(one) is Compound:
        return any(same(part[2], obj) for part in parts(op))
    return same(one, obj)
