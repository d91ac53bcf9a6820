"""Scenarios: the public way to say what is explored.

A scenario is a class; an object of it is made for every execution.  Ten lines are enough::

    from smpvm import Scenario

    class LostUpdate(Scenario):
        "Two threads count without a lock."

        def setup(self):
            self.c = self.shared(n=0)
            for name in "ab":
                self.thread(name, self.count)

        def count(self):
            self.c.n = self.c.n + 1

        def check(self):
            assert self.c.n == 2, "an update is lost"

``smpvm explore file.py:LostUpdate`` finds the schedule in which it is.  ``setup`` makes what is
shared and starts the threads; the threads run; ``check`` says what must hold when all of them have
ended.  ``VmScenario`` is the same for the kernel's virtual memory (``smpvm.scenarios.base``).

What threads share must be declared: ``shared`` (an object with fields), ``array``, ``table``.  Only
accesses to those are schedule points, so an undeclared Python object that threads share hides
interleavings.  A shared field holds values that cannot change on their own: numbers, strings,
bytes, None, tuples and frozensets of those, cells, locks, threads.  ``local`` is for data that each
thread has for itself.

A loop that waits for another thread's write must say so, or it is explored for ever::

    while not self.c.flag:
        self.relax(self.c)      # go on when somebody has written what was read of self.c

At hand are spinlocks, tokens, lockmgr and reader/writer locks, condition variables, semaphores,
barriers, spawn and join, tsleep and wakeup, atomics and fences, and ``k``, the kernel itself.

The same schedule must do the same in every execution: no chance, no time of day, nothing left on
the class by an earlier execution.  A thread is ended by an exception that is no ``Exception``: do
not catch it.
"""

from smpvm.explore.scenario.base import Body, Scenario, ScenarioClass
from smpvm.explore.scenario.cells import Array, Cell, Local, Table
from smpvm.explore.scenario.locks import Lockmgr, RwLock, TimedSpinlock, TimedToken
from smpvm.explore.scenario.native import run_native
from smpvm.explore.scenario.rules import Refused
from smpvm.explore.scenario.sync import Barrier, Condvar, Semaphore

__all__ = [
    "Array",
    "Barrier",
    "Body",
    "Cell",
    "Condvar",
    "Local",
    "Lockmgr",
    "Refused",
    "RwLock",
    "Scenario",
    "ScenarioClass",
    "Semaphore",
    "Table",
    "TimedSpinlock",
    "TimedToken",
    "run_native",
]
