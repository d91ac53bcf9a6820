"""Scenarios: the public API that defines what is explored.

A scenario is a class, instantiated anew for every execution.  Ten lines are enough::

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

``smpvm explore file.py:LostUpdate`` finds a schedule in which it is lost.  ``setup`` creates the
shared objects and starts the threads; they run; ``check`` tests what must hold at the end.
``VmScenario`` is the same for the kernel's virtual memory (``smpvm.scenarios.base``).

What threads share must be declared: ``shared`` (an object with fields), ``array``, ``table``.  Only
accesses to those are schedule points, so an undeclared Python object that threads share hides
interleavings.  A shared field holds values that cannot change on their own: numbers, strings,
bytes, None, tuples and frozensets of those, cells, locks, threads.  ``local`` is for thread-local
data.

A loop that waits for another thread's write must call ``relax``, or it is explored forever::

    while not self.c.flag:
        self.relax(self.c)      # continue when another thread has written what was read of self.c

Available are spinlocks, tokens, lockmgr and reader/writer locks, condition variables, semaphores,
barriers, spawn and join, tsleep and wakeup, atomics and fences, and ``k``, the kernel itself.

The same schedule must give the same execution every time: no randomness, no wall-clock time, no
state left on the class by an earlier execution.  Threads are ended by an exception that is not an
``Exception``: do not catch it.
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
