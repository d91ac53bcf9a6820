"""Random operations on pages, with a dictionary that counts what must be where."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smpvm.vm.page.pages import PG_BUSY, VM_ALLOC_NORMAL, VM_ALLOC_ZERO
from smpvm.vm.param import OBJT_DEFAULT, VM_PROT_NONE

N = 64
PAGE = 4096
pick = st.integers(0, N - 1)


class PageMachine(RuleBasedStateMachine):
    """``where`` is the oracle: page → base queue name, or None; holds and wirings likewise."""

    made = None
    audit = None

    @initialize(spin_pool=st.sampled_from([8192, 1]), colours=st.sampled_from([1, 4, 16]))
    def boot(self, spin_pool, colours):
        self.vm = self.made.make(spin_pool=spin_pool, pages=N, pq_l2_size=colours)
        self.page, self.pq = self.vm.page, self.vm.pq
        self.obj = self.vm.object.allocate_hold(OBJT_DEFAULT, N)
        self.pmap = self.vm.pmap.pinit()
        self.where = dict.fromkeys(range(N), "FREE")
        self.holds = dict.fromkeys(range(N), 0)
        self.wired = dict.fromkeys(range(N), 0)
        self.owned = set()  # allocated: not free for the taking

    def busied(self, n):
        m = self.vm.page_array[n]
        assert not self.page.busy_try(m, True)
        return m

    @rule(zero=st.booleans(), count=st.integers(1, 12))
    def alloc(self, zero, count):
        for _ in range(count):
            if "FREE" not in self.where.values():
                return
            index = next(i for i in range(N) if self.obj.rb_memq.lookup(i) is None)
            m = self.page.alloc(self.obj, index, VM_ALLOC_NORMAL | (VM_ALLOC_ZERO if zero else 0))
            assert self.where[m.idx] == "FREE"
            assert (m.flags, m.valid, m.act_count) == (PG_BUSY, 0, 0)
            self.where[m.idx] = None
            self.owned.add(m.idx)
            m.valid = 255
            self.page.wakeup(m)

    def take(self, n):
        return sorted(self.owned)[n % len(self.owned)]

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def activate(self, n):
        n = self.take(n)
        self.page.activate(self.vm.page_array[n])
        self.where[n] = None if self.wired[n] else "ACTIVE"

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def deactivate(self, n):
        n = self.take(n)
        self.page.deactivate(self.vm.page_array[n])
        self.where[n] = None if self.wired[n] else "INACTIVE"

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def unqueue(self, n):
        n = self.take(n)
        self.page.unqueue(self.vm.page_array[n])
        self.where[n] = None

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def touch(self, n):
        n = self.take(n)
        if self.where[n] != "CACHE":
            m = self.busied(n)
            self.vm.pmap.enter(self.pmap, n * PAGE, m, 3, False)
            self.vm.pmap.access(self.pmap, n * PAGE, True, 0, n)
            self.page.wakeup(m)

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def launder(self, n):
        m = self.busied(self.take(n))
        self.page.protect(m, VM_PROT_NONE)
        self.page.undirty(m)
        self.page.wakeup(m)

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def cache(self, n):
        n = self.take(n)
        m = self.vm.page_array[n]
        clean = not m.dirty and not self.vm.pmap.is_modified(m)
        may = clean and not self.holds[n] and not self.wired[n]
        assert self.page.try_to_cache(m) == may
        if may:
            self.where[n] = "CACHE"

    def freed(self, n):
        self.owned.discard(n)
        self.where[n] = "HOLD" if self.holds[n] else "FREE"

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def free(self, n):
        n = self.take(n)
        if not self.wired[n]:
            m = self.busied(n)
            self.page.protect(m, VM_PROT_NONE)
            self.page.free(m)
            assert (m.object, m.dirty, m.valid) == (None, 0, 0)
            self.freed(n)

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def try_to_free(self, n):
        n = self.take(n)
        m = self.vm.page_array[n]
        clean = not m.dirty and not self.vm.pmap.is_modified(m)
        may = clean and not self.holds[n] and not self.wired[n]
        assert self.page.try_to_free(m) == may
        if may:
            self.freed(n)

    @rule(n=pick)
    def hold(self, n):
        self.page.hold(self.vm.page_array[n])
        self.holds[n] += 1
        if self.where[n] == "FREE":
            self.where[n] = "HOLD"

    @rule(n=pick)
    def unhold(self, n):
        held = [i for i in range(N) if self.holds[i]]
        if held:
            n = held[n % len(held)]
            self.page.unhold(self.vm.page_array[n])
            self.holds[n] -= 1
            if self.where[n] == "HOLD" and not self.holds[n]:
                self.where[n] = "FREE"

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def wire(self, n):
        n = self.take(n)
        m = self.busied(n)
        self.page.wire(m)
        self.page.wakeup(m)
        self.wired[n] += 1
        self.where[n] = None if self.wired[n] == 1 else self.where[n]

    @rule(n=pick, activate=st.booleans())
    def unwire(self, n, activate):
        wired = [i for i in range(N) if self.wired[i]]
        if wired:
            n = wired[n % len(wired)]
            m = self.busied(n)
            self.page.unwire(m, activate)
            self.page.wakeup(m)
            self.wired[n] -= 1
            if not self.wired[n]:
                self.where[n] = "ACTIVE" if activate else "INACTIVE"

    @precondition(lambda self: self.owned)
    @rule(n=pick)
    def requeue(self, n):
        m = self.vm.page_array[self.take(n)]
        queue = m.queue
        self.page.and_queue_spin_lock(m)
        if queue:
            self.vm.queues[queue].requeue(m)
            assert self.vm.queues[queue].tail is m
        self.page.and_queue_spin_unlock(m)

    @invariant()
    def counts(self):
        if not hasattr(self, "vm"):
            return
        lengths = type(self).audit(self.vm)
        for name, length in lengths.items():
            assert length == sum(w == name for w in self.where.values())
        for m in self.vm.page_array:
            name = self.pq.name(m.queue).split("+")[0]
            assert (self.where[m.idx] or "NONE") == name
            assert m.hold_count == self.holds[m.idx]
            assert m.wire_count == self.wired[m.idx]
            assert not m.flags & PG_BUSY
        assert self.pmap.resident_count == len(self.pmap.ptes)
        assert self.obj.resident_page_count == len(self.obj.rb_memq) == len(self.owned)


@pytest.mark.timeout(120)
def test_page_operations(vms, audit):
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Bound", (PageMachine,), {"made": vms, "audit": staticmethod(audit)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
