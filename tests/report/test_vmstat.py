"""The live table has vmstat's columns, and its numbers are rates between two samples."""

from smpvm.report.vmstat import COLUMNS, GROUPS, header, row, table, values
from smpvm.workload.sample import Sample


def test_the_columns_are_those_of_vmstat() -> None:
    above, below = header()
    assert above.split() == ["procs", "memory", "page", "disks", "faults", "cpu"]
    columns = below.split()
    assert columns[:5] == ["r", "b", "w", "avm", "fre"]
    assert columns[5:11] == ["flt", "re", "pi", "po", "fr", "sr"]
    assert columns[-6:] == ["in", "sy", "cs", "us", "sy", "id"]
    assert len(columns) == sum(len(group) for _, group in GROUPS)


def test_rates_are_per_second_and_states_are_not() -> None:
    before = Sample(seconds=1.0, counters={"v_vm_faults": 10})
    counters = {"v_vm_faults": 110, "v_swappgsin": 6, "v_vnodepgsin": 4, "v_syscall": 8}
    now = Sample(3.0, 1, 2, 3, 40, 50, (1.0, 0.5), counters)
    got = dict(zip(header()[1].split()[:16], values(before, now, host_cpus=2), strict=False))
    assert (got["r"], got["b"], got["w"], got["avm"], got["fre"]) == (1, 2, 3, 40, 50)
    assert (got["flt"], got["pi"], got["po"]) == (50, 5, 0)
    assert values(before, now, host_cpus=2)[-3:] == [25, 12, 62]


def test_rows_stand_under_their_headings() -> None:
    _, below = header()
    line = row(values(Sample(), Sample(seconds=1.0, free=77, counters={"v_vm_faults": 9})))
    assert len(line) == len(below)
    assert line[: below.index("fre") + 3].endswith("77")


def test_a_narrow_terminal_shows_fewer_columns_and_every_number_whole() -> None:
    rows = [[i * 10**k for i in range(len(COLUMNS))] for k in range(6)]
    for room in (200, 100, 80, 60, 40):
        lines = table(rows, room)
        assert max(map(len, lines)) <= room
        assert len({len(line) for line in lines[1:]}) == 1
        shown = lines[1].split()
        assert [len(line.split()) for line in lines[2:]] == [len(shown)] * len(rows)
        assert {"fre", "flt", "sr"} <= set(shown)
        assert set(" ".join(lines[2:]).split()) <= {str(n) for row in rows for n in row}
    assert len(table(rows, 200)[1].split()) == len(COLUMNS)
