"""The base of vm_map.c: the map lock, entries and their links, lookup by address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smpvm.config import PAGE_SHIFT
from smpvm.kern.cname import c, holds, primitive
from smpvm.kern.lockreq import (
    LK_DOWNGRADE,
    LK_EXCLUPGRADE,
    LK_EXCLUSIVE,
    LK_NOWAIT,
    LK_RELEASE,
    LK_SHARED,
    LK_TIMELOCK,
)
from smpvm.kern.tsleep import PINTERLOCKED
from smpvm.vm.map.entry import (
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_NEEDS_WAKEUP,
    VM_MAPTYPE_VPAGETABLE,
    VmMap,
    VmMapEntry,
)
from smpvm.vm.param import OBJT_DEFAULT

if TYPE_CHECKING:
    from smpvm.vm.pmap.pmaps import Pmap
    from smpvm.vm.vm import Vm

VPAGETABLE_PAGES = 0x7FFFFFFF
"""Size in pages of the object of an entry with a virtual page table."""


class MapBase:
    """Locking, linking and lookup.

    The C's reserve of entries (vm_map_entry_reserve) is left out: it only keeps the allocation of
    an entry from blocking, and here it never blocks.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k
        self.kernel_map: VmMap | None = None

    # -- the map lock (the macros of vm_map.h:420-500)

    @c("vm_map_lock", "vm_map.h:335-339", blocks=True)
    @holds("no spinlock", "map locked exclusively")
    @primitive
    def lock(self, map: VmMap) -> None:
        """vm_map_lock: exclusive.  Blocks.  Increments the timestamp."""
        map.lock.lockmgr(LK_EXCLUSIVE)
        map.timestamp += 1

    @c("vm_map_unlock", "vm_map.h:359-360")
    @holds("map locked", "map unlocked")
    @primitive
    def unlock(self, map: VmMap) -> None:
        """vm_map_unlock."""
        map.lock.lockmgr(LK_RELEASE)

    @c("vm_map_lock_read", "vm_map.h:361-362", blocks=True)
    @holds("no spinlock", "map locked shared")
    @primitive
    def lock_read(self, map: VmMap) -> None:
        """vm_map_lock_read: shared.  Blocks."""
        map.lock.lockmgr(LK_SHARED)

    @c("vm_map_unlock_read", "vm_map.h:363-364")
    @holds("map locked shared", "map unlocked")
    @primitive
    def unlock_read(self, map: VmMap) -> None:
        """vm_map_unlock_read."""
        map.lock.lockmgr(LK_RELEASE)

    @c("vm_map_lock_read_try", "vm_map.h:367-368", uncalled=True)
    @holds("", "on 0 map locked shared")
    @primitive
    def lock_read_try(self, map: VmMap) -> int:
        """vm_map_lock_read_try: shared, or EBUSY without blocking."""
        return map.lock.lockmgr(LK_SHARED | LK_NOWAIT)

    @c("vm_map_lock_read_to", "vm_map.h:370-380", blocks=True)
    @holds("no spinlock", "on 0 map locked shared")
    @primitive
    def lock_read_to(self, map: VmMap) -> int:
        """vm_map_lock_read_to: shared, or an error after the lock's timeout (hz / 10)."""
        return map.lock.lockmgr(LK_SHARED | LK_TIMELOCK)

    @c("vm_map_lock_upgrade", "vm_map.h:382-392", blocks=True)
    @holds("map locked shared", "on 0 map locked exclusively; else unlocked")
    @primitive
    def lock_upgrade(self, map: VmMap) -> int:
        """vm_map_lock_upgrade: shared to exclusive without a gap; increments the timestamp.

        Returns an error if another upgrade is in progress; the lock is then not held at all.
        """
        error = map.lock.lockmgr(LK_EXCLUPGRADE)
        if error == 0:
            map.timestamp += 1
        return error

    @c("vm_map_lock_downgrade", "vm_map.h:401-402")
    @holds("map locked exclusively", "map locked shared")
    @primitive
    def lock_downgrade(self, map: VmMap) -> None:
        """vm_map_lock_downgrade."""
        map.lock.lockmgr(LK_DOWNGRADE)

    @c("ASSERT_VM_MAP_LOCKED", "vm_map.h:312")
    @holds("map locked (asserted)")
    def assert_locked(self, map: VmMap) -> None:
        """ASSERT_VM_MAP_LOCKED."""
        self.k.kassert(map.lock.held_by(self.k.curthread()), "map-not-locked", str(map))

    # -- maps and entries

    @c("vm_map_create", "vm_map.c:573-580")
    @c("vm_map_init", "vm_map.c:588-605")
    def create(self, pmap: Pmap, low: int, high: int) -> VmMap:
        """vm_map_create (vm_map.c:573-580), vm_map_init: an empty map of [low, high)."""
        return self.k.new(VmMap, self.k, self.k.next_id("map"), low, high, pmap)

    @c("vm_map_entry_create", "vm_map.c:823-838")
    def entry_create(self) -> VmMapEntry:
        """vm_map_entry_create (vm_map.c:823-838): a blank entry, not in any map."""
        return self.k.new(VmMapEntry)

    @c("_vm_map_clip_start", "vm_map.c:1502-1503", part=True)
    @c("_vm_map_clip_end", "vm_map.c:1565-1566", part=True)
    @c("vmspace_fork_normal_entry", "vm_map.c:3536-3537", part=True)
    @holds("map of entry locked")
    def entry_clone(self, entry: VmMapEntry) -> VmMapEntry:
        """A new entry with the contents of *entry* (the C's ``*new_entry = *entry``)."""
        new = self.entry_create()
        new.copy_from(entry)
        return new

    @c("vm_map_entry_dispose", "vm_map.c:845-858")
    @holds("map locked exclusively; entry unlinked")
    def entry_dispose(self, map: VmMap, entry: VmMapEntry) -> None:
        """vm_map_entry_dispose (vm_map.c:845-858): free an entry that no hint points to.

        The C puts it on the CPU's list of spare entries at once, linked by its ``next``: a thread
        whose walk of the map has reached this entry then leaves the map (see ``walk``).
        """
        self.k.kassert(map.hint is not entry, "entry-is-hint", str(entry))
        self.k.kassert(map.first_free is not entry, "entry-is-first-free", str(entry))
        entry.freed = True
        if (f := self.k.probe.freed) is not None:
            f(self.k.curthread(), entry)

    @c("vmspace_swap_count", "vm_map.c:509-524", part=True)
    @c("vmspace_anonymous_count", "vm_map.c:546-561", part=True)
    @holds("map token (not the map lock)")
    def walk(self, map: VmMap) -> Iterator[VmMapEntry]:
        """The entries in address order, for a walk under the map's token alone, without the map
        lock.

        Panics ``map-entry-freed`` where the C would follow ``next`` into the spare entries.
        """
        entry = map.header.next
        while entry is not map.header:
            yield entry
            following = entry.next
            if entry.freed:
                self.k.panic("map-entry-freed", f"{map} {entry}", kind="fault")
            entry = following

    @c("vm_map_entry_link", "vm_map.c:868-882")
    @holds("map locked exclusively")
    def entry_link(self, map: VmMap, after: VmMapEntry, entry: VmMapEntry) -> None:
        """vm_map_entry_link (vm_map.c:868-882).

        Insert *entry* behind *after*.  Map locked exclusively.
        """
        self.assert_locked(map)
        map.nentries += 1
        entry.prev = after
        entry.next = after.next
        entry.next.prev = entry
        after.next = entry
        if map.tree_insert(entry):
            self.k.panic("map-duplicate", f"{map} {entry}")

    @c("vm_map_entry_unlink", "vm_map.c:884-903")
    @holds("map locked exclusively")
    def entry_unlink(self, map: VmMap, entry: VmMapEntry) -> None:
        """vm_map_entry_unlink (vm_map.c:884-903): remove *entry*.  Map locked exclusively."""
        self.assert_locked(map)
        if entry.eflags & MAP_ENTRY_IN_TRANSITION:
            self.k.panic("map-unlink-in-transition", f"{map} {entry}")
        prev, nxt = entry.prev, entry.next
        nxt.prev = prev
        prev.next = nxt
        map.tree_remove(entry)
        map.nentries -= 1

    @c("vm_map_lookup_entry", "vm_map.c:915-973")
    @holds("map locked (shared is enough)")
    def lookup_entry(self, map: VmMap, address: int) -> tuple[bool, VmMapEntry]:
        """vm_map_lookup_entry (vm_map.c:915-973): (is *address* mapped, its entry).

        If it is not mapped, the entry is the closest one before it (the header if there is none).
        Map locked, shared is enough.  Does not block.  Logarithmic.
        """
        self.assert_locked(map)
        entry = map.at_or_before(address)
        if entry is not map.header and address < entry.end:
            map.hint = entry
            return True, entry
        return False, entry

    @c("vm_map_entry_shadow", "vm_map.c:629-641", blocks=True)
    @holds("map locked exclusively")
    def entry_shadow(self, entry: VmMapEntry, addref: bool) -> None:
        """vm_map_entry_shadow (vm_map.c:629-641): put a shadow object over the entry's object.

        Map locked exclusively.  May block.  With *addref* the new object has one extra reference.
        """
        pages = VPAGETABLE_PAGES if entry.maptype == VM_MAPTYPE_VPAGETABLE else entry.pages
        entry.object, entry.offset = self.vm.object.shadow(
            entry.object, entry.offset, pages, addref
        )
        entry.eflags &= ~MAP_ENTRY_NEEDS_COPY

    @c("vm_map_entry_allocate_object", "vm_map.c:657-670", blocks=True)
    @holds("map locked exclusively")
    def entry_allocate_object(self, entry: VmMapEntry) -> None:
        """vm_map_entry_allocate_object (vm_map.c:657-670): allocate the deferred anonymous object.

        Map locked exclusively.
        """
        pages = VPAGETABLE_PAGES if entry.maptype == VM_MAPTYPE_VPAGETABLE else entry.pages
        entry.object = self.vm.object.allocate(OBJT_DEFAULT, pages)
        entry.offset = 0

    # -- ranges and entries in transition

    @c("VM_MAP_RANGE_CHECK", "vm_map.c:1592-1600")
    def range_check(self, map: VmMap, start: int, end: int) -> tuple[int, int]:
        """VM_MAP_RANGE_CHECK (vm_map.c:1592-1600): clamp *start* and *end* to the map."""
        start = max(start, map.min_offset)
        end = min(end, map.max_offset)
        return min(start, end), end

    @c("vm_map_transition_wait", "vm_map.c:1606-1613", blocks=True)
    @holds("map locked exclusively", "map locked exclusively (unlocked in between)")
    def transition_wait(self, map: VmMap, entry: VmMapEntry) -> None:
        """vm_map_transition_wait (vm_map.c:1606-1613): sleep until *entry* has left its transition.

        Map locked exclusively on entry and return; unlocked while asleep, so the caller must look
        everything up again.  *entry* (not an argument in the C) gets NEEDS_WAKEUP, and the counters
        of its callers are updated here.
        """
        td = self.k.curthread()
        entry.eflags |= MAP_ENTRY_NEEDS_WAKEUP
        td.hit("v_intrans_coll")
        td.hit("v_intrans_wait")
        self.k.sleep.tsleep_interlock(map)
        self.unlock(map)
        self.k.sleep.tsleep(
            map,
            PINTERLOCKED,
            "vment",
            0,
            cond=lambda: not entry.eflags & MAP_ENTRY_IN_TRANSITION,
        )
        self.lock(map)

    @c("CLIP_CHECK_BACK", "vm_map.c:1623-1629")
    @holds("map locked exclusively")
    def check_back(self, map: VmMap, entry: VmMapEntry, start: int) -> VmMapEntry:
        """CLIP_CHECK_BACK (vm_map.c:1623-1629): step back to the piece that starts at *start*."""
        while entry.start != start:
            entry = entry.prev
            self.k.kassert(entry is not map.header, "map-bad-clip", str(map))
        return entry

    @c("CLIP_CHECK_FWD", "vm_map.c:1631-1637")
    @holds("map locked exclusively")
    def check_fwd(self, map: VmMap, entry: VmMapEntry, end: int) -> VmMapEntry:
        """CLIP_CHECK_FWD (vm_map.c:1631-1637): step forward to the piece that ends at *end*."""
        while entry.end != end:
            entry = entry.next
            self.k.kassert(entry is not map.header, "map-bad-clip", str(map))
        return entry


@c("atop", "param.h:204")
def pages_of(nbytes: int) -> int:
    """atop: whole pages in *nbytes*."""
    return nbytes >> PAGE_SHIFT
