"""The public API of scenarios on the VM: the example of its documentation, and what it refuses."""

import inspect
import textwrap

import pytest

import smpvm
from smpvm import Change, Config, Machine, Scenario, VmScenario
from smpvm.cli import main
from smpvm.explore.search import Search, SearchPlan
from smpvm.scenarios import base
from smpvm.vm.object.objects import Objects
from smpvm.vm.page.pages import Pages


def test_the_package_exports_what_users_write_against():
    assert set(smpvm.__all__) == {"Change", "Config", "Machine", "Scenario", "VmScenario"}
    assert issubclass(VmScenario, Scenario)
    assert (Machine.__name__, Config.__name__) == ("Machine", "Config")
    with pytest.raises(AttributeError, match="nonesuch"):
        smpvm.nonesuch  # noqa: B018


def example():
    """The class in the documentation of ``VmScenario``."""
    text = inspect.getdoc(base).split("::\n", 1)[1].split("\nWhat must hold", 1)[0]
    names = {"__name__": "example"}
    exec(textwrap.dedent(text), names)
    return names["StoreAndScan"]


class LosesStores(Change, Pages):
    """A page never becomes dirty."""

    def dirty(self, m):
        pass


def explored(scenario, schedules=60):
    return Search(scenario, SearchPlan("random", schedules, shrink=False)).run()


def test_the_example_is_clean_and_notices_a_broken_kernel():
    assert explored(example()).findings == []

    class Broken(example()):
        "The same with a change."

        changes = (LosesStores,)

    assert {f.kind for f in explored(Broken).findings} & {"assertion", "audit"}


class WholeLanguage(VmScenario):
    """What plain scenarios have is there, too."""

    def setup(self):
        self.obj = self.object(swap=True)
        self.m = self.page(self.obj, 0, "active", words={0: 7}, dirty=True)
        self.swapped(self.obj, 1, {0: 8})
        self.p, self.vp = self.process(), self.file({0: 1})
        self.l, self.c = self.spinlock("l"), self.shared(n=0)
        self.disks()
        self.thread("a", self.one, 5, process=self.p)
        self.thread("b", self.other)

    def one(self, value):
        assert self.k.curthread().proc is self.p
        va = self.map(self.p, vp=self.vp)
        self.write(self.p, va, value)
        assert self.read(self.p, va) == value
        kid = self.spawn("kid", self.other)
        assert self.join(kid)

    def other(self):
        self.l.lock()
        self.c.n = self.c.n + 1
        self.l.unlock()
        self.scan_active()

    def check(self):
        return self.c.n == 2 and self.see(self.p, base.VA) == 5


def test_one_language():
    assert explored(WholeLanguage, 20).findings == []

    class No(WholeLanguage):
        "A check that says no."

        def check(self):
            return False

    assert {f.title for f in explored(No, 1).findings} == {"check returned False"}


HEAD = """
from smpvm import VmScenario

class It(VmScenario):
    "Wrong."
    def setup(self):
        self.p = self.process()
        self.thread("a", self.body)
    def body(self):
        pass
"""

WRONG = {
    "sysctls = {'nonesuch': 1}": "sysctl nonesuch: unknown; known are anonmem_decline",
    "sysctls = {'swap_enabled': '1'}": "sysctl swap_enabled: '1' is not a whole number",
    "sysctls = {'swap_enabled': 2}": "sysctl swap_enabled: 2 is out of range, allowed 0 to 1",
    "sysctls = 5": "sysctls: 5: a mapping is expected",
    "pages = '6'": "pages: a whole number, 1 or more, is expected, not '6'",
    "changes = (int,)": "changes: int: a change is a subclass of exactly one subsystem of the VM",
    "changes = (5,)": "changes: 5: a change is a class",
}
WRONG_IN_SETUP = {
    "self.page(self.object(), 0, 'inactiv')": "page: there is no queue 'inactiv'",
    "[self.page(self.object(), 0) for _ in range(9)]": "page: no page is free",
    "self.limits(nonesuch=1)": "limits: there is no v_nonesuch in vmstats",
    "self.page_at(self.p, 0x100000)": "has no page at 0x100000",
    "self.pagedaemon(self.gen)": "pagedaemon: It.gen is a generator function",
    "self.thread('b', 5, process=self.p)": "thread 'b': a function is expected, not 5",
    "self.vm.sysctl.nonesuch = 1": "sysctl nonesuch: unknown",
}
GEN = "    def gen(self):\n        yield\n"


def refused(capsys, tmp_path, text):
    path = tmp_path / "it.py"
    path.write_text(text)
    code = main(["explore", str(path), "--schedules", "2"])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    return err


@pytest.mark.parametrize("code", WRONG)
def test_mistakes_of_the_class_are_one_line(capsys, tmp_path, code):
    text = HEAD.replace("    def setup", f"    {code}\n    def setup")
    assert WRONG[code] in refused(capsys, tmp_path, text)


@pytest.mark.parametrize("code", WRONG_IN_SETUP)
def test_mistakes_of_the_set_up_are_one_line(capsys, tmp_path, code):
    text = HEAD.replace("        self.thread", f"        {code}\n        self.thread") + GEN
    assert WRONG_IN_SETUP[code] in refused(capsys, tmp_path, text)


def test_a_change_is_of_exactly_one_subsystem():
    with pytest.raises(TypeError, match="Nothing: a change is a subclass of exactly one"):

        class Nothing(Change):
            pass

    with pytest.raises(TypeError, match="not of Pages and Objects"):

        class Two(Change, Pages, Objects):
            pass


def test_changes_of_one_subsystem_stand_in_front_of_each_other():
    class First(Change, Pages):
        def hold(self, m):
            said.append("first")
            super().hold(m)

    class Second(Change, Pages):
        def hold(self, m):
            said.append("second")
            super().hold(m)

    class Both(VmScenario):
        "Two changes."

        changes = (First, Second)

        def setup(self):
            m = self.page(self.object(), 0)
            self.vm.page.hold(m)
            self.vm.page.unhold(m)
            self.thread("a", int)

    said = []
    assert explored(Both, 1).findings == []
    assert said == ["first", "second"]
