"""The plugin: failures show lanes and a line that reproduces them; failures are tried first."""

import json
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TOYS = Path(__file__).parent / "toys.py"


@pytest.fixture
def project(pytester, monkeypatch):
    pytester.makepyfile(toys=TOYS.read_text())
    pytester.makepyfile(
        """
        import pytest
        from toys import Counter, Locked

        @pytest.mark.smpvm(strategy="random", schedules=60)
        def test_counter(smpvm):
            smpvm.explore(Counter)

        @pytest.mark.smpvm(strategy="dpor")
        def test_locked(smpvm):
            assert smpvm.explore(Locked, schedules=None).proven
        """
    )
    return pytester


def run(project, *argv):
    """Installed, the plugin is there by itself; in a bare tree it has to be named."""
    installed = any(ep.name == "smpvm" for ep in entry_points(group="pytest11"))
    named = () if installed else ("-p", "smpvm.pytest_plugin")
    return project.runpytest(*named, *argv)


def test_lanes_and_reproduce_line(project):
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert "cell 0.n: 0 → 1" in text
    assert '@pytest.mark.smpvm(schedule="s1/access/' in text


def test_the_reproduce_line_reproduces(project):
    text = run(project).stdout.str()
    marker = next(line.strip() for line in text.splitlines() if "mark.smpvm(schedule=" in line)
    project.makepyfile(
        test_again=f"""
        import pytest
        from toys import Counter

        {marker.removeprefix("E").strip()}
        def test_counter(smpvm):
            smpvm.explore(Counter)
        """
    )
    run(project, "test_again.py").assert_outcomes(failed=1)


def test_known_failures_come_first(project):
    run(project)
    again = run(project, "--smpvm-seed", "999", "-k", "counter")
    again.assert_outcomes(failed=1)


def test_the_command_reproduces(project):
    text = run(project).stdout.str()
    line = next(line for line in text.splitlines() if "again: pytest" in line)
    argv = shlex.split(line.partition("pytest ")[2])
    assert argv[0].endswith("::test_counter")
    run(project, *argv).assert_outcomes(failed=1)


def test_failures_are_kept_by_scenario(project):
    project.makepyfile(
        test_two="""
        from toys import Counter, Message

        def test_both(smpvm):
            smpvm.explore(Message, strategy="dpor", schedules=None)
            smpvm.explore(Counter)
        """
    )
    for _ in range(2):
        result = run(project, "test_two.py")
        result.assert_outcomes(failed=1)
        known = json.loads((project.path / ".pytest_cache/v/smpvm/failures").read_text())
        assert [key.split() for key in known] == [["test_two.py::test_both", "Counter"]]


@pytest.mark.parametrize(
    ("marker", "why"),
    [
        ("strategy='nonsense'", "strategy 'nonsense': unknown"),
        ("bogus=1", "unknown option 'bogus'"),
        ("schedule='garbage'", "schedule: not of version"),
        ("'pos', 5", "options must be given by name"),
        ("schedules=0", "schedules=0: must be more than 0"),
        ("checks='all,none'", "check"),
        ("granularity='fine'", "granularity 'fine'"),
        ("schedules='many'", "schedules='many': must be int"),
        ("seconds='x'", "seconds='x': must be float"),
        ("seconds=0", "seconds=0: must be more than 0"),
        ("strategy='pct', depth=0", "depth=0: from 1 to 10"),
        ("strategy='pos', bound=1", "bound=1: not for strategy 'pos'"),
        ("repairs='nonsense'", "repair nonsense: unknown"),
        (
            "schedule='s1/access/0.1.0/-/1x1~00/Tow'",
            "the schedule is of Tow, but the test explores",
        ),
    ],
)
def test_a_marker_that_cannot_be_is_one_line(project, marker, why):
    project.makepyfile(
        test_marked=f"""
        import pytest
        from toys import Counter

        @pytest.mark.smpvm({marker})
        def test_it(smpvm):
            smpvm.explore(Counter)
        """
    )
    text = run(project, "test_marked.py").stdout.str()
    assert f"smpvm: {why}" in text
    assert "Traceback" not in text
    assert "def test_it" not in text


def test_a_scenario_that_shrinks_in_size(project):
    project.makepyfile(
        test_sized="""
        from smpvm import Scenario

        class Sized(Scenario):
            n = 4
            sizes = {"n": 2}

            def setup(self):
                self.c = self.shared(benign={"n": "told by the check"}, n=0)
                for i in range(self.n):
                    self.thread(f"t{i}", self.count)

            def count(self):
                self.c.n = self.c.n + 1

            def check(self):
                assert self.c.n == self.n, "an update is lost"

        def test_it(smpvm):
            smpvm.explore(Sized)
        """
    )
    for _ in range(2):  # the second time it is known
        result = run(project, "test_sized.py")
        result.assert_outcomes(failed=1)
        text = result.stdout.str()
        assert "an update is lost" in text
        assert "/Sized?n=2" in text
    line = next(line for line in text.splitlines() if "again: pytest" in line)
    run(project, *shlex.split(line.partition("pytest ")[2])).assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        ("len(RUNS) == 5", "not reproduced by its own schedule"),
        ("random.random() < 0.1", "an unlucky one"),
    ],
)
def test_what_does_not_repeat_is_a_failure_too(project, failure, why):
    project.makepyfile(
        test_moody=f"""
        import random
        from smpvm import Scenario

        RUNS = []

        class Moody(Scenario):
            def setup(self):
                RUNS.append(1)
                self.thread("a", self.body)

            def body(self):
                pass

            def check(self):
                assert not ({failure}), "an unlucky one"

        def test_it(smpvm):
            random.seed(1)
            smpvm.explore(Moody, strategy="random")
        """
    )
    result = run(project, "test_moody.py")
    result.assert_outcomes(failed=1)
    assert "an unlucky one" in result.stdout.str()
    assert why in result.stdout.str()


def test_a_schedule_for_another_scenario_runs_nothing(project):
    result = run(project, "-k", "counter", "--smpvm-schedule", "s1/access/0.1.0/-/1x1~00/Other")
    result.assert_outcomes(skipped=1)
    assert (
        "the schedule is of Other"
        in run(
            project, "-rs", "-k", "counter", "--smpvm-schedule", "s1/access/0.1.0/-/1x1~00/Other"
        ).stdout.str()
    )


def test_a_schedule_in_the_command_line_s_form(project):
    text = run(project).stdout.str()
    line = next(line for line in text.splitlines() if "again: pytest" in line)
    *argv, blob = shlex.split(line.partition("pytest ")[2])
    at, _, name = blob.rpartition("/")
    run(project, *argv, f"{at}/some/where.py:{name}").assert_outcomes(failed=1)


def test_replays_check_what_the_marker_says(project):
    path = project.makepyfile(
        test_checked="""
        import pytest
        from toys import Counter

        class Racy(Counter):
            def check(self):
                pass

        @pytest.mark.smpvm(checks="all")
        def test_it(smpvm):
            smpvm.explore(Racy)
        """
    )
    run(project, "test_checked.py").assert_outcomes(failed=1)
    path.write_text(path.read_text().replace('"all"', '"order,waitfor"'))
    run(project, "test_checked.py").assert_outcomes(passed=1)


def test_without_pytest_s_cache(project):
    result = run(project, "-p", "no:cacheprovider", "-k", "counter")
    result.assert_outcomes(failed=1)
    assert "again: pytest" in result.stdout.str()


def test_a_built_in_scenario_by_name_and_its_repairs(project):
    project.makepyfile(
        test_named="""
        import pytest

        def test_it(smpvm):
            smpvm.explore("hold-alloc", schedules=10, strategy="random")

        @pytest.mark.smpvm(repairs="all", schedules=10)
        def test_repaired(smpvm):
            smpvm.explore("hold-alloc")
        """
    )
    result = run(project, "test_named.py")
    result.assert_outcomes(passed=1, failed=1)
    assert "masked-lost-wakeup" in result.stdout.str()


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("'no-such'", "scenario 'no-such': unknown"),
        ("None", "None is not a scenario"),
        ("Broken", "scenario 'Broken': set-up: ZeroDivisionError"),
    ],
)
def test_no_scenario_is_one_line(project, what, why):
    project.makepyfile(
        test_none=f"""
        from smpvm import Scenario

        class Broken(Scenario):
            def setup(self):
                1 / 0

        def test_it(smpvm):
            smpvm.explore({what})
        """
    )
    text = run(project, "test_none.py").stdout.str()
    assert f"smpvm: {why}" in text
    assert "Traceback" not in text
    assert "def test_it" not in text


def test_names_with_quotes_are_quoted(project):
    project.makepyfile(
        test_quoted="""
        import pytest
        from toys import Counter

        @pytest.mark.parametrize("what", ["c'd e"])
        def test_it(smpvm, what):
            smpvm.explore(Counter)
        """
    )
    text = run(project, "test_quoted.py").stdout.str()
    line = next(line for line in text.splitlines() if "again: pytest" in line)
    argv = shlex.split(line.partition("pytest ")[2])
    run(project, *argv).assert_outcomes(failed=1)


def test_what_explores_nothing_does_not_pass(project):
    project.makepyfile(
        test_nothing="""
        import pytest

        @pytest.mark.smpvm(strategy="dpor")
        def test_no_fixture():
            pass

        def test_no_call(smpvm):
            pass

        def test_fails_before(smpvm):
            assert not "its own reason"

        @pytest.mark.smpvm(strategy="dpor")
        class TestTogether:
            def test_other(self):
                pass
        """
    )
    result = run(project, "test_nothing.py")
    result.assert_outcomes(passed=1, failed=2, errors=1)
    text = result.stdout.str()
    assert "the test has the marker smpvm, but does not use the fixture smpvm" in text
    assert "the test uses the fixture smpvm but explores nothing" in text
    assert "its own reason" in text


def test_exhaustive_strategies_go_on_to_the_end_or_warn(project):
    project.makepyfile(
        test_end="""
        import pytest
        from toys import Locked

        @pytest.mark.smpvm(strategy="dpor", checks="none")
        def test_to_the_end(smpvm):
            assert smpvm.explore(Locked).executions == 90

        @pytest.mark.smpvm(strategy="dpor", checks="none", schedules=9)
        def test_not_to_the_end(smpvm):
            smpvm.explore(Locked)
        """
    )
    result = run(project, "-W", "default", "test_end.py")
    result.assert_outcomes(passed=2, warnings=1)
    assert "inconclusive: not every interleaving was tried" in result.stdout.str()
