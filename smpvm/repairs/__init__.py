"""Named repairs: changes that repair defects of the kernel.  Off by default."""

from typing import Final

from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP
