"""Whole machines for tests: processes with bodies, and what must be true when all have gone."""

import time

import pytest

from smpvm.config import PAGE_SIZE as P
from smpvm.config import Config, DiskConfig
from smpvm.kern.stall import who_waits
from smpvm.machine import Machine
from smpvm.vm.proc.process import ProcessKilled, SegFault


class Procs:
    """One machine: runs processes on it to their end; stops and audits it when the test ends."""

    def __init__(self):
        self.machine = None
        self.failures = []

    def boot(self, pages=256, daemons=None, changes=(), observers=(), **config):
        config.setdefault("swap_pages", 2048)
        config.setdefault("pq_l2_size", 4)
        config.setdefault("swap_disk", DiskConfig(latency=0))
        config.setdefault("file_disk", DiskConfig(latency=0))
        m = Machine(Config(pages=pages, **config), observers=observers, changes=changes)
        self.machine, self.vm, self.k = m, m.vm, m.k
        self.process, self.sys = m.vm.process, m.vm.process.sys
        m.boot(*(() if daemons is None else (daemons,)))
        return self

    def run(self, *bodies, timeout=30.0, prepare=None):
        """Run *bodies* (functions of a Proc), each in a process; raise what one of them raised."""
        for body in bodies:
            p = self.process.create()
            if prepare is not None:
                prepare(p)
            self.process.start(p, self.guarded(body))
        end = time.monotonic() + timeout
        while self.busy() and not self.machine.failed and time.monotonic() < end:
            time.sleep(0.002)
        if self.failures:
            raise self.failures[0]
        self.k.check()
        assert not self.k.proc.all(), "\n".join(who_waits(self.k))

    def busy(self):
        """A process off the lists may still be freeing what it had: its thread must end too."""
        return self.k.proc.all() or any(td.proc is not None for td in self.k.live_threads())

    def guarded(self, body):
        """The body, with what it raises kept for ``run`` to raise again."""

        def main(p):
            try:
                body(p)
            except Exception as error:
                if not isinstance(error, (ProcessKilled, SegFault)):
                    self.failures.append(error)
                raise

        return main

    def hits(self):
        """Counters, summed over all threads that were."""
        return self.k.counts()

    def close(self):
        m = self.machine
        if m is None:
            return
        failed = m.failed
        m.stop(patience=10.0)
        if not failed:
            self.audit(m)

    def audit(self, m):
        vm, s = m.vm, m.vm.stats
        assert m.stall == []
        files = {vp.v_object for vp in m.k.vnode.all() if vp.v_object is not None}
        assert set(vm.object.all_objects()) - {vm.kernel_object} == files
        assert s.v_wire_count == 0
        queued = s.v_free_count + s.v_cache_count + s.v_inactive_count + s.v_active_count
        assert queued == s.v_page_count
        for page in vm.page_array:
            assert not page.busy
            assert not page.hold_count
            assert page.pv_first is None, f"{page} is still mapped"

    # -- what bodies do

    def anonymous(self, p, pages, **kw):
        error, va = self.sys.mmap(p, 0, pages * P, **kw)
        assert error == 0
        return va

    def write(self, p, va, page, value, word=0):
        self.process.user_write(p, va + page * P, word, value)

    def read(self, p, va, page, word=0):
        return self.process.user_read(p, va + page * P, word)

    def fill(self, p, va, pages, base=100, word=0):
        for i in range(pages):
            self.write(p, va, i, base + i, word)

    def check(self, p, va, pages, base=100, word=0):
        for i in range(pages):
            assert self.read(p, va, i, word) == base + i, i


@pytest.fixture
def procs():
    made = Procs()
    yield made
    made.close()
