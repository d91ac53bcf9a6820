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
        ("'pos', 5", "options have names"),
        ("schedules=0", "schedules=0: nothing would be run"),
        ("checks='all,none'", "check"),
        ("granularity='fine'", "granularity 'fine'"),
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


def test_the_example_of_the_readme(pytester):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    parts = [
        readme.partition(f"<!-- example: {name} -->\n```python\n")[2].partition("```")[0]
        for name in ("scenario", "pytest")
    ]
    assert all(parts)
    pytester.makepyfile(test_readme="\n".join(parts))
    result = run(pytester)
    result.assert_outcomes(failed=1)
    assert "--smpvm-schedule 's1/access/" in result.stdout.str()
