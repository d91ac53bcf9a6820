"""DragonFly's sys/kern: atomics, locks, sleep and wakeup, threads, processes, vnodes."""

from typing import Final

from smpvm.kern.cname import PRIMITIVE

FRAMES: Final = PRIMITIVE
