"""Constants of the VM (vm_page.h, vm_param.h, vm_pager.h, vm_object.h) and the queue numbering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

VM_PROT_NONE: Final = 0
VM_PROT_READ: Final = 1
VM_PROT_WRITE: Final = 2
VM_PROT_EXECUTE: Final = 4
VM_PROT_ALL: Final = 7

VM_PAGE_BITS_ALL: Final = 0xFF
DEV_BSIZE: Final = 512

ACT_DECLINE: Final = 1
ACT_ADVANCE: Final = 3
ACT_INIT: Final = 5
ACT_MAX: Final = 64

PQ_PRIME1: Final = 31
PQ_PRIME2: Final = 23

VM_SWAP_NORMAL: Final = 1
VM_SWAP_IDLE: Final = 2

VM_MIN_USER_ADDRESS: Final = 0
VM_MAX_USER_ADDRESS: Final = 0x8000_0000_0000

INT_MAX: Final = 0x7FFF_FFFF
U32: Final = 0xFFFF_FFFF


def i32(n: int) -> int:
    """*n* as a C int."""
    n &= U32
    return n - (1 << 32) if n > INT_MAX else n


def u32(n: int) -> int:
    """*n* as a C unsigned int."""
    return n & U32


def c_div(n: int, d: int) -> int:
    """C's integer division: towards zero."""
    q = abs(n) // abs(d)
    return q if (n < 0) == (d < 0) else -q


@dataclass(frozen=True)
class QueueNumbers:
    """The PQ_* numbers for one PQ_L2_SIZE: a page's ``queue`` is a base plus its colour."""

    L2_SIZE: int
    SET_ASSOC: int

    NONE: ClassVar[int] = 0

    def __post_init__(self) -> None:
        n = self.L2_SIZE
        for i, name in enumerate(("FREE", "INACTIVE", "ACTIVE", "CACHE", "HOLD")):
            object.__setattr__(self, name, 1 + i * n)
        object.__setattr__(self, "COUNT", 1 + 5 * n)
        object.__setattr__(self, "L2_MASK", n - 1)

    FREE: int = 0
    INACTIVE: int = 0
    ACTIVE: int = 0
    CACHE: int = 0
    HOLD: int = 0
    COUNT: int = 0
    L2_MASK: int = 0

    def base(self, queue: int) -> int:
        """The base number of the queue that *queue* is a colour of (NONE for NONE)."""
        return self.NONE if queue == 0 else queue - (queue - 1) % self.L2_SIZE

    def name(self, queue: int) -> str:
        """``INACTIVE+3``, or ``NONE``."""
        if queue == self.NONE:
            return "NONE"
        kind, colour = divmod(queue - 1, self.L2_SIZE)
        return f"{('FREE', 'INACTIVE', 'ACTIVE', 'CACHE', 'HOLD')[kind]}+{colour}"


# -- vm_object.h

OBJT_DEFAULT: Final = 0
OBJT_SWAP: Final = 1
OBJT_VNODE: Final = 2
OBJT_DEVICE: Final = 3
OBJT_MGTDEVICE: Final = 4
OBJT_PHYS: Final = 5
OBJT_DEAD: Final = 6
OBJT_MARKER: Final = 7
OBJT_NAMES: Final = (
    "DEFAULT",
    "SWAP",
    "VNODE",
    "DEVICE",
    "MGTDEVICE",
    "PHYS",
    "DEAD",
    "MARKER",
)

OBJ_ONSHADOW: Final = 0x0002
OBJ_ACTIVE: Final = 0x0004
OBJ_DEAD: Final = 0x0008
OBJ_NOSPLIT: Final = 0x0010
OBJ_WRITEABLE: Final = 0x0080
OBJ_MIGHTBEDIRTY: Final = 0x0100
OBJ_CLEANING: Final = 0x0200
OBJ_DEADWNT: Final = 0x1000
OBJ_ONEMAPPING: Final = 0x2000
OBJ_NOMSYNC: Final = 0x4000

CHAINLK_EXCL: Final = 0x80000000
CHAINLK_WAIT: Final = 0x40000000
CHAINLK_EXCLREQ: Final = 0x20000000
CHAINLK_MASK: Final = 0x1FFFFFFF

OBJPC_SYNC: Final = 1
OBJPC_INVAL: Final = 2
OBJPC_NOSYNC: Final = 4

MADV_WILLNEED: Final = 3
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 5

# -- vm_map.h: the *cow* argument of vm_map_insert, and what pmap_object_init_pt is told

MAP_COPY_ON_WRITE: Final = 0x0002
MAP_NOFAULT: Final = 0x0004
MAP_PREFAULT: Final = 0x0008
MAP_PREFAULT_PARTIAL: Final = 0x0010
MAP_DISABLE_SYNCER: Final = 0x0020
MAP_IS_STACK: Final = 0x0040
MAP_IS_KSTACK: Final = 0x0080
MAP_DISABLE_COREDUMP: Final = 0x0100
MAP_PREFAULT_MADVISE: Final = 0x0200
MAP_PREFAULT_RELOCK: Final = 0x0200

# -- vm_pager.h

VM_PAGER_OK: Final = 0
VM_PAGER_BAD: Final = 1
VM_PAGER_FAIL: Final = 2
VM_PAGER_PEND: Final = 3
VM_PAGER_ERROR: Final = 4
VM_PAGER_AGAIN: Final = 5
VM_PAGER_NAMES: Final = ("OK", "BAD", "FAIL", "PEND", "ERROR", "AGAIN")

VM_PAGER_PUT_SYNC: Final = 1
VM_PAGER_PUT_INVAL: Final = 2
VM_PAGER_IGNORE_CLEANCHK: Final = 4
VM_PAGER_CLUSTER_OK: Final = 8

# -- swap_pager.h

SWAPBLK_NONE: Final = -1
SWAP_META_PAGES: Final = 32
SWAP_META_MASK: Final = 31
