"""The live table, in the layout and with the column names of vmstat(8)."""

from __future__ import annotations

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


def width(column: str) -> int:
    """Characters of a column, without the space before it."""
    return WIDTHS.get(column, 3)


def header() -> tuple[str, str]:
    """The two heading lines."""
    above, below = [], []
    for group, columns in GROUPS:
        cells = " ".join(f"{c:>{width(c)}}" for c in columns)
        above.append(f"{group:<{len(cells)}}")
        below.append(cells)
    return " ".join(above).rstrip(), " ".join(below)


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


def row(numbers: list[int]) -> str:
    """One line under the heading."""
    columns = [c for _, group in GROUPS for c in group]
    return " ".join(f"{n:>{width(c)}}" for c, n in zip(columns, numbers, strict=True))
