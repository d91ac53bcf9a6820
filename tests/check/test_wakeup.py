"""Lost, masked and spurious wakeups are distinguished by the sleeper's condition."""

import threading

from smpvm.check.wakeup import LostWakeups
from smpvm.kern.tsleep import PINTERLOCKED, Ident


class Flag:
    def __init__(self):
        self.up = False


class TestLost:
    def test_a_wakeup_before_the_sleep_without_interlock(self, watch):
        w = watch("wakeup")
        flag, ident = Flag(), Ident("flag")
        looked, told = threading.Event(), threading.Event()

        def sleeper():
            if not flag.up:
                looked.set()
                told.wait(5)
                w.k.sleep.tsleep(ident, 0, "flagwt", 0, lambda: flag.up)

        def waker():
            looked.wait(5)
            flag.up = True
            w.k.sleep.wakeup(ident)
            told.set()

        for n, body in enumerate((sleeper, waker)):
            w.k.spawn(f"t{n}", body)
        w.until(lambda: w.k.sleep.sleepers())
        w.suite.at_rest()
        found = w.one("lost-wakeup")
        assert found.sites[0].thread == "t0"
        assert "flag (flagwt)" in found.title
        assert any(f.name.endswith("sleeper") for f in found.sites[0].stack)

    def test_its_twin_with_the_interlock(self, watch):
        w = watch("wakeup")
        flag, ident = Flag(), Ident("flag")
        looked, told = threading.Event(), threading.Event()

        def sleeper():
            w.k.sleep.tsleep_interlock(ident)
            if not flag.up:
                looked.set()
                told.wait(5)
                w.k.sleep.tsleep(ident, PINTERLOCKED, "flagwt", 0, lambda: flag.up)

        def waker():
            looked.wait(5)
            flag.up = True
            w.k.sleep.wakeup(ident)
            told.set()

        w.together(sleeper, waker)
        w.suite.at_rest()
        assert w.findings == []

    def test_waking_one_identity_and_sleeping_on_another(self, watch):
        w = watch("wakeup")
        flag, one, other = Flag(), Ident("one"), Ident("other")

        def sleeper():
            w.k.sleep.tsleep(one, 0, "onewt", 0, lambda: flag.up)

        def waker():
            w.until(lambda: w.k.sleep.sleepers())
            flag.up = True
            w.k.sleep.wakeup(other)

        waking = [w.k.spawn(f"t{n}", body) for n, body in enumerate((sleeper, waker))][1]
        w.until(lambda: waking.exited)
        w.suite.at_rest()
        assert "one (onewt)" in w.one("lost-wakeup").title

    def test_its_twin_on_one_identity(self, watch):
        w = watch("wakeup")
        flag, one = Flag(), Ident("one")

        def sleeper():
            w.k.sleep.tsleep(one, 0, "onewt", 0, lambda: flag.up)

        def waker():
            w.until(lambda: w.k.sleep.sleepers())
            flag.up = True
            w.k.sleep.wakeup(one)

        w.together(sleeper, waker)
        w.suite.at_rest()
        assert w.findings == []

    def test_a_sleeper_with_nothing_to_wake_for_is_at_rest(self, watch):
        w = watch("wakeup")
        flag, one = Flag(), Ident("one")
        w.k.spawn("t0", lambda: w.k.sleep.tsleep(one, 0, "onewt", 0, lambda: flag.up))
        w.until(lambda: w.k.sleep.sleepers())
        w.suite.at_rest()
        assert w.findings == []


class TestMasked:
    def test_a_timer_saves_the_sleeper(self, watch):
        w = watch("wakeup")
        flag, ident = Flag(), Ident("flag")

        def sleeper():
            w.k.sleep.tsleep(ident, 0, "flagwt", 400, lambda: flag.up)

        def setter():
            w.until(lambda: w.k.sleep.sleepers())
            flag.up = True  # and no wakeup

        w.together(sleeper, setter)
        w.suite.at_rest()
        assert "only its timer" in w.one("masked-lost-wakeup").title

    def test_a_timer_that_is_the_plan_is_none(self, watch):
        w = watch("wakeup")
        ident = Ident("flag")
        w.together(lambda: w.k.sleep.tsleep(ident, 0, "nap", 3, lambda: False))
        w.together(lambda: w.k.sleep.tsleep(ident, 0, "nap", 3))
        w.suite.at_rest()
        assert w.findings == []

    def test_a_wakeup_just_behind_the_timer_was_only_late(self, watch):
        w = watch("wakeup")
        w.suite.find(LostWakeups).grace = 30.0
        flag, ident = Flag(), Ident("flag")
        over = threading.Event()

        def sleeper():
            w.k.sleep.tsleep(ident, 0, "flagwt", 2, lambda: flag.up)
            over.set()

        def waker():
            flag.up = True
            over.wait(5)
            w.k.sleep.wakeup(ident)

        w.together(sleeper, waker)
        w.suite.finish()
        assert w.findings == []

    def test_a_maker_that_is_still_on_its_way_accuses_nobody(self, watch):
        """However long the host keeps it: it may yet wake, or find that it need not any more."""
        w = watch("wakeup")
        flag, ident = Flag(), Ident("flag")
        over = threading.Event()

        def sleeper():
            w.k.sleep.tsleep(ident, 0, "flagwt", 2, lambda: flag.up)
            flag.up = False  # took what there was
            over.set()

        def maker():
            flag.up = True
            over.wait(5)
            if flag.up:
                w.k.sleep.wakeup(ident)

        w.together(sleeper, maker)
        w.suite.at_rest()
        assert w.findings == []

    def test_a_maker_that_sleeps_instead_is_found_while_others_run(self, watch):
        w = watch("wakeup")
        flag, ident, nap = Flag(), Ident("flag"), Ident("nap")
        over = threading.Event()

        def sleeper():
            w.k.sleep.tsleep(ident, 0, "flagwt", 200, lambda: flag.up)
            over.set()

        def maker():
            w.until(lambda: w.k.sleep.sleepers())
            flag.up = True
            while not over.is_set():
                w.k.sleep.tsleep(nap, 0, "nap", 5)

        def other():
            while not over.is_set():
                w.k.sleep.tsleep(nap, 0, "nap", 3)

        w.together(sleeper, maker, other)
        w.suite.at_rest()
        assert "flagwt" in w.one("masked-lost-wakeup").title


class TestSpurious:
    def test_spurious_wakeups_are_counted_by_name_and_allowed(self, watch):
        w = watch("wakeup")
        ident = Ident("flag")

        def sleeper():
            w.k.sleep.tsleep(ident, 0, "flagwt", 0, lambda: False)

        def waker():
            w.until(lambda: w.k.sleep.sleepers())
            w.k.sleep.wakeup(ident)

        w.together(sleeper, waker)
        w.suite.at_rest()
        assert w.findings == []
        assert w.suite.find(LostWakeups).spurious == {"flagwt": 1}

    def test_a_condition_that_cannot_be_told_says_nothing(self, watch):
        w = watch("wakeup")
        w.together(lambda: w.k.sleep.tsleep(Ident("x"), 0, "x", 2, lambda: None.up))
        w.suite.at_rest()
        assert w.findings == []
