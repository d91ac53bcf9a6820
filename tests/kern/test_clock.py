from smpvm.kern.clock import Clock, i32


def test_ticks_wrap_as_an_int_does(bench):
    assert i32(2**31 - 1) == 2**31 - 1
    assert i32(2**31) == -(2**31)
    assert i32(-(2**31) - 1) == 2**31 - 1
    k = bench.kernel()
    assert Clock(k, 2**31).ticks() < 0


def test_uptime_counts_seconds_of_hz_ticks(bench):
    k = bench.kernel(hz=10, tick=0.002)
    bench.until(lambda: k.clock.time_uptime() >= 2)
    assert k.carrier.ticks() >= 20
    assert k.clock.ticks() >= 20


def test_a_class_can_replace_it(bench):
    class Frozen(Clock):
        def ticks(self):
            return 42

    assert bench.kernel(parts={"clock": Frozen}).clock.ticks() == 42
