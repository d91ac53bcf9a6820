"""Remove one step from the kernel: contents, audit or the stall report must show it."""

import pytest

from smpvm.check.suite import parse_checks
from smpvm.vm.fault.fault import Fault
from smpvm.vm.page.pages import Pages
from smpvm.vm.pmap.pmaps import Pmaps
from smpvm.vm.pmap.pte import PTE_M
from smpvm.workload.profiles import Profile, task
from smpvm.workload.stress import StressPlan, StressResult, run

pytestmark = pytest.mark.timeout(120)

THRASH = Profile("thrash", "", (task("hog", 2, share=0.8),), config={"pages": 256})
FORKS = Profile("forks", "", (task("fork_tree", 2, share=0.1),), config={"pages": 256})


def broken(profile: Profile, *changes: type, seconds: float = 4.0) -> StressResult:
    plan = StressPlan(
        profile,
        profile.machine(seed=1),
        seconds=seconds,
        changes=changes,
        checks=parse_checks("none"),
        stall_after=3.0,
        patience=30.0,
    )
    result = run(plan)
    assert not result.errors
    return result


class Whole(Pages):
    """Changes nothing."""


def test_with_nothing_taken_out_both_are_clean() -> None:
    for profile in (THRASH, FORKS):
        result = broken(profile, Whole, seconds=2.0)
        assert not result.findings, result.findings[0].lines()
        assert result.words_checked
        assert result.audit_line == "audit: clean"


class ForgetsModified(Pmaps):
    """The recheck of the modified bit when a mapping goes is left out."""

    def remove_pv_pte(self, pv):  # type: ignore[no-untyped-def]
        self.mmu.update(pv, PTE_M)
        return super().remove_pv_pte(pv)

    def page_protect(self, m, prot):  # type: ignore[no-untyped-def]
        for pv in m.mappings():
            self.mmu.update(pv, PTE_M)
        super().page_protect(m, prot)


class NeverDirty(Pages):
    """vm_page_test_dirty finds nothing, and a write fault leaves no mark."""

    def test_dirty(self, m):  # type: ignore[no-untyped-def]
        """Nothing."""

    def dirty(self, m):  # type: ignore[no-untyped-def]
        """Nothing."""


def test_a_lost_modified_bit_is_lost_data() -> None:
    result = broken(THRASH, NeverDirty, ForgetsModified)
    assert result.words_lost
    stale = [f for f in result.findings if f.kind == "stale-data"]
    assert any("reads as 0 (never written)" in f.title for f in stale)


class CopiesNothing(Fault):
    """A copy-on-write fault forgets to copy."""

    def cow_copy(self, src, dst):  # type: ignore[no-untyped-def]
        self.vm.pmap.zero_page(dst)


def test_a_copy_on_write_that_does_not_copy_is_lost_data() -> None:
    result = broken(FORKS, CopiesNothing)
    assert result.words_lost
    assert "stale-data" in {f.kind for f in result.findings}


class DropsFreePages(Pages):
    """One requeue less: every fiftieth page that is freed joins no queue."""

    def free_toq(self, m):  # type: ignore[no-untyped-def]
        super().free_toq(m)
        if m.idx % 50 == 0 and m.queue - m.pc == self.FREE:
            self.and_queue_spin_lock(m)
            self.rem_queue_spinlocked(m)
            self.spin_unlock(m)


def test_a_page_that_joins_no_queue_is_named_by_the_audit() -> None:
    result = broken(THRASH, DropsFreePages, seconds=1.5)
    lost = [f for f in result.findings if f.identity == ("page-lost",)]
    assert lost
    assert lost[0].title.startswith("page ")
    assert not result.words_lost


class NeverWakes(Pages):
    """vm_page_wakeup forgets to wake who waits for the page."""

    def wakeup_unlock(self, m):  # type: ignore[no-untyped-def]
        self._wakeup(m)
        self.pool.unlock(m)


def test_a_wakeup_left_out_stops_the_machine_and_is_reported_not_waited_for() -> None:
    profile = Profile(
        "files", "", (task("file_reader", 6, share=0.9, order="sequential"),), config={"pages": 256}
    )
    result = broken(profile, NeverWakes, seconds=3.0)
    assert result.stall
    assert any("sleeps on page" in line for line in result.stall)
    assert "stall" in {f.kind for f in result.findings}
    assert result.audit_line.startswith("audit: not done")
