"""The C index: each method of a subsystem names its C function, and the page is current."""

import ast
import inspect
import json
from collections import Counter
from pathlib import Path

import pytest

import smpvm
from smpvm.cli import main
from smpvm.kern.atomic import Atomics, ProbedAtomics
from smpvm.kern.cname import MARKS, CName
from smpvm.kern.kernel import Kernel, default_parts
from smpvm.kern.lockmgr import Lock
from smpvm.kern.spinlock import Spinlock, SpinPool
from smpvm.kern.token import Token
from smpvm.report import cindex
from smpvm.vm.build import SUBSYSTEMS
from smpvm.vm.pageout.coverage import BRANCHES, COVERAGE, SOURCE, Row

ROOT = Path(smpvm.__file__).parent
PAGE = ROOT.parent / "docs" / "c-index.md"
PARTS = [
    *SUBSYSTEMS.values(),
    *default_parts().values(),
    *(Kernel, Atomics, ProbedAtomics, Spinlock, SpinPool, Token, Lock),
]


def public_functions(cls):
    """The public methods and properties of a class and of what it is made of, in smpvm."""
    for base in cls.__mro__:
        if not base.__module__.startswith("smpvm."):
            continue
        for name, f in vars(base).items():
            f = f.fget if isinstance(f, property) else getattr(f, "__func__", f)
            if not name.startswith("_") and inspect.isfunction(f := inspect.unwrap(f)):
                yield f


def nameless(cls):
    return sorted(f.__qualname__ for f in public_functions(cls) if not MARKS.has(f.__code__))


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__name__)
def test_a_public_method_names_its_c_function_or_is_the_models_own(cls):
    assert nameless(cls) == []


def test_the_rule_finds_a_method_without_a_name():
    class Bad:
        __module__ = "smpvm.vm.bad"

        def nameless(self):
            pass

        @property
        def too(self):
            pass

    assert len(nameless(Bad)) == 2


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == cindex.markdown(), "run: smpvm c > docs/c-index.md"


def inside(inner, outer):
    return all(any(a <= c and d <= b for a, b in outer.ranges) for c, d in inner.ranges)


def test_steps_lie_in_their_functions():
    bad = []
    for entry in cindex.index():
        whole = [CName("", m.where) for m in entry.methods if not m.part]
        steps = [CName("", m.where) for m in entry.methods if m.part]
        bad += [s.where for s in steps if whole and not any(inside(s, w) for w in whole)]
        bad += [m.where for m in (*whole, *steps) if any(a > b for a, b in m.ranges)]
    assert bad == []


def test_branches_lie_in_their_functions():
    whole = {row.function: CName("", f"{SOURCE}:{row.lines}") for row in COVERAGE if not row.branch}
    assert {row.function for row in BRANCHES} <= set(whole)
    for row in BRANCHES:
        assert inside(CName("", f"{SOURCE}:{row.lines}"), whole[row.function]), row.name
    assert COVERAGE[0] == Row("vm_pageout_clean", "", "243-365")


def used_names():
    """Every name that is read or called somewhere in smpvm, and how often each is defined."""
    used, defined = set(), Counter()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.FunctionDef):
                defined[node.name] += 1
    return used, defined


def test_what_has_no_caller_says_so():
    used, defined = used_names()
    for f, mark in cindex.marked():
        name = f.__name__
        if mark.c and not name.startswith("__"):
            if name not in used:
                assert mark.uncalled, f"{f.__qualname__} has no caller"
            elif defined[name] == 1:
                assert not mark.uncalled, f"{f.__qualname__} has a caller"


def test_vectors_are_counted_where_there_are_some(tmp_path):
    assert cindex.vector_counts()["PQAVERAGE"] == 3
    assert cindex.vector_counts(tmp_path / "none") is None


def run(capsys, *argv):
    code = main(["c", *argv])
    return (code, *capsys.readouterr())


def test_a_c_function_is_found(capsys):
    code, out, _ = run(capsys, "vm_page_busy_wait")
    assert code == 0
    first, method, *facts = out.splitlines()
    assert first == "vm_page_busy_wait vm_page.c:816-849"
    assert method.startswith("  PageBusy.busy_wait  smpvm/vm/page/busy.py:")
    assert facts[:3] == [
        "    held on entry:  no spinlock",
        "    held on return: m busied",
        "    may block:      yes",
    ]
    assert facts[-1] == "  conformance vectors: 12"


def test_a_long_function_shows_its_steps(capsys):
    _, out, _ = run(capsys, "vm_pageout_clean")
    assert "    307-331      Clean.cluster_back" in out


@pytest.mark.parametrize("name", ["busy_wait", "PageBusy.busy_wait", "Pages.busy_wait"])
def test_a_method_is_found_by_any_of_its_names(capsys, name):
    code, out, _ = run(capsys, name)
    assert code == 0
    assert out.startswith("vm_page_busy_wait vm_page.c:816-849\n")


def test_a_step_says_of_what_it_is_one(capsys):
    code, out, _ = run(capsys, "ScanBase.scan_close")
    assert code == 0
    assert "vm_pageout_page_stats vm_pageout.c\n" in out
    assert ", a step: lines 1754-1755\n    held on entry:  queue spinlock\n" in out


def test_a_function_without_a_caller_says_so(capsys):
    _, out, _ = run(capsys, "lockcount")
    assert ", not called yet\n" in out


def test_the_models_own_is_said_to_be_so(capsys):
    code, out, _ = run(capsys, "user_write")
    assert (code, out.split(": ")[1]) == (0, "the model's own, not in the C\n")


def test_as_json(capsys):
    code, out, _ = run(capsys, "lockcount", "--json")
    (entry,) = json.loads(out)["functions"]
    assert code == 0
    assert entry["where"] == "kern_lock.c:819-823"
    assert entry["methods"][0]["uncalled"] is True


def test_an_unknown_name_is_one_line_with_names_like_it(capsys):
    code, out, err = run(capsys, "vm_page_busi_try")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'vm_page_busi_try'; like it are vm_page_busy_try" in err


def test_without_a_name_it_is_the_page(capsys):
    code, out, _ = run(capsys)
    assert (code, out) == (0, cindex.markdown())
