"""The live table, in the layout and with the column names of vmstat(8)."""

from __future__ import annotations

from collections.abc import Sequence

from smpvm.workload.sample import Sample

GROUPS = (
    ("procs", ("r", "b", "w")),
    ("memory", ("avm", "fre")),
    ("page", ("flt", "re", "pi", "po", "fr", "sr")),
    ("disks", ("sw0", "da0")),
    ("faults", ("in", "sy", "cs")),
    ("cpu", ("us", "sy", "id")),
)
WIDTHS = {"avm": 6, "fre": 6, "flt": 6, "pi": 5, "po": 5, "fr": 6, "sr": 6, "in": 5, "cs": 6}
LEGEND = (
    "pages and events a second; memory in pages; sw0, da0: requests to the swap and file disks; "
    "in: I/O completions, sy: system calls, cs: sleeps; cpu: per cent of the host's"
)

RATES: dict[str, tuple[str, ...]] = {
    "flt": ("v_vm_faults",),
    "re": ("v_reactivated",),
    "pi": ("v_swappgsin", "v_vnodepgsin"),
    "po": ("v_swappgsout", "v_vnodepgsout"),
    "fr": ("v_dfree", "v_pfree", "v_tfree"),
    "sr": ("v_pdpages",),
    "sw0": ("v_swapin", "v_swapout"),
    "da0": ("v_vnodein", "v_vnodeout"),
    "in": ("v_intr",),
    "sy.faults": ("v_syscall",),
    "cs": ("v_swtch",),
}


COLUMNS = tuple((group, column) for group, columns in GROUPS for column in columns)
DROPPED_FIRST = (
    ("cpu", "us"),
    ("cpu", "sy"),
    ("cpu", "id"),
    ("faults", "sy"),
    ("faults", "in"),
    ("procs", "w"),
    ("faults", "cs"),
    ("page", "re"),
    ("disks", "da0"),
    ("disks", "sw0"),
    ("procs", "b"),
    ("procs", "r"),
    ("memory", "avm"),
    ("page", "fr"),
    ("page", "pi"),
    ("page", "po"),
)
"""The columns that a narrow terminal does without, the least important first."""


def widths(rows: Sequence[Sequence[int]] = ()) -> list[int]:
    """Characters of each column: no number of *rows* is wider, and no heading."""
    out = [max(WIDTHS.get(column, 3), len(column)) for _, column in COLUMNS]
    return [max([w, *(len(str(row[i])) for row in rows)]) for i, w in enumerate(out)]


def fitting(room: int | None, wide: Sequence[int]) -> list[int]:
    """The columns (positions in COLUMNS) that fit into *room* characters; None: all of them."""
    kept = list(range(len(COLUMNS)))
    for column in DROPPED_FIRST:
        if room is None or sum(wide[i] + 1 for i in kept) - 1 <= room:
            break
        kept.remove(COLUMNS.index(column))
    return kept


def header(kept: Sequence[int] | None = None, wide: Sequence[int] | None = None) -> tuple[str, str]:
    """The two heading lines of the columns *kept* (default: all)."""
    kept = range(len(COLUMNS)) if kept is None else kept
    wide = widths() if wide is None else wide
    above, below = [], []
    for group, _ in GROUPS:
        cells = " ".join(f"{COLUMNS[i][1]:>{wide[i]}}" for i in kept if COLUMNS[i][0] == group)
        if cells:
            above.append(f"{group[: len(cells)]:<{len(cells)}}")
            below.append(cells)
    return " ".join(above).rstrip(), " ".join(below)


def table(rows: Sequence[Sequence[int]], room: int) -> list[str]:
    """Headings and rows, in at most *room* characters unless even the least columns need more."""
    wide = widths(rows)
    kept = fitting(room, wide)
    return [*header(kept, wide), *(row(numbers, kept, wide) for numbers in rows)]


def values(before: Sample, now: Sample, host_cpus: int = 1) -> list[int]:
    """One row, in column order: current states, and rates between two samples."""
    span = max(now.seconds - before.seconds, 1e-6)

    def rate(column: str) -> int:
        gone = sum(
            now.counters.get(name, 0) - before.counters.get(name, 0) for name in RATES[column]
        )
        return round(gone / span)

    user = (now.host_cpu[0] - before.host_cpu[0]) / span / host_cpus * 100
    system = (now.host_cpu[1] - before.host_cpu[1]) / span / host_cpus * 100
    row = [now.runnable, now.blocked, now.swapped, now.active_virtual, now.free]
    row += [rate(c) for c in ("flt", "re", "pi", "po", "fr", "sr", "sw0", "da0")]
    row += [rate("in"), rate("sy.faults"), rate("cs")]
    return [*row, round(user), round(system), max(0, round(100 - user - system))]


def row(
    numbers: Sequence[int], kept: Sequence[int] | None = None, wide: Sequence[int] | None = None
) -> str:
    """One line under the heading; a number is never cut."""
    kept = range(len(COLUMNS)) if kept is None else kept
    wide = widths() if wide is None else wide
    return " ".join(f"{numbers[i]:>{wide[i]}}" for i in kept)
