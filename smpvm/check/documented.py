"""The documented lock order, whole: every pair of classes that the kernel's C nests, and where.

``LOCKS`` are the orders that can deadlock; ``TOKENS`` those from or to a token, which cannot, for
who blocks gives its tokens up (design.md section 4); ``TRIES`` what is only tried, which is no
order at all: here for the reader, and no excuse for who waits.  A row may cover several classes on
its right; each is a pair of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Final

from smpvm.check.held import BUSY
from smpvm.kern.order import family_class


@dataclass(frozen=True)
class Order:
    """A documented order: *first* is held when *then* is taken."""

    first: str
    then: str
    source: str
    why: str


def _rows(first: str, then: str, source: str, why: str) -> tuple[Order, ...]:
    return tuple(Order(first, one, source, why) for one in then.split())


def _part(*rows: tuple[str, str, str, str]) -> tuple[Order, ...]:
    return tuple(chain.from_iterable(_rows(*row) for row in rows))


LOCKS: Final = _part(
    ("page", "queue", "vm_page.c:550", "the page's spinlock, then its queue's"),
    (BUSY, "page", "vm_page.c:2060", "a busy page's own spinlock"),
    (BUSY, "queue", "vm_page.c:2062", "a busy page's queue, through its own spinlock"),
    (BUSY, "disk", "swap_pager.c:1402", "a read is started with its page busy"),
    (BUSY, BUSY, "vm_map.c:3254", "pages of one object, in ascending order"),
    ("map", "map", "vm_map.c:3432", "fork: the parent's map, then the child's"),
    ("map", "vnode", "vm_fault.c:535", "the entry is looked up, then its vnode locked"),
    ("map", BUSY, "vm_fault.c:2180", "a wired page is unwired with the map locked"),
    ("map", "page", "vm_fault.c:1383", "the map locked, then any operation on a page"),
    ("map", "queue", "vm_fault.c:1383", "the map locked, then any operation on a page"),
    ("map", "disk", "vm_map.c:2738", "msync writes with the map locked shared"),
    ("vnode", BUSY, "vm_pageout.c:1059", "the vnode lock, then a page of its object busied"),
    ("vnode", "page", "vm_object.c:1405", "the vnode locked, then a page of its object"),
    ("vnode", "queue", "vm_pageout.c:1106", "the vnode locked, then a page's queue"),
    ("vnode", "disk", "vnode_pager.c:762", "a file is written with its vnode locked"),
    ("vnode", "v_spin", "vfs_lock.c:547", "the state changes with the vnode locked"),
    ("vnode", "vfs_spin", "vfs_lock.c:827", "a vnode goes to another list with its lock held"),
    ("v_spin", "vfs_spin", "vfs_lock.c:164", "the vnode's spinlock, then that of the lists"),
    ("map", "v_spin vfs_spin", "vm_object.c:767", "a mapping's last reference to a vnode"),
)

TOKENS: Final = _part(
    # An object's token.
    ("object", "page", "vm_page.c:1035", "the object held, then its page's spinlock"),
    ("object", "queue", "vm_page.c:2062", "the object held, then its page's queue"),
    ("object", BUSY, "vm_page.c:1139", "the object held, then its page busied"),
    ("object", "object", "vm_object.c:2274", "an object, then the one that backs it"),
    ("object", "vnode", "vm_fault.c:535", "the object held, then its vnode locked"),
    ("object", "v_spin vfs_spin", "vm_object.c:767", "an object's last reference to its vnode"),
    ("object", "v_token", "vm_object.c:1171", "a vnode's object is terminated"),
    ("object", "vm", "vm_fault.c:1400", "a fault waits for memory with its object held"),
    ("object", "vmobjlst", "vm_object.c:408", "a new object, held, is put on its list"),
    ("object", "disk", "swap_pager.c:1652", "pages are written with their object held"),
    ("object", "map", "vm_fault.c:1960", "the map is locked again after I/O"),
    ("object", "pmap", "vm_map.c:2941", "mappings are removed with the object held"),
    ("object", "map_token", "vm_fault.c:326", "tokens are taken again after each sleep"),
    (BUSY, "object", "vm_page.c:1090", "a page leaves its object while busy"),
    (BUSY, "vm", "swap_pager.c:542", "the swap of a dirtied page is given back"),
    (BUSY, "map_token p_token", "vm_fault.c:326", "taken again after a sleep with the page busy"),
    ("vm", "disk", "swap_pager.c:1571", "vm_token is held over the wait for a buffer"),
    # A map: its lock and its token.
    ("map", "object", "vm_fault.c:531", "the entry is looked up, then the object held"),
    ("map", "pmap", "vm_fault.c:2177", "the mapping of a wired page is changed"),
    ("map", "map_token", "vm_map.c:1052", "an entry is made with the map locked"),
    ("map", "vm", "swap_pager.c:542", "swap is given back with the map locked"),
    ("map", "vmobjlst", "vm_map.c:665", "a new entry's object is put on its list"),
    ("map", "p_token", "vm_map.c:2953", "tokens are taken again after each sleep"),
    ("map", "v_token", "vm_object.c:767", "a mapping's last reference to a vnode"),
    ("map_token", "map", "vm_map.c:3422", "the vmspace's token, then the map lock"),
    ("map_token", "map_token", "vm_map.c:3426", "fork: the parent's, then the child's"),
    ("map_token", "object vnode busy", "vm_fault.c:326", "held over the whole fault"),
    ("map_token", "page queue pmap", "vm_fault.c:326", "held over the whole fault"),
    ("map_token", "vm vmobjlst disk", "vm_fault.c:326", "held over the whole fault"),
    (
        "map_token",
        "v_token v_spin vfs_spin",
        "vm_map.c:431",
        "an address space ends, and its files",
    ),
    ("pmap", "page queue", "pmap.c:3319", "mappings are removed: each page's list"),
    # Processes.
    ("p_token", "map_token", "vm_pageout.c:2187", "the process, then its vmspace"),
    ("p_token", "map", "kern_exec.c:213", "the process, then its map"),
    ("p_token", "p_token", "kern_fork.c:410", "a process, then its child"),
    ("p_token", "allproc", "kern_proc.c:1119", "a process goes from one list to another"),
    ("p_token", "lwp_token", "kern_sig.c:1105", "a signal to one thread"),
    ("p_token", "lwp_spin", "kern_sig.c:1196", "a signal to one thread"),
    ("p_token", "mp_token", "trap.c:297", "a swapped-out process returns to user mode"),
    ("p_token", "object busy page queue", "kern_exec.c:830", "exec frees the old space"),
    ("p_token", "vm vmobjlst disk", "kern_exec.c:830", "exec frees the old space"),
    ("p_token", "pmap vnode", "kern_exec.c:830", "exec frees the old space"),
    ("p_token", "v_token v_spin vfs_spin", "kern_exec.c:830", "exec frees the old space"),
    ("lwp_token", "lwp_spin", "kern_sig.c:1359", "the thread's state, then its signals"),
    ("allproc", "p_token", "kern_proc.c:1273", "a scan's callback looks into the process"),
    ("allproc", "map_token", "vm_glue.c:416", "a scan's callback looks into the vmspace"),
    ("allproc", "map object busy", "vm_pageout.c:2190", "the vmdaemon deactivates in the scan"),
    ("allproc", "page queue pmap vm", "vm_pageout.c:2190", "the vmdaemon deactivates in the scan"),
    (
        "mp_token",
        "allproc p_token map_token",
        "vm_glue.c:353",
        "process 0 looks whom to swap in",
    ),
    ("mp_token", "vm lwp_token lwp_spin", "vm_glue.c:384", "process 0 swaps a process in"),
    # Vnodes.
    ("vnode", "object", "vm_pageout.c:306", "the vnode locked, then its object held"),
    ("vnode", "v_token", "vfs_vm.c:155", "a file is truncated"),
    ("vnode", "vm", "vm_pageout.c:1031", "a file system waits for memory with the vnode locked"),
    ("vnode", "map_token p_token", "vm_fault.c:326", "taken again after a sleep with the vnode"),
    ("vnode", "vmobjlst", "vm_object.c:408", "the object of a vnode is made"),
    ("v_token", "object vmobjlst", "vnode_pager.c:127", "the object of a vnode is made or ended"),
    ("v_token", "page queue busy", "vfs_vm.c:155", "a file is truncated"),
    ("v_token", "v_spin vfs_spin vm disk", "vfs_vm.c:251", "a file is truncated"),
)

TRIES: Final = _part(
    ("queue", BUSY, "vm_pageout.c:788", "a scan has the queue locked"),
    ("page", BUSY, "vm_page.c:1515", "an allocation has the page locked"),
    (BUSY, BUSY, "vm_fault.c:1359", "the page behind, with the front object's page busy"),
    (BUSY, "vnode", "vm_pageout.c:1048", "the vnode, with LK_NOWAIT"),
    (BUSY, "map", "vm_fault.c:1856", "the map, with LK_NOWAIT"),
    ("p_token", "map", "vm_pageout.c:642", "the deactivation, with LK_NOWAIT"),
)

DOCUMENTED: Final = (*LOCKS, *TOKENS)

_PAIRS: Final = frozenset((order.first, order.then) for order in DOCUMENTED)
_LOCKED: Final = frozenset(chain.from_iterable((order.first, order.then) for order in LOCKS))
CLASSES: Final = frozenset(chain.from_iterable(_PAIRS))
"""Every class of the kernel's locks; locks of other classes are a program's own."""


def undocumented(first: str, then: str) -> bool:
    """Are both classes the kernel's, and nested in an order that its source does not have?

    Levels of one class declare their order themselves, and two locks of one class are judged one by
    one (``NESTING``); of tokens, which nobody judges so, both must be in the table.
    """
    pair = (family_class(first), family_class(then))
    if pair[0] == pair[1] and (first != then or pair[0] in _LOCKED):
        return False
    return pair not in _PAIRS and CLASSES.issuperset(pair)
