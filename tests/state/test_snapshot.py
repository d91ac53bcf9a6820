"""A snapshot contains all of a machine's memory, and another machine resumes from it."""

import gzip
import json

import pytest

from smpvm.cli import main
from smpvm.config import Config
from smpvm.conform.carrier import ScriptCarrier
from smpvm.kern.kernel import Kernel
from smpvm.state import StateError
from smpvm.state.snapshot import VERSION, parse, read, restore, take
from smpvm.vm.build import build_vm
from smpvm.workload.profiles import find
from smpvm.workload.stress import StressPlan, run


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A snapshot of a machine that really paged."""
    path = tmp_path_factory.mktemp("snapshot") / "memory.json.gz"
    profile = find("default")
    result = run(StressPlan(profile, profile.machine(pages=256), seconds=2.0, snapshot=path))
    assert result.snapshot.startswith(f"snapshot: {path}"), result.snapshot
    assert result.queues["free"] > 0
    return path


def fresh(config):
    return build_vm(Kernel(ScriptCarrier(), hz=config.hz, ncpus=config.ncpus), config)


def test_a_restored_machine_has_the_same_memory(taken):
    snapshot = read(taken)
    assert snapshot.state["procs"]
    assert snapshot.more["swap"]
    assert snapshot.more["contents"]
    vm = fresh(snapshot.config)
    zombies = [p for p in snapshot.state["procs"] if p["stat"] == "SZOMB"]
    restore(vm, snapshot)
    again = take(vm)
    if not zombies:
        assert again.more == snapshot.more
        for part in ("pages", "queues", "objects", "vnodes", "procs", "maps", "vmstats"):
            assert again.state[part] == snapshot.state[part], part


def test_a_machine_goes_on_from_a_snapshot(taken, capsys):
    code = main(["stress", "--from", str(taken), "--seconds", "1.5", "--repair", "all", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert code == 0, result["findings"]
    assert result["pages"] == 256
    assert result["audit_line"] == "audit: clean"
    assert result["processes"] > 0


def test_a_process_that_nobody_has_waited_for_is_reaped():
    """Its address space is half gone: a restored machine has to know that, to free the rest."""
    config = Config(pages=64, pq_l2_size=4)
    vm = fresh(config)
    p = vm.process.create()
    vm.vmspace.relexit(p.p_vmspace)
    vm.k.proc.move_allproc_zombie(p)
    snapshot = take(vm)
    assert [q["stat"] for q in snapshot.state["procs"]] == ["SZOMB"]
    roster = restore(fresh(config), snapshot)
    assert roster.procs == []


def test_what_is_in_a_snapshot(taken, capsys):
    assert main(["snapshot", str(taken)]) == 0
    assert "256 pages" in capsys.readouterr().out


def refused(capsys, path, words):
    assert main(["stress", "--from", str(path), "--seconds", "1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert words in lines[0]


def test_damaged_files_are_refused_in_one_line(taken, tmp_path, capsys):
    path = tmp_path / "x.json"
    refused(capsys, path, "No such file")
    path.write_bytes(taken.read_bytes()[:3000])
    refused(capsys, path, "truncated")
    path.write_text("hello")
    refused(capsys, path, "damaged: not JSON")
    path.write_text('{"format": "other"}')
    refused(capsys, path, "not a snapshot")
    document = json.loads(gzip.decompress(taken.read_bytes()))
    for change, words in (
        ({"version": VERSION + 1}, f"version {VERSION + 1}"),
        ({"config": {"pagez": 1}}, "config: unknown key 'pagez'"),
        ({"config": {"pages": -1}}, "config: pages: -1"),
        ({"config": {"pages": "many"}}, "config pages: 'many' is not a number"),
        ({"state": 7}, "state: 7 is not an object"),
        ({"more": 7}, "more: 7 is not an object"),
    ):
        path.write_text(json.dumps(document | change))
        refused(capsys, path, words)
    page = document["state"]["pages"][0]
    page["flags"] = [*page.get("flags", []), "LOUD"]
    path.write_text(json.dumps(document))
    refused(capsys, path, "page 0 flags: unknown flag 'LOUD'")


def test_a_state_in_motion_is_not_gone_on_from(taken):
    for spoil, words in (
        (lambda s: s["pages"][0].update(flags=[*s["pages"][0].get("flags", []), "BUSY"]), "BUSY"),
        (lambda s: s["objects"][0].update(hold_count=1), "object 0: in use"),
        (lambda s: s["vnodes"][0].update(locked_by_other=True), "vnode 0: locked"),
    ):
        snapshot = read(taken)
        spoil(snapshot.state)
        with pytest.raises(StateError, match=words):
            restore(fresh(snapshot.config), snapshot)


def test_processes_need_more_than_the_bare_state(taken):
    snapshot = read(taken)
    snapshot.more.clear()
    with pytest.raises(StateError, match="have what they need"):
        restore(fresh(snapshot.config), snapshot)


def test_the_machine_must_fit(taken):
    snapshot = read(taken)
    with pytest.raises(StateError, match="the snapshot has 256 pages"):
        restore(fresh(Config(pages=512, pq_l2_size=snapshot.config.pq_l2_size)), snapshot)
    assert parse(snapshot.to_json()).config == snapshot.config


def test_sizes_belong_to_the_snapshot(taken, capsys):
    assert main(["stress", "--from", str(taken), "--pages", "300"]) == 2
    assert "--pages cannot be combined with --from" in capsys.readouterr().err
