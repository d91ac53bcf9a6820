"""Findings: one record for all kinds, written at once, the same everywhere."""

import gzip
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from smpvm.check.finding import (
    Finding,
    FindingError,
    FindingLog,
    Site,
    fingerprint,
    load,
    load_all,
    save,
)
from smpvm.check.stacks import Frame, capture, functions, resolve


def example(**changes):
    frame = Frame("Pages.activate", "vm/page.py", 123, "vm_page_activate")
    fields = {
        "kind": "race",
        "title": "Page.act_count of page 12",
        "sites": [Site("t0", "pagedaemon", "writes page 12.act_count", (frame,))],
        "objects": ["page 12"],
        "evidence": ["act_count: 3 → 2"],
        "command": "smpvm stress --seed 1",
    }
    return Finding(**{**fields, **changes})


class TestRecord:
    def test_saved_and_loaded_it_is_the_same(self, tmp_path):
        save(example(schedule="0 1 1 2"), tmp_path / "f.json")
        assert load(tmp_path / "f.json") == example(schedule="0 1 1 2")

    def test_threads_come_from_the_sites(self):
        assert example().threads == [("t0", "pagedaemon")]

    def test_the_fingerprint_has_no_numbers_in_it(self):
        frame = Frame("Pages.activate", "vm/page.py", 321, "vm_page_activate")
        other = example(
            title="Page.act_count of page 7",
            sites=[Site("t5", "pagedaemon", "writes page 7.act_count", (frame,))],
        )
        assert other.fingerprint == example().fingerprint

    def test_another_place_is_another_fingerprint(self):
        frame = Frame("Pages.deactivate", "vm/page.py", 123)
        other = example(sites=[Site("t0", "pagedaemon", "writes", (frame,))])
        assert other.fingerprint != example().fingerprint

    def test_a_fingerprint_is_stable_across_processes(self):
        code = "from smpvm.check.finding import fingerprint; print(fingerprint('race', 'a', 'b'))"
        outs = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for seed in ("0", "7")
        }
        assert outs == {fingerprint("race", "a", "b")}

    def test_as_text_it_says_what_where_and_how_to_see_it_again(self):
        lines = example(count=3).lines()
        assert lines[0] == "race: Page.act_count of page 12"
        assert "  seen 3 times" in lines
        assert "      vm_page_activate [Pages.activate] (vm/page.py:123)" in lines
        assert lines[-1] == "  again: smpvm stress --seed 1"


class TestLog:
    def test_one_record_for_one_fingerprint_with_a_count(self, tmp_path):
        log = FindingLog(tmp_path)
        first = example()
        assert [log.add(f) is first for f in (first, example(), example())] == [True, True, True]
        log.finish()
        (found,) = load_all(tmp_path)
        assert found.count == 3

    def test_it_is_on_disk_at_once(self, tmp_path):
        log = FindingLog(tmp_path, command="smpvm stress")
        log.add(example(command=""))
        (found,) = load_all(tmp_path)
        assert found.command == "smpvm stress"

    def test_no_half_written_file_is_ever_there(self, tmp_path):
        log = FindingLog(tmp_path)
        for n in range(20):
            log.add(example(fingerprint=f"{n:012x}"))
        assert len(load_all(tmp_path)) == 20
        assert not [p for p in (tmp_path / "findings").iterdir() if p.suffix != ".json"]

    def test_whoever_wants_to_know_is_told_of_new_ones(self):
        told = []
        log = FindingLog(on_new=told.append)
        log.add(example())
        log.add(example())
        assert [f.kind for f in told] == ["race"]

    def test_a_killed_run_leaves_every_finding_readable(self, tmp_path):
        code = (
            "import sys, itertools\nfrom pathlib import Path\n"
            "from smpvm.check.finding import Finding, FindingLog\n"
            "log = FindingLog(Path(sys.argv[1]))\n"
            "for n in itertools.count():\n"
            "    log.add(Finding('race', 'x' * 4000, fingerprint=f'{n:012x}'))\n"
            "    print(n, flush=True)\n"
        )
        run = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        made = -1
        end = time.monotonic() + 20
        while made < 20 and time.monotonic() < end:
            made = int(run.stdout.readline())
        run.kill()
        rest = run.stdout.read().split()
        run.wait()
        run.stdout.close()
        made = max([made, *map(int, rest)])
        assert len(load_all(tmp_path)) >= made + 1


class TestBadFiles:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "damaged: not JSON"),
            ("{", "damaged: not JSON"),
            ("[1]", "not a finding of smpvm"),
            ('{"format": "other"}', "not a finding of smpvm"),
            (json.dumps({**example().to_json(), "version": 99}), "format version 99"),
            (json.dumps({**example().to_json(), "sites": [{"a": 1}]}), "damaged finding: sites"),
            (json.dumps({**example().to_json(), "sites": None}), "damaged finding: sites"),
            (json.dumps({**example().to_json(), "threads": [1]}), "damaged finding: threads"),
            ("[" * 100_000, "damaged: not JSON"),
            (json.dumps({**example().to_json(), "extra": 1}), "damaged finding"),
            *(
                (json.dumps({**example().to_json(), name: value}), f"damaged finding: {name}")
                for name, value in (
                    *(("count", wrong) for wrong in ("x", 0, True)),
                    *(("title", 1), ("fingerprint", 5), ("command", None), ("schedule", 2)),
                    *(("evidence", "text"), ("objects", [1])),
                )
            ),
            (json.dumps({**example().to_json(), "kind": "odd"}), "known are lock-order"),
            (json.dumps({**example().to_json(), "fingerprint": "../../x"}), "12 hexadecimal"),
            (json.dumps({**example().to_json(), "count": 10**4000}), "out of range"),
            ('{"count": 1' + "0" * 9999 + "}", "not JSON"),
            ('{"count": NaN}', "not JSON"),
        ],
    )
    def test_one_clear_line_with_the_file(self, tmp_path, text, says):
        path = tmp_path / "f.json"
        path.write_text(text)
        with pytest.raises(FindingError) as caught:
            load(path)
        assert says in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FindingError, match="No such file"):
            load(tmp_path / "none.json")

    @pytest.mark.parametrize(
        "way", [("title",), ("sites", 0, "what"), ("sites", 0, "stack", 0, "file"), ("threads", 0)]
    )
    @pytest.mark.parametrize("value", [None, 7, [], {}, [[]], {"a": 1}, "x" * 200_000])
    def test_wrong_types_at_any_depth_are_one_line(self, tmp_path, way, value):
        doc = part = example().to_json()
        for step in way[:-1]:
            part = part[step]
        part[way[-1]] = value
        (tmp_path / "f.json").write_text(json.dumps(doc))
        with pytest.raises(FindingError) as caught:
            load(tmp_path / "f.json")
        assert f"damaged finding: {way[0]}" in str(caught.value)
        assert len(str(caught.value)) < 300

    def test_what_is_no_regular_file_is_not_read(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
            with pytest.raises(FindingError, match="not a regular file"):
                load(path)

    def test_a_bomb_is_refused(self, tmp_path):
        (tmp_path / "f.json").write_bytes(gzip.compress(b"{" + bytes(1 << 25)))
        with pytest.raises(FindingError, match="larger than 16 MiB"):
            load(tmp_path / "f.json")

    def test_a_terminal_is_not_told_what_to_do(self, tmp_path):
        save(example(title="\x1b[2Jgone \ud800 → ü"), tmp_path / "f.json")
        title = load(tmp_path / "f.json").lines()[0]
        assert title == "race: \\x1b[2Jgone \\ud800 → ü"

    def test_a_binary_file(self, tmp_path):
        (tmp_path / "f.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(FindingError, match="damaged"):
            load(tmp_path / "f.json")


class TestStacks:
    def test_only_model_and_test_frames_are_kept(self):
        def inner():
            return capture(1)

        shown = resolve(inner())
        assert [f.name.split(".")[-1] for f in shown[:2]] == [
            "inner",
            "test_only_model_and_test_frames_are_kept",
        ]
        assert not any("pytest" in f.file or "pluggy" in f.file for f in shown)
        assert shown[0].file == "tests/check/test_finding.py"

    def test_lines_are_those_of_the_call(self):
        raw = capture(1)
        line = capture.__code__.co_firstlineno
        assert resolve(raw)[0].line != line
        with open(__file__) as source:
            assert "raw = capture(1)" in source.readlines()[resolve(raw)[0].line - 1]

    def test_functions_leave_out_the_primitives(self):
        assert functions(capture(1), 1) == ("TestStacks.test_functions_leave_out_the_primitives",)


def test_a_finding_of_version_1_is_shown_again_by_its_kind_and_objects():
    """Its file does not tell which assertion it was."""
    made = Finding("assertion", "an update is lost", objects=["cell 0"])
    doc = json.loads(json.dumps(made.to_json()))
    assert "written_as" not in doc
    keep = {k: v for k, v in doc.items() if k not in ("identity", "source_hash")}
    old = Finding.from_json(keep | {"version": 1})
    new = Finding.from_json(doc)
    found = Finding("assertion", "in other words", objects=["cell 0"], identity=("by", "place"))
    assert old.shows_again(found)
    assert not new.shows_again(found)
    assert not old.shows_again(replace(found, objects=["cell 1"]))
    assert not old.shows_again(replace(found, kind="race"))
