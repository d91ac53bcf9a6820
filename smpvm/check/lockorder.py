"""Lock order by class, in the manner of lockdep and WITNESS: reported before anything hangs.

``OrderGraph`` is the pure part: edges between classes, and a search for a cycle at each new edge.
``LockOrder`` gets new chains from the tracker, adds their edges, applies the rules of
``lockrules.py``, and reports.

Which edges can deadlock?  A thread that blocks gives up its tokens, so a thread that waits while
holding a token blocks nobody, and a wait for a token always ends (design.md section 4).  Edges from
and to tokens are recorded and shown, but are not part of cycles.  A try adds no edge to the lock
that it asks for; if it succeeds, the lock counts as held.  A wait with a timeout adds an edge: the
timeout does not make the order right.  Where the source accepts that (``lockrules.MEANT``), it is
only counted.
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
    """Can it be part of a deadlock?  Not if either end is a token."""
    held: str = ""
    """Everything held at that moment."""
    forbidden: bool = False
    """Is it what a rule forbids?  That has been told already."""


class OrderGraph:
    """Edges between classes.  Not thread-safe: the owner must serialize calls."""

    def __init__(self) -> None:
        self.edges: dict[tuple[str, str], LockEdge] = {}
        self._after: dict[str, list[str]] = {}

    def knows(self, first: str, then: str, binding: bool) -> bool:
        """Would such an edge add nothing?"""
        known = self.edges.get((first, then))
        return known is not None and (known.binding or not binding)

    def add(self, edge: LockEdge) -> list[LockEdge]:
        """Add an edge; returns the cycle that it closes (the new edge first), or nothing."""
        if self.knows(edge.first, edge.then, edge.binding):
            return []
        self.edges[edge.first, edge.then] = edge
        if not edge.binding:
            return []
        if edge.first == edge.then:
            return []  # nesting within a class is checked by instance, in ``nested``
        cycle = self._path(edge.then, edge.first)
        self._after.setdefault(edge.first, []).append(edge.then)
        return [edge, *cycle] if cycle else []

    def _path(self, start: str, goal: str) -> list[LockEdge]:
        """A shortest path of edges from one class to another."""
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
    """The lock-order checker; attaches itself to the tracker's hooks."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.graph = OrderGraph()
        self._mutex = threading.Lock()
        self.on_edge: list[Callable[[LockEdge], None]] = []
        """Called for each new edge, by the event log for one."""
        tracker = context.tracker
        tracker.on_new = self.new_chain
        tracker.on_nested = self.nested
        tracker.on_gated = self.gated
        # The chain does not contain the callers, so these rules are checked each time.
        tracker.special = frozenset(rule.then for rule in FORBIDDEN if rule.inside)
        tracker.on_special = self.inside
        tracker.on_misuse = self.misuse

    def summary(self) -> dict[str, Any]:
        return {"lock_order_edges": len(self.graph.edges)}

    # -- new chains

    def new_chain(self, st: ThreadState, node: Node, res: Any) -> None:
        """Add the edges from everything held to what is being taken, and check them."""
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
        """Does the source knowingly wait for *res* with a timeout, against the order to *held*?"""
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
        """Rules on what certain functions, and the functions they call, may wait for."""
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
        having = f" while holding {held}" if held is not None else ""
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

    # -- two locks of one class

    def nested(self, st: ThreadState, node: Node, res: Any) -> None:
        """A resource is taken while another of its class is held: some instances may be."""
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
            # Where a rule forbids it, the rule's report is better.
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
                f"two of class {node.cls}: {st.td.name} takes {taken} while holding {held}",
                sites=[
                    site_of(st.td, f"took {held}", exact(held.node.stack, stack)),
                    site_of(st.td, f"then takes {taken}", stack),
                ],
                objects=[str(held), taken],
                evidence=[
                    "another thread that takes them in the opposite order can deadlock with it",
                    f"held: {describe_held(st)}",
                ],
                identity=identity,
            )
        )

    # -- gates

    def gated(self, st: ThreadState, node: Node, res: Any) -> None:
        """Two locks under one gate: only a thread that holds the gate may hold both."""
        for held in list(st.held):
            if held.gone or held.res is res or getattr(held.res, "under", None) is not res.under:
                continue
            if not has_gate(st, res.under):
                self._report_rule(st, without_gate(res.under), held, node, res)

    # -- misuse

    def misuse(self, st: ThreadState, how: str, what: str, res: Any) -> None:
        """Wrong release, or a resource held at exit: *how* is the code, *what* the text."""
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
    """Do both locks have the same gate, and does the thread hold it?"""
    gate = getattr(then, "under", None)
    return gate is not None and getattr(first, "under", None) is gate and has_gate(st, gate)


@cache
def _rule_against(first: str, family: str, then: str, then_family: str) -> Forbidden | None:
    """The rule that forbids taking class *then* while *first* is held."""
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
    """The finding of a cycle: who holds and wants what, in columns; stacks; everything held."""
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
    """The interleaving that deadlocks: one column for each edge of the cycle."""
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
    """Both ends of an edge, for printing the graph."""
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
