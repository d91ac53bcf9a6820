"""Stacks that grow down on demand (vm_map.c:3595-3864)."""

from __future__ import annotations

from smpvm.config import PAGE_SHIFT, PAGE_SIZE
from smpvm.kern.cname import c, holds
from smpvm.vm.map.clip import MapClip
from smpvm.vm.map.entry import KERN_NO_SPACE, KERN_SUCCESS, VM_MAPTYPE_NORMAL, VmMap, VmMapEntry
from smpvm.vm.param import MAP_IS_STACK, VM_PROT_ALL

SGROWSIZ = 128 * 1024
"""Growth increment of a stack in bytes (sgrowsiz)."""


class MapStack(MapClip):
    """vm_map_stack, vm_map_growstack."""

    @c("vm_map_stack", "vm_map.c:3598-3697", blocks=True)
    @holds("map not locked", "")
    def stack(
        self, map: VmMap, addrbos: int, max_ssize: int, fixed: bool, prot: int, max_prot: int
    ) -> tuple[int, int]:
        """vm_map_stack (vm_map.c:3598-3697): a stack that may grow down to *addrbos*.

        Locks the map; blocks.  Sizes in bytes.  Only the top ``SGROWSIZ`` bytes are mapped at
        first.  Returns (KERN_* code, bottom address).
        """
        init_ssize = min(max_ssize, SGROWSIZ)
        self.lock(map)
        if not fixed:
            space = self.findspace(map, addrbos, max_ssize, 1)
            if space is None:
                self.unlock(map)
                return KERN_NO_SPACE, addrbos
            addrbos = space
        top = addrbos + max_ssize
        found, prev = self.lookup_entry(map, addrbos)
        if found or (prev.next is not map.header and prev.next.start < top):
            self.unlock(map)
            return KERN_NO_SPACE, addrbos
        rv = self.insert(
            map,
            None,
            None,
            0,
            top - init_ssize,
            top,
            VM_MAPTYPE_NORMAL,
            prot,
            max_prot,
            MAP_IS_STACK,
        )
        if rv == KERN_SUCCESS:
            new = self._new_stack_entry(map, prev, top - init_ssize, top)
            new.aux = max_ssize - init_ssize
        self.unlock(map)
        return rv, addrbos

    @c("vm_map_stack", "vm_map.c:3684-3689", part=True, blocks=True)
    @c("vm_map_growstack", "vm_map.c:3837-3842", part=True)
    @holds("map locked exclusively")
    def _new_stack_entry(self, map: VmMap, prev: VmMapEntry, start: int, end: int) -> VmMapEntry:
        """The entry just inserted at [start, end), split off *prev* if it was coalesced with it."""
        if prev is not map.header and start < prev.end:
            self.clip_end(map, prev, start)
        new = prev.next
        if new.start != start or new.end != end:
            self.k.panic("map-bad-stack", f"{map} {new}")
        return new

    @c("vm_map_growstack", "vm_map.c:3708-3864", blocks=True)
    @holds("map not locked", "")
    def growstack(self, map: VmMap, addr: int, stack_limit: int, vmem_limit: int) -> int:
        """vm_map_growstack (vm_map.c:3708-3864): grow the stack above *addr* to include it.

        Locks the map shared, exclusively only to grow; blocks.  Limits in bytes (RLIMIT_STACK and
        RLIMIT_VMEM of the process).  Returns KERN_SUCCESS also if there is no stack to grow.  Left
        out: the unwire call for MAP_WIREFUTURE, which in the C locks the map a second time.
        """
        shared = True
        while True:
            if shared:
                self.lock_read(map)
            else:
                self.lock(map)
            rv, grow = self._grow_amount(map, addr, stack_limit, vmem_limit)
            if rv != KERN_SUCCESS or grow == 0:
                break
            # A failed upgrade has released the lock: compute everything again under the exclusive
            # lock.
            if shared and self.lock_upgrade(map):
                shared = False
                continue
            shared = False
            rv = self._grow(map, addr, grow)
            break
        self.unlock(map)
        return rv

    @c("vm_map_growstack", "vm_map.c:3731-3810", part=True)
    @holds("map locked (shared is enough)")
    def _grow_amount(
        self, map: VmMap, addr: int, stack_limit: int, vmem_limit: int
    ) -> tuple[int, int]:
        """How far the stack above *addr* must grow: (KERN_* code, bytes).

        *stack_limit* applies only to the process's own stack, including the size in vm_ssize.
        """
        found, prev = self.lookup_entry(map, addr)
        entry = prev.next
        if found or entry is map.header:
            return KERN_SUCCESS, 0
        avail = entry.aux if isinstance(entry.aux, int) else 0
        end = entry.start - avail if prev is map.header else prev.end
        if avail < 1 or addr >= entry.start or addr < entry.start - avail:
            return KERN_SUCCESS, 0
        grow = -(-(entry.start - addr) // PAGE_SIZE) * PAGE_SIZE
        if grow > avail or grow > entry.start - end:
            # The second cannot happen, because addr is not mapped; the C would cut the reserve
            # then.
            return KERN_NO_SPACE, 0
        own = self._own_stack(map, addr)
        used = map.vmspace.vm_ssize << PAGE_SHIFT if own else 0
        if own and used + grow > stack_limit:
            return KERN_NO_SPACE, 0
        grow = min(-(-grow // SGROWSIZ) * SGROWSIZ, avail)
        if own:
            grow = min(grow, stack_limit - used)
        if map.size + grow > vmem_limit:
            return KERN_NO_SPACE, 0
        return KERN_SUCCESS, grow

    @c("vm_map_growstack", "vm_map.c:3784", part=True)
    def _own_stack(self, map: VmMap, addr: int) -> bool:
        """Is *addr* in the stack of the process (is_procstack), not in one made by mmap?"""
        return map.vmspace is not None and addr >= map.vmspace.vm_maxsaddr

    @c("vm_map_growstack", "vm_map.c:3820-3850", part=True, blocks=True)
    @holds("map locked exclusively")
    def _grow(self, map: VmMap, addr: int, grow: int) -> int:
        """Insert the new piece of stack.  Map locked exclusively since the amount was computed."""
        _found, prev = self.lookup_entry(map, addr)
        entry = prev.next
        avail = entry.aux
        end = entry.start - avail if prev is map.header else prev.end
        own = self._own_stack(map, addr)
        start = entry.start - grow
        if start < end:
            entry.aux = avail = entry.start - end
            start = end
        rv = self.insert(
            map, None, None, 0, start, entry.start, VM_MAPTYPE_NORMAL, VM_PROT_ALL, VM_PROT_ALL, 0
        )
        if rv == KERN_SUCCESS:
            new = self._new_stack_entry(map, prev, start, entry.start)
            new.aux = avail - (new.end - new.start)
            if own:
                map.vmspace.vm_ssize += (new.end - new.start) >> PAGE_SHIFT
            self.k.curthread().hit("vm_map_growstack:grown")
        return rv
