"""Programs run as scenarios: legal ones without an error of the harness, and the oracle works."""

import pytest

from smpvm import Change
from smpvm.explore.engine import Settings, collected, execute
from smpvm.explore.registry import find
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.explore.strategy.replay import Replay
from smpvm.explore.trace.schedule import Schedule
from smpvm.fuzz.generate import generate
from smpvm.fuzz.operations import OPERATIONS
from smpvm.fuzz.program import parse
from smpvm.fuzz.scenario import FuzzProgram, of_program, saved
from smpvm.fuzz.shape import STATES
from smpvm.repairs.catalogue import REPAIRS
from smpvm.vm.pager.disk import Disk
from smpvm.vm.pmap.pmaps import Pmaps

QUICK = Settings(digest=False, limit=20_000, checks=frozenset())


def run(spec, settings=QUICK, n=0, strategy="random"):
    return execute(find(spec), make_strategy(strategy, seed=n), settings, n)


def test_programs_run():
    done, names = 0, set()
    with collected() as collector:
        for seed in range(400):
            program = generate(seed, 1 + seed % 5)
            names |= {op.name for op in program.ops()}
            outcome = execute(of_program(program), make_strategy("random", seed=seed), QUICK, 0)
            wrong = [f for f in outcome.findings if "internal" in f.title or "Error" in f.title]
            assert not wrong, f"{program}: {wrong[0].title}"
            done += not outcome.stuck
            outcome.forget()
            collector.after()
    assert done > 390
    assert names == set(OPERATIONS)


@pytest.mark.parametrize("kind", ["anon", "shared", "file", "private", "stack"])
@pytest.mark.parametrize("state", STATES)
def test_every_start_holds_what_it_says(kind, state):
    name = "f" if kind in ("file", "private") else "x"
    try:
        program = parse(f"start: {name} {kind} 2 {state} | a: read {name}+0; read {name}+1")
    except ValueError:
        assert kind == "stack"
        return
    outcome = execute(
        of_program(program), make_strategy("random"), Settings(repairs=tuple(REPAIRS)), 0
    )
    lost = [f.title for f in outcome.findings]
    assert lost == []


@pytest.mark.parametrize("state", [s for s in STATES if s not in ("unmapped", "touched")])
@pytest.mark.parametrize("region", ["x anon", "f private"])
def test_a_set_up_waits_for_nobody(region, state):
    outcome = run(f"fuzz:start: {region} 2 {state} chain3 | kernel: ask syncer")
    assert all(tid for tid, *_ in outcome.carrier.log), "the boot thread has slept"


def test_a_chain_of_three():
    made = []

    class Looks(FuzzProgram):
        text = "start: x anon 2 resident chain3 | a: read x+0"

        def check(self):
            obj = self.object_at(self.lives["a"].p, self.va("x", 0))
            while obj is not None:
                made.append(obj)
                obj = obj.backing_object

    execute(Looks, make_strategy("random"), QUICK, 0)
    assert len(made) == 3


class LosesWrites(Change, Pmaps):
    """A store that is lost, where the word was written before."""

    def access(self, pmap, va, write, word, value):
        if write and word == 1 and value & 1 == 0:
            write = False
        return super().access(pmap, va, write, word, value)


def test_a_lost_store_is_stale_data():
    class Lost(FuzzProgram):
        text = "start: x anon 1 resident | a: write x+0; read x+0; write x+0; read x+0"
        changes = (LosesWrites,)

    outcome = execute(Lost, make_strategy("random"), QUICK, 0)
    assert [f.kind for f in outcome.findings] == ["stale-data"]
    assert "word 1 of x+0" in outcome.findings[0].title


def test_a_refused_access_that_nothing_explains_is_a_finding():
    class Refuses(Change, Pmaps):
        def access(self, pmap, va, write, word, value):
            from smpvm.vm.proc.process import SegFault

            raise SegFault(self.k.curthread().proc, va, 1)

    text = "start: x anon 1 empty | a: read x+0"
    refused = type("Refused", (FuzzProgram,), {"text": text, "changes": (Refuses,)})
    assert [f.kind for f in execute(refused, make_strategy("random"), QUICK, 0).findings] == [
        "stale-data"
    ]
    explained = type("E", (FuzzProgram,), {"text": text + "; munmap x", "changes": (Refuses,)})
    assert execute(explained, make_strategy("random"), QUICK, 0).findings == []


def test_an_io_error_of_the_program_is_the_disks(monkeypatch):
    failed = []
    verdict = Disk.verdict
    monkeypatch.setattr(
        Disk, "verdict", lambda self, io: failed.append(verdict(self, io)) or failed[-1]
    )
    run("fuzz:start: x anon 1 swapped | a: fork | kernel: fail swap-read", n=1)
    run("fuzz:start: x anon 1 swapped | a: read x+0 | kernel: fail swap-read", n=3)
    assert any(failed)


def test_explore_replays_a_program_by_its_text():
    spec = "fuzz:start: x anon 1 wired | a: exec"
    report = Search(find(spec), SearchPlan(schedules=3, settings=QUICK)).run()
    (finding,) = report.findings
    assert finding.kind == "audit"
    schedule = Schedule.parse(finding.schedule)
    assert schedule.scenario == spec
    for carrier in ("greenlet", "thread"):
        again = Replay(schedule)
        outcome = execute(find(spec), again, Settings(carrier=carrier))
        assert outcome.find(finding.fingerprint)
        assert not again.diverged


def test_a_saved_program_is_a_scenario_file(tmp_path):
    text = "start: x anon 1 wired | a: exec"
    path = tmp_path / "found.py"
    path.write_text(saved([("a 'title'", parse(text))]))
    scenario = find(f"{path}:Found1")
    assert scenario.title == "a 'title'"
    assert scenario.program == parse(text)
    assert execute(scenario, make_strategy("random"), QUICK, 0).findings
