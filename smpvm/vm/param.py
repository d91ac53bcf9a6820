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
VM_MAX_USER_ADDRESS: Final = 0x7FFF_FFFF_F000

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
