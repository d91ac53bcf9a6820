"""A finding says whether it is known: the catalogue's defect, and what repairs it."""

import json

import pytest

from smpvm.check.finding import Finding, FindingError, FindingLog, new_first, show
from smpvm.cli import main
from smpvm.repairs.catalogue import REPAIRS, shown
from smpvm.repairs.known import KNOWN

MARK = next(mark for mark, names in KNOWN.items() if names == ("msync-range",))
KNOWN_LINE = "known: msync-range (vm_object_page_clean"


def finding(mark=MARK, **more):
    return Finding("assertion", "t", fingerprint=mark, **more)


def test_every_row_names_repairs():
    for mark, names in KNOWN.items():
        assert len(mark) == 12
        assert names
        assert set(names) <= REPAIRS.keys()


def test_a_finding_of_a_run_says_the_repair():
    log = FindingLog()
    found = log.add(finding())
    assert found.known == ("msync-range",)
    (line,) = found.known_lines()
    assert line.startswith(KNOWN_LINE)
    assert line.endswith("; --repair msync-range")
    assert "  " + line in found.lines()
    assert found.to_json()["known"] == ("msync-range",)


@pytest.mark.parametrize("repaired", ["msync-range", "all"])
def test_what_is_found_in_spite_of_the_repair_is_not_its_defect(repaired):
    assert FindingLog(repairs=[repaired]).add(finding()).known == ()
    assert shown(MARK, [repaired]) == ()


def test_files_say_it_and_old_ones_are_looked_up():
    doc = json.loads(json.dumps(finding(known=("msync-range",)).to_json()))
    assert Finding.from_json(doc).known == ("msync-range",)
    assert Finding.from_json({**doc, "known": []}).known == ()
    del doc["known"]
    assert Finding.from_json(doc).known == ("msync-range",)
    with pytest.raises(FindingError, match="known"):
        Finding.from_json({**doc, "known": "x"})


def test_new_ones_come_first():
    old, new = finding(known=("msync-range",)), finding("0" * 12)
    assert new_first([old, new]) == [new, old]
    assert show([old, new]).index("0" * 12) < show([old, new]).index(MARK)


def explored(capsys, *options):
    code = main(["explore", "msync-pageout", "--schedules", "20", "--no-shrink", *options])
    return code, capsys.readouterr().out


def test_explore_says_it(capsys):
    code, out = explored(capsys)
    assert code == 1
    assert KNOWN_LINE in out
    code, out = explored(capsys, "--json")
    (report,) = json.loads(out)["scenarios"]
    assert [f["known"] for f in report["findings"]] == [["msync-range"]] * len(report["findings"])


def test_known_hide(capsys):
    code, out = explored(capsys, "--known", "hide")
    assert code == 3
    assert "hidden, because known: msync-range (" in out
    assert "fingerprint" not in out
    code, out = explored(capsys, "--known", "hide", "--json", "--stop-on-first")
    (report,) = json.loads(out)["scenarios"]
    assert (code, report["findings"], report["verdict"]) == (3, [], "inconclusive")
    assert report["executions"] == 20
    assert report["hidden"].keys() == {"msync-range"}
