"""The checks for free memory, compared with the C's unsigned arithmetic."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

U32 = (1 << 32) - 1
counts = st.one_of(st.integers(0, 300), st.integers(0, U32))
FIELDS = (
    "v_free_count",
    "v_cache_count",
    "v_free_severe",
    "v_free_reserved",
    "v_free_min",
    "v_free_target",
    "v_cache_min",
)


@pytest.fixture
def limits(vm):
    s = vm.stats
    s.v_free_reserved, s.v_free_severe, s.v_free_min, s.v_free_target, s.v_cache_min = (
        10,
        20,
        30,
        40,
        50,
    )

    def at(free, cache):
        s.v_free_count, s.v_cache_count = free, cache
        return vm.meter

    return at


@pytest.mark.parametrize(
    ("free", "cache", "severe", "minimum", "target"),
    [
        (40, 0, False, False, False),
        (10, 30, False, False, False),
        (9, 100, True, True, True),
        (39, 0, False, False, True),
        (29, 0, False, True, True),
        (20, 0, False, True, True),
        (19, 0, True, True, True),
    ],
)
def test_levels(limits, free, cache, severe, minimum, target):
    meter = limits(free, cache)
    assert meter.count_severe() == severe
    assert meter.count_min(0) == minimum
    assert meter.count_target() == target


def test_slack_is_set_aside(limits):
    assert not limits(40, 0).count_min(10)
    assert limits(40, 0).count_min(11)


def test_paging_target_is_signed(limits):
    assert limits(20, 20).paging_target() == 50
    assert limits(200, 20).paging_target() == -130


def test_paging_is_needed_below_free_plus_cache_minimum_or_free_minimum(limits):
    assert limits(30, 49).paging_needed()
    assert not limits(30, 50).paging_needed()
    assert limits(29, 1000).paging_needed()


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[counts] * len(FIELDS)), st.integers(-(1 << 31), (1 << 31) - 1))
def test_sums_wrap_at_32_bits(values, slack):
    from types import SimpleNamespace

    from smpvm.vm.meter import Meter

    s = SimpleNamespace(**dict(zip(FIELDS, values, strict=True)))
    meter = Meter(SimpleNamespace(k=None, stats=s))
    free, cache, severe, reserved, minimum, target, cmin = values
    have, low = (free + cache) % (U32 + 1), reserved > free
    assert meter.count_severe() == (severe > have or low)
    assert meter.count_min(slack) == ((minimum + slack) % (U32 + 1) > have or low)
    assert meter.count_target() == (target > have or low)
    assert meter.paging_needed() == ((minimum + cmin) % (U32 + 1) > have or minimum > free)
    short = meter.paging_target()
    assert -(1 << 31) <= short < 1 << 31
    assert (short - (target + cmin - free - cache)) % (U32 + 1) == 0
