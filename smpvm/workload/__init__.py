"""What processes do: synthetic mixes and recorded page-reference traces."""

from typing import Final

from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP
