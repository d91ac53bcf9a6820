"""DragonFly's sys/vm: pages, queues, objects, maps, faults, the page-out daemon, pagers."""

from typing import Final

from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP
