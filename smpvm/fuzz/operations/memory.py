"""Memory as processes use it: accesses, mappings, advice, wiring."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from smpvm.config import PAGE_SIZE
from smpvm.fuzz.operations.table import Operation
from smpvm.fuzz.shape import Op
from smpvm.kern.errno import EINVAL, EIO
from smpvm.vm.map.clip import (
    MADV_AUTOSYNC,
    MADV_CORE,
    MADV_INVAL,
    MADV_NOCORE,
    MADV_NORMAL,
    MADV_NOSYNC,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
)
from smpvm.vm.map.entry import VM_INHERIT_COPY, VM_INHERIT_NONE, VM_INHERIT_SHARE
from smpvm.vm.map.mmap import MS_ASYNC, MS_INVALIDATE, MS_SYNC, PROT_RW
from smpvm.vm.param import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    VM_PROT_NONE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)

if TYPE_CHECKING:
    from smpvm.fuzz.actor import Actor

ADVICE: Final = MappingProxyType(
    {
        "normal": MADV_NORMAL,
        "random": MADV_RANDOM,
        "sequential": MADV_SEQUENTIAL,
        "willneed": MADV_WILLNEED,
        "dontneed": MADV_DONTNEED,
        "nosync": MADV_NOSYNC,
        "autosync": MADV_AUTOSYNC,
        "nocore": MADV_NOCORE,
        "core": MADV_CORE,
        "inval": MADV_INVAL,
    }
)
PROTECTION: Final = MappingProxyType({"none": VM_PROT_NONE, "read": VM_PROT_READ, "rw": PROT_RW})
SYNC: Final = MappingProxyType({"": MS_SYNC, "async": MS_ASYNC, "invalidate": MS_INVALIDATE})
INHERIT: Final = MappingProxyType(
    {"none": VM_INHERIT_NONE, "copy": VM_INHERIT_COPY, "share": VM_INHERIT_SHARE}
)


def read(a: Actor, op: Op) -> None:
    """A load; what it returns must be what was stored last."""
    a.load(op.region, op.page or 0)


def write(a: Actor, op: Op) -> None:
    """A store."""
    a.store(op.region, op.page or 0)


def mmap(a: Actor, op: Op) -> None:
    """Map the region (anew, if it is mapped already)."""
    a.map(op.region)


def munmap(a: Actor, op: Op) -> None:
    """Unmap it.  Not all of it may be mapped: EINVAL."""
    start, size = a.range(op)
    a.returns(op, a.sys.munmap(a.p, start, size), 0, EINVAL)


def mprotect(a: Actor, op: Op) -> None:
    """Change the protection."""
    start, size = a.range(op)
    a.returns(op, a.sys.mprotect(a.p, start, size, PROTECTION[op.word]), 0, EINVAL)


def msync(a: Actor, op: Op) -> None:
    """Write the file pages of the range."""
    start, size = a.range(op)
    a.returns(op, a.sys.msync(a.p, start, size, SYNC[op.word]), 0, EINVAL, EIO)


def madvise(a: Actor, op: Op) -> None:
    """Advice that loses nothing."""
    start, size = a.range(op)
    a.returns(op, a.sys.madvise(a.p, start, size, ADVICE[op.word]), 0)


def free(a: Actor, op: Op) -> None:
    """madvise(MADV_FREE): the words may read as zero from now on."""
    start, size = a.range(op)
    a.returns(op, a.sys.madvise(a.p, start, size, MADV_FREE), 0)


def minherit(a: Actor, op: Op) -> None:
    """What children get of the region."""
    start, size = a.range(op)
    a.returns(op, a.sys.minherit(a.p, start, size, INHERIT[op.word]), 0, EINVAL)


def mlock(a: Actor, op: Op) -> None:
    """Wire; refused where the machine allows no more, or nothing is mapped."""
    start, size = a.range(op)
    a.sys.mlock(a.p, start, size)


def munlock(a: Actor, op: Op) -> None:
    """Unwire; refused where nothing is wired."""
    start, size = a.range(op)
    a.sys.munlock(a.p, start, size)


def vslock(a: Actor, op: Op) -> None:
    """vslock and vsunlock around nothing, as sysctl does with the caller's buffer."""
    start, size = a.range(op)
    glue = a.vm.glue
    if glue.vslock(a.p, start, size) == 0:
        glue.vsunlock(a.p, start, size)


def physio(a: Actor, op: Op) -> None:
    """Hold a page as raw I/O does, for a while (vm_fault_page_quick)."""
    start, _ = a.range(op)
    protection = VM_PROT_WRITE if op.word == "in" else VM_PROT_READ
    m, _ = a.vm.fault.page_quick(start, protection)
    if m is not None:
        a.k.lwkt_yield()
        a.vm.page.unhold(m)


def rss(a: Actor, op: Op) -> None:
    """setrlimit(RLIMIT_RSS), in pages."""
    a.p.p_rlimit_rss_cur = int(op.word) * PAGE_SIZE


MEMORY_OPS: Final = (
    Operation("read", read, "page"),
    Operation("write", write, "page"),
    Operation("mmap", mmap, "region", loosens="access"),
    Operation("munmap", munmap, "either", loosens="access"),
    Operation(
        "mprotect", mprotect, "either", tuple(PROTECTION), word_needed=True, loosens="access"
    ),
    Operation("msync", msync, "either", ("async", "invalidate")),
    Operation("madvise", madvise, "either", tuple(ADVICE), word_needed=True),
    Operation("free", free, "either", loosens="words"),
    Operation("minherit", minherit, "either", tuple(INHERIT), word_needed=True, loosens="access"),
    Operation("mlock", mlock, "either"),
    Operation("munlock", munlock, "either"),
    Operation("vslock", vslock, "either"),
    Operation("physio", physio, "page", ("in", "out")),
    Operation("rss", rss, words=("0", "1", "2"), word_needed=True),
)
