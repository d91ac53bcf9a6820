"""Waiting for a condition instead of a fixed time."""

import time


def until(cond, timeout=10.0):
    """Return when *cond()* holds; fail when it has not come true in *timeout* seconds."""
    end = time.monotonic() + timeout
    while not cond():
        assert time.monotonic() < end, "the awaited condition did not come true"
        time.sleep(0.0005)
