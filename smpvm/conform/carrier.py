"""The carrier of a conformance run: one thread that can never wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smpvm.host.carrier import Carried


class Stuck(Exception):
    """The model waits for another thread, but there is none."""


class ScriptCarrier:
    """Carries the one thread that makes the call."""

    serial = False
    access_points = False
    stopping = False
    inert = False
    tick = 0.0

    def __init__(self) -> None:
        self._current: Carried | None = None

    def adopt(self, td: Carried) -> None:
        self._current = td

    def spawn(self, td: Carried) -> None:
        raise Stuck(f"thread {td} is started in a single-threaded run")

    def set_daemon(self, td: Carried) -> None:
        pass

    def current(self) -> Carried:
        assert self._current is not None
        return self._current

    def point(
        self, kind: str, obj: object, field: str = "", ready: Callable[[], bool] | None = None
    ) -> None:
        pass

    def park(self, timeout: int | None) -> bool:
        raise Stuck(f"{self._current} waits for a thread that is not there")

    def unpark(self, td: Carried) -> None:
        pass

    def relax(self, *watched: object) -> None:
        raise Stuck(f"{self._current} spins on {', '.join(map(str, watched))}")

    def updates(self, value: Callable[[], Any], op: Callable[[Any], Any]) -> None:
        pass

    def updated(self, obj: object, old: Any, op: Callable[[Any], Any]) -> None:
        pass

    def in_vain(self) -> None:
        pass

    def touched(self, obj: object) -> None:
        pass

    def yield_(self) -> None:
        pass

    def slice_over(self) -> bool:
        return True

    def ticks(self) -> int:
        return 0

    def stop(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> list[Carried]:
        return []
