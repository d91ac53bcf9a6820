"""What threads decide besides who runs next: choices among values, and not to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from smpvm.host.carrier import Stopped
from smpvm.host.choices import CHOOSE, Chooser
from smpvm.host.serialthread import AWAIT, SerialThread
from smpvm.host.trail import Trail

if TYPE_CHECKING:
    from smpvm.host.runnable import Runnable


class Deciding(Trail):
    """The part of a serial carrier that answers such questions of the running thread."""

    inert: bool
    _me: SerialThread
    _able: Runnable

    def __init__(self, access_points: bool) -> None:
        super().__init__(access_points)
        self._choosers: dict[int, Chooser] = {}

    def pick(self, n: int) -> int:
        """One of 0 ... *n* - 1, in the running step."""
        return self._picked(self.choices.pick(self._me.tid, n))

    def ends_early(self) -> bool:
        """Does the sleep that is about to begin end without a wakeup?"""
        return bool(self._picked(self.choices.pick(self._me.tid, 2, early=True)))

    def _picked(self, value: int) -> int:
        self.picks.append((len(self.log) - 1, value))
        return value

    def choose(self, n: int) -> int:
        """The same, as a step."""
        value = self.pick(n)
        self.point(CHOOSE, self._choosers.setdefault(self._me.tid, Chooser()), str(value))
        return value

    def prune(self) -> NoReturn:
        """The execution is not to be judged: the thread goes no further.

        The others do, so that an exhaustive search sees what they would have done first.
        """
        me = self._me
        if self.pruned_at is None:
            self.pruned_at = len(self.log)
        if not self.inert:
            me.op = (me.tid, AWAIT, (), "")
            self._able.disable(me)
            self._switch(self._pick(None))
        raise Stopped

    def point(self, kind: str, obj: object, field: str = "") -> None:
        """As the carrier has it."""
        raise NotImplementedError

    def _pick(self, current: SerialThread | None) -> SerialThread | None:
        raise NotImplementedError

    def _switch(self, nxt: SerialThread | None) -> None:
        raise NotImplementedError
