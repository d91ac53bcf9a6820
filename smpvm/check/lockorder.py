"""Lock order, in the manner of lockdep and WITNESS: judged by class, before anything hangs.

``OrderGraph`` is the pure part: edges between classes, and a search for a cycle when one is new.
``LockOrder`` listens to the tracker for chains seen for the first time, adds their edges, applies
the rules of ``rules.py``, and reports.

Which edges can deadlock?  A thread that blocks gives up its tokens, so a wait with a token held
keeps nobody out, and a wait for a token is never for good (design.md section 4).  Edges from and
to tokens are learned and shown, but no cycle goes through them.  A try gives no edge to what it
asks for; what it got counts as held.  A wait with a time limit gives one: its timer does not make
the order right.  Where the source lives with that (``lockrules.MEANT``), it is only counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from smpvm.check.checker import Checker, Context
from smpvm.check.finding import Finding, Site, fingerprint, site_of
from smpvm.check.held import (
    BUSY,
    PAGE,
    TOKEN,
    Held,
    Node,
    ThreadState,
    describe_held,
)
from smpvm.check.lockrules import (
    FORBIDDEN,
    NESTING,
    Forbidden,
    matches,
    meant_wait,
    without_gate,
)
from smpvm.check.stacks import RawStack, c_functions, capture, exact, functions, resolve
from smpvm.kern.probe import TIMED, TRY


@dataclass
class LockEdge:
    """*then* was taken while *first* was held, for the first time by *td*."""

    first: str
    then: str
    first_stack: RawStack
    then_stack: RawStack
    td: Any
    binding: bool
    """Can it be part of a deadlock?  Not with a token at either end."""
    held: str = ""
    """Everything held at that moment."""
    forbidden: bool = False
    """Is it what a rule forbids?  That has been told already."""


class OrderGraph:
    """Edges between classes.  Not thread-safe: its owner serialises."""

    def __init__(self) -> None:
        self.edges: dict[tuple[str, str], LockEdge] = {}
        self._after: dict[str, list[str]] = {}

    def knows(self, first: str, then: str, binding: bool) -> bool:
        """Would such an edge teach nothing?"""
        known = self.edges.get((first, then))
        return known is not None and (known.binding or not binding)

    def add(self, edge: LockEdge) -> list[LockEdge]:
        """Add an edge; returns the cycle that it closes (it first), or nothing."""
        if self.knows(edge.first, edge.then, edge.binding):
            return []
        self.edges[edge.first, edge.then] = edge
        if not edge.binding:
            return []
        if edge.first == edge.then:
            return []  # nesting within a class is judged by instance, not here
        cycle = self._path(edge.then, edge.first)
        self._after.setdefault(edge.first, []).append(edge.then)
        return [edge, *cycle] if cycle else []

    def _path(self, start: str, goal: str) -> list[LockEdge]:
        """A shortest chain of edges from one class to another."""
        came: dict[str, str] = {start: ""}
        level = [start]
        while level:
            following = []
            for cls in level:
                for then in self._after.get(cls, ()):
                    if then not in came:
                        came[then] = cls
                        following.append(then)
            if goal in came:
                break
            level = following
        path: list[LockEdge] = []
        at = goal
        while came.get(at):
            path.append(self.edges[came[at], at])
            at = came[at]
        return path[::-1]


class LockOrder(Checker):
    """The checker: attaches itself to a tracker's hooks."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.graph = OrderGraph()
        self._mutex = threading.Lock()
        self.on_edge: list[Callable[[LockEdge], None]] = []
        """Told of each new edge: the event log."""
        tracker = context.tracker
        tracker.on_new = self.new_chain
        tracker.on_nested = self.nested
        tracker.on_gated = self.gated
        # Who called it, and from where, is not in the chain: these are judged each time.
        tracker.special = frozenset(rule.then for rule in FORBIDDEN if rule.inside)
        tracker.on_special = self.inside
        tracker.on_misuse = self.misuse

    def summary(self) -> dict[str, Any]:
        return {"lock_order_edges": len(self.graph.edges)}

    # -- a chain that nobody has walked before

    def new_chain(self, st: ThreadState, node: Node, res: Any) -> None:
        """Learn the edges from everything held to what is being taken, and judge them."""
        if node.how == TRY:
            return
        live: RawStack | None = None
        for held in list(st.held):
            if held.gone or held.res is res or in_gate(st, held.res, res):
                continue
            broken = _rule_against(held.cls, held.family, node.cls, node.family)
            if broken is not None:
                self._report_rule(st, broken, held, node, res)
            binding = held.family != TOKEN and node.family != TOKEN and broken is None
            if self.graph.knows(held.cls, node.cls, binding):
                continue
            if live is None:
                live = capture(3)
            if node.how == TIMED and self._meant(held, node, res, live):
                continue
            first = exact(held.node.stack, live)
            told = describe_held(st)
            edge = LockEdge(held.cls, node.cls, first, live, st.td, binding, told)
            edge.forbidden = broken is not None
            self._learn(edge)

    def _meant(self, held: Held, node: Node, res: Any, live: RawStack) -> bool:
        """Does the source wait for *res* with a limit although *held* comes after it?"""
        meant = meant_wait([held.cls], res, live) if self.accepted.heeded else None
        if meant is None:
            return False
        self.accepted.tally(meant.declared("lock-order")).count += 1
        return True

    def _learn(self, edge: LockEdge) -> None:
        with self._mutex:
            fresh = (edge.first, edge.then) not in self.graph.edges
            cycle = self.graph.add(edge)
        if fresh:
            for tell in self.on_edge:
                tell(edge)
        if cycle:
            self.log.add(cycle_finding(cycle))

    def inside(self, st: ThreadState, node: Node, res: Any) -> None:
        """Rules that bind what certain functions wait for, and whatever these call."""
        for rule in FORBIDDEN:
            if rule.inside and rule.then == node.base and not (rule.may_time and node.how == TIMED):
                live = capture(3)
                if rule.inside & c_functions(live):
                    self._report_rule(st, rule, None, node, res)

    def _report_rule(
        self, st: ThreadState, rule: Forbidden, held: Held | None, node: Node, res: Any
    ) -> None:
        taken = _resource(node.cls, res)
        sites, live = [], capture(4)
        if held is not None:
            sites.append(site_of(st.td, f"took {held}", exact(held.node.stack, live)))
        sites.append(site_of(st.td, f"then takes {taken}", live))
        having = f" with {held} held" if held is not None else ""
        self.log.add(
            Finding(
                rule.kind,
                f"{rule.name}: {st.td.name} takes {taken}{having}",
                sites=sites,
                objects=[taken] if held is None else [str(held), taken],
                evidence=[f"{rule.source}: {rule.why}", f"held: {describe_held(st)}"],
                identity=(
                    rule.name,
                    *(functions(held.node.stack, 1) if held is not None else ()),
                    *functions(live, 1),
                ),
            )
        )

    # -- two of one class

    def nested(self, st: ThreadState, node: Node, res: Any) -> None:
        """A resource on top of another of its class: allowed by instance, or not at all."""
        if node.family == TOKEN:
            return
        rule = next((r for r in NESTING if r.cls == node.base), None)
        for held in list(st.held):
            if held.cls != node.cls or held.gone or held.res is res:
                continue
            if in_gate(st, held.res, res):
                continue
            if rule is not None and rule.allowed(held.res, res):
                continue
            # A rule reports it better.
            if _rule_against(held.cls, held.family, node.cls, node.family) is None:
                self._report_nested(st, held, node, res)

    def _report_nested(self, st: ThreadState, held: Held, node: Node, res: Any) -> None:
        stack = capture(3)
        identity = ("nested", node.cls, *functions(held.node.stack), *functions(stack))
        if self.log.seen(fingerprint("lock-order", *identity)):
            return
        taken = _resource(node.cls, res)
        self.log.add(
            Finding(
                "lock-order",
                f"two of class {node.cls}: {st.td.name} takes {taken} with {held} held",
                sites=[
                    site_of(st.td, f"took {held}", exact(held.node.stack, stack)),
                    site_of(st.td, f"then takes {taken}", stack),
                ],
                objects=[str(held), taken],
                evidence=[
                    "another thread that takes them the other way round deadlocks with it",
                    f"held: {describe_held(st)}",
                ],
                identity=identity,
            )
        )

    # -- gates

    def gated(self, st: ThreadState, node: Node, res: Any) -> None:
        """Two locks of one gate: only who holds the gate may have both."""
        for held in list(st.held):
            if held.gone or held.res is res or getattr(held.res, "under", None) is not res.under:
                continue
            if not has_gate(st, res.under):
                self._report_rule(st, without_gate(res.under), held, node, res)

    # -- misuse

    def misuse(self, st: ThreadState, how: str, what: str, res: Any) -> None:
        """Wrong release, or a resource held by a thread that ends: *what* says *how*."""
        stack = capture(3)
        self.log.add(
            Finding(
                "wrong-release",
                f"{st.td.name} {what}: {res}",
                sites=[site_of(st.td, f"{what}: {res}", stack)],
                objects=[str(res)],
                evidence=[f"held: {describe_held(st)}"],
                identity=(how, str(getattr(res, "cls", BUSY)), *functions(stack)),
            )
        )


def has_gate(st: ThreadState, gate: Any) -> bool:
    """Does the thread hold *gate* exclusively?"""
    return any(h.res is gate and h.mode == "excl" and not h.gone for h in st.held)


def in_gate(st: ThreadState, first: Any, then: Any) -> bool:
    """Have both locks the same gate, and is it held?"""
    gate = getattr(then, "under", None)
    return gate is not None and getattr(first, "under", None) is gate and has_gate(st, gate)


@cache
def _rule_against(first: str, family: str, then: str, then_family: str) -> Forbidden | None:
    """The rule that forbids to take the one class with the other held."""
    for rule in FORBIDDEN:
        if (
            rule.first
            and matches(rule.first, first, family)
            and matches(rule.then, then, then_family)
        ):
            return rule
    return None


def _resource(cls: str, res: Any) -> str:
    return f"busy {res}" if cls == BUSY else str(res)


def cycle_finding(cycle: list[LockEdge]) -> Finding:
    """The report: who holds and who wants what, side by side; the stacks; all that was held."""
    classes = [edge.first for edge in cycle]
    start = classes.index(min(classes))
    cycle = cycle[start:] + cycle[:start]
    order = " → ".join([*(e.first for e in cycle), cycle[0].first])
    sites = []
    for edge in cycle:
        sites.append(site_of(edge.td, f"took {edge.first}", edge.first_stack))
        sites.append(site_of(edge.td, f"then took {edge.then}", edge.then_stack))
    return Finding(
        "lock-order",
        f"cycle {order}",
        sites=sites,
        objects=sorted(set(classes)),
        evidence=[*two_columns(cycle), *(f"{e.first} → {e.then}: held {e.held}" for e in cycle)],
        identity=("cycle", *(f"{e.first}>{e.then}" for e in cycle)),
    )


def two_columns(cycle: list[LockEdge]) -> list[str]:
    """The scenario that deadlocks: one column for each edge of the cycle."""
    heads, holds, wants = [], [], []
    for n, edge in enumerate(cycle):
        heads.append(f"CPU {n} as {edge.td.name if edge.td is not None else '?'}")
        holds.append(f"holds {edge.first}")
        wants.append(f"wants {edge.then}")
    width = max(len(text) for text in heads + holds + wants) + 2
    rows = [heads, ["-" * (width - 2)] * len(cycle)]
    rows += [["" if i != n else holds[n] for i in range(len(cycle))] for n in range(len(cycle))]
    rows += [["" if i != n else wants[n] for i in range(len(cycle))] for n in range(len(cycle))]
    return ["".join(cell.ljust(width) for cell in row).rstrip() for row in rows]


def edge_sites(edge: LockEdge) -> tuple[Site, Site]:
    """Both ends of an edge, for the graph's printer."""
    return (
        Site(str(edge.td), "", f"took {edge.first}", resolve(edge.first_stack)),
        Site(str(edge.td), "", f"then took {edge.then}", resolve(edge.then_stack)),
    )


__all__ = [
    "PAGE",
    "LockEdge",
    "LockOrder",
    "OrderGraph",
    "cycle_finding",
    "edge_sites",
    "two_columns",
]
