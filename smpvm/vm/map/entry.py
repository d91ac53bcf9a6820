"""struct vm_map_entry, struct vm_map and their constants.

Addresses, sizes and offsets are bytes and multiples of PAGE_SIZE.  A map's entries form a ring
through ``map.header`` in address order; ``map.tree`` holds the same set for logarithmic lookup and
stands for the C's red-black tree.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from smpvm.config import PAGE_SHIFT
from smpvm.kern.cname import c, holds
from smpvm.kern.guard import FREE, Guard, guarded
from smpvm.kern.lockmgr import Lock
from smpvm.kern.shared import Site, shared
from smpvm.kern.token import Token

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel
    from smpvm.vm.object.objects import VmObject

# Return values of the map and fault code (vm_param.h:127-137).
KERN_SUCCESS: Final = 0
KERN_INVALID_ADDRESS: Final = 1
KERN_PROTECTION_FAILURE: Final = 2
KERN_NO_SPACE: Final = 3
KERN_INVALID_ARGUMENT: Final = 4
KERN_FAILURE: Final = 5
KERN_RESOURCE_SHORTAGE: Final = 6
KERN_TRY_AGAIN: Final = 9
KERN_FAILURE_NOFAULT: Final = 10

# vm_maptype_t
VM_MAPTYPE_UNSPECIFIED: Final = 0
VM_MAPTYPE_NORMAL: Final = 1
VM_MAPTYPE_VPAGETABLE: Final = 2
VM_MAPTYPE_SUBMAP: Final = 3
VM_MAPTYPE_UKSMAP: Final = 4

MAPTYPE_NAMES: Final = ("UNSPECIFIED", "NORMAL", "VPAGETABLE", "SUBMAP", "UKSMAP")

OBJECT_MAPTYPES: Final = (VM_MAPTYPE_NORMAL, VM_MAPTYPE_VPAGETABLE)
"""The map types whose entries are backed by an object."""

VM_INHERIT_SHARE: Final = 0
VM_INHERIT_COPY: Final = 1
VM_INHERIT_NONE: Final = 2
VM_INHERIT_DEFAULT: Final = VM_INHERIT_COPY

VM_PROT_OVERRIDE_WRITE: Final = 0x08

# entry.eflags (vm_map.h)
MAP_ENTRY_NOSYNC: Final = 0x0001
MAP_ENTRY_STACK: Final = 0x0002
MAP_ENTRY_COW: Final = 0x0004
MAP_ENTRY_NEEDS_COPY: Final = 0x0008
MAP_ENTRY_NOFAULT: Final = 0x0010
MAP_ENTRY_USER_WIRED: Final = 0x0020
MAP_ENTRY_BEHAV_NORMAL: Final = 0x0000
MAP_ENTRY_BEHAV_SEQUENTIAL: Final = 0x0040
MAP_ENTRY_BEHAV_RANDOM: Final = 0x0080
MAP_ENTRY_BEHAV_MASK: Final = 0x00C0
MAP_ENTRY_IN_TRANSITION: Final = 0x0100
MAP_ENTRY_NEEDS_WAKEUP: Final = 0x0200
MAP_ENTRY_NOCOREDUMP: Final = 0x0400
MAP_ENTRY_KSTACK: Final = 0x0800

MAP_WIREFUTURE: Final = 0x0001
"""map.flags: every future mapping is to be wired."""

_start = attrgetter("start")


@c("OFF_TO_IDX", "vm_object.h:229")
def off_to_idx(offset: int) -> int:
    """OFF_TO_IDX: a byte offset as a page index."""
    return offset >> PAGE_SHIFT


@shared("next", "object", "wired_count")
class VmMapEntry:
    """struct vm_map_entry: one address range of a map with uniform attributes.

    Changed only with the map locked exclusively.  ``object`` is the VmObject (or None), the map of
    a SUBMAP, or the callable of a UKSMAP; ``aux`` is the union's value (bytes by which a stack may
    still grow).
    """

    __slots__ = (
        "aux",
        "eflags",
        "end",
        "freed",
        "inheritance",
        "maptype",
        "max_protection",
        "next",
        "object",
        "offset",
        "prev",
        "protection",
        "start",
        "wired_count",
    )

    next: VmMapEntry
    prev: VmMapEntry

    def __init__(self, start: int = 0, end: int = 0) -> None:
        self.next = self
        self.prev = self
        self.start = start
        self.end = end
        self.aux: Any = 0
        self.object: Any = None
        self.offset = 0
        self.eflags = 0
        self.maptype = VM_MAPTYPE_NORMAL
        self.protection = 0
        self.max_protection = 0
        self.inheritance = VM_INHERIT_DEFAULT
        self.wired_count = 0
        self.freed = False

    def __str__(self) -> str:
        return f"entry {self.start:#x}-{self.end:#x}"

    @c("_vm_map_clip_start", "vm_map.c:1503", part=True)
    @c("_vm_map_clip_end", "vm_map.c:1566", part=True)
    @c("vmspace_fork_normal_entry", "vm_map.c:3537", part=True)
    @holds("map of other locked")
    def copy_from(self, other: VmMapEntry) -> None:
        """The C's structure assignment, without the list links."""
        self.start, self.end = other.start, other.end
        self.aux = other.aux
        self.object = other.object
        self.offset = other.offset
        self.eflags = other.eflags
        self.maptype = other.maptype
        self.protection = other.protection
        self.max_protection = other.max_protection
        self.inheritance = other.inheritance
        self.wired_count = other.wired_count

    @property
    def pages(self) -> int:
        """Pages in the range."""
        return (self.end - self.start) >> PAGE_SHIFT

    @property
    def vm_object(self) -> VmObject | None:
        """The backing object of an object-based entry, else None."""
        obj: VmObject | None = self.object if self.maptype in OBJECT_MAPTYPES else None
        return obj


_HINT = "set with the map read-locked: any entry of the map will do, and none can go meanwhile"

_GUESS = Site("timestamp", "vm_fault_object", "vm_fault.c:1828", "a first look, the map unlocked")
_NEW = Site("timestamp", "vmspace_fork", "vm_map.c:3430", "nobody knows the new map yet", "write")


@shared(
    "timestamp",
    "hint",
    "first_free",
    "size",
    "nentries",
    benign=[
        Site("hint", "vm_map_lookup_entry", "vm_map.c:962", _HINT, "both"),
        Site("hint", "vm_map_lookup", "vm_map.c:4007", _HINT),
    ],
)
@guarded(
    Guard("timestamp", "lock", "vm_map.h:323", sites=(_NEW, _GUESS)),
    Guard("first_free", "lock", "vm_map.c:1155, 2865"),
    Guard("size", "lock", "vm_map.c:1146, 2805"),
    Guard("nentries", "lock", "vm_map.c:875, 902"),
    Guard("hint", "lock", "vm_map.c:939, 1303", read=FREE),
    Guard("tree", "lock", "vm_map.c:880, 901", container=True),
)
class VmMap:
    """struct vm_map: an address space, protected by ``lock`` (lockmgr) and serialised by ``token``.

    Exclusive holders of ``lock`` may change entries, shared holders may read them.  ``timestamp``
    is incremented by every exclusive lock, so that a thread that released the lock can detect
    changes.
    """

    __slots__ = (
        "first_free",
        "flags",
        "header",
        "hint",
        "id",
        "lock",
        "nentries",
        "pmap",
        "size",
        "system_map",
        "timestamp",
        "token",
        "tree",
        "vmspace",
    )

    @c("vm_map_init", "vm_map.c:588-605")
    def __init__(self, k: Kernel, ident: int, low: int, high: int, pmap: Any) -> None:
        self.id = ident
        self.header: VmMapEntry = k.new(VmMapEntry, low, high)
        self.header.next = self.header.prev = self.header
        self.tree: list[VmMapEntry] = k.container(list, self, "tree")
        self.nentries = 0
        self.size = 0
        self.system_map = False
        self.pmap = pmap
        self.first_free = self.header
        self.hint = self.header
        self.timestamp = 0
        self.flags = 0
        self.vmspace: Any = None
        self.token = k.new(Token, k, "map_token", f"map {ident}")
        self.lock = k.new(Lock, k, "map", f"map {ident}", timo=(k.hz + 9) // 10)

    def __str__(self) -> str:
        return f"map {self.id}"

    @property
    @c("vm_map_min", "vm_map.h:410")
    def min_offset(self) -> int:
        """The lowest address that can be mapped."""
        return self.header.start

    @property
    @c("vm_map_max", "vm_map.h:411")
    def max_offset(self) -> int:
        """The end of the addresses that can be mapped."""
        return self.header.end

    def entries(self) -> Iterator[VmMapEntry]:
        """The entries in address order.

        The caller holds the lock or the token, or the machine is at rest.
        """
        header = self.header
        entry = header.next
        while entry is not header:
            yield entry
            entry = entry.next

    @c("vm_map_lookup_entry", "vm_map.c:955-971", part=True)
    @holds("map locked (shared is enough)")
    def at_or_before(self, address: int) -> VmMapEntry:
        """The entry that contains *address*, else the closest one before it, else the header."""
        i = bisect_right(self.tree, address, key=_start)
        return self.tree[i - 1] if i else self.header

    @c("RB_INSERT", "tree.h:969")
    @holds("map locked exclusively")
    def tree_insert(self, entry: VmMapEntry) -> bool:
        """Insert by start address; returns True if there already is an entry with that start."""
        i = bisect_left(self.tree, entry.start, key=_start)
        if i < len(self.tree) and self.tree[i].start == entry.start:
            return True
        self.tree.insert(i, entry)
        return False

    @c("RB_REMOVE", "tree.h:970")
    @holds("map locked exclusively")
    def tree_remove(self, entry: VmMapEntry) -> None:
        """Remove *entry*."""
        i = bisect_left(self.tree, entry.start, key=_start)
        del self.tree[i]
