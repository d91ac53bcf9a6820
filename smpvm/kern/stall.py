"""The report on a machine that has stopped making progress: which thread waits for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.thread import Thread


def waits_for(td: Thread) -> Any | None:
    """What *td* is waiting for: a Spinlock or Token, a sleep identity, or None."""
    waiting = td.waiting
    if waiting is not None:
        return waiting
    s = td.sleeper
    return s.ident if s is not None and s.asleep else None


def owners_of(thing: Any) -> list[Thread]:
    """The threads that hold *thing*, from its ``owners()`` method if it has one."""
    ask = getattr(thing, "owners", None)
    return list(ask()) if callable(ask) else []


def _held(td: Thread) -> str:
    held = [str(lock) for lock in td.spins]
    held += [f"{ref.tok} ({ref.mode})" for ref in td.toks if not td.toks_dropped]
    held += [str(lock) for lock in td.locks]
    return f"; holds {', '.join(held)}" if held else ""


def _line(k: Kernel, td: Thread) -> str:
    thing = waits_for(td)
    if thing is None:
        return f"{td}: runs{_held(td)}"
    names = ", ".join(str(owner) for owner in owners_of(thing))
    owned = f", held by {names}" if names else ""
    s = td.sleeper
    if td.waiting is not None or s is None:
        return f"{td}: waits for {thing}{owned}{_held(td)}"
    waited = k.carrier.ticks() - s.since
    timer = f", timer {s.timo}" if s.timo else ", no timer"
    return f"{td}: sleeps on {thing} ({s.wmesg}{timer}) for {waited} ticks{owned}{_held(td)}"


def who_waits(k: Kernel) -> list[str]:
    """One line for each live thread: what it waits for, who owns that, what the thread holds.

    The boot thread is included only if it waits; otherwise it belongs to the host.  Read from
    outside while the threads run, so each line is true only at one instant.
    """
    with k.quietly():
        live = k.live_threads()
        return [_line(k, td) for td in live if td is not k.boot or waits_for(td) is not None]
