"""The deadlock-detection suite: small situations on the real model, one file each.

Each file's docstring says what the situation is, who runs, what must hold and which C functions are
involved.  ``small`` is the machine that they all stand on.
"""

from typing import Final

from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP
