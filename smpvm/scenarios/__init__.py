"""The deadlock-detection suite: small scenarios on the real model, one file each.

Each file's docstring says what the situation is, who runs, what must hold and which C functions are
involved.  ``base.VmScenario`` is the machine that they all stand on, ``helpers`` what their set-ups
are written with.
"""

from typing import Final

from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP
