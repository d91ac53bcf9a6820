"""Which frames a finding shows, and their C functions."""

import sys

import pytest

from smpvm.check.stacks import capture, functions, kind_of, place, resolve
from smpvm.config import Config
from smpvm.explore import engine
from smpvm.host import native
from smpvm.host.native import NativeCarrier
from smpvm.kern import kernel, spinlock
from smpvm.kern.cname import FLOOR, KEEP, MARKS, PRIMITIVE, SKIP, c, holds, own, primitive
from smpvm.kern.kernel import Kernel
from smpvm.kern.spinlock import Spinlock
from smpvm.repairs.catalogue import REPAIRS
from smpvm.scenarios import base
from smpvm.vm.build import build_vm
from smpvm.vm.object.madvise import Madvise
from smpvm.vm.page.queues import PageLocks, PageQueue
from smpvm.vm.pageout.marker import ScanBase
from smpvm.vm.pageout.scan_active import ScanActive
from smpvm.vm.pageout.scan_inactive import ScanInactive


def c_of(*methods):
    """What a stack of these methods shows, innermost first."""
    raw = tuple((method.__code__, 0) for method in methods)
    return [(frame.c, frame.where) for frame in resolve(raw)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ScanInactive.scan_inactive.__code__, KEEP),
        (PageQueue.remove.__code__, KEEP),
        (REPAIRS["free-wait"].change._wait_for_free.__code__, KEEP),
        (base.VmScenario.rounds.__code__, KEEP),
        (Spinlock.lock.__code__, PRIMITIVE),
        (PageLocks.and_queue_spin_lock.__code__, PRIMITIVE),
        (kernel.Kernel.panic.__code__, SKIP),
        (native.NativeCarrier.join.__code__, SKIP),
        (engine.Execution.run.__code__, FLOOR),
        (c_of.__code__, KEEP),
        (pytest.fixture.__code__, SKIP),
        (Config.validate.__code__, SKIP),
        (sys.modules["json"].loads.__code__, SKIP),
    ],
)
def test_what_is_shown_is_said_where_it_is_defined(code, kind):
    assert kind_of(code) == kind


def test_a_frame_shows_the_c_function_and_its_lines():
    raw = ((ScanInactive.scan_inactive.__code__, 0),)
    assert str(resolve(raw)[0]).startswith(
        "vm_pageout_scan_inactive vm_pageout.c:741-1181 [ScanInactive.scan_inactive]"
    )


def test_a_step_of_several_functions_is_a_step_of_its_caller():
    active = c_of(ScanBase.scan_close, ScanActive.scan_active)
    inactive = c_of(ScanBase.scan_close, ScanInactive.scan_inactive)
    assert active[0] == ("vm_pageout_scan_active", "vm_pageout.c:1389-1390")
    assert inactive[0] == ("vm_pageout_scan_inactive", "vm_pageout.c:1177-1178")


def test_a_function_inside_of_a_function_is_its_step():
    (inner,) = (x for x in Madvise.pmap_remove.__code__.co_consts if hasattr(x, "co_code"))
    assert MARKS.of(inner).c[0].name == "vm_object_pmap_remove"


def test_steps_of_one_c_function_are_one_in_a_fingerprint():
    raw = tuple(
        (m.__code__, 0) for m in (ScanInactive.inactive_requeue, ScanInactive.scan_inactive)
    )
    assert functions(raw) == ("vm_pageout_scan_inactive",)


def test_a_change_is_the_function_that_it_stands_before():
    class Mine(ScanInactive):
        pass

    def scan_inactive(self):
        """A user's own."""

    Mine.scan_inactive = scan_inactive
    assert not MARKS.has(scan_inactive.__code__)
    MARKS.adopt(Mine)
    assert MARKS.of(scan_inactive.__code__).c[0].name == "vm_pageout_scan_inactive"


def test_building_a_machine_adopts_its_changes():
    repair = next(iter(REPAIRS.values()))
    build_vm(Kernel(NativeCarrier()), Config(pages=64), [repair.change])
    methods = [f for f in vars(repair.change).values() if hasattr(f, "__code__")]
    assert methods
    assert all(MARKS.has(f.__code__) for f in methods if f.__name__ != "__init__")


class TestMarks:
    def test_a_mark_returns_the_function_itself(self):
        def f():
            pass

        for mark in (c("f", "f.c:1-2", blocks=True), holds("a", "b"), own, primitive):
            assert mark(f) is f
        mark = MARKS.of(f.__code__)
        assert (mark.c[0].name, mark.c[0].where) == ("f", "f.c:1-2")
        assert (mark.held, mark.left, mark.blocks, mark.primitive) == ("a", "b", True, True)

    def test_several_names_stay_in_order(self):
        @c("first", "f.c:1-2")
        @c("second", "f.c:3", part=True)
        def f():
            pass

        first, second = MARKS.of(f.__code__).c
        assert (first.name, first.part, first.ranges) == ("first", False, [(1, 2)])
        assert (second.name, second.part, second.ranges) == ("second", True, [(3, 3)])

    def test_what_is_held_on_return_is_what_was_held_on_entry_unless_said(self):
        @holds("queue spinlock")
        def f():
            pass

        assert MARKS.of(f.__code__).left == "queue spinlock"

    def test_an_unmarked_function_has_no_mark(self):
        assert not MARKS.has(c_of.__code__)
        assert MARKS.of(c_of.__code__).c == ()


def failing(n):
    if n == 0:
        raise AssertionError("one")
    raise AssertionError("two")


def calling(n):
    if n == 0:
        failing(1)
    failing(1)


def where(f, n):
    with pytest.raises(AssertionError) as caught:
        f(n)
    return place(caught.value)


def test_two_assertions_of_a_function_are_two_places():
    assert where(failing, 0) == ("failing#1", "where#0")
    assert where(failing, 1)[0] == "failing#2"


def test_two_calls_of_what_fails_are_two_places():
    assert where(calling, 0)[:2] == ("failing#2", "calling#1")
    assert where(calling, 1)[:2] == ("failing#2", "calling#2")


def test_capture_stops_at_what_is_shown():
    assert spinlock.__name__
    assert capture(1)[0][0].co_name == "test_capture_stops_at_what_is_shown"
