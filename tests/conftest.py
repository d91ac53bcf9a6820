"""Fixtures for all tests."""

import pytest

from smpvm.kern.probe import EVENTS, Probe


class Recorder(Probe):
    """Keeps every event as (name, args, facts)."""

    def __init__(self):
        self.log = []

    def names(self):
        return [name for name, _, _ in self.log]

    def of(self, *names):
        return [(name, args, facts) for name, args, facts in self.log if name in names]


def _record(name):
    def method(self, *args, **facts):
        self.log.append((name, args, facts))

    return method


for _name in EVENTS:
    setattr(Recorder, _name, _record(_name))


@pytest.fixture
def recorder():
    return Recorder()
