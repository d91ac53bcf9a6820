"""Page-reference traces: file format, reduction, and refused files."""

import gzip
import json
import os
import shutil
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpvm.workload import trace as trace_module
from smpvm.workload.record import record
from smpvm.workload.trace import (
    FETCH,
    READ,
    WRITE,
    Reducer,
    Trace,
    TraceError,
    dump,
    parse,
    read,
    save,
)


def trace_of(refs: list[tuple[int, int]], runs: list[tuple[int, int]]) -> Trace:
    return Trace(array("I", [p << 2 | k for p, k in refs]), runs, "t", ["t", "x"], 9, 4)


@settings(max_examples=200, deadline=None)
@given(
    refs=st.lists(st.tuples(st.integers(0, 299), st.sampled_from((READ, WRITE, FETCH)))),
    start=st.integers(0, 1 << 40),
)
def test_a_trace_survives_the_file(refs: list[tuple[int, int]], start: int) -> None:
    every = [(page, READ) for page in range(300)]
    trace = trace_of([*refs, *every], [(start, 100), (start + 150, 200)])
    again = parse(gzip.decompress(dump(trace)))
    assert again == trace


def test_the_same_trace_is_the_same_file() -> None:
    trace = trace_of([(0, READ), (2, WRITE)], [(7, 3)])
    assert dump(trace) == dump(trace)


LOG = b"""==1== Lackey, an example Valgrind tool
I  0401a000,3
I  0401a003,3
 S 1fff000748,8
 L 1fff000740,8
I  0401a006,3
 M 1fff000740,8
 L 04020000,8
 S 04020008,8
hello from the program
I  0401b000,3
"""


def test_reduction_keeps_the_first_of_each_kind() -> None:
    reducer = Reducer(window=8)
    reducer.feed(LOG.splitlines(keepends=True))
    trace = reducer.trace("x")
    # pages in order of address: 401a, 401b, 4020, 1fff000
    assert trace.runs == [(0x401A, 2), (0x4020, 1), (0x1FFF000, 1)]
    got = [(ref >> 2, ref & 3) for ref in trace.refs]
    assert got == [(0, FETCH), (3, WRITE), (2, READ), (2, WRITE), (1, FETCH)]
    assert trace.seen == 9


def test_a_page_that_left_the_window_counts_again() -> None:
    lines = [b" L %08x000,8\n" % page for page in (1, 2, 3, 1)]
    small, large = Reducer(window=1), Reducer(window=8)
    small.feed(lines)
    large.feed(lines)
    assert len(small.trace().refs) == 4
    assert len(large.trace().refs) == 3


def test_the_limit_is_kept_and_said() -> None:
    reducer = Reducer(window=1, limit=10)
    reducer.feed(b" L %08x000,8\n" % page for page in range(1, 100))
    trace = reducer.trace()
    assert len(trace.refs) == 10
    assert not trace.whole


@pytest.mark.parametrize("zipped", [False, True])
def test_a_raw_log_can_be_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "prog.log"
    path.write_bytes(gzip.compress(LOG) if zipped else LOG)
    trace = read(path)
    assert trace.pages == 4
    assert trace.name == "prog"


def damaged(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "x.trace"
    path.write_bytes(data)
    with pytest.raises(TraceError) as why:
        read(path)
    text = str(why.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


def test_cut_and_foreign_files_are_refused(tmp_path: Path) -> None:
    good = dump(trace_of([(n % 7, n % 3) for n in range(5000)], [(0, 7)]))
    assert "cut short" in damaged(tmp_path, good[:-20])
    assert "whole gzip" in damaged(tmp_path, good[:-5] + bytes(5))
    assert "neither" in damaged(tmp_path, b"\x7fELF" + bytes(100))
    assert "neither" in damaged(tmp_path, b"")
    assert "not a trace" in damaged(tmp_path, b'{"format": "other"}\n')
    assert "no memory references" in damaged(tmp_path, b"==1== Lackey\n")


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    plain = gzip.decompress(dump(trace_of([(0, 0), (1, 1)], [(5, 2)])))
    line, _, body = plain.partition(b"\n")
    header = json.loads(line)

    def changed(**fields: object) -> bytes:
        return json.dumps({**header, **fields}).encode() + b"\n" + body

    assert "version 2" in damaged(tmp_path, changed(version=2))
    assert "add up" in damaged(tmp_path, changed(pages=3))
    assert "references" in damaged(tmp_path, changed(refs=3))
    assert "references" in damaged(tmp_path, changed(refs=1))
    assert "out of order" in damaged(tmp_path, changed(runs=[[5, 1], [4, 1]]))
    assert "names page" in damaged(tmp_path, changed(pages=1, runs=[[5, 1]]))
    assert "refs: negative (-1), allowed 1 to" in damaged(tmp_path, changed(refs=-1))
    assert "references" in damaged(tmp_path, changed(refs=40_000_000))
    assert "run 0 1: 'x' is not a number" in damaged(tmp_path, changed(runs=[[5, "x"]]))
    assert "name: 7 is not a text" in damaged(tmp_path, changed(name=7))
    assert "command: 'ls' is not a list" in damaged(tmp_path, changed(command="ls"))
    assert "whole: 1 is neither" in damaged(tmp_path, changed(whole=1))
    assert "seen" in damaged(tmp_path, changed(seen="x" * 5000))
    assert len(damaged(tmp_path, changed(seen="x" * 5000))) < 250


def test_pages_that_nothing_refers_to_are_not_made(tmp_path: Path) -> None:
    """148 bytes that claim 128 GiB of memory."""
    header = {"format": "smpvm-trace", "version": 1, "pages": 1 << 25, "refs": 0}
    line = json.dumps({**header, "runs": [[0, 1 << 25]]}).encode() + b"\n"
    assert "refs: 0 is out of range" in damaged(tmp_path, gzip.compress(line))
    line = json.dumps({**header, "refs": 1, "runs": [[0, 1 << 25]]}).encode() + b"\n\0"
    assert "33,554,432 pages, but only 1 references" in damaged(tmp_path, gzip.compress(line))


def test_what_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "MAX_FILE", 1 << 20)
    assert "larger than 1 MiB" in damaged(tmp_path, gzip.compress(b"{" + bytes(1 << 22)))
    assert "longer than" in damaged(tmp_path, gzip.compress(b"==" + bytes(1 << 22)))


@pytest.mark.parametrize(
    "line",
    [
        " L zzzzzz,4",
        " L 0x10,4",
        " S 10,-5",
        " S 10,99999999999",
        " M 10,0",
        " M 10",
        " M ,8",
        "I  0401ab70",
        "I  0401ab70,3,3",
        "I  0401ab70,3 and so on",
        "I  \N{ARABIC-INDIC DIGIT THREE},3",
        "I  " + "9" * 5000,
        " S 1_0,8",
    ],
)
def test_what_looks_like_a_reference_and_is_none_is_refused(tmp_path: Path, line: str) -> None:
    text = damaged(tmp_path, LOG + line.encode() + b"\n L 04020000,8\n")
    assert ": line 12: " in text
    assert len(text) < 250


def test_the_output_of_the_program_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "prog.log"
    path.write_bytes(LOG + b"hello world\nL 10,4\n\n  total,8\n\xff\xfe\n")
    trace = read(path)
    assert trace.seen == 9
    assert trace.skipped == 6


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(TraceError, match="not a regular file"):
            read(path)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read(tmp_path / "none")
    with pytest.raises(TraceError, match="No such file"):
        save(trace_of([(0, 0)], [(0, 1)]), tmp_path / "none" / "x")


def test_recording_without_valgrind_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(TraceError, match="apt-get install valgrind"):
        record(["true"])


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_a_real_program_can_be_recorded() -> None:
    recording = record(["true"], limit=5000)
    (trace,) = recording.traces
    assert recording.status in (0, -15)  # it may be ended at the limit
    assert trace.pages > 20
    reads, writes, fetches = trace.counts()
    assert reads
    assert writes
    assert fetches
    with pytest.raises(TraceError, match="no such program"):
        record(["/no/such/program"])
