"""The summary tells what happened, and ends with the important lines."""

from smpvm.check.finding import Finding
from smpvm.report.live import PlainWatch, RichWatch
from smpvm.report.summary import columns, coverage_lines, run_lines
from smpvm.workload.sample import Sample
from smpvm.workload.stress import StressResult


def result(**fields: object) -> StressResult:
    return StressResult(
        "thrash",
        1,
        256,
        512,
        2,
        counters={"v_vm_faults": 1234, "v_swappgsin": 2, "v_vnodepgsin": 3},
        extra={"processes killed": 4},
        locks={"page": (1000, 10), "queue": (500, 0)},
        queues={"free": 200, "active": 56},
        coverage=[("vm_pageout_clean", "243-365", 7), ("vm_pageout_clean:back", "307-331", 5)],
        contents_line="contents: 9 words checked, 0 lost",
        audit_line="audit: clean",
        **fields,  # type: ignore[arg-type]
    )


def test_the_summary_of_a_clean_run() -> None:
    text = "\n".join(run_lines(result()))
    assert "1,234" in text
    assert "page-ins" in text
    assert "processes killed" in text
    assert "vm_pageout_clean" in text
    assert "    back" in text
    assert text.endswith("contents: 9 words checked, 0 lost\naudit: clean\nfindings: none")


def test_lock_classes_come_with_contention() -> None:
    lines = run_lines(result(), coverage=False)
    page = next(line for line in lines if line.split()[:1] == ["page"])
    assert page.split() == ["page", "1,000", "10", "1.00"]
    assert not any("vm_pageout_clean" in line for line in lines)


def test_findings_and_a_stall_are_told_whole() -> None:
    finding = Finding("audit", "page 3: no page is lost", evidence=["evidence here"])
    text = "\n".join(run_lines(result(findings=[finding], stall=["cpu0: sleeps on page 3"])))
    assert "no progress; each thread and what it waits for:\n  cpu0: sleeps on page 3" in text
    assert "audit: page 3: no page is lost" in text
    assert "evidence here" in text
    assert text.endswith("findings: 1")


def test_text_in_columns() -> None:
    assert columns([("a", "1"), ("long", "1,000")], "") == ["a         1", "long  1,000"]
    assert columns([]) == []
    assert len(coverage_lines([("f", "1-2", 0), ("f:b", "1", 1)], branches=False)) == 2


def test_plain_lines_for_a_pipe() -> None:
    lines: list[str] = []
    with PlainWatch(lines.append) as watch:
        for second in range(3):
            watch.sample(Sample(seconds=second + 1.0), 10.0)
        watch.note("finding: x")
    assert len(lines) == 2 + 3 + 1
    assert lines[0].startswith("procs")


def test_a_table_on_a_terminal() -> None:
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with RichWatch(console, "smpvm stress: thrash") as watch:
        watch.sample(Sample(seconds=1.0, free=123), 10.0)
        watch.note("finding: x")
    text = out.getvalue()
    assert "finding: x" in text
    assert "123" in text
    assert "flt" in text


def test_a_table_on_a_narrow_terminal_has_no_ellipses() -> None:
    import io

    from rich.console import Console

    out = io.StringIO()
    with RichWatch(Console(file=out, force_terminal=True, width=80), "smpvm stress") as watch:
        watch.sample(Sample(seconds=1.0, free=1234567, counters={"v_vm_faults": 7654321}), 10.0)
    assert "\N{HORIZONTAL ELLIPSIS}" not in out.getvalue()
    assert "1234567" in out.getvalue()
    assert "7654321" in out.getvalue()


def test_the_summary_fits_a_narrow_terminal() -> None:
    many = {"page-ins and page-outs": 10**9}
    given = result(seconds=123.4, processes=12345, repairs=["fault-once", "free-wait"] * 5)
    given.extra = many
    assert max(map(len, run_lines(given, room=60))) <= 60
    assert len(run_lines(given)) < len(run_lines(given, room=60))  # two columns of counters
