"""Tiny kernels on real threads, and waits for a condition instead of a fixed time."""

import pytest
from waiting import until

from smpvm.host.native import NativeCarrier
from smpvm.kern.kernel import Kernel
from smpvm.kern.stall import waits_for, who_waits


class Bench:
    """Kernels that are stopped and joined when the test ends."""

    def __init__(self):
        self.kernels = []

    def kernel(self, *observers, tick=0.001, hz=100, **kw):
        k = Kernel(NativeCarrier(hz=hz, tick_scale=tick * hz), observers, hz=hz, **kw)
        self.kernels.append(k)
        return k

    def finish(self, k, timeout=10.0):
        """Wait for every spawned thread; raise what ended one."""
        left = k.carrier.join(timeout)
        k.check()
        assert left == [], who_waits(k)

    def run(self, k, *bodies, timeout=10.0):
        tds = [k.spawn(f"t{i}", body, cpu=i) for i, body in enumerate(bodies)]
        self.finish(k, timeout)
        return tds

    def collide(self, k, take, drop, *bodies, timeout=30.0):
        """Run *bodies* with every one of them blocked first on what *take* has taken."""
        take()
        tds = [k.spawn(f"t{i}", body) for i, body in enumerate(bodies)]
        self.until(lambda: all(waits_for(td) is not None for td in tds))
        drop()
        self.finish(k, timeout)

    until = staticmethod(until)

    def close(self):
        for k in self.kernels:
            k.carrier.stop()
            left = k.carrier.join(5.0)
            assert left == [], [str(td) for td in left]


@pytest.fixture
def bench():
    b = Bench()
    yield b
    b.close()


@pytest.fixture
def k(bench):
    return bench.kernel()
