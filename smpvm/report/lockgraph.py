"""The lock-order graph, compared with the documented order: as text, as DOT, as SVG."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

from smpvm.check.lockrules import DOCUMENTED, FORBIDDEN, Forbidden, Order
from smpvm.report.locklog import LockLog, Times
from smpvm.text import printable

Edges = Mapping[tuple[str, str], Mapping[str, Any]]

COLOUR: Final = {
    "agrees": "#2e7d32",
    "undocumented": "#616161",
    "never seen": "#9e9e9e",
    "forbidden": "#c62828",
}


@dataclass
class Comparison:
    """Observed edges against documented ones; each list in alphabetical order."""

    agreeing: list[Order]
    undocumented: list[tuple[str, str]]
    never_seen: list[Order]
    forbidden: list[tuple[tuple[str, str], Forbidden]]


def compare(edges: Iterable[tuple[str, str]]) -> Comparison:
    """Sort the observed edges by what the source says about them."""
    seen = set(edges)
    known = {(e.first, e.then): e for e in DOCUMENTED}
    banned = {(r.first, r.then): r for r in FORBIDDEN if r.first}
    return Comparison(
        [known[pair] for pair in sorted(seen & set(known))],
        sorted(seen - set(known) - set(banned)),
        [known[pair] for pair in sorted(set(known) - seen)],
        [(pair, banned[pair]) for pair in sorted(seen & set(banned))],
    )


def lock_report(log: LockLog, *, stacks: bool = False) -> str:
    """The whole of ``smpvm locks RUN`` as text."""
    out = _order_lines(log, stacks)
    out += ["", *contention_lines(log)]
    times = _time_lines("held for", log.hold) + _time_lines("waited for", log.wait)
    out += (
        ["", *times] if times else ["", "hold and wait times: only in logs of `smpvm stress --log`"]
    )
    tail = f"{log.events} events"
    if log.dropped:
        tail += f", {log.dropped} dropped"
    if not log.ended:
        tail += "; the log has no end: the run was killed"
    return "\n".join(map(printable, [*out, "", tail]))


def _order_lines(log: LockLog, stacks: bool) -> list[str]:
    c = compare(log.edges)
    out = [f"lock order: {len(log.edges)} edges observed"]
    if c.forbidden:
        out += ["", "forbidden:"]
        out += [f"  {a} → {b}   {rule.source}: {rule.why}" for (a, b), rule in c.forbidden]
    out += ["", "as documented:"]
    out += [f"  {e.first} → {e.then}   {e.source}: {e.why}" for e in c.agreeing] or ["  none"]
    out += ["", "undocumented:"]
    for pair in c.undocumented:
        edge = log.edges[pair]
        kind = "" if edge["binding"] else "   (through a token: cannot deadlock)"
        out.append(f"  {pair[0]} → {pair[1]}{kind}")
        if stacks:
            out += [f"      {frame}" for frame in edge["first_stack"]]
            out += ["    then", *(f"      {frame}" for frame in edge["then_stack"])]
    if not c.undocumented:
        out.append("  none")
    out += ["", "documented, never seen:"]
    out += [f"  {e.first} → {e.then}   {e.source}" for e in c.never_seen] or ["  none"]
    return out


def contention_lines(log: LockLog) -> list[str]:
    """The most contended lock classes first."""
    out = [f"{'class':<12}{'acquired':>12}{'contended':>12}{'share':>9}"]
    order = sorted(log.acquired, key=lambda cls: (-log.contended[cls], cls))
    for cls in order:
        n, had_to_wait = log.acquired[cls], log.contended[cls]
        out.append(f"{cls:<12}{n:>12}{had_to_wait:>12}{had_to_wait / max(n, 1):>8.2%}")
    return out


def _time_lines(what: str, times: Mapping[str, Times]) -> list[str]:
    if not times:
        return []
    out = [f"{what:<12}{'times':>12}{'mean us':>12}{'longest us':>12}"]
    for cls in sorted(times, key=lambda c: (-times[c].total, c)):
        t = times[cls]
        out.append(f"{cls:<12}{t.count:>12}{t.mean / 1e3:>12.1f}{t.longest / 1e3:>12.1f}")
    return out


def _kinds(edges: Edges) -> list[tuple[str, str, str]]:
    """(first, then, kind) of every edge to draw."""
    c = compare(edges)
    return [
        *((e.first, e.then, "agrees") for e in c.agreeing),
        *((a, b, "undocumented") for a, b in c.undocumented),
        *((e.first, e.then, "never seen") for e in c.never_seen),
        *((a, b, "forbidden") for (a, b), _ in c.forbidden),
    ]


def dot(edges: Edges) -> str:
    """The graph for Graphviz."""
    lines = ["digraph lockorder {", "  rankdir=TB;", "  node [shape=box, fontname=Helvetica];"]
    for a, b, kind in _kinds(edges):
        style = ", style=dashed" if kind == "never seen" else ""
        loose = not edges.get((a, b), {}).get("binding", True)
        arrow = ", arrowhead=empty" if loose else ""
        ends = f"{json.dumps(a)} -> {json.dumps(b)}"
        lines.append(f'  {ends} [color="{COLOUR[kind]}"{style}{arrow}, tooltip="{kind}"];')
    return "\n".join([*lines, "}", ""])


# -- SVG, drawn here so that nothing need be installed


def _layers(pairs: list[tuple[str, str]]) -> dict[str, int]:
    """A row for each class: below everything that comes before it, cycles cut where they close."""
    after: dict[str, list[str]] = {}
    for a, b in pairs:
        after.setdefault(a, [])
        after.setdefault(b, [])
        if a != b:
            after[a].append(b)
    kept: dict[str, list[str]] = {cls: [] for cls in after}
    above: set[str] = set()
    last_first: list[str] = []

    def visit(cls: str) -> None:
        above.add(cls)
        for then in after[cls]:
            if then not in above:
                kept[cls].append(then)
                if then not in seen:
                    seen.add(then)
                    visit(then)
        above.discard(cls)
        last_first.append(cls)

    seen: set[str] = set()
    for cls in sorted(after):
        if cls not in seen:
            seen.add(cls)
            visit(cls)
    row = dict.fromkeys(after, 0)
    for cls in reversed(last_first):
        for then in kept[cls]:
            row[then] = max(row[then], row[cls] + 1)
    return row


def svg(edges: Edges) -> str:
    """The graph as a picture."""
    kinds = _kinds(edges)
    row = _layers([(a, b) for a, b, _ in kinds])
    rows: dict[int, list[str]] = {}
    for cls in sorted(row):
        rows.setdefault(row[cls], []).append(cls)
    across = max((len(r) for r in rows.values()), default=1)
    width, height = 150 * across + 40, 90 * len(rows) + 70
    at = {
        cls: ((n + 0.5) * width / len(found), 90 * line + 40)
        for line, found in enumerate(rows[r] for r in sorted(rows))
        for n, cls in enumerate(found)
    }
    body = [_arrow(at[a], at[b], kind, a == b) for a, b, kind in kinds]
    body += [_box(cls, *at[cls]) for cls in sorted(at)]
    body += [
        f'<text x="{12 + 150 * n}" y="{height - 12}" font-size="12" fill="{colour}">{kind}</text>'
        for n, (kind, colour) in enumerate(COLOUR.items())
    ]
    heads = "".join(
        f'<marker id="{kind.replace(" ", "-")}" viewBox="0 0 8 8" refX="8" refY="4" '
        f'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" '
        f'fill="{colour}"/></marker>'
        for kind, colour in COLOUR.items()
    )
    width = max(width, 620)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n<defs>{heads}</defs>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _box(cls: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x - 50:.0f}" y="{y - 14:.0f}" width="100" height="28" rx="5" fill="#f5f5f5" '
        f'stroke="#424242"/><text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" '
        f'font-size="13">{escape(printable(cls))}</text>'
    )


def _arrow(a: tuple[float, float], b: tuple[float, float], kind: str, loop: bool) -> str:
    (x1, y1), (x2, y2) = a, b
    if loop:
        path = f"M{x1 + 50:.0f} {y1 - 6:.0f} c 34 -22 34 34 0 14"
    elif y2 > y1:
        path = f"M{x1:.0f} {y1 + 14:.0f} L{x2:.0f} {y2 - 14:.0f}"
    else:
        path = (
            f"M{x1 + 50:.0f} {y1:.0f} C{x1 + 110:.0f} {y1:.0f} {x2 + 110:.0f} {y2:.0f} "
            f"{x2 + 50:.0f} {y2:.0f}"
        )
    dash = ' stroke-dasharray="5 4"' if kind == "never seen" else ""
    return (
        f'<path d="{path}" fill="none" stroke="{COLOUR[kind]}" stroke-width="1.5"{dash} '
        f'marker-end="url(#{kind.replace(" ", "-")})"/>'
    )


def lock_json(log: LockLog) -> dict[str, Any]:
    """The same as data."""
    c = compare(log.edges)
    return {
        "edges": list(log.edges.values()),
        "agreeing": [[e.first, e.then] for e in c.agreeing],
        "undocumented": [list(pair) for pair in c.undocumented],
        "never_seen": [[e.first, e.then] for e in c.never_seen],
        "forbidden": [list(pair) for pair, _ in c.forbidden],
        "acquired": dict(log.acquired),
        "contended": dict(log.contended),
        "hold_ns": {cls: [t.count, t.total, t.longest] for cls, t in sorted(log.hold.items())},
        "wait_ns": {cls: [t.count, t.total, t.longest] for cls, t in sorted(log.wait.items())},
        "events": log.events,
        "dropped": log.dropped,
        "ended": log.ended,
    }
