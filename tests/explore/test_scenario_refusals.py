"""Misuse of the scenario API gives one line and exit code 2, no proof and no finding."""

from enum import Enum

import pytest

from smpvm import Scenario
from smpvm.cli import main
from smpvm.explore.engine import Settings, execute
from smpvm.explore.registry import ScenarioError, find
from smpvm.explore.scenario import rules
from smpvm.explore.search import Search, SearchPlan
from smpvm.explore.strategy.portfolio import make_strategy

HEAD = """
from functools import partial
from smpvm import Scenario

class It(Scenario):
    "Wrong."
    def setup(self):
        self.c = self.shared(n=0, d=None)
        self.l = self.spinlock("l")
        self.thread("a", self.body)
    def body(self):
        pass
"""

IN_SETUP = {
    "self.shared(d={})": "shared field d: a value of type dict can change",
    "self.shared(d=[])": "a value of type list can change",
    "self.shared(d=set())": "a value of type set can change",
    "self.shared(d=bytearray(2))": "a value of type bytearray can change",
    "self.shared(d=(1, [2]))": "a value of type tuple can change",
    "self.shared(d=object())": "a value of type object can change",
    "self.shared(d=self)": "a value of type It can change",
    "self.shared(d=lambda: 0)": "a value of type function can change",
    "self.array(2, [])": "array[0]: a value of type list can change",
    "self.table(['x'], {})": "table['x']: a value of type dict can change",
    "self.table([[]])": "a key of table: a value of type list can change",
    "self.table([1, 1])": "a key occurs twice",
    "self.local(x=[])": "local x: a value of type list can change",
    "self.shared(id=1)": "'id' cannot be the name of a field",
    "self.shared(benign={'m': 'so'}, n=0)": "benign: there is no field 'm'",
    "self.shared(benign={'n': 1}, n=0)": "benign n: a string is expected, not 1",
    "self.spinlock(3)": "spinlock: a string is expected, not 3",
    "self.token('')": "token: a string is expected, not ''",
    "self.lock(None)": "lock: a string is expected",
    "self.lock('l', timo='x')": "lock timo: a whole number, 0 or more, is expected, not 'x'",
    "self.rwlock(1)": "rwlock: a string is expected",
    "self.condvar(1)": "condvar: a string is expected",
    "self.semaphore('s', -1)": "semaphore: a whole number, 0 or more, is expected, not -1",
    "self.semaphore('s', True)": "semaphore: a whole number",
    "self.barrier('b', 0)": "barrier: a whole number, 1 or more",
    "self.array('x')": "array: a whole number",
    "self.thread(1, self.body)": "thread name: a string is expected, not 1",
    "self.thread('a', self.body())": "thread 'a': a function is expected, not None",
    "self.thread('a', self.gen)": "thread 'a': It.gen is a generator function",
    "self.thread('a', partial(self.gen, 1))": "It.gen is a generator function",
    "self.thread('a', self.co)": "It.co is a coroutine function",
    "self.daemon('a', self.agen)": "It.agen is a coroutine function",
    "self.thread('a', self.Body())": "is a generator function",
}

IN_THREAD = {
    "self.c.d = {}": "shared field d: a value of type dict can change",
    "self.atomic.swap_int(self.c, 'n', [])": "shared field n: a value of type list can change",
    "self.relax()": "relax() needs something to watch",
    "self.relax(self.c.n)": "relax: 0 is a value, which cannot be watched",
    "self.tsleep('x', cond=self.c.n)": "tsleep cond: a function is expected, not 0",
    "self.tsleep('x', timo=-1)": "tsleep timo: a whole number",
    "self.join('a')": "join: a thread is expected, not 'a'",
    "self.spawn('b', self.gen)": "It.gen is a generator function",
    "self.condvar('cv').wait(self.c)": "is not a lock to wait with",
    "self.l.lock(timo='x')": "lock timo: a whole number",
    "return self.gen()": "the body returned the generator It.gen, which never runs",
}

MORE = """
    def gen(self, i=0):
        yield
    async def co(self):
        pass
    async def agen(self):
        yield
    class Body:
        def __call__(self):
            yield
"""


def refused(capsys, tmp_path, text, *argv):
    """The one line that exploring *text* ends with."""
    path = tmp_path / "it.py"
    path.write_text(text)
    code = main(["explore", str(path), "--schedules", "4", *argv])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "internal" not in err
    return err


@pytest.mark.parametrize("code", IN_SETUP)
def test_in_the_set_up(capsys, tmp_path, code):
    text = HEAD.replace("        self.thread", f"        {code}\n        self.thread") + MORE
    err = refused(capsys, tmp_path, text)
    assert f"set-up: {IN_SETUP[code]}" in err or (": " in err and IN_SETUP[code] in err)
    assert "it.py:10)" in err


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("code", list(IN_THREAD)[:1])
def test_in_a_thread_of_a_worker(capsys, tmp_path, code, jobs):
    text = HEAD.replace("        pass", f"        {code}")
    assert "thread 'a': " + IN_THREAD[code] in refused(capsys, tmp_path, text, "--jobs", jobs)


@pytest.mark.parametrize("code", IN_THREAD)
def test_in_a_thread(capsys, tmp_path, code):
    text = HEAD.replace("        pass", f"        {code}") + MORE
    err = refused(capsys, tmp_path, text)
    assert "thread 'a': " in err
    assert IN_THREAD[code] in err
    assert "it.py:12)" in err or "returned" in code or "return " in code


CLASS = {
    "name = 5": "name: a string is expected, not 5",
    "title = 5": "title: a string is expected, not 5",
    "repairs = 'all'": "repairs: a tuple of names is expected, not 'all'",
    "repairs = (1,)": "repairs: a tuple of names is expected",
    "repairs = ('nonesuch',)": "repair nonesuch: unknown",
    "sizes = 5": "sizes: 5: a mapping is expected",
    "sizes = {'n': '1'}": "sizes: 'n': '1': a name and its smallest value are expected",
    "spin_pool = 0": "spin_pool: a whole number, 1 or more",
    "check = 5": "check: a function is expected, not 5",
}


@pytest.mark.parametrize("code", CLASS)
def test_of_the_class(capsys, tmp_path, code):
    text = HEAD.replace("    def setup", f"    {code}\n    def setup")
    assert CLASS[code] in refused(capsys, tmp_path, text)


def test_generators_as_set_up_or_check(capsys, tmp_path):
    text = HEAD + "    def check(self):\n        yield\n"
    assert "check: It.check is a generator function" in refused(capsys, tmp_path, text)
    text = HEAD.replace("        self.thread", "        yield\n        self.thread")
    assert "setup: It.setup is a generator function" in refused(capsys, tmp_path, text)
    text = HEAD + "    def check(self):\n        return (i for i in (0,))\n"
    assert "check: the body returned the generator" in refused(capsys, tmp_path, text)


def test_a_set_up_that_starts_no_thread(capsys, tmp_path):
    text = HEAD.replace('        self.thread("a", self.body)\n', "")
    assert "set-up: it starts no thread" in refused(capsys, tmp_path, text)
    text = HEAD.replace('self.thread("a"', 'self.daemon("a"')
    assert "set-up: it starts no thread" in refused(capsys, tmp_path, text)


def test_a_value_that_can_change_is_refused_at_any_write():
    class Late(Scenario):
        def setup(self):
            self.c = self.shared(d=None)
            self.thread("a", self.body)

        def body(self):
            self.c.d = []

    with pytest.raises(ScenarioError, match="a value of type list can change"):
        execute(Late, make_strategy("random"), Settings())


class Colour(Enum):
    RED = (1, "red")


class Wrong(Enum):
    LIST = [1]  # noqa: RUF012


class AllValues(Scenario):
    """What a shared field may hold."""

    def setup(self):
        self.c = self.shared(a=1, b=2.5, c="x", d=b"y", e=None, f=True, g=(1, (2, None)), h=1j)
        self.d = self.shared(a=frozenset({1}), b=self.c, c=self.spinlock("l"), d=Colour.RED)
        self.e = self.shared(a=self.array(1, self.c), b=self.k.boot, c=self.condvar("v"))
        self.thread("a", self.body)

    def body(self):
        self.c.a = self.d.b
        self.e.a[0] = self.e.b


def test_what_may_be_shared():
    report = Search(AllValues, SearchPlan("dpor", None)).run()
    assert report.verdict == "proven"
    with pytest.raises(rules.Refused):
        rules.value("x", Wrong.LIST)


@pytest.mark.parametrize(
    ("said", "title"),
    [("self.c.n == 99", "check returned False"), ("0", "check returned 0"), ("''", "returned ''")],
)
def test_a_check_that_says_no_is_a_failure(capsys, tmp_path, said, title):
    path = tmp_path / "it.py"
    path.write_text(HEAD + f"    def check(self):\n        return {said}\n")
    assert main(["explore", str(path), "--schedules", "2"]) == 1
    assert title in capsys.readouterr().out


@pytest.mark.parametrize("said", ["True", "None", "self.c"])
def test_a_check_that_says_yes_is_none(capsys, tmp_path, said):
    path = tmp_path / "it.py"
    path.write_text(HEAD + f"    def check(self):\n        return {said}\n")
    assert main(["explore", str(path), "--strategy", "dpor"]) == 0


# -- which scenario of a file


def test_one_scenario_is_taken_whatever_its_name(tmp_path):
    path = tmp_path / "it.py"
    path.write_text(HEAD.replace('"Wrong."', '"Named."\n    name = "another"') + "\nAlias = It\n")
    assert find(str(path)).__name__ == "It"
    assert find(f"{path}:another").__name__ == find(f"{path}:It").__name__ == "It"


def test_several_are_listed(tmp_path):
    path = tmp_path / "it.py"
    base = "class Base(Scenario):\n    'No set-up: no scenario.'\n"
    path.write_text(HEAD + base + "class B(It):\n    pass\n")
    with pytest.raises(ScenarioError, match=r"defines several scenarios; use .*it.py:Class") as why:
        find(str(path))
    assert "one of B, It" in str(why.value)
    with pytest.raises(ScenarioError, match="the file defines no C; it defines B, It"):
        find(f"{path}:C")
    path.write_text("from smpvm import Scenario, VmScenario\n")
    with pytest.raises(ScenarioError, match="the file defines no scenario"):
        find(str(path))
