"""Observers: they watch a machine through its probes and never change it.

How to attach them::

    log = FindingLog(run_dir, command="smpvm stress --seed 7")
    suite = CheckSuite(parse_checks("all"), log)
    kernel = Kernel(carrier, suite.observers)   # Kernel calls attach() on each
    ...
    suite.at_rest()      # machine at rest, threads not yet stopped
    carrier.stop()
    suite.finish()
    log.findings, suite.summary()

Call ``suite.stalled()`` for the report of a machine that makes no progress, and ``suite.idle()``
from a serial scheduler whenever no thread can run.
"""
