"""The deadlock-detection suite: small scenarios on the real model, one file each.

Each file's docstring describes the situation, the threads, what must hold, and the C functions
involved.  ``base.VmScenario`` is their common base class and machine, ``helpers`` has the functions
for their set-ups.
"""

from typing import Final

from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP
