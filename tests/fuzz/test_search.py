"""The search: the same again for a seed, feedback that helps, shrinking, the table of pairs."""

import json
from dataclasses import replace

import pytest

from smpvm import Change
from smpvm.explore.engine import Settings, execute
from smpvm.explore.shrink import Budget
from smpvm.explore.strategy.portfolio import make_strategy
from smpvm.fuzz import generate, search
from smpvm.fuzz.corpus import FILE, Corpus, CorpusError
from smpvm.fuzz.interactions import Interactions
from smpvm.fuzz.known import known
from smpvm.fuzz.operations import OPERATIONS
from smpvm.fuzz.pairs import Pairs, cells, operations, starts
from smpvm.fuzz.program import parse
from smpvm.fuzz.scenario import FuzzProgram, of_program
from smpvm.fuzz.search import SETTINGS, Fuzz, FuzzPlan
from smpvm.fuzz.shape import Start
from smpvm.fuzz.shrink import shrink
from smpvm.fuzz.target import Target, TargetError
from smpvm.repairs.catalogue import REPAIRS
from smpvm.vm.pageout.daemon import Pageout

REPAIRED = replace(SETTINGS, repairs=tuple(REPAIRS))
PLAN = FuzzPlan(programs=8, seed=5, shrink=False, settings=REPAIRED)


def told(report):
    doc = report.to_json()
    return {k: v for k, v in doc.items() if k not in ("seconds", "interactions_an_hour")}


def test_the_same_seed_does_the_same():
    one, other = Fuzz(PLAN).run(), Fuzz(PLAN).run()
    assert told(one) == told(other)
    assert one.corpus.kept == other.corpus.kept
    assert Fuzz(replace(PLAN, seed=6)).run().corpus.seen != one.corpus.seen


def test_a_corpus_goes_on_where_it_stopped(tmp_path):
    plan = replace(PLAN, corpus=tmp_path / "corpus")
    first = Fuzz(plan).run()
    assert Corpus.load(plan.corpus) == first.corpus
    second = Fuzz(plan).run()
    assert second.corpus.programs == 16
    assert len(second.corpus.pairs) > len(first.corpus.pairs) > 0
    assert set(second.corpus.seen) > set(first.corpus.seen)
    assert [k.program for k in second.corpus.kept][: len(first.corpus.kept)] == [
        k.program for k in first.corpus.kept
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda doc: doc.update(version=9), "version 9"),
        (lambda doc: doc.pop("seen"), "KeyError"),
        (lambda doc: doc.update(kept=[{"program": "q", "shown": [], "runs": 0}]), "program: "),
        (lambda doc: doc.update(pairs="x"), "hexadecimal"),
        (lambda doc: doc.update(programs=-1), "-1 is not a count"),
    ],
)
def test_a_damaged_corpus_is_refused_in_one_line(tmp_path, change, words):
    Corpus().save(tmp_path)
    path = tmp_path / FILE
    doc = json.loads(path.read_text())
    change(doc)
    path.write_text(json.dumps(doc))
    with pytest.raises(CorpusError) as refused:
        Corpus.load(tmp_path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    path.write_text("{")
    with pytest.raises(CorpusError):
        Corpus.load(tmp_path)


# -- the table


def test_the_table_of_pairs_can_be_finished():
    table = cells()
    assert len(table) == len(set(table))
    per_start = [len(operations(region)) for region in starts()]
    assert len(table) == sum(n * (n + 1) // 2 for n in per_start)
    pairs = Pairs(0, set(range(len(table) - 3)))
    left = [pairs.next() for _ in range(4)]
    assert left[3] is None
    assert len(pairs.done) == len(table)


def test_parts_of_the_table_are_disjoint():
    def some(part):
        pairs = Pairs(0, set(), part)
        for _ in range(50):
            pairs.next()
        return pairs.done

    assert not some((0, 2)) & some((1, 2))


def test_a_small_cell_is_proven():
    fuzz = Fuzz(PLAN)
    with search.collected() as fuzz.collector:
        program = parse("start: x anon 1 unmapped | a: rss 1 | b: rss 2")
        fuzz._new(program, prove=True)
    assert fuzz.corpus.proven == 1


# -- feedback


class Maze(Change, Pageout):
    """Scans in a certain order end in a panic; each step of the way is a branch of its own."""

    WAY = ("stats", "active", "inactive", "stats", "active")
    stage = 0

    def _step(self, name):
        if self.WAY[self.stage] == name:
            self.stage += 1
            self.k.curthread().hit(f"maze:{self.stage}")
            if self.stage == len(self.WAY):
                self.k.panic("planted", "the end of the maze")

    def scan_active(self, *args):
        self._step("active")
        return super().scan_active(*args)

    def scan_inactive(self, *args):
        self._step("inactive")
        return super().scan_inactive(*args)

    def page_stats(self, q):
        self._step("stats")
        super().page_stats(q)


@pytest.fixture
def maze(monkeypatch):
    """Programs of scans only, on a machine with the maze in it."""
    scans = tuple(OPERATIONS[n] for n in ("inactive", "active", "stats", "cache"))
    monkeypatch.setattr(FuzzProgram, "changes", (Maze,))
    monkeypatch.setattr(generate, "KERNEL", scans)
    monkeypatch.setattr(generate, "USER", (OPERATIONS["wait"],))
    monkeypatch.setattr(generate, "OFTEN", ("stats", "active", "inactive"))
    monkeypatch.setattr(generate, "THREADS", ("a", "pageout"))
    monkeypatch.setattr(generate.Maker, "start", lambda self: Start())


def until_found(feedback, seed, most=250):
    """Executions until the end of the maze; at most four for each of *most* programs."""
    settings = Settings(digest=False, limit=20_000, checks=frozenset())
    plan = FuzzPlan(
        programs=most, seed=seed, feedback=feedback, pairs=False, settings=settings, shrink=False
    )
    return Fuzz(replace(plan, stop_on_first=True)).run().executions


def test_feedback_finds_a_planted_bug_sooner(maze):
    assert until_found(True, seed=3) < until_found(False, seed=3)


def test_interactions_are_of_two_threads():
    watch = Interactions()
    alone = parse("start: x anon 1 resident | a: write x+0; read x+0")
    execute(of_program(alone), make_strategy("random"), SETTINGS, 0, (watch,))
    one = watch.take()
    both = parse("start: x anon 1 resident | a: write x+0; read x+0 | pageout: inactive 1; active")
    execute(of_program(both), make_strategy("random"), SETTINGS, 0, (watch,))
    two = watch.take()
    assert not any("scan_active" in pair for pair in one.pairs)
    assert any("scan_active" in pair and "vm_fault" in pair for pair in two.pairs)
    assert "branch vm_pageout_scan_active" in two.branches
    assert any(o.startswith("order ") for o in two.orders)
    for pair in two.pairs:
        field, _, places = pair.partition(": ")
        assert field.isidentifier()
        assert " > " in places


# -- shrinking and knowing


def test_a_program_is_shrunk():
    program = parse(
        "start: x anon 3 wired chain3; f file 2 resident; colours 4; locks 1 | "
        "a: read x+1; fork write x+2; exec; wait | b: read x+0 | pageout: stats; inactive 1"
    )
    settings = Settings(digest=False, checks=frozenset())
    outcome = execute(of_program(program), make_strategy("random"), settings, 0)
    (finding,) = outcome.findings
    mark = finding.fingerprint
    least, shown = shrink(program, mark, settings, Budget(steps=2_000_000))
    assert shown.find(mark)
    assert least.text == "start: x anon 1 wired | a: exec"
    assert known(least, mark, settings) == ["unwire-object"]
    assert known(least, mark, replace(settings, repairs=tuple(REPAIRS))) == []


# -- aiming


def test_a_line_of_the_c_is_a_target():
    where = "vm_pageout.c:1075"
    target = Target(where)
    quiet = parse("start: x anon 1 resident | a: read x+0")
    execute(of_program(quiet), make_strategy("random"), SETTINGS, 0, (target,))
    target.close()
    assert not target.reached
    report = Fuzz(replace(PLAN, cover="vm_pageout.c:1912", programs=80)).run()
    assert report.covered.startswith("vm_pageout.c:1912: reached by fuzz:")


@pytest.mark.parametrize("where", ["vm_pageout.c", "1075", "vm_pageout.c:999999", "nosuch.c:1"])
def test_a_target_that_cannot_be_is_refused(where):
    with pytest.raises(TargetError):
        Target(where)
