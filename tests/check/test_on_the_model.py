"""The checkers on the whole model: clean with all repairs, and each detects its defect."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smpvm.check.finding import load_all
from smpvm.check.suite import parse_checks
from smpvm.repairs.catalogue import choose
from smpvm.report.locklog import read_log
from smpvm.vm.page.pages import Pages
from smpvm.vm.pageout.daemon import Pageout
from smpvm.workload.profiles import Profile, task
from smpvm.workload.stress import StressPlan, StressResult, run

pytestmark = pytest.mark.timeout(120)

THRASH = Profile("thrash", "", (task("hog", 3, share=0.6),), config={"pages": 256})
FILES = Profile(
    "files",
    "",
    (
        task("hog", 1, share=0.7),
        task("file_reader", 1, share=0.5, order="random"),
        task("file_writer", 1, share=0.3),
    ),
    config={"pages": 256},
)


def checked(
    profile: Profile,
    *changes: type,
    seen: Callable[[StressResult], bool],
    checks: str = "all",
    run_dir: Path | None = None,
) -> StressResult:
    """Run *profile*; again, and longer, while what is wanted is not *seen*: a host may be slow."""
    for seconds in (2.0, 4.0, 8.0, 16.0, 32.0):
        if run_dir is not None:
            shutil.rmtree(run_dir, ignore_errors=True)
        result = run(
            StressPlan(
                profile,
                profile.machine(seed=3),
                seconds=seconds,
                repairs=choose(["all"]),
                changes=changes,
                checks=parse_checks(checks),
                run_dir=run_dir,
                stall_after=3.0,
                patience=40.0,
            )
        )
        assert not result.errors, result.errors
        if seen(result):
            return result
    raise AssertionError(f"not seen: {result.counters}, {[f.title for f in result.findings]}")


def found(kind: str, what: str = "") -> Callable[[StressResult], bool]:
    """Is there a finding of that kind, with *what* in its title?"""
    return lambda result: any(f.kind == kind and what in f.title for f in result.findings)


@pytest.mark.parametrize("profile", [THRASH, FILES], ids=lambda p: p.name)
def test_every_checker_is_content_with_the_repaired_kernel(
    profile: Profile, tmp_path: Path
) -> None:
    def seen(result: StressResult) -> bool:
        assert not result.findings, result.findings[0].lines()
        return result.counters.get("v_pdpages", 0) > 100

    result = checked(profile, seen=seen, run_dir=tmp_path)
    assert result.checkers["scans_followed"] > 0
    log = read_log(tmp_path)
    assert log.ended
    assert ("page", "queue") in log.edges
    assert len(log.edges) == result.checkers["lock_order_edges"]


class QueueBeforePage(Pages):
    """Page and queue locked the wrong way round, once in a while."""

    def and_queue_spin_lock(self, m):  # type: ignore[no-untyped-def]
        queue = self.queues[m.queue] if m.queue else None
        if queue is not None and queue.spin.trylock():
            self.pool.lock(m)
            if m.queue == queue.number:
                return
            queue.spin.unlock()
            self.pool.unlock(m)
        super().and_queue_spin_lock(m)


def test_the_wrong_order_is_seen_without_a_deadlock(tmp_path: Path) -> None:
    result = checked(
        THRASH, QueueBeforePage, seen=found("lock-order"), checks="order", run_dir=tmp_path
    )
    order = next(f for f in result.findings if f.kind == "lock-order")
    assert order.title.startswith("queue-then-page")
    assert any(f.name.endswith("and_queue_spin_lock") for s in order.sites for f in s.stack)
    assert order.fingerprint in {f.fingerprint for f in load_all(tmp_path)}


class PlainFlags(Pages):
    """PG_REFERENCED and the like set without an atomic instruction."""

    def flag_set(self, m, bits):  # type: ignore[no-untyped-def]
        m.flags = m.flags | bits

    def flag_clear(self, m, bits):  # type: ignore[no-untyped-def]
        m.flags = m.flags & ~bits


def test_flags_changed_without_an_atomic_instruction_race() -> None:
    checked(FILES, PlainFlags, seen=found("race", "Page.flags"), checks="race")


class TellsNobody(Pages):
    """vm_page_free_wakeup left out."""

    def free_wakeup(self):  # type: ignore[no-untyped-def]
        """Nothing."""


def test_a_wakeup_left_out_is_masked_by_the_timer() -> None:
    masked, lost = found("masked-lost-wakeup"), found("lost-wakeup")
    checked(THRASH, TellsNobody, seen=lambda r: masked(r) or lost(r), checks="wakeup")


class HopsTwo(Pageout):
    """A scan that steps over every other page."""

    def scan_hop(self, queue, marker, m):  # type: ignore[no-untyped-def]
        super().scan_hop(queue, marker, queue.next(m) or m)


def test_a_scan_that_hops_over_pages() -> None:
    checked(THRASH, HopsTwo, seen=found("marker", "skips pages"), checks="marker")
