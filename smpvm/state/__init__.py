"""A complete machine state as JSON: loaded into a real machine, and dumped again without loss."""

from smpvm.state.dump import dump
from smpvm.state.load import load
from smpvm.state.roster import Roster
from smpvm.state.rules import StateError, check

__all__ = ["Roster", "StateError", "check", "dump", "load"]
