"""The scan benchmark runs, and scans every page of its queue."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "stress" / "bench_scan.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_scan", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("scan", ["scan_inactive", "scan_active"])
@pytest.mark.parametrize("mix", ["clean", "mixed"])
def test_every_page_is_scanned(bench, scan, mix):
    vm = bench.machine(300)
    bench.fill(vm, scan, mix, "shuffled")
    bench.scan_once(vm, scan)
    counts = vm.k.counts()
    held = counts[f"vm_pageout_{scan}:held"]
    counted_before_looking = scan == "scan_inactive"
    assert counts["v_pdpages"] + (0 if counted_before_looking else held) == 300
    assert (held > 0) == (mix == "mixed")


def test_the_table_has_a_row_for_each_figure_of_the_c(bench):
    lines = []
    bench.rows(200, 1, lines.append)
    assert len(lines) == 2 + len(bench.C_MILLIONS)
    assert "scan_active" in lines[-1]
