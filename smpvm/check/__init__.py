"""Observers: they watch a machine through its probes and never change it.

How to attach them::

    log = FindingLog(run_dir, command="smpvm stress --seed 7")
    suite = CheckSuite(parse_checks("all"), log)
    kernel = Kernel(carrier, suite.observers)   # Kernel calls attach() on each
    ...
    suite.at_rest()      # all quiet, threads not yet stopped
    carrier.stop()
    suite.finish()
    log.findings, suite.summary()

``suite.stalled()`` belongs in the report of a machine that makes no progress; ``suite.idle()`` in
a serial scheduler, whenever no thread can run.
"""
