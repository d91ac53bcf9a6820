"""The same scenarios on free-running threads."""

from smpvm.explore.scenario import run_native


def test_a_right_program_is_right(toys):
    assert run_native(toys.Locked, 20) == []
    assert run_native(toys.NoWakeupMissed, 20) == []


def test_a_wrong_program_is_seen_to_be(toys):
    class Wrong(toys.Locked):
        """Counts to five."""

        def check(self):
            assert self.c.n == 5, "not five"

    assert "not five" in run_native(Wrong, 2)[0]
