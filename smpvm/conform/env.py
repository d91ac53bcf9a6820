"""The scripted environment of one call: its answers, its mutations, and its log of events.

FORMAT.md sections 5 to 7.  Everything not named there is the model's own code.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from smpvm.conform.carrier import Stuck
from smpvm.conform.ops import apply
from smpvm.kern.errno import EWOULDBLOCK
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_NOWAIT, LK_TIMELOCK
from smpvm.kern.probe import Probe
from smpvm.kern.tsleep import Addr
from smpvm.vm.object.struct import VmObject
from smpvm.vm.page.struct import PG_BUSY, PG_SBUSY, PG_WANTED, Page

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.kern.vnode import Vnode
    from smpvm.state.roster import Roster
    from smpvm.vm.vm import Vm

Event = dict[str, Any]


class StopRun(BaseException):
    """Ends the run: the daemon goes to sleep once more than the vector asks for."""


class Env:
    """The script of one vector, and the log of the events of its run."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.script = {(s["at"], s["n"]): s for s in vector.get("script", [])}
        self.statuses: list[str] = vector.get("pager_statuses") or ["OK"]
        self.config: dict[str, Any] = vector["config"]
        self.max_sleeps: int | None = vector["args"].get("max_sleeps")
        self.reached: Counter[str] = Counter()
        self.written = 0
        self.sleeps = 0
        self.yields = 0
        self.events: list[Event] = []
        self.ticks = vector["before"]["globals"]["ticks"]
        self.time_uptime = vector["before"]["globals"]["time_uptime"]
        self.limit = 10 * len(vector["events"]) + 1000
        self.k: Kernel
        self.vm: Vm
        self.roster: Roster

    def start(self) -> None:
        """Called between loading and the call: drop the events of loading."""
        self.events.clear()
        self.reached.clear()

    def log(self, ev: str, **facts: Any) -> Event:
        """Log an event; the caller may still change it."""
        event = {"ev": ev, **facts}
        self.events.append(event)
        if len(self.events) > self.limit:
            raise Stuck(f"more than {self.limit} events: the call does not end")
        return event

    def reach(self, at: str) -> tuple[dict[str, Any], int]:
        """Count one more visit of a place; returns its script entry ({} if none) and its number."""
        n = self.reached[at]
        self.reached[at] += 1
        return self.script.get((at, n), {}), n

    def mutate(self, entry: dict[str, Any], at: str, n: int) -> None:
        """Apply the mutations of a script entry."""
        if mutations := entry.get("mutations"):
            self.log("script", at=at, n=n)
            for op in mutations:
                apply(self, op)

    def at(self, place: str) -> None:
        """Visit a place whose script entries have only mutations."""
        entry, n = self.reach(place)
        self.mutate(entry, place, n)

    # -- sleep and wakeup

    def ident(self, ident: object) -> str:
        """The name of a wait channel in events."""
        if isinstance(ident, Page):
            return f"page:{self.roster.page_id(ident)}"
        if isinstance(ident, Addr) and isinstance(ident.obj, VmObject):
            return f"object:{self.roster.object_ids[ident.obj]}.pip"
        return str(ident)

    def tsleep(self, ident: object, wmesg: str, timo: int) -> int:
        """tsleep: a wait for a page ends at once, any other one as the script says."""
        if isinstance(ident, Page):
            self.page_sleep(ident, wmesg)
            return 0
        event = self.log("tsleep", ident=self.ident(ident), wmesg=wmesg, timo=timo)
        if self.max_sleeps is not None and self.sleeps >= self.max_sleeps:
            event["stop"] = True
            raise StopRun
        self.sleeps += 1
        entry, n = self.reach("tsleep")
        result: int = entry.get("result", EWOULDBLOCK if timo else 0)
        stats = self.vm.stats
        names = ("free", "cache", "inactive", "active")
        event["result"] = result
        event["counts"] = {name: getattr(stats, f"v_{name}_count") for name in names}
        event["vm_pages_needed"] = self.vm.glob.vm_pages_needed
        self.mutate(entry, "tsleep", n)
        return result

    def page_sleep(self, m: Page, wmesg: str) -> None:
        """Wait for a busy page: its owner, who is outside of the model, releases it now."""
        self.log("page_sleep", page=self.roster.page_id(m), wmesg=wmesg)
        if m.flags & PG_BUSY:
            m.flags &= ~(PG_BUSY | PG_WANTED)
            m.busy_owner = None
        else:
            m.busy = 0
            m.flags &= ~(PG_SBUSY | PG_WANTED)

    # -- vnodes

    def vget(self, vp: Vnode, flags: int) -> int:
        """Lock a vnode: the result is the script's, or depends on whether it is locked."""
        entry, n = self.reach("vget")
        default = 0
        if self.roster.vnode_locked(vp):
            default = 16 if flags & LK_NOWAIT else EWOULDBLOCK
        result: int = entry.get("result", default)
        names = [
            name
            for name, bit in (
                ("EXCLUSIVE", LK_EXCLUSIVE),
                ("NOWAIT", LK_NOWAIT),
                ("TIMELOCK", LK_TIMELOCK),
            )
            if flags & bit
        ]
        self.log("vget", vnode=self.roster.vnode_ids[vp], flags=names, result=result)
        self.mutate(entry, "vget", n)
        return result

    # -- the pager

    def next_status(self, entry: dict[str, Any], i: int) -> str:
        """The pager's status for the *i*-th page of this call."""
        k, self.written = self.written, self.written + 1
        own: list[str] | None = entry.get("statuses")
        return own[i % len(own)] if own else self.statuses[k % len(self.statuses)]


class Console(Probe):
    """Kernel messages, as events."""

    def __init__(self, env: Env) -> None:
        self.env = env

    def call(self, td: Any, what: str, **facts: Any) -> None:
        env = self.env
        if what == "kprintf":
            if facts["code"] == "cache-busy-held":
                facts = {"code": facts["code"]}
            if isinstance(facts.get("page"), Page):
                facts["page"] = env.roster.page_id(facts["page"])
            env.log("kprintf", **facts)
