"""The state of a machine as JSON: check it, load it into a machine, dump it again unchanged."""

from smpvm.state.dump import dump
from smpvm.state.load import load
from smpvm.state.roster import Roster
from smpvm.state.rules import StateError, check

__all__ = ["Roster", "StateError", "check", "dump", "load"]
